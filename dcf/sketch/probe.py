"""The probe S M: an estimate of ‖M − WH‖ that needs no further read.

S (t, n) is a count sketch independent of everything that made W and H, so
``E‖S(M − WH)‖² = ‖M − WH‖²``. The interval comes from the off-diagonal energy of
``K = (S D)(S D)ᵀ``, D = M − WH: ``v = (2/t) Σ_{a≠b} K²_ab / (1 − 1/t)`` estimates the
variance, and ``err² ν / χ²_ν`` with ``ν = 2 (tr K)² / v`` is Satterthwaite's approximation.
"""

import numpy as np
from scipy.special import gammaincinv

from dcf.types import Certificate, Float64


def certify(
    probe: Float64, probe_of_weights: Float64, components: Float64, squared_norm: float
) -> Certificate:
    """Return the estimated relative error and its 95 % interval.

    probe : S M (t, m); probe_of_weights : S W (t, r); components : H (r, m);
    squared_norm : the exact ‖M‖²_F.
    """
    if squared_norm == 0.0:
        return Certificate(0.0, (0.0, 0.0))
    difference = probe - probe_of_weights @ components
    gram = difference @ difference.T
    trace = float(np.trace(gram))
    value = np.sqrt(trace / squared_norm)
    if trace == 0.0:
        return Certificate(0.0, (0.0, 0.0))
    t = len(gram)
    off_diagonal = float((gram**2).sum() - (np.diag(gram) ** 2).sum())
    variance = max(2.0 / t * off_diagonal / (1.0 - 1.0 / t), 1e-12 * trace**2)
    freedom = 2.0 * trace**2 / variance
    # 2 Γ⁻¹(ν/2, q) is the q-quantile of χ²_ν.
    low, high = (value * np.sqrt(freedom / (2.0 * gammaincinv(freedom / 2.0, q))) for q in (0.975, 0.025))
    return Certificate(float(value), (float(low), float(high)))
