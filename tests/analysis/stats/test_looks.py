"""Looks that nobody planned: the error that each spends, nested levels, p on the boundary, and 5 % over any way of going on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.stats import paired_tests, sequential
from analysis.stats.looks import Stage, alpha_of, extended, level, overall, stages

FIVE = (Stage(5),)
RACED = (Stage(5, race=(3, 5, 10)),)
LONG = (Stage(5), Stage(16, 2), Stage(1, 3), Stage(40, 5))


def test_looks_spend_at_most_the_whole_error() -> None:
    spent = [alpha_of(number, 0.05) for number in range(1, 40)]
    assert spent[0] == pytest.approx(1 / 30) and spent[1] == pytest.approx(1 / 90)
    assert sum(spent) == pytest.approx(0.05, abs=1e-12) and sum(spent[:4]) < 0.05


def test_one_look_has_two_thirds() -> None:
    assert level(FIVE, 0.05) == pytest.approx(0.05 * 2 / 3, rel=1e-9)
    for p in (0.0004, 0.02, 0.6):
        assert overall(p, FIVE) == pytest.approx(1.5 * p, rel=1e-6)
    assert overall(0.7, FIVE) == 1.0
    # A method that is first seen at look 3 starts with what that look spends.
    assert level((Stage(5, 3),), 0.05) == pytest.approx(alpha_of(3, 0.05))


def test_a_second_look_is_a_bivariate_normal() -> None:
    """Weights 1 and 2: the correlation of the two statistics is sqrt(1/3), whatever the numbers of seeds. SciPy's integral."""
    first, second = (stats.norm.isf(level(history, 0.05) / 2) for history in (FIVE, extended(FIVE, 7, 2)))
    root = math.sqrt(1 / 3)
    inside = stats.multivariate_normal(cov=[[1, root], [root, 1]]).cdf([first, second], lower_limit=[-first, -second])
    assert 1 - inside == pytest.approx(alpha_of(1, 0.05) + alpha_of(2, 0.05), abs=1e-7)
    assert level(extended(FIVE, 1, 2), 0.05) == level(extended(FIVE, 500, 2), 0.05)


def test_weights_double_what_came_before() -> None:
    assert stages(LONG).weights == pytest.approx((1, 2, 6, 18)) and stages(LONG).seeds == (5, 16, 1, 40)
    # A race that ended after half of its seeds carries half of its weight.
    assert stages((*RACED, Stage(4, 2))).weights == pytest.approx((0.5, 1.0))


@pytest.mark.parametrize("history", [FIVE, RACED, LONG, (Stage(3, 2, (3, 6)), Stage(2, 4))], ids=str)
def test_overall_p_is_alpha_on_the_boundary(history: tuple[Stage, ...]) -> None:
    for alpha in (0.001, 0.0125, 0.05, 0.3):
        assert overall(level(history, alpha), history) == pytest.approx(alpha, rel=1e-5)
        assert overall(level(history, alpha) / 2, history, sides=1) == pytest.approx(alpha / 2, rel=1e-5)
    levels = [level(history, alpha) for alpha in (1e-8, 1e-4, 0.01, 0.05, 0.3, 0.9)]
    assert levels == sorted(levels) and overall(0.0, history) < 1e-5 and overall(1.0, history) == 1.0
    with pytest.raises(ValueError, match="between 0 and 1"):
        overall(1.2, history)


@pytest.mark.parametrize("times", [1.0, 2.0, 4.5])
def test_fixed_weights_cost_three_percent_of_the_seeds(times: float) -> None:
    """Squared signal of weights 1 and 2 over that of all seeds alike, for so many times the seeds of before."""
    first, second = stages((Stage(100), Stage(round(100 * times), 2))).weights
    signal = (math.sqrt(first) + math.sqrt(second * times)) ** 2 / (first + second)
    assert 0.969 < signal / (1 + times) <= 1.0


def test_a_hundred_looks() -> None:
    many = tuple(Stage(1 + 4 * (number == 1), number) for number in range(1, 101))
    assert level(many, 0.05) == 1e-12 and overall(1e-6, many) == 1.0 and overall(0.04, many[:8]) > 0.9


def test_a_race_spends_the_share_of_its_stage() -> None:
    for seeds, look in ((3, 0), (5, 1), (10, 2)):
        expected = sequential.spending((3, 5, 10), alpha_of(1, 0.05))[look]
        assert level((Stage(seeds, race=(3, 5, 10)),), 0.05) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sizes", [(5, 5, 5, 5), (5, 1, 1, 20), (3, 15)], ids=str)
def test_t_tests_keep_five_percent_over_all_looks(sizes: tuple[int, ...]) -> None:
    """Normal differences without an effect; whoever stops at the first significant look is wrong in at most 5 %."""
    R, hit_R = 20_000, np.zeros(20_000, dtype=bool)
    d_RS = np.random.default_rng(3).standard_normal((R, sum(sizes)))
    for looks in range(1, len(sizes) + 1):
        history = tuple(Stage(size, number) for number, size in enumerate(sizes[:looks], 1))
        seen = d_RS[:, : sum(sizes[:looks])]
        p_R = _p(seen, history)
        hit_R |= p_R < level(history, 0.05)
        assert p_R[:20] == pytest.approx([paired_tests.paired_t(d, stages(history)).p for d in seen[:20].tolist()])
    assert hit_R.mean() < 0.053


def test_the_size_of_a_stage_may_depend_on_what_was_seen() -> None:
    """An adversary adds one seed after a near miss and thirty otherwise."""
    R = 20_000
    d_RS = np.random.default_rng(4).standard_normal((R, 35))
    p_R = _p(d_RS[:, :5], FIVE)
    hit_R = p_R < level(FIVE, 0.05)
    near_R = (p_R < 0.3) & ~hit_R
    for size, mask_R in ((1, near_R), (30, ~near_R & ~hit_R)):
        history = extended(FIVE, size, 2)
        hit_R[mask_R] = _p(d_RS[mask_R, : 5 + size], history) < level(history, 0.05)
    assert hit_R.mean() < 0.05


def _p(d_RS: np.ndarray, history: tuple[Stage, ...]) -> np.ndarray:
    """p of the paired t by stage, for many rows at once: the definition of `stats/combined.py`, written without it."""
    ends = np.cumsum([stage.seeds for stage in history])
    signal, weights = np.zeros(len(d_RS)), stages(history).weights
    for begin, end, weight in zip([0, *ends[:-1]], ends, weights, strict=True):
        signal += math.sqrt(weight / (end - begin)) * d_RS[:, begin:end].sum(axis=1)
    t_R = signal / math.sqrt(sum(weights)) / d_RS.std(axis=1, ddof=1)
    return 2 * stats.t.sf(np.abs(t_R), d_RS.shape[1] - 1)
