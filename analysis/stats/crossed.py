"""A paired difference over seeds x examples: variance components, interval, bootstrap, and the differences that a plan can detect.

D_SN is method minus baseline by seed and example (for right or wrong answers -1, 0 or 1). Both seeds and examples are samples, and they are
crossed: every seed is scored on the same test examples. The model is the two-way random-effects model without replication,

    D_si = mu + a_s + b_i + e_si        Var(mean) = var_seed / S + var_example / N + var_residual / (S N)

A t-test over seeds ignores var_example, so its conclusion holds for these N examples only.

Examples that come in clusters are not independent; `clusters` makes clusters the units (`clusters.py`). S seeds, N examples. Results report
both. Functions raise ValueError for one seed, one example, NaN, or no spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from analysis.stats import clusters as by_cluster
from analysis.stats import combined
from analysis.stats.clusters import Clusters
from analysis.stats.combined import Stages

Floats = NDArray[np.float64]

MOST_SEEDS = 1000
"""A plan that needs more seeds than this counts as impossible."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variance components of D_SN from mean squares; a negative estimate is set to 0."""

    seeds: int
    examples: int
    """Number of units: of examples, or of clusters if examples come in clusters."""
    mean: float
    var_seed: float
    var_example: float
    var_residual: float
    df_share: float = 1.0
    """Degrees of freedom of a mean square over the units, divided by their number minus one: below 1 for clusters of unequal size."""


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
    """Two-sided p for a difference of 0; None for a bootstrap."""
    clusters: int | None = None
    """Number of clusters, if they and not examples are the units."""
    effective: float | None = None
    """As many clusters of equal size would have as many degrees of freedom (`Clusters.effective`)."""


def components(D_SN: ArrayLike, clusters: Clusters | None = None) -> Components:
    """Two-way analysis of variance without replication (Searle, Casella & McCulloch 1992, section 4.2)."""
    checked_SN = _checked(D_SN, clusters)
    S = len(checked_SN)
    mean, by_seed, by_example, residual = (float(x) for x in squares(checked_SN, clusters))
    N, df = _units(checked_SN, clusters)
    return Components(
        seeds=S,
        examples=N,
        mean=mean,
        var_seed=max(0.0, (by_seed - residual) / N),
        var_example=max(0.0, (by_example - residual) / S),
        var_residual=residual,
        df_share=df / (N - 1),
    )


def interval(D_SN: ArrayLike, confidence: float = 0.95, stages: Stages | None = None, clusters: Clusters | None = None) -> Interval:
    """t-interval for new seeds and new examples, from the mean squares, with degrees of freedom after Satterthwaite (1946).

    It always contains the t-interval over seeds alone, which has the smaller standard error but may have fewer degrees of freedom. With
    `stages` (rows ordered by stage) both are combined by stage. `estimate`, `p`, `se` and `df` belong to the test over seeds x examples.
    """
    checked_SN = _checked(D_SN, clusters)
    S = len(checked_SN)
    mean, by_seed, by_example, residual = squares(checked_SN, clusters)
    N, df_units = _units(checked_SN, clusters)
    se, df = (float(x) for x in standard_error(by_seed, by_example, residual, S, N, df_units))
    if not se > 1e-9:
        raise ValueError(f"The difference is the same ({float(mean):+g}) at all {S} seeds, so it has no spread to test against.")
    middle, seeds_only = float(mean), float(mean)
    narrow = math.sqrt(float(by_seed) / (S * N))
    if stages is not None:
        d_S, tau2 = checked_SN.mean(axis=1), shared(by_example, residual, S, N)
        middle, se = (float(x) for x in combined.estimate(d_S, by_seed / N, tau2, stages))
        seeds_only, narrow = (float(x) for x in combined.estimate(d_S, by_seed / N, 0.0, stages))
    wide = float(stats.t.ppf((1 + confidence) / 2, df)) * se
    narrow *= float(stats.t.ppf((1 + confidence) / 2, S - 1))
    return Interval(
        how="variance components",
        seeds=S,
        examples=checked_SN.shape[1],
        estimate=middle,
        low=min(middle - wide, seeds_only - narrow),
        high=max(middle + wide, seeds_only + narrow),
        confidence=confidence,
        se=se,
        df=df,
        p=float(2 * stats.t.sf(abs(middle) / se, df)),
        clusters=None if clusters is None else N,
        effective=None if clusters is None else clusters.effective,
    )


def equivalence(D_SN: ArrayLike, margin: float, stages: Stages | None = None, clusters: Clusters | None = None) -> float:
    """p of TOST over right or wrong answers (D in -1, 0, 1), with a variance that allows for luck.

    A test for a difference needs no such allowance: luck hides a difference as often as it creates one. Equivalence rests on precision, so
    two kinds of luck are removed. First, single answers scatter, and a few seeds may agree better than that scatter allows: the mean square
    between seeds, too, is raised to the residual one if it is lower. Second, if the arms hardly ever differed, the variance is that of the
    few differences observed. At a true difference of the margin there would be more, by at least the gap between mean and margin, so the
    mean squares are scaled up in proportion. If the arms differ often, neither matters: p < 0.05 if the 90 % interval is within the margin.
    """
    if not margin > 0:
        raise ValueError(f"Equivalence needs a margin above 0; it is {margin:g}.")
    checked_SN = _checked(D_SN, clusters)
    mean, by_seed, by_example, residual = (float(x) for x in squares(checked_SN, clusters))
    S, (N, df_units) = len(checked_SN), _units(checked_SN, clusters)
    se, df = (float(x) for x in standard_error(max(by_seed, residual), by_example, residual, S, N, df_units))
    if stages is not None:
        tau2 = shared(by_example, residual, S, N)
        mean, se = (float(x) for x in combined.estimate(checked_SN.mean(axis=1), max(by_seed, residual) / N, tau2, stages))
    lacking, differing = margin - abs(mean), float(np.square(checked_SN).mean())
    return float(stats.t.sf(lacking / (se * math.sqrt(max(1.0, 1 + lacking / differing))), df))


def bootstrap(
    D_SN: ArrayLike, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0, clusters: Clusters | None = None
) -> Interval:
    """Percentile interval; seeds and examples are resampled independently (Owen 2007, the pigeonhole bootstrap).

    Resampling D_SN resamples both arms with the same seeds and examples. With few seeds the interval is too narrow, because the
    resampled variance lacks the factor S / (S - 1) and the t quantile: with 5 seeds, use `interval`.
    """
    checked_SN = _checked(D_SN, clusters)
    S, N = checked_SN.shape
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, 250):  # 250 rows of counts over N examples at a time bound the memory
        rows = slice(start, min(start + 250, resamples))
        many = rows.stop - rows.start
        if clusters is not None:
            means[rows] = by_cluster.bootstrap_means(checked_SN, clusters, random, many)
            continue
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
        clusters=None if clusters is None else len(clusters),
    )


def detectable(
    found: Components, *, seeds: int, examples: int, power: float = 0.8, alpha: float = 0.05, stages: Stages | None = None
) -> float:
    """Smallest difference that the two-sided tests over seeds x examples and over seeds alone each find with this power.

    Noncentral t, with degrees of freedom from the plan's expected mean squares. The t-test over seeds has the smaller standard error and
    fewer degrees of freedom; with three seeds it requires the larger difference. `stages` are those of the seeds, if there are several.
    """
    if seeds < 2 or examples < 1:
        raise ValueError(f"A plan needs at least 2 seeds and 1 example; it has {seeds} and {examples}.")
    if found.var_seed + found.var_example + found.var_residual <= 0:
        raise ValueError("All variance components are 0, so there is no noise to plan against.")
    by_seed = found.var_residual + examples * found.var_seed
    by_example = found.var_residual + seeds * found.var_example
    df_units = (examples - 1) * found.df_share
    se, df = (float(x) for x in standard_error(by_seed, by_example, found.var_residual, seeds, examples, df_units))
    narrow = math.sqrt(by_seed / (seeds * examples))
    if stages is not None:
        no_difference_S, sigma2 = np.zeros(seeds), by_seed / examples
        se, narrow = (float(combined.estimate(no_difference_S, sigma2, tau2, stages)[1]) for tau2 in (found.var_example / examples, 0.0))
    return max(se * _noncentrality(df, power, alpha), narrow * _noncentrality(seeds - 1, power, alpha))


def _noncentrality(df: float, power: float, alpha: float) -> float:
    """Difference divided by standard error that a two-sided t-test finds with this power."""
    critical = float(stats.t.ppf(1 - alpha / 2, df))

    def short_of(noncentrality: float) -> float:
        # SciPy returns NaN for the tail on the wrong side when it is far below 1e-9, which counts as 0 here.
        wrong_side = np.nan_to_num(stats.nct.cdf(-critical, df, noncentrality))
        return float(stats.nct.sf(critical, df, noncentrality) + wrong_side) - power

    # At noncentrality 0 the power is alpha; at the upper bound it is 1 for any df >= 1.
    return float(optimize.brentq(short_of, 0.0, 20.0 * critical + 20.0, xtol=1e-10))


def plan(
    found: Components, *, examples: int, seeds: Sequence[int] = (5, 10, 20), power: float = 0.8, alpha: float = 0.05
) -> dict[int, float]:
    """Number of seeds -> smallest difference detectable with that many seeds."""
    return {n: detectable(found, seeds=n, examples=examples, power=power, alpha=alpha) for n in seeds}


def seeds_needed(
    found: Components,
    difference: float,
    *,
    examples: int,
    power: float = 0.8,
    alpha: float = 0.05,
    have: int = 1,
    stages: Callable[[int], Stages] | None = None,
) -> int | None:
    """Fewest seeds that detect this difference; None if `MOST_SEEDS` do not suffice (then the test set is too small).

    `have` seeds exist already and are too few. `stages` gives the stages of a number of seeds, if there are several.
    """
    if not difference > 0:
        raise ValueError(f"The difference to detect must be above 0; it is {difference:g}.")

    def enough(seeds: int) -> bool:
        split = None if stages is None else stages(seeds)
        return detectable(found, seeds=seeds, examples=examples, power=power, alpha=alpha, stages=split) <= difference

    if have >= MOST_SEEDS or not enough(MOST_SEEDS):
        return None
    low, high = have, MOST_SEEDS  # one seed is never enough, MOST_SEEDS are
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def mean_squares(D_SN: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean, and mean squares between seeds, between examples and residual, of (..., S, N); leading axes index separate tables."""
    S, N = D_SN.shape[-2:]
    seed_means, example_means = D_SN.mean(axis=-1), D_SN.mean(axis=-2)
    mean = seed_means.mean(axis=-1)
    seed_squares = N * ((seed_means - mean[..., None]) ** 2).sum(axis=-1)
    example_squares = S * ((example_means - mean[..., None]) ** 2).sum(axis=-1)
    total = (D_SN**2).sum(axis=(-2, -1)) - S * N * mean**2
    residual = np.maximum(total - seed_squares - example_squares, 0.0) / ((S - 1) * (N - 1) or 1)
    return mean, seed_squares / (S - 1), example_squares / (N - 1), residual


def squares(D_SN: Floats, clusters: Clusters | None = None) -> tuple[Any, Any, Any, Any]:
    """Mean, and mean squares between seeds, between units and residual, of one table; the units are examples, or clusters if given."""
    return mean_squares(D_SN) if clusters is None else by_cluster.mean_squares(D_SN, clusters)


def _units(D_SN: Floats, clusters: Clusters | None) -> tuple[int, float]:
    """Number of units, and degrees of freedom of a mean square over them."""
    return (D_SN.shape[1], D_SN.shape[1] - 1) if clusters is None else (len(clusters), clusters.df)


def shared(by_example: Any, residual: Any, S: int, N: int) -> Any:
    """Variance of the mean difference over the examples, which all seeds share: var_example / N, at least 0."""
    return np.maximum(by_example - residual, 0.0) / (S * N)


def standard_error(by_seed: Any, by_example: Any, residual: Any, S: int, N: int, df: float | None = None) -> tuple[Any, Any]:
    """Standard error of the mean and its degrees of freedom from (expected) mean squares; arrays in, arrays out.

    Var(mean) = (MS_seed + MS_example - MS_residual) / (S N). MS_example below MS_residual is chance and is raised to it, so the standard
    error is never smaller than that of a t-test over seeds alone. Satterthwaite's formula gives too few degrees of freedom if the mean
    squares nearly cancel; the degrees of freedom of the smaller sample are the lower limit. `df`: those of a mean square over the N units;
    None: N - 1.
    """
    df = N - 1 if df is None else df
    example_part = np.maximum(by_example, residual)
    total = by_seed + example_part - residual
    # With one placeholder example (no scores by example), only the seeds' degrees of freedom are left.
    spread = by_seed**2 / (S - 1) + ((example_part**2 + residual**2 / (S - 1)) / df if N > 1 else 0.0)
    fewest = min(S - 1, df) if N > 1 else S - 1
    with np.errstate(invalid="ignore", divide="ignore"):  # a table without spread gives 0 / 0, which callers refuse or handle
        return np.sqrt(total / (S * N)), np.maximum(total**2 / spread, fewest)


def _checked(D_SN: ArrayLike, clusters: Clusters | None = None) -> Floats:
    values = np.asarray(D_SN, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"A crossed difference is a table of seeds x examples, with 2 axes; this array has {values.ndim} axes.")
    S, N = values.shape
    if clusters is not None:
        if len(clusters.index_N) != N:
            raise ValueError(f"There are {N} examples, but {len(clusters.index_N)} of them have a cluster.")
        if clusters.few is not None:
            raise ValueError(clusters.few)
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {S} x {N} differences are NaN or infinite.")
    if S < 2 or N < 2:
        raise ValueError(
            f"{S} seed{'s' * (S != 1)} x {N} example{'s' * (N != 1)}: an interval over seeds x examples needs at least 2 of each."
        )
    if not values.any():
        raise ValueError(f"Both arms are right on exactly the same examples ({S} seeds x {N} examples), so there is no interval.")
    if np.ptp(values) == 0:
        raise ValueError(f"The difference is the same ({values[0, 0]:+g}) at all {S} seeds x {N} examples, so it has no spread.")
    return values
