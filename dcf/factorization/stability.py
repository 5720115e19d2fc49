"""Whether other starts find the same components: what the data determine, and what they do not.

A nonnegative factorization need not be unique (Donoho & Stodden 2003; Laurberg et al. 2008), and
its residual does not show it: starts that fit as well may end in other components. Their agreement
does (Brunet et al. 2004, *Metagenes and molecular pattern discovery using matrix factorization*).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from dcf.metrics import match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dcf.types import Float64


class Rival(Protocol):
    """A factorization from one of the starts."""

    @property
    def components(self) -> Float64:
        """H (r, m)."""

    def objective(self) -> float:
        """Return what the starts are to minimise; less than `AS_GOOD` between them is no difference."""


# So many of the best starts are carried to the end.
STARTS_COMPARED = 3
# A start that misses a component of so much of the norm of the data is a worse answer, not another.
AS_GOOD = 0.03


def fits_as_well(error: float) -> float:
    """Return the largest ‖M − WH‖_F / ‖M‖_F that is as good as `error`: nothing that is missed but noise."""
    return float(np.hypot(error, AS_GOOD))


def stability(best: Rival, others: Sequence[Rival], most: float) -> Float64 | None:
    """Return the least cosine of each component of `best` to its partner in every start that fits as well.

    (r,), up to the sign of components, or None where the objective of every other start is above `most`.
    """
    rivals = [other for other in others if other.objective() <= most]
    if not rivals:
        return None
    cosines = [match(rival.components.T, best.components.T)[1] for rival in rivals]
    return np.asarray(np.min(np.abs(cosines), axis=0))
