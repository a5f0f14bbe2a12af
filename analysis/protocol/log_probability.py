"""Method minus baseline in the log-probability of the references, for information: it decides nothing.

The mean over test examples of log p(reference | prompt), in nats per answer without the end of turn (column `test_logprob`). It differs
between models that are right equally often, or never.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from analysis.stats import paired_tests

LEVEL = 0.05


@dataclass(frozen=True)
class LogProbability:
    """Nats per answer; means over seeds."""

    ours: float
    theirs: float
    difference: float
    seeds: int
    low: float | None = None
    """Paired t-interval over seeds with 95 %, of all seeds as if there were one look; None for one seed, or without spread."""
    high: float | None = None

    def sentence(self) -> str:
        """The numbers in words."""
        text = f"{self.difference:+.3g} nats per answer ({self.ours:.4g} against {self.theirs:.4g})"
        if self.low is None or self.high is None:
            return f"{text}, no interval (n = {self.seeds})"
        return f"{text}, 95 % {self.low:+.3g} to {self.high:+.3g} over {self.seeds} seeds"


def compare(ours: pd.DataFrame, theirs: pd.DataFrame, split: str) -> LogProbability | None:
    """From the confirmed trials of both arms, indexed by the same seeds; None if a seed has no finite value (masked encoders, trials of
    earlier versions)."""
    name = f"{split}_logprob"
    values = [pd.to_numeric(arm[name]).to_numpy(dtype=float) for arm in (ours, theirs)]
    if not len(ours) or not all(np.isfinite(arm).all() for arm in values):
        return None
    return of(*values)


def of(ours: ArrayLike, theirs: ArrayLike) -> LogProbability:
    """From the values of both arms at the same seeds."""
    ours_S, theirs_S = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    differences = ours_S - theirs_S
    means = float(ours_S.mean()), float(theirs_S.mean()), float(differences.mean())
    try:
        checked = paired_tests.checked(list(differences))
    except ValueError:
        return LogProbability(*means, seeds=len(differences))
    half = float(stats.t.isf(LEVEL / 2, checked.size - 1) * checked.std(ddof=1) / np.sqrt(checked.size))
    return LogProbability(*means, seeds=checked.size, low=means[2] - half, high=means[2] + half)
