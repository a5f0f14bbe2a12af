"""Test examples that come in clusters (one database, one document, one paraphrase group): the cluster is the random unit.

Examples of a cluster resemble each other, so N of them say less about new ones than N independent examples would. The estimand stays the
mean over examples; the sample is one of clusters, with their examples. With the totals T_sc of the n_c examples of cluster c at seed s,

    mean = sum_c T_.c / sum_c n_c        a ratio of totals: cluster sizes are random, too

Its variance over clusters is that of the jackknife, which leaves out one cluster at a time (CV3; MacKinnon, Nielsen & Webb 2023):

    mean without c = mean - U_c / (N - n_c)        U_sc = T_sc - n_c mean_s        R_sc = (C - 1) U_sc / (N - n_c)

R_SC takes the place of the examples' deviations in the analysis of variance of `crossed.py`, with C units. For clusters of one example it
is that analysis; for clusters of equal size, the same analysis of cluster means; for one seed, the jackknife, which for equal sizes is the
cluster-robust variance CR1. Unlike CR1, it is not too small if sizes differ.

A few large clusters carry most of the information, so a mean square over clusters has fewer than C - 1 degrees of freedom: by Satterthwaite
(Bell & McCaffrey 2002), tr(O)^2 / tr(O^2) with the covariance O of the U_c / (N - n_c) if the examples of a cluster agree (variance of a
total in proportion to n_c^2), which gives the fewest degrees of freedom. Plus one, that is the effective number of clusters.

S seeds, N examples, C clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.stats.paired_tests import EXACT_UP_TO, Outcome

Floats = NDArray[np.float64]

FEWEST = 6
"""Clusters that an interval over new ones needs. With fewer, the variance over clusters is a guess, and so are its degrees of freedom."""


@dataclass(frozen=True)
class Clusters:
    """Which examples belong together."""

    index_N: NDArray[np.int64]
    """For each example its cluster, from 0 to C - 1; each occurs."""
    sizes_C: Floats
    """Number of examples per cluster."""

    @classmethod
    def of(cls, names: ArrayLike) -> Clusters:
        """From the name of each example's cluster, (N,)."""
        _, index_N, sizes_C = np.unique(np.asarray(names), return_inverse=True, return_counts=True)
        return cls(index_N.astype(np.int64), sizes_C.astype(np.float64))

    def __len__(self) -> int:
        return len(self.sizes_C)

    def kept(self, which_N: NDArray[np.bool_]) -> Clusters:
        """The clusters of a part of the examples."""
        return Clusters.of(self.index_N[which_N])

    @property
    def few(self) -> str | None:
        """Why there can be no interval over new clusters, in a sentence; None if there can."""
        if len(self) >= FEWEST:
            return None
        number = f"{len(self)} cluster{'s' * (len(self) != 1)}"
        return f"The {len(self.index_N)} examples come from {number}; conclusions about new ones need at least {FEWEST}."

    @property
    def df(self) -> float:
        """Degrees of freedom of a mean square over clusters: at most C - 1, reached if all have the same size."""
        n, N = self.sizes_C, self.sizes_C.sum()
        if len(n) < 2:
            return 0.0
        v, w2 = n**2, 1 / (N - n) ** 2
        # O = diag(w) (diag(v) + M) diag(w) with M = -(n v' + v n') / N + n n' V / N^2; the traces need no C x C matrix.
        V = v.sum()
        M_C = -2 * n * v / N + n**2 * V / N**2
        nn, nv, vv = (w2 * n * n).sum(), (w2 * n * v).sum(), (w2 * v * v).sum()
        M2 = (2 * nn * vv + 2 * nv**2) / N**2 - 4 * V * nn * nv / N**3 + V**2 * nn**2 / N**4
        return float((w2 * (v + M_C)).sum() ** 2 / ((w2**2 * (v**2 + 2 * v * M_C)).sum() + M2))

    @property
    def effective(self) -> float:
        """Effective number of clusters: as many of equal size would have as many degrees of freedom."""
        return self.df + 1

    @property
    def independent(self) -> int:
        """Number of draws for a bound on what was never seen, if all examples of a cluster share it: N / size of the largest cluster.

        A share d of all examples lies in at least a share d * (mean size / largest size) of clusters, each of which is one draw.
        """
        return int(self.sizes_C.sum() // self.sizes_C.max())

    def totals(self, values_RN: Floats) -> Floats:
        """(R, C) sums over the examples of each cluster."""
        return np.stack([np.bincount(self.index_N, weights=row, minlength=len(self)) for row in values_RN])


def mean_squares(D_SN: Floats, clusters: Clusters) -> tuple[Any, Any, Any, Any]:
    """Mean, and mean squares between seeds, between clusters and residual, in units of clusters: as `crossed.mean_squares` for examples."""
    S, N = D_SN.shape
    C, n = len(clusters), clusters.sizes_C
    seed_means = D_SN.mean(axis=1)
    mean = seed_means.mean()
    R_SC = (C - 1) * (clusters.totals(D_SN) - n * seed_means[:, None]) / (N - n)
    by_cluster = R_SC.mean(axis=0)
    seed_square = C * ((seed_means - mean) ** 2).sum() / (S - 1)
    cluster_square = S * (by_cluster**2).sum() / (C - 1)
    return mean, seed_square, cluster_square, ((R_SC - by_cluster) ** 2).sum() / ((S - 1) * (C - 1))


def bootstrap_means(D_SN: Floats, clusters: Clusters, random: np.random.Generator, resamples: int) -> Floats:
    """(R,) means of tables with resampled seeds and clusters; a cluster comes with all its examples."""
    S, C = len(D_SN), len(clusters)
    T_SC = clusters.totals(D_SN)
    seed_counts_RS = random.multinomial(S, np.full(S, 1 / S), size=resamples)
    cluster_counts_RC = random.multinomial(C, np.full(C, 1 / C), size=resamples)
    totals: Floats = ((seed_counts_RS @ T_SC) * cluster_counts_RC).sum(axis=1)
    return totals / (S * (cluster_counts_RC @ clusters.sizes_C))


def mcnemar(ours: ArrayLike, theirs: ArrayLike, clusters: Clusters) -> Outcome:
    """McNemar's test of one seed with clusters as units: without an effect, the net number of wins in a cluster is as likely with either
    sign. Exact up to `EXACT_UP_TO` clusters with a net win or loss, else normal (Durkalski et al. 2003). `n` is their number.

    For clusters of one example, the exact form is the exact McNemar test. ValueError if no cluster has a net win or loss.
    """
    difference_N = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    (net_C,) = clusters.totals(difference_N[None])
    net_D = net_C[net_C != 0]
    if not len(net_D):
        raise ValueError(f"Both arms are right equally often in each of {len(clusters)} clusters, so McNemar has nothing to test.")
    observed = abs(net_D.sum())
    if len(net_D) <= EXACT_UP_TO:
        sums = np.zeros(1)
        for net in net_D:
            sums = np.concatenate([sums + net, sums - net])
        p = float((np.abs(sums) >= observed - 1e-9).mean())
    else:
        p = float(2 * stats.norm.sf(observed / math.sqrt((net_D**2).sum())))
    return Outcome(test="McNemar by cluster", n=len(net_D), estimate=float(net_D.sum() / np.abs(difference_N).sum()), p=p)
