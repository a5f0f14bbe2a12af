"""Means by stage: the plain mean if the weights fit, independent increments although examples are shared, and coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.stats import crossed
from analysis.stats.combined import Stages, estimate

RANDOM = np.random.default_rng(0)


def test_one_stage_is_the_plain_mean() -> None:
    d_RS = RANDOM.standard_normal((4, 6))
    mean, se = estimate(d_RS, 0.3, 0.02, Stages((6,), (5.0,)))
    assert mean == pytest.approx(d_RS.mean(axis=1)) and se == pytest.approx(math.sqrt(0.3 / 6 + 0.02))


@pytest.mark.parametrize("tau2", [0.0, 0.02])
def test_weights_in_proportion_to_the_information_are_the_plain_mean(tau2: float) -> None:
    d_S, sigma2 = RANDOM.standard_normal(9), 0.4
    information = [1 / (sigma2 / S + tau2) for S in (4, 9)]
    mean, se = estimate(d_S, sigma2, tau2, Stages((4, 5), (information[0], information[1] - information[0])))
    assert mean == pytest.approx(d_S.mean()) and se == pytest.approx(math.sqrt(sigma2 / 9 + tau2))


def test_without_examples_it_is_a_weighted_mean_of_stages() -> None:
    d_S, stages = RANDOM.standard_normal(7), Stages((5, 2), (1.0, 2.0))
    parts = [math.sqrt(w / n) * part.sum() for w, n, part in zip((1, 2), (5, 2), (d_S[:5], d_S[5:]), strict=True)]
    reach = math.sqrt(5) + math.sqrt(2 * 2)
    mean, se = estimate(d_S, 0.5, 0.0, stages)
    assert mean == pytest.approx(sum(parts) / reach) and se == pytest.approx(math.sqrt(3 * 0.5) / reach)


def test_stages_are_independent_although_examples_are_shared() -> None:
    """z = estimate / se of one stage, and of two stages, from one draw of the examples: the covariance is sqrt(1 / 3) at weights 1, 2."""
    R, sigma2, tau2 = 200_000, 0.5, 0.2
    d_RS = math.sqrt(sigma2) * RANDOM.standard_normal((R, 8)) + math.sqrt(tau2) * RANDOM.standard_normal((R, 1))
    one = np.divide(*estimate(d_RS[:, :3], sigma2, tau2, Stages((3,), (1.0,))))
    two = np.divide(*estimate(d_RS, sigma2, tau2, Stages((3, 5), (1.0, 2.0))))
    assert one.std() == pytest.approx(1, abs=0.01) and two.std() == pytest.approx(1, abs=0.01)
    assert np.corrcoef(one, two)[0, 1] == pytest.approx(math.sqrt(1 / 3), abs=0.01)


def test_seeds_without_spread_of_their_own() -> None:
    """sigma^2 = 0: further seeds add nothing, and the first stage alone is left, less sure by the weights that were given away."""
    mean, se = estimate(np.full(5, 0.2), 0.0, 0.01, Stages((3, 2), (1.0, 2.0)))
    assert mean == pytest.approx(0.2) and se == pytest.approx(math.sqrt(3) * 0.1)


def test_bad_stages() -> None:
    for seeds, weights in (((), ()), ((3,), (1.0, 2.0)), ((0,), (1.0,)), ((3,), (0.0,))):
        with pytest.raises(ValueError, match="at least one seed and a weight above 0"):
            Stages(seeds, weights)
    with pytest.raises(ValueError, match="The stages have 5 seeds, the differences 6"):
        estimate(np.zeros(6), 1.0, 0.0, Stages((5,), (1.0,)))


def test_the_interval_of_one_stage_is_the_plain_one() -> None:
    D_SN = (RANDOM.random((6, 40)) < 0.4).astype(float) - (RANDOM.random((6, 40)) < 0.3)
    plain, staged = crossed.interval(D_SN), crossed.interval(D_SN, stages=Stages((6,), (3.0,)))
    for name in ("estimate", "low", "high", "se", "df", "p"):
        assert getattr(staged, name) == pytest.approx(getattr(plain, name))
    assert crossed.equivalence(D_SN, 0.2, Stages((6,), (1.0,))) == pytest.approx(crossed.equivalence(D_SN, 0.2))
    parts = crossed.components(D_SN)
    assert crossed.detectable(parts, seeds=6, examples=40, stages=Stages((6,), (1.0,))) == pytest.approx(
        crossed.detectable(parts, seeds=6, examples=40)
    )
