"""Clusters as units: the jackknife done by hand, equal to simpler analyses where they apply; coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.stats import clusters as by_cluster
from analysis.stats import crossed, paired_tests
from analysis.stats.clusters import FEWEST, Clusters
from jepa_ray.data.clusters import FEWEST as FEWEST_IN_A_PLAN

SIZES = np.round(np.linspace(5, 45, 20)).astype(int)
"""Twenty clusters with 500 examples; Spider's test split has 20 databases with 1,034."""


def table(random: np.random.Generator, S: int, sizes: NDArray[np.int64], icc: float = 0.3) -> tuple[NDArray[np.float64], Clusters]:
    """Differences of mean 0 and variance 1, half of which recurs at every seed, with this correlation within clusters."""
    index_N = np.repeat(np.arange(len(sizes)), sizes)
    N, C = len(index_N), len(sizes)
    shared_N = math.sqrt(icc) * random.standard_normal(C)[index_N] + math.sqrt(1 - icc) * random.standard_normal(N)
    own_SN = math.sqrt(icc) * random.standard_normal((S, C))[:, index_N] + math.sqrt(1 - icc) * random.standard_normal((S, N))
    return math.sqrt(0.5) * (shared_N + own_SN), Clusters.of(index_N)


def test_a_cluster_per_example_changes_nothing() -> None:
    D_SN, _ = table(np.random.default_rng(0), 4, SIZES)
    alone = Clusters.of(np.arange(D_SN.shape[1]))
    assert alone.df == pytest.approx(D_SN.shape[1] - 1) and alone.independent == D_SN.shape[1]
    assert by_cluster.mean_squares(D_SN, alone) == pytest.approx([float(x) for x in crossed.mean_squares(D_SN)])
    one, other = crossed.interval(D_SN, clusters=alone), crossed.interval(D_SN)
    assert (one.low, one.high, one.p, one.df) == pytest.approx((other.low, other.high, other.p, other.df))
    assert crossed.equivalence(D_SN, 0.3, clusters=alone) == pytest.approx(crossed.equivalence(D_SN, 0.3))
    assert (one.clusters, other.clusters) == (D_SN.shape[1], None)


def test_clusters_of_equal_size_are_an_analysis_of_their_means() -> None:
    D_SN, found = table(np.random.default_rng(1), 5, np.full(12, 25))
    means_SC = D_SN.reshape(5, 12, 25).mean(axis=2)
    one, other = crossed.interval(D_SN, clusters=found), crossed.interval(means_SC)
    assert found.df == pytest.approx(11) and found.effective == pytest.approx(12)
    assert (one.low, one.high, one.df) == pytest.approx((other.low, other.high, other.df))
    parts, of_means = crossed.components(D_SN, found), crossed.components(means_SC)
    assert vars(parts) == pytest.approx(vars(of_means))
    wanted = crossed.detectable(of_means, seeds=8, examples=30)
    assert crossed.detectable(parts, seeds=8, examples=30) == pytest.approx(wanted)


def test_one_pattern_at_every_seed_is_the_jackknife() -> None:
    """Without variance over seeds only clusters vary: leave each out in turn, with the plain formula."""
    random = np.random.default_rng(2)
    row_N = table(random, 1, SIZES)[0][0]
    D_SN, index_N = np.stack([row_N, row_N, row_N]), np.repeat(np.arange(20), SIZES)
    without_C = np.array([row_N[index_N != c].mean() for c in range(20)])
    jackknife = 19 / 20 * ((without_C - row_N.mean()) ** 2).sum()
    assert crossed.interval(D_SN, clusters=Clusters.of(index_N)).se ** 2 == pytest.approx(jackknife)


def test_the_cluster_robust_covariance_of_statsmodels() -> None:
    """One pattern at every seed and clusters of equal size: the CR1 variance of a regression on a constant."""
    api = pytest.importorskip("statsmodels.api")
    random = np.random.default_rng(3)
    row_N, index_N = table(random, 1, np.full(20, 25))[0][0], np.repeat(np.arange(20), 25)
    fitted = api.OLS(row_N, np.ones(500)).fit(cov_type="cluster", cov_kwds={"groups": index_N})
    found = crossed.interval(np.stack([row_N, row_N]), clusters=Clusters.of(index_N))
    assert (found.estimate, found.se) == pytest.approx((fitted.params[0], fitted.bse[0]))


def test_degrees_of_freedom_are_those_of_the_covariance_matrix() -> None:
    """The traces, with the C x C matrix that the formula avoids; and by simulation of totals whose sd is proportional to the size."""
    n, N = SIZES.astype(float), float(SIZES.sum())
    leave_out = np.diag(1 / (N - n)) @ (np.eye(20) - np.outer(n, np.ones(20)) / N)
    covariance = leave_out @ np.diag(n**2) @ leave_out.T
    found = Clusters.of(np.repeat(np.arange(20), SIZES)).df
    assert found == pytest.approx(np.trace(covariance) ** 2 / np.trace(covariance @ covariance)) and 10 < found < 13
    squares = ((np.random.default_rng(4).standard_normal((20000, 20)) * n @ leave_out.T) ** 2).sum(axis=1)
    assert 2 * squares.mean() ** 2 / squares.var() == pytest.approx(found, rel=0.05)


@pytest.mark.timeout(120)
def test_the_interval_covers_new_clusters_and_the_one_over_examples_does_not() -> None:
    """Of 800 tables of 5 seeds x 20 clusters with correlation 0.3: 95 % are covered, instead of about 70 % if examples were independent."""
    random = np.random.default_rng(5)
    covered, naive, widths = [], [], []
    for _ in range(800):
        D_SN, found = table(random, 5, SIZES)
        right, wrong = crossed.interval(D_SN, clusters=found), crossed.interval(D_SN)
        covered.append(right.low <= 0 <= right.high)
        naive.append(wrong.low <= 0 <= wrong.high)
        widths.append((right.high - right.low) / (wrong.high - wrong.low))
    assert 0.93 <= np.mean(covered) <= 0.98
    assert np.mean(naive) < 0.8 and np.median(widths) > 1.7


def test_bootstrap_resamples_whole_clusters() -> None:
    """Its standard error is that of clusters: the same as the interval's for a table without variance over seeds, up to (C - 1) / C."""
    row_N, index_N = table(np.random.default_rng(6), 1, SIZES)[0][0], np.repeat(np.arange(20), SIZES)
    found = crossed.bootstrap(np.stack([row_N, row_N]), resamples=4000, clusters=Clusters.of(index_N))
    wanted = crossed.interval(np.stack([row_N, row_N]), clusters=Clusters.of(index_N)).se
    assert found.se == pytest.approx(wanted, rel=0.15) and found.se > 1.5 * crossed.bootstrap(np.stack([row_N, row_N])).se
    assert found.estimate == pytest.approx(row_N.mean()) and found.clusters == 20


@pytest.mark.parametrize("size", [1, 4])
def test_mcnemar_by_cluster(size: int) -> None:
    """Singletons: the exact McNemar test. Copies of an example are no further evidence."""
    random = np.random.default_rng(7)
    ours, theirs = random.random(40) < 0.6, random.random(40) < 0.4
    chosen = np.concatenate([np.flatnonzero(ours > theirs)[:10], np.flatnonzero(ours < theirs)[:3], np.flatnonzero(ours == theirs)])
    ours, theirs = ours[chosen], theirs[chosen]
    wanted = paired_tests.mcnemar(ours, theirs)
    found = by_cluster.mcnemar(np.repeat(ours, size), np.repeat(theirs, size), Clusters.of(np.repeat(np.arange(len(ours)), size)))
    assert found.p == pytest.approx(wanted.p) and (found.n, found.estimate) == (13, pytest.approx(7 / 13)) and wanted.n == 13


def test_mcnemar_of_many_clusters_is_normal() -> None:
    ours, theirs = np.arange(60) < 40, np.arange(60) >= 40
    found = by_cluster.mcnemar(ours, theirs, Clusters.of(np.arange(60)))
    assert found.p == pytest.approx(2 * stats.norm.sf(20 / math.sqrt(60))) and found.n == 60
    with pytest.raises(ValueError, match="equally often in each of 1 cluster"):
        by_cluster.mcnemar([1, 0], [0, 1], Clusters.of(["a", "a"]))


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_few_clusters_give_a_sentence(number: int) -> None:
    D_SN, found = table(np.random.default_rng(8), 5, np.arange(1, number + 1) * 10)
    for call in (crossed.interval, crossed.components, crossed.bootstrap):
        with pytest.raises(ValueError, match=f"come from {number} cluster.*; conclusions about new ones need at least 6"):
            call(D_SN, clusters=found)
    with pytest.raises(ValueError, match=r"There are 4 examples, but \d+ of them have a cluster"):
        crossed.interval(D_SN[:, :4], clusters=found)
    assert FEWEST == FEWEST_IN_A_PLAN == 6


def test_parts_of_clusters_and_unseen_differences() -> None:
    found = Clusters.of(["b", "a", "b", "c", "b", "c"])
    assert (len(found), found.sizes_C.tolist(), found.independent) == (3, [1, 3, 2], 2)
    rest = found.kept(np.array([True, False, True, True, False, True]))
    assert (len(rest), rest.sizes_C.tolist(), rest.index_N.tolist()) == (2, [2, 2], [0, 0, 1, 1])
