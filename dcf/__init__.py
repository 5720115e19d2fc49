"""dcf: factorize matrices larger than memory, out of chunked Zarr arrays."""

from dcf.api import nmf as nmf
from dcf.errors import BudgetError as BudgetError
from dcf.errors import DcfError as DcfError
from dcf.errors import RunError as RunError
from dcf.errors import SourceError as SourceError
from dcf.errors import UsageError as UsageError
from dcf.types import Certificate as Certificate
from dcf.types import Decomposition as Decomposition
from dcf.types import Status as Status
