"""Tests of one paired comparison: method minus baseline, one difference per seed.

Paired t-test (two-sided, and the paper's one-tailed one), exact sign flips, exact McNemar, Holm over a family of claims, TOST equivalence.
SciPy does the arithmetic; only Holm's step-down is our own, because SciPy has none. Intervals that also treat the test examples as a
sample are in `crossed.py`, bootstraps over tasks and trials in `resampling.py`.

Every function reports how many values it used (`n`) and raises a one-sentence ValueError if there is no result: fewer than two seeds,
differences without spread, NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.stats import combined
from analysis.stats.combined import Stages

Floats = NDArray[np.float64]

EXACT_UP_TO = 16
"""Up to this many seeds, all sign flips are enumerated (2**16 = 65,536); beyond, that many are drawn at random."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One test of one comparison."""

    test: str
    n: int
    """Number of values used: seeds, or for McNemar the examples on which the two arms disagree."""
    estimate: float
    """Mean difference; for McNemar the net share of disagreements that the method wins, in [-1, 1]."""
    p: float


def paired_differences(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[int, float]:
    """seed -> ours minus theirs, seeds ascending. Raises ValueError if a seed is in one arm only or a value is NaN."""
    alone = sorted(set(ours) ^ set(theirs))
    if alone:
        raise ValueError(f"A paired difference needs every seed in both arms; these are in one arm only: {', '.join(map(str, alone))}.")
    broken = [seed for seed in sorted(ours) if not np.isfinite(ours[seed]) or not np.isfinite(theirs[seed])]
    if broken:
        where = f"seed{'s' * (len(broken) > 1)} {', '.join(map(str, broken))}"
        raise ValueError(f"The metric is NaN or infinite at {where}; leave these out explicitly or repair them.")
    return {seed: float(ours[seed] - theirs[seed]) for seed in sorted(ours)}


def paired_t(differences: Sequence[float], stages: Stages | None = None) -> Outcome:
    """Two-sided paired t-test of a mean difference of 0, n - 1 degrees of freedom (Student 1908).

    With `stages` (differences ordered by stage) the mean is combined by stage (`combined.estimate`).
    """
    values = checked(differences)
    mean, se = _mean(values, stages)
    return _outcome("two-sided paired t", values, 2 * float(stats.t.sf(abs(mean) / se, values.size - 1)))


def paper_one_tailed_t(differences: Sequence[float]) -> Outcome:
    """The paper's test (arXiv 2509.14252): one-tailed, "method higher than baseline". If it is higher, half of the two-sided p."""
    values = checked(differences)
    return _outcome("one-tailed paired t (the paper's)", values, stats.ttest_1samp(values, 0.0, alternative="greater").pvalue)


def sign_flip(differences: Sequence[float], *, seed: int = 0) -> Outcome:
    """Two-sided permutation test of the mean: without an effect, both signs of a difference are equally likely (Fisher 1935, section 21).

    Exact up to `EXACT_UP_TO` values. The smallest exact p is 2 / 2**n: 0.0625 with five seeds, so five seeds can never pass 0.05.
    """
    values = checked(differences)
    exact = len(values) <= EXACT_UP_TO
    test = stats.permutation_test(
        (values,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(values) if exact else 2**EXACT_UP_TO - 1,
        alternative="two-sided",
        rng=np.random.default_rng(seed),
    )
    return _outcome("exact sign flips" if exact else "sign flips, drawn at random", values, test.pvalue)


def mcnemar(ours: ArrayLike, theirs: ArrayLike) -> Outcome:
    """Exact McNemar test of one seed: (N,) and (N,) correct or not, on the same examples. Binomial on the examples that disagree.

    The result holds for this one pair of trained models; another seed is another pair.
    """
    method, baseline = np.asarray(ours), np.asarray(theirs)
    if method.shape != baseline.shape or method.ndim != 1:
        raise ValueError(
            f"McNemar compares the same examples in both arms, as two arrays of shape (N,); got {method.shape} and {baseline.shape}."
        )
    if not (np.isin(method, (0, 1)).all() and np.isin(baseline, (0, 1)).all()):
        raise ValueError("McNemar needs correct (1) or not (0) for every example; at least one value is something else or NaN.")
    wins, losses = int((method > baseline).sum()), int((method < baseline).sum())
    if wins + losses == 0:
        raise ValueError(f"Both arms agree on all {method.size} examples, so McNemar has nothing to test.")
    p = stats.binomtest(wins, wins + losses).pvalue
    return Outcome(test="exact McNemar", n=wins + losses, estimate=(wins - losses) / (wins + losses), p=float(p))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """claim -> adjusted p over all m claims of the family (Holm 1979): running maximum of (m - rank) p, rank from 0, at most 1."""
    if not values:
        raise ValueError("Holm's correction needs a family of at least one claim.")
    broken = [name for name, p in values.items() if not 0 <= p <= 1]
    if broken:
        raise ValueError(f"p is not a number between 0 and 1 for {', '.join(broken)}; give an untested claim p = 1.")
    adjusted, highest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(values) - rank) * p))
        adjusted[name] = highest
    return {name: adjusted[name] for name in values}


def equivalence(differences: Sequence[float], margin: float, stages: Stages | None = None) -> Outcome:
    """TOST (Schuirmann 1987): two one-sided t-tests of |mean difference| >= margin; p is the larger of the two.

    With `stages` (differences ordered by stage) the mean is combined by stage (`combined.estimate`).
    """
    if not margin > 0:
        raise ValueError(f"Equivalence needs a margin above 0; it is {margin:g}.")
    values = checked(differences)
    mean, se = _mean(values, stages)
    return _outcome(f"TOST, margin {margin:g}", values, float(stats.t.sf((margin - abs(mean)) / se, values.size - 1)))


def never_apart(examples: int, margin: float) -> float:
    """p for the equivalence of two arms that were right on exactly the same examples at every seed, so that TOST has no spread to use.

    With a mean difference of the margin, the arms differ on at least that share of examples. p is the probability of meeting none of these
    among this many examples (exact binomial; Hanley & Lippman-Hand 1983: 3 / n at p = 0.05). It holds for the seeds that were run.
    """
    if not 0 < margin < 1:
        raise ValueError(f"Equivalence needs a margin above 0 and below 1; it is {margin:g}.")
    return float(stats.binomtest(0, examples, margin, alternative="less").pvalue)


def checked(differences: Sequence[float]) -> Floats:
    """The differences as an array. Raises ValueError for NaN, fewer than two values, or no spread beyond rounding."""
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {values.size} differences are NaN or infinite.")
    if values.size < 2:
        few = "1 seed says" if values.size == 1 else f"{values.size} seeds say"
        raise ValueError(f"{few} nothing about the spread over seeds; a test needs at least 2.")
    # If differences are equal up to rounding, a t-test would divide by the rounding error.
    if np.ptp(values) <= 1e-9 * max(1.0, float(np.abs(values).max())):
        if abs(values[0]) <= 1e-9:
            raise ValueError(f"Both arms score exactly the same at all {values.size} seeds, so there is nothing to test.")
        raise ValueError(f"The difference is the same ({values[0]:+g}) at all {values.size} seeds, so it has no spread to test against.")
    return values


def _mean(values: Floats, stages: Stages | None) -> tuple[float, float]:
    """Mean and standard error of differences by seed."""
    variance = float(values.var(ddof=1))
    if stages is None:
        return float(values.mean()), math.sqrt(variance / values.size)
    mean, se = combined.estimate(values, variance, 0.0, stages)
    return float(mean), float(se)


def _outcome(test: str, values: Floats, p: float) -> Outcome:
    return Outcome(test=test, n=values.size, estimate=float(values.mean()), p=float(p))
