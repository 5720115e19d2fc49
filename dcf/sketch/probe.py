"""The probe S M: an estimate of ‖M − WH‖ that needs no further read.

S (t, n) is a count sketch independent of everything that made W and H, so
``E‖S D‖² = ‖D‖²`` for D = M − WH, with variance ``(2/t) Σ_{i≠j} (DDᵀ)²_ij``. Where the residual is of
low rank (a component was missed) that is much. Where a range sketch knows such a residual, as
D̂ = M̂ − WH with M̂ the surrogate, ‖D̂‖² is summed exactly and the probe is left with the rest,

    ‖D‖² = ‖D̂‖² + E(‖S D‖² − ‖S D̂‖²),

a control variate (as Hutch++ takes the leading part out of a trace; Meyer, Musco, Musco & Woodruff
2021). With ``K = (SD)(SD)ᵀ − (SD̂)(SD̂)ᵀ``, ``v = (2/t) Σ_{a≠b} K²_ab / (1 − 1/t)`` estimates the
variance, and ``err² ν / χ²_ν`` with ``ν = 2 err⁴ / v`` is Satterthwaite's approximation.
"""

import numpy as np
from scipy.special import gammaincinv

from dcf.types import Certificate, Float64


def certify(
    difference: Float64,
    known: Float64,
    squared_known: float,
    squared_norm: float,
    rounding: float = 0.0,
) -> Certificate:
    """Return the estimated relative error and its 95 % interval.

    difference : S D (t, m); known : S D̂ (t, m), zeros where nothing is known of D; squared_known :
    ‖D̂‖²_F; squared_norm : the exact ‖M‖²_F; rounding : what storing W and H may add, over ‖M‖.
    """
    if squared_norm == 0.0:
        return Certificate(0.0, (0.0, 0.0))
    gram = difference @ difference.T - known @ known.T
    # The two parts nearly cancel only where the probe happens to be far out; an error is never negative.
    squared = max(squared_known + float(np.trace(gram)), 1e-2 * squared_known)
    value = np.sqrt(squared / squared_norm)
    if squared == 0.0:
        return Certificate(0.0, (0.0, rounding))
    t = len(gram)
    off_diagonal = float((gram**2).sum() - (np.diag(gram) ** 2).sum())
    variance = max(2.0 / t * off_diagonal / (1.0 - 1.0 / t), 1e-12 * squared**2)
    # A part of rank one has one degree of freedom; below, the two Gram matrices cancel to their rounding.
    freedom = max(2.0 * squared**2 / variance, 1.0)
    sizes = value, np.sqrt(max(squared, np.sqrt(variance / 2.0)) / squared_norm)
    # 2 Γ⁻¹(ν/2, q) is the q-quantile of χ²_ν.
    low, high = (
        size * np.sqrt(freedom / (2.0 * gammaincinv(freedom / 2.0, q)))
        for size, q in zip(sizes, (0.975, 0.025), strict=True)
    )
    return Certificate(float(value), (max(float(low) - rounding, 0.0), float(high) + rounding))
