"""Bootstraps over tasks and over trials: IQM, probability of improvement, expected best of n.

Over four tasks or more: the interquartile mean and the probability of improvement (Agarwal et al. 2021, arXiv 2108.13264), with runs
resampled within each task. Over the trials of one search: the expected best score of n trials (Dodge et al. 2019, arXiv 1909.03004, in the
unbiased form without replacement of Tang et al. 2020, arXiv 2004.14355).

Every result reports how many tasks, runs or trials it used. Too few of them, NaN, or identical scores raise ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Floats = NDArray[np.float64]

FEWEST_TASKS = 4


@dataclass(frozen=True, kw_only=True)
class Range:
    """An estimate with its percentile interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One method against its baseline over several tasks."""

    tasks: int
    pairs: int
    """Number of runs of the method that are paired with a baseline run of the same seed, over all tasks."""
    iqm: float
    iqm_baseline: float
    difference: Range
    """Of the two IQMs."""
    improvement: Range
    """Probability that a run of the method beats a run of the baseline on a random task; ties count half."""


@dataclass(frozen=True, kw_only=True)
class BestOf:
    """The average score of the best of n trials."""

    n: int
    trials: int
    """Number of trials behind the curve."""
    budget: float
    """n times the mean cost of a trial (n itself if no costs were given)."""
    expected: Range


def iqm(scores: Sequence[float]) -> float:
    """Mean of the middle half: a quarter of the values is dropped at each end (SciPy's trim_mean)."""
    return float(stats.trim_mean(_finite(scores, "score"), 0.25))


def probability_of_improvement(ours: Mapping[str, Sequence[float] | Floats], theirs: Mapping[str, Sequence[float] | Floats]) -> float:
    """Mean over tasks of P(a run of ours > a run of theirs) + P(equal) / 2, from all pairs of runs."""
    return float(np.mean([_wins(np.asarray(ours[task]), np.asarray(theirs[task])) for task in ours]))


def aggregate(
    ours: Mapping[str, Sequence[float]],
    theirs: Mapping[str, Sequence[float]],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Aggregate:
    """Compare two arms over several tasks, with a stratified bootstrap: pairs are resampled within each task, tasks are not.

    So the intervals hold for new seeds on these tasks. Arguments: task -> scores, the i-th of both arms from the same seed.
    """
    if set(ours) != set(theirs) or len(ours) < FEWEST_TASKS:
        shared = len(set(ours) & set(theirs))
        raise ValueError(
            f"IQM and probability of improvement need the same {FEWEST_TASKS} tasks or more in both arms; {shared} are shared."
        )
    a = {task: _finite(values, f"score of {task}") for task, values in ours.items()}
    b = {task: _finite(theirs[task], f"score of {task}") for task in ours}
    uneven = [task for task in a if a[task].size != b[task].size or a[task].size < 2]
    if uneven:
        raise ValueError(f"Every task needs the same 2 seeds or more in both arms; this fails for {', '.join(uneven)}.")
    if np.ptp(np.concatenate([*a.values(), *b.values()])) == 0:
        raise ValueError("All scores of both arms are the same, so there is nothing to compare.")
    random = np.random.default_rng(seed)
    left, right, wins = [], [], []
    for task, values in a.items():
        picked_Rn = random.integers(values.size, size=(resamples, values.size))
        left.append(values[picked_Rn])
        right.append(b[task][picked_Rn])
        wins.append(_wins(left[-1], right[-1]))
    gaps_R = stats.trim_mean(np.hstack(left), 0.25, axis=1) - stats.trim_mean(np.hstack(right), 0.25, axis=1)
    low, high = np.quantile([gaps_R, np.mean(wins, axis=0)], [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    return Aggregate(
        tasks=len(a),
        pairs=sum(values.size for values in a.values()),
        iqm=_iqm_of(a),
        iqm_baseline=_iqm_of(b),
        difference=Range(estimate=_iqm_of(a) - _iqm_of(b), low=float(low[0]), high=float(high[0])),
        improvement=Range(estimate=probability_of_improvement(a, b), low=float(low[1]), high=float(high[1])),
    )


def expected_best(scores: ArrayLike) -> NDArray[np.float64]:
    """(N,): the expected highest of n = 1 .. N scores drawn without replacement, in closed form (`best_of_n`)."""
    sorted_N = np.sort(np.asarray(scores, dtype=np.float64))
    return _rank_weights(sorted_N.size) @ sorted_N


def best_of_n(
    values: Sequence[float], costs: Sequence[float] | None = None, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> list[BestOf]:
    """Expected highest score of n = 1 .. N trials against budget. Trials must be exchangeable, as in a random search.

    E[best of n] = sum over ranks i of v_(i) C(i - 1, n - 1) / C(N, n). The interval resamples trials; near n = N it is too narrow and too
    low, because no resample contains a score above the highest observed. Include trials that were cut early, with their last score.
    """
    scores = _finite(values, "trial's score")
    N = scores.size
    if N < 2:
        raise ValueError(f"{N} trial{'s' * (N != 1)} cannot make a best-of-n curve; it needs at least 2.")
    if np.ptp(scores) == 0:
        raise ValueError(f"All {N} trials score {scores[0]:g}, so the best of n is the same for every n.")
    if costs is not None and len(costs) != N:
        raise ValueError(f"{len(costs)} costs for {N} trials: every trial needs its own cost.")
    cost = 1.0 if costs is None else float(_finite(costs, "trial's cost").mean())
    weights_nN = _rank_weights(N)
    random = np.random.default_rng(seed)
    resampled_RN = np.sort(scores[random.integers(N, size=(resamples, N))], axis=1)
    curves_Rn = resampled_RN @ weights_nN.T
    low_n, high_n = np.quantile(curves_Rn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    expected_n = expected_best(scores)
    return [
        BestOf(n=n, trials=N, budget=n * cost, expected=Range(estimate=float(e), low=float(low), high=float(high)))
        for n, e, low, high in zip(range(1, N + 1), expected_n, low_n, high_n, strict=True)
    ]


def _rank_weights(N: int) -> Floats:
    """(n, rank): probability that the best of n trials, drawn without replacement, has that rank. Rows sum to 1."""
    n, rank = np.arange(1, N + 1)[:, None], np.arange(1, N + 1)[None, :]
    with np.errstate(invalid="ignore"):
        log = _log_choose(rank - 1, n - 1) - _log_choose(np.full_like(n, N), n)
    return np.where(rank >= n, np.exp(log), 0.0)


def _log_choose(n: NDArray[np.int_], k: NDArray[np.int_]) -> Floats:
    log: Floats = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(np.maximum(n - k, 0) + 1)
    return log


def _iqm_of(scores: Mapping[str, Floats]) -> float:
    return iqm(np.concatenate(list(scores.values())).tolist())


def _wins(ours: Floats, theirs: Floats) -> Floats:
    """Share of the pairs of (..., n) and (..., n) scores that ours wins, ties counting half."""
    above = ours[..., :, None] - theirs[..., None, :]
    share: Floats = ((above > 0) + 0.5 * (above == 0)).mean(axis=(-2, -1))
    return share


def _finite(values: Sequence[float] | Floats, what: str) -> Floats:
    finite = np.asarray(values, dtype=np.float64)
    if finite.size == 0:
        raise ValueError(f"There is no {what}.")
    if not np.isfinite(finite).all():
        raise ValueError(f"{int((~np.isfinite(finite)).sum())} of {finite.size}: {what} NaN or infinite.")
    return finite
