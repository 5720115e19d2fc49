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
# A start that leaves so much more of the norm of the data unexplained is a worse answer, not another;
# likewise one that finds so many nats a row less of sparsity.
AS_GOOD = 0.01


def stability(best: Rival, others: Sequence[Rival]) -> Float64 | None:
    """Return the least cosine of each component of `best` to its partner in every start that fits as well.

    (r,), up to the sign of components, or None where the objective of no other start is within 0.01.
    """
    rivals = [other for other in others if other.objective() <= best.objective() + AS_GOOD]
    if not rivals:
        return None
    cosines = [match(rival.components.T, best.components.T)[1] for rival in rivals]
    return np.asarray(np.min(np.abs(cosines), axis=0))
