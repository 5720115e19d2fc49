"""Whether other starts find the same components: what the data determine, and what they do not.

A nonnegative factorization need not be unique (Donoho & Stodden 2003; Laurberg et al. 2008), and
its residual does not show it: starts that fit as well may end in other components. Their agreement
does (Brunet et al. 2004, *Metagenes and molecular pattern discovery using matrix factorization*).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dcf.metrics import match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dcf.types import Float64

# A start that leaves so much more of the norm of the data unexplained is a worse answer, not another.
AS_GOOD = 0.01


def stability(
    components: Float64, objective: float, others: Sequence[tuple[Float64, float]]
) -> Float64 | None:
    """Return the least cosine of each row of H (r, m) to its partner from every start that fits as well.

    objective : ‖M − WH‖_F / ‖M‖_F of H; others : H and objective of other starts. None where none
    of them is within 0.01 of `objective`.
    """
    rivals = [h for h, reached in others if reached <= objective + AS_GOOD]
    if not rivals:
        return None
    return np.asarray(np.min([match(h.T, components.T)[1] for h in rivals], axis=0))
