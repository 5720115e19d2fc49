"""dcf: factorize matrices and tensors larger than memory, out of chunked Zarr arrays."""

from dcf.decompositions import cp as cp
from dcf.decompositions import nmf as nmf
from dcf.decompositions import semi_nmf as semi_nmf
from dcf.decompositions import spca as spca
from dcf.decompositions import svd as svd
from dcf.errors import BudgetError as BudgetError
from dcf.errors import DcfError as DcfError
from dcf.errors import RunError as RunError
from dcf.errors import SourceError as SourceError
from dcf.errors import UsageError as UsageError
from dcf.types import Certificate as Certificate
from dcf.types import Decomposition as Decomposition
from dcf.types import MatrixDecomposition as MatrixDecomposition
from dcf.types import Status as Status
from dcf.types import TensorDecomposition as TensorDecomposition
