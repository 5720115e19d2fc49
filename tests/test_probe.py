"""The probe's estimate and its interval."""

import numpy as np
import pytest

from dcf.sketch.probe import certify
from dcf.sketch.projections import CountSketch, Role


def estimate(m, w, h, seed, t=128):
    s = CountSketch(seed, t, role=Role.probe)
    sm, sw = np.zeros((t, m.shape[1])), np.zeros((t, w.shape[1]))
    s.accumulate(m, 0, sm)
    s.accumulate(w, 0, sw)
    return certify(sm, sw, h, float((m**2).sum()))


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


def test_nothing_left_and_nothing_there():
    generator = np.random.default_rng(0)
    w, h = generator.random((50, 2)), generator.random((2, 6))
    exact = estimate(w @ h, w, h, 0)
    assert exact.value < 1e-14
    zero = estimate(np.zeros((50, 6)), np.zeros((50, 2)), h, 0)
    assert zero.value == 0
    assert zero.interval == (0, 0)
