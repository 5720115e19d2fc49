"""dcf: factorize matrices and tensors larger than memory, out of chunked Zarr arrays."""

import importlib
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from dcf.decompositions import cp as cp
    from dcf.decompositions import nmf as nmf
    from dcf.decompositions import semi_nmf as semi_nmf
    from dcf.decompositions import spca as spca
    from dcf.decompositions import svd as svd
    from dcf.estimators import CompressedCP as CompressedCP
    from dcf.estimators import CompressedNMF as CompressedNMF
    from dcf.estimators import CompressedSparsePCA as CompressedSparsePCA
else:
    # Found on first use: scikit-learn takes half a second, dask and numba one, which Ctrl-C may fall in.
    _LATER = {
        **dict.fromkeys(("cp", "nmf", "semi_nmf", "spca", "svd"), "dcf.decompositions"),
        **dict.fromkeys(("CompressedCP", "CompressedNMF", "CompressedSparsePCA"), "dcf.estimators"),
    }

    def __getattr__(name: str) -> Any:
        if name in _LATER:
            return getattr(importlib.import_module(_LATER[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted([*globals(), *_LATER])
