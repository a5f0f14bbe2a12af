"""The answers of two arms side by side, example by example, and which of the examples are also in training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.inputs.confirmation import Tables


@dataclass(frozen=True)
class Leaked:
    """Test examples whose Text also occurs in the training or validation data."""

    number: int
    of: int
    """Test examples."""
    which: NDArray[np.bool_] | None = None
    """(examples,), in the order of `ByExample.examples`; None if the predictions do not say."""

    @property
    def share(self) -> float:
        """Share of the test examples, in [0, 1]."""
        return self.number / self.of


@dataclass
class ByExample:
    """Right and wrong answers of two arms. S seeds, N examples."""

    right: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
    """Right (True) or wrong, ours and theirs: (S, N) each; None, with a note, without usable predictions."""
    examples: pd.Index[Any] = field(default_factory=lambda: pd.Index([]))
    """Ids of the N examples."""
    doubt: str | None = None
    """Why the answers do not match the scores; None if they match or if there are none."""
    notes: list[str] = field(default_factory=list)


def by_example(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, tables: Tables) -> ByExample:
    """The answers of two arms, whose trials are at the same seeds in the same order, on the examples that all trials share."""
    found = ByExample()
    frames = [[tables.answers.get(str(i)) for i in arm["trial_id"]] for arm in (ours, theirs)]
    lack = sum(series is None for arm in frames for series in arm)
    if lack:
        found.notes.append(
            f"{lack} of {2 * len(ours)} confirmation trials have no {tables.split} predictions, so answers cannot be compared by example."
        )
        return found
    columns: list[pd.Series[Any]] = [series for arm in frames for series in arm if series is not None]
    if any(not series.index.is_unique for series in columns):
        found.notes.append("An example_id occurs twice in the predictions of one trial, so answers cannot be paired by example.")
        return found
    table = pd.concat(columns, axis=1, join="inner")
    answered = table.dropna().sort_index()
    most = max(len(series) for series in columns)
    if len(answered) < most:
        found.doubt = f"{len(answered)} of {most} examples have a judged answer in all {len(columns)} trials; the others cannot be compared"
    if answered.empty:
        return found
    right_2SN = answered.to_numpy(dtype=bool).T.reshape(2, len(ours), -1)
    scores_2S = np.array([ours[metric], theirs[metric]], dtype=float)
    if len(answered) == most and np.abs(scores_2S - right_2SN.mean(axis=2)).max() > 1e-6:
        found.doubt = f"{metric} in the trials table is not the mean of the predictions, so the two tables do not belong together"
    found.right, found.examples = (right_2SN[0], right_2SN[1]), answered.index
    return found


def leaked(runs: pd.DataFrame, examples: pd.Index[Any], tables: Tables) -> Leaked | None:
    """The test examples that are also in training, from the confirmed runs of both arms (both were confirmed on the same data).

    The count in the trials table equals the number of marks in the predictions unless one of the two is missing or damaged; the larger one
    is used. Examples dropped as too long are counted but have no mark. If even fewer are marked, the other examples are unknown.
    """
    counted, of = (pd.to_numeric(runs[name]).max() for name in ("overlap_text", "test_examples"))
    marks = [tables.leaked[str(trial)] for trial in runs["trial_id"] if str(trial) in tables.leaked]
    number = max([0 if pd.isna(counted) else int(counted), *(int(mark.sum()) for mark in marks)])
    if not number:  # none, or unknown
        return None
    size = max([number, 0 if pd.isna(of) else int(of), len(examples)])
    aligned = [mark.reindex(examples) for mark in marks]
    whole = [mark for mark in aligned if len(mark) and mark.notna().all()]
    which = np.logical_or.reduce([mark.to_numpy(dtype=bool) for mark in whole]) if whole else None
    dropped = pd.to_numeric(runs["dropped_examples"]).max()
    if marks and max(int(mark.sum()) for mark in marks) < number - (0 if pd.isna(dropped) else int(dropped)):
        which = None
    return Leaked(number, size, which)
