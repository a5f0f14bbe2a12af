"""IQM, probability of improvement and best of n: hand derivations, and coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.stats.resampling import aggregate, best_of_n, iqm, probability_of_improvement

TASKS = ("a", "b", "c", "d")


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    assert iqm([0, 1, 2, 3, 4, 5, 6, 1000]) == pytest.approx((2 + 3 + 4 + 5) / 4)


def test_improvement_counts_pairs_and_half_of_ties() -> None:
    """Task a: 3 against 1 and 3: a win and a tie; 1 against them: a tie and a loss; (1 + .5 + .5 + 0) / 4. Task b: always better."""
    assert probability_of_improvement({"a": [3, 1], "b": [5, 6]}, {"a": [1, 3], "b": [1, 2]}) == pytest.approx((0.5 + 1.0) / 2)


def test_aggregate_pairs_and_stratifies() -> None:
    """The baseline plus a constant differs by this constant in every resample, because seeds are drawn in pairs and within tasks."""
    random = np.random.default_rng(0)
    theirs = {task: (10 * i + random.normal(size=5)).tolist() for i, task in enumerate(TASKS)}
    ours = {task: [x + 0.5 for x in values] for task, values in theirs.items()}
    found = aggregate(ours, theirs, resamples=200)
    assert (found.tasks, found.pairs) == (4, 20)
    assert (found.difference.low, found.difference.estimate, found.difference.high) == pytest.approx((0.5, 0.5, 0.5))
    assert 0.5 < found.improvement.low < found.improvement.high <= 1


def test_the_interval_of_a_null_contains_zero() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for i in range(100):
        ours, theirs = ({task: random.normal(size=10).tolist() for task in TASKS} for _ in range(2))
        found = aggregate(ours, theirs, resamples=200, seed=i)
        covered += found.difference.low <= 0 <= found.difference.high
    assert 86 <= covered <= 100  # 95 +- 4 standard errors


def test_best_of_n_of_the_numbers_1_to_N() -> None:
    """Without replacement the highest of n of 1..N is n (N + 1) / (n + 1) on average (the German tank problem)."""
    curve = best_of_n(list(range(12, 0, -1)), [2.0, 4.0] * 6)
    assert [point.expected.estimate for point in curve] == pytest.approx([n * 13 / (n + 1) for n in range(1, 13)])
    assert [point.budget for point in curve] == pytest.approx([3.0 * n for n in range(1, 13)])
    assert {point.trials for point in curve} == {12} and curve[0].n == 1
    assert all(point.expected.low <= point.expected.high <= 12 + 1e-9 for point in curve)


def test_best_of_n_interval_covers_the_truth() -> None:
    """Of uniform scores the best of 3 is 3/4 on average."""
    random = np.random.default_rng(2)
    inside = 0
    for i in range(200):
        point = best_of_n(random.uniform(size=40).tolist(), resamples=300, seed=i)[2]
        inside += point.expected.low <= 0.75 <= point.expected.high
    assert 175 <= inside <= 200


def test_long_searches_do_not_overflow() -> None:
    curve = best_of_n(np.random.default_rng(3).uniform(size=1200).tolist(), resamples=5)
    values = [point.expected.estimate for point in curve]
    assert len(curve) == 1200 and all(math.isfinite(x) for x in values) and values == sorted(values)


def test_no_result_is_a_one_sentence_error() -> None:
    good = {task: [0.1, 0.2] for task in TASKS}
    with pytest.raises(ValueError, match="4 tasks or more"):
        aggregate({"a": [1, 2]}, {"a": [1, 2]})
    with pytest.raises(ValueError, match="2 seeds or more in both arms; this fails for d"):
        aggregate({**good, "d": [0.1]}, {**good, "d": [0.2]})
    with pytest.raises(ValueError, match="score of b NaN"):
        aggregate({**good, "b": [0.1, math.nan]}, good)
    with pytest.raises(ValueError, match="the same"):
        aggregate({task: [1, 1] for task in TASKS}, {task: [1, 1] for task in TASKS})
    with pytest.raises(ValueError, match="1 trial cannot make a best-of-n curve"):
        best_of_n([0.5])
    with pytest.raises(ValueError, match="All 3 trials"):
        best_of_n([0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="1 of 2: trial's score NaN"):
        best_of_n([0.5, math.nan])
    with pytest.raises(ValueError, match="every trial needs its own"):
        best_of_n([0.5, 0.6], [1.0])
    with pytest.raises(ValueError, match="no score"):
        iqm([])
