"""A paired difference over seeds x examples: variance components, interval, bootstrap, and what a plan can detect.

D_SN is method minus baseline, seed by seed and example by example (for right or wrong answers -1, 0 or 1). Seeds and examples are both
samples, and crossed: every seed is scored on the same test examples. The model is the two-way random-effects one without replication,

    D_si = mu + a_s + b_i + e_si        Var(mean) = var_seed / S + var_example / N + var_residual / (S N)

A t-test over seeds leaves var_example out: it speaks of these N examples only.

S seeds, N examples. Every function says both and raises ValueError for one seed, one example, NaN, or no spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]

MOST_SEEDS = 1000
"""A plan that needs more seeds than this is called impossible."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variance components of D_SN, by mean squares; a negative estimate is 0, as a variance cannot be less."""

    seeds: int
    examples: int
    mean: float
    var_seed: float
    var_example: float
    var_residual: float


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean difference and its interval."""

    how: str
    seeds: int
    examples: int
    estimate: float
    low: float
    high: float
    confidence: float
    se: float
    df: float | None
    """Degrees of freedom; None for a bootstrap."""
    p: float | None
    """Two-sided p of a difference of 0; None for a bootstrap."""


def components(D_SN: ArrayLike) -> Components:
    """Two-way analysis of variance without replication (Searle, Casella & McCulloch 1992, section 4.2)."""
    checked_SN = _checked(D_SN)
    S, N = checked_SN.shape
    mean, by_seed, by_example, residual = (float(x) for x in mean_squares(checked_SN))
    return Components(
        seeds=S,
        examples=N,
        mean=mean,
        var_seed=max(0.0, (by_seed - residual) / N),
        var_example=max(0.0, (by_example - residual) / S),
        var_residual=residual,
    )


def interval(D_SN: ArrayLike, confidence: float = 0.95) -> Interval:
    """For new seeds and new examples: t-interval from the mean squares, degrees of freedom after Satterthwaite (1946).

    Never narrower than the t-interval over seeds alone: that one has the smaller standard error, but may have fewer degrees of freedom.
    `p`, `se` and `df` are of seeds x examples.
    """
    checked_SN = _checked(D_SN)
    S, N = checked_SN.shape
    mean, by_seed, by_example, residual = mean_squares(checked_SN)
    se, df = (float(x) for x in standard_error(by_seed, by_example, residual, S, N))
    if not se > 1e-9:
        raise ValueError(f"The difference is the same ({float(mean):+g}) at all {S} seeds, so it has no spread to test against.")
    over_seeds = float(stats.t.ppf((1 + confidence) / 2, S - 1)) * math.sqrt(float(by_seed) / (S * N))
    half = max(float(stats.t.ppf((1 + confidence) / 2, df)) * se, over_seeds)
    return Interval(
        how="variance components",
        seeds=S,
        examples=N,
        estimate=float(mean),
        low=float(mean) - half,
        high=float(mean) + half,
        confidence=confidence,
        se=se,
        df=df,
        p=float(2 * stats.t.sf(abs(float(mean)) / se, df)),
    )


def equivalence(D_SN: ArrayLike, margin: float) -> float:
    """p of TOST over right or wrong answers (D in -1, 0, 1), with a variance that allows for what was not seen by luck.

    A test of a difference takes luck as it comes: it is as often bad. Equivalence is believed for its precision, so two kinds are taken
    out. Answers scatter by themselves, and a few seeds may agree better than that allows: the mean square between seeds, too, is raised to
    the residual one where it lies below. And where the arms have hardly ever differed, the variance is that of the few differences that
    happened to be seen: at a true difference of the margin there are more, by at least what the mean lacks of it, and the mean squares are
    scaled up in that proportion. Where the arms differ often neither matters, and p < 0.05 where the 90 % interval lies within the margin.
    """
    if not margin > 0:
        raise ValueError(f"Equivalence needs a margin above 0; it is {margin:g}.")
    checked_SN = _checked(D_SN)
    mean, by_seed, by_example, residual = (float(x) for x in mean_squares(checked_SN))
    se, df = (float(x) for x in standard_error(max(by_seed, residual), by_example, residual, *checked_SN.shape))
    lacking, differing = margin - abs(mean), float(np.square(checked_SN).mean())
    return float(stats.t.sf(lacking / (se * math.sqrt(max(1.0, 1 + lacking / differing))), df))


def bootstrap(D_SN: ArrayLike, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Percentile interval; seeds and examples are resampled independently (Owen 2007, the pigeonhole bootstrap).

    Resampling D_SN is resampling both arms with the same seeds and examples. With few seeds it is too narrow, as the
    resampled variance lacks the factor S / (S - 1) and the t quantile: at 5 seeds read `interval`.
    """
    checked_SN = _checked(D_SN)
    S, N = checked_SN.shape
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, 250):  # 250 rows of counts over N examples at a time, not all of them
        rows = slice(start, min(start + 250, resamples))
        many = rows.stop - rows.start
        seed_counts_RS = random.multinomial(S, np.full(S, 1 / S), size=many)
        example_counts_RN = random.multinomial(N, np.full(N, 1 / N), size=many)
        means[rows] = ((seed_counts_RS @ checked_SN) * example_counts_RN).sum(axis=1) / (S * N)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(
        how=f"bootstrap, {resamples} resamples",
        seeds=S,
        examples=N,
        estimate=float(checked_SN.mean()),
        low=float(low),
        high=float(high),
        confidence=confidence,
        se=float(means.std(ddof=1)),
        df=None,
        p=None,
    )


def detectable(found: Components, *, seeds: int, examples: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest difference that two-sided tests, over seeds x examples and over seeds, each find with this power.

    Noncentral t: the degrees of freedom come from the expected mean squares of the plan. The t over seeds has the smaller standard error
    and fewer degrees of freedom; with three seeds it asks for more.
    """
    if seeds < 2 or examples < 1:
        raise ValueError(f"A plan needs at least 2 seeds and 1 example; it has {seeds} and {examples}.")
    if found.var_seed + found.var_example + found.var_residual <= 0:
        raise ValueError("All variance components are 0, so there is no noise to plan against.")
    by_seed = found.var_residual + examples * found.var_seed
    by_example = found.var_residual + seeds * found.var_example
    se, df = (float(x) for x in standard_error(by_seed, by_example, found.var_residual, seeds, examples))
    over_seeds = math.sqrt(by_seed / (seeds * examples)) * _noncentrality(seeds - 1, power, alpha)
    return max(se * _noncentrality(df, power, alpha), over_seeds)


def _noncentrality(df: float, power: float, alpha: float) -> float:
    """Difference over standard error that a two-sided t-test finds with this power."""
    critical = float(stats.t.ppf(1 - alpha / 2, df))

    def short_of(noncentrality: float) -> float:
        # SciPy's tail on the wrong side is NaN where it is far below 1e-9, which is 0 here.
        wrong_side = np.nan_to_num(stats.nct.cdf(-critical, df, noncentrality))
        return float(stats.nct.sf(critical, df, noncentrality) + wrong_side) - power

    # At noncentrality 0 the power is alpha; at the bound it is 1 for any degrees of freedom from 1 on.
    return float(optimize.brentq(short_of, 0.0, 20.0 * critical + 20.0, xtol=1e-10))


def plan(
    found: Components, *, examples: int, seeds: Sequence[int] = (5, 10, 20), power: float = 0.8, alpha: float = 0.05
) -> dict[int, float]:
    """seeds -> smallest detectable difference at that many seeds."""
    return {n: detectable(found, seeds=n, examples=examples, power=power, alpha=alpha) for n in seeds}


def seeds_needed(found: Components, difference: float, *, examples: int, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Fewest seeds that detect this difference; None where `MOST_SEEDS` do not (then the test set is what is too small)."""
    if not difference > 0:
        raise ValueError(f"The difference to detect must be above 0; it is {difference:g}.")

    def enough(seeds: int) -> bool:
        return detectable(found, seeds=seeds, examples=examples, power=power, alpha=alpha) <= difference

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # one seed is never enough, MOST_SEEDS are
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def mean_squares(D_SN: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean, and mean squares between seeds, between examples and residual, of (..., S, N): leading axes are separate tables."""
    S, N = D_SN.shape[-2:]
    seed_means, example_means = D_SN.mean(axis=-1), D_SN.mean(axis=-2)
    mean = seed_means.mean(axis=-1)
    seed_squares = N * ((seed_means - mean[..., None]) ** 2).sum(axis=-1)
    example_squares = S * ((example_means - mean[..., None]) ** 2).sum(axis=-1)
    total = (D_SN**2).sum(axis=(-2, -1)) - S * N * mean**2
    residual = np.maximum(total - seed_squares - example_squares, 0.0) / ((S - 1) * (N - 1) or 1)
    return mean, seed_squares / (S - 1), example_squares / (N - 1), residual


def standard_error(by_seed: Any, by_example: Any, residual: Any, S: int, N: int) -> tuple[Any, Any]:
    """Standard error of the mean and its degrees of freedom from (expected) mean squares; arrays in, arrays out.

    Var(mean) = (MS_seed + MS_example - MS_residual) / (S N). An example mean square below the residual one is so by chance and is raised to
    it, so the standard error is never smaller than that of a t-test over seeds alone. Satterthwaite's formula gives too few degrees of
    freedom where the mean squares nearly cancel; those of the smaller of the two samples are the least.
    """
    example_part = np.maximum(by_example, residual)
    total = by_seed + example_part - residual
    # One stand-in example (no scores by example) leaves the seeds' degrees of freedom only.
    spread = by_seed**2 / (S - 1) + ((example_part**2 + residual**2 / (S - 1)) / (N - 1) if N > 1 else 0.0)
    fewest = min(S, N) - 1 if N > 1 else S - 1
    with np.errstate(invalid="ignore", divide="ignore"):  # a table without any spread: 0 / 0, which callers refuse or count apart
        return np.sqrt(total / (S * N)), np.maximum(total**2 / spread, fewest)


def _checked(D_SN: ArrayLike) -> Floats:
    values = np.asarray(D_SN, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"A crossed difference is a table of seeds x examples; this has {values.ndim} axes.")
    S, N = values.shape
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {S} x {N} differences are NaN or infinite.")
    if S < 2 or N < 2:
        raise ValueError(f"{S} seed{'s' * (S != 1)} x {N} example{'s' * (N != 1)}: an interval over both needs at least 2 of each.")
    if np.ptp(values) == 0:
        raise ValueError(f"The difference is the same ({values[0, 0]:+g}) at all {S} seeds x {N} examples, so it has no spread.")
    return values
