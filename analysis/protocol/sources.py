"""Where a claim's test examples come from, and what can be said if they come from too few clusters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.inputs.confirmation import Tables
from analysis.stats.clusters import FEWEST, Clusters
from analysis.text_tables import counted, points

NAME = "clusters of test examples"
"""Name of the condition that there are enough of them."""


def clusters_of(trials: Iterable[str], examples: pd.Index[Any], tables: Tables, notes: list[str]) -> Clusters | None:
    """The clusters of these examples, which all trials share; None without any (also from earlier versions).

    An example without a cluster is one of its own. Adds a note if the trials disagree: then examples count as independent.
    """
    marks = [tables.clusters[trial].reindex(examples) for trial in trials if trial in tables.clusters]
    if not marks or not len(examples) or all(mark.isna().all() for mark in marks):
        return None
    own = pd.Series([f"\0{example}" for example in examples], index=examples)
    marks = [mark.astype(object).where(mark.notna(), own) for mark in marks]
    if any(not mark.equals(marks[0]) for mark in marks):
        notes.append("The predictions do not agree on each example's cluster, so examples count as independent.")
        return None
    return Clusters.of(marks[0].to_numpy(dtype=str))


def too_few(clusters: Clusters | None, ours: Mapping[int, float], theirs: Mapping[int, float], level: float) -> str | None:
    """Why there is no verdict if the examples come from fewer than `FEWEST` clusters, and what holds for these; else None.

    `ours`, `theirs`: score by seed; `level`: of the interval over seeds.
    """
    if clusters is None or clusters.few is None:
        return None
    differences = np.array([ours[seed] - theirs[seed] for seed in ours])
    n = len(differences)
    text = f"the {counted(len(clusters.index_N), 'test example')} come from {counted(len(clusters), 'cluster')}"
    text += f", too few for a conclusion about new ones (at least {FEWEST})"
    if n < 2 or not np.ptp(differences) > 1e-9:
        return f"{text}; for these alone, the difference is {points(float(differences.mean()))} points"
    half = float(stats.t.isf(level / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    low, high = (points(float(differences.mean()) + sign * half) for sign in (-1, 1))
    return f"{text}; for these alone, the {100 * (1 - level):.4g} % interval over seeds is {low} to {high} points"


def sized(examples: int | None, clusters: int | None, effective: float | None = None) -> str:
    """The sample in words: `512 examples`, or `1034 examples in 20 clusters (effectively 15.3)`."""
    text = "unknown examples" if examples is None else counted(examples, "example")
    if clusters is None:
        return text
    return f"{text} in {counted(clusters, 'cluster')}" + (f" (effectively {effective:.3g})" if effective is not None else "")
