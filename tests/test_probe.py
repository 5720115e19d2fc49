"""The probe's estimate and its interval."""

import numpy as np
import pytest

from dcf.sketch.probe import certify
from dcf.sketch.projections import CountSketch, Role


def sketch(s, x):
    out = np.zeros((s.sketch_size, x.shape[1]))
    s.accumulate(x, 0, out)
    return out


def estimate(m, w, h, seed, t=128, known=None):
    """The certificate of (w, h); `known` is the part of the residual that a surrogate knows."""
    s = CountSketch(seed, t, role=Role.probe)
    known = np.zeros_like(m) if known is None else known
    squared = float((known**2).sum())
    return certify(sketch(s, m - w @ h), sketch(s, known), squared, float((m**2).sum()))


@pytest.mark.parametrize("what", ["white noise", "a missing component"])
def test_the_interval_covers(what):
    generator = np.random.default_rng(0)
    w, h = generator.random((2000, 5)), generator.random((5, 40))
    m = w @ h
    if what == "white noise":
        m = m + 0.2 * generator.standard_normal(m.shape)
    else:
        m = m + np.outer(generator.random(2000), generator.random(40))
    true = np.linalg.norm(m - w @ h) / np.linalg.norm(m)
    certificates = [estimate(m, w, h, seed) for seed in range(200)]
    covered = sum(c.interval[0] <= true <= c.interval[1] for c in certificates)
    assert covered >= 180
    assert np.mean([c.value for c in certificates]) == pytest.approx(true, rel=0.02)
    assert all(c.kind == "estimated" for c in certificates)


@pytest.mark.parametrize("share", [0.9, 1.0, 1.1])
def test_what_a_surrogate_knows_narrows_the_interval(share):
    generator = np.random.default_rng(0)
    w, h = generator.random((2000, 5)), generator.random((5, 40))
    missed = np.outer(generator.random(2000), generator.random(40))
    m = w @ h + missed + 0.05 * generator.standard_normal((2000, 40))
    true = np.linalg.norm(m - w @ h) / np.linalg.norm(m)
    plain = [estimate(m, w, h, seed) for seed in range(200)]
    aided = [estimate(m, w, h, seed, known=share * missed) for seed in range(200)]
    covered = sum(c.interval[0] <= true <= c.interval[1] for c in aided)
    assert 180 <= covered
    assert np.mean([c.value for c in aided]) == pytest.approx(true, rel=0.01)
    widths = [np.median([c.interval[1] - c.interval[0] for c in cs]) for cs in (aided, plain)]
    assert widths[0] < 0.4 * widths[1]


def test_nothing_left_and_nothing_there():
    generator = np.random.default_rng(0)
    w, h = generator.random((50, 2)), generator.random((2, 6))
    exact = estimate(w @ h, w, h, 0)
    assert exact.value < 1e-14
    zero = estimate(np.zeros((50, 6)), np.zeros((50, 2)), h, 0)
    assert zero.value == 0
    assert zero.interval == (0, 0)
