"""What a sweep has confirmed: the trials that count, their answers and learning curves.

A confirmation is the COMPLETE trials of one configuration of one arm, one for each planned seed: the configuration that the selection
froze last (`choose`). What is left out is a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.inputs.preregistration import listed
from analysis.inputs.tables import read_sound
from jepa_ray import results

SETTINGS = [name for name in results.CONFIG if name != "seed"]
FREE = ("seed", "evaluate_test")
"""What a confirmation changes in the configuration that the selection froze."""
BY_EXAMPLE = {
    "accuracy": "correct",
    "exact": "exact",
    "prefix": "prefix_correct",
    "contains": "contains",
    "paper": "paper_correct",
    "equivalent": "equivalent",
}
"""Metrics that a verdict can be about -> their column of the predictions table."""
KNOWN = {"prefix": "prefix_correct", "contains": "contains"}
"""Comparisons with the reference that do not ask an answer to end -> their column of the predictions table."""
SPLITS = ("test", "val")


def split_of(metric: str) -> tuple[str, str]:
    """test_accuracy -> (test, correct): the split, and the column of the predictions table that the metric is the mean of."""
    split, _, name = metric.partition("_")
    if split not in SPLITS or name not in BY_EXAMPLE:
        legal = ", ".join(f"{s}_{n}" for s in SPLITS for n in BY_EXAMPLE)
        raise ValueError(f"A verdict needs a metric that is the mean over answers, higher is better: {legal}; not {metric!r}.")
    return split, BY_EXAMPLE[name]


class Tables:
    """The confirmed trials' answers and learning curves, read once and only the columns needed."""

    def __init__(self, folder: Path, ids: list[str], split: str, column: str, notes: list[str]) -> None:
        self.split, self.column = split, column
        self.answers: dict[str, pd.Series[Any]] = {}
        self.known = pd.DataFrame(columns=list(KNOWN))
        """By trial: the share of answers that are right by the metric, or that start with (have) the reference and go on. It is what the
        metric would be if stopping did not matter, whichever way the task judges."""
        self.leaked: dict[str, pd.Series[Any]] = {}
        """By trial: per example, whether its Text is also one of training's or validation's; without the trials that do not say."""
        self.curves: dict[str, pd.DataFrame] = {}
        if not ids:
            return
        wanted = [("trial_id", "in", ids)]
        damaged: list[str] = []
        columns = list(dict.fromkeys(["trial_id", "example_id", column, "leaked", *KNOWN.values()]))
        answers = read_sound(folder, "predictions", damaged, columns, [*wanted, ("split", "==", split)])
        self.answers = {str(key): rows.set_index("example_id")[column] for key, rows in answers.groupby("trial_id")}
        marked = answers.dropna(subset=["leaked"])
        self.leaked = {str(key): rows.set_index("example_id")["leaked"].astype(bool) for key, rows in marked.groupby("trial_id")}
        known = pd.DataFrame({name: answers[column].eq(True) | answers[flag].eq(True) for name, flag in KNOWN.items()})
        self.known = known.groupby(answers["trial_id"].astype(str)).mean()
        name = next(name for name, behind in BY_EXAMPLE.items() if behind == column)
        filters = [*wanted, ("split", "==", "val"), ("name", "==", f"val_{name}")]
        costs = ["train_flops", "train_flops_unpacked", "train_seconds"]
        curves = read_sound(folder, "metrics", damaged, ["trial_id", "step", "value", *costs], filters)
        curves = curves.dropna(subset=["value"]).sort_values("step")
        self.curves = {str(key): rows for key, rows in curves.groupby("trial_id")}
        notes += damaged


@dataclass(frozen=True)
class Choice:
    """The confirmation of one arm."""

    runs: pd.DataFrame
    """Rows of the trials table: COMPLETE, of one configuration on one data set, a seed each, by ascending seed."""
    complete: int
    """COMPLETE confirmation trials of the arm, those left out among them."""
    elsewhere: int
    """Those of them that are of another configuration: the arm was selected anew after it had been scored."""
    notes: tuple[str, ...]
    """A sentence for each run that is left out."""


def read_frozen(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The search trials that arms were frozen to last, each with its file (selection.json, selection-2.json, ...).

    And a sentence where that cannot be told.
    """
    frozen: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob("selection*.json"), key=lambda path: (len(path.name), path.name)):
        try:
            arms = json.loads(path.read_text(encoding="utf-8"))["arms"]
            frozen |= {str(arm): (str(best["trial_id"]), path.name) for arm, best in arms.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{path.name} cannot be read ({type(error).__name__}), so what was frozen last is not known"
            return {}, [f"{why}; of several confirmed configurations of an arm the one started last counts."]
    return dict(frozen.values()), []


def choose(arm: str, rows: pd.DataFrame, frozen: Mapping[str, str], seeds: Collection[int] = ()) -> Choice:
    """The confirmation that counts: COMPLETE trials of the configuration that was frozen last, on the planned seeds, one for each.

    Every analysis, the console's tables and the verdict go by this one rule. `rows` are all trials of the arm (one task, family and
    model); `arm` is what notes call it; `frozen` as `read_frozen` finds it; `seeds` as the sweep declares them (none: not known, all
    count: seeds that came later would make a number of seeds that grew with the results). Where no selection names a trial of these rows,
    the configuration whose trials started last counts. Runs of earlier configurations, and first attempts, enter nothing.
    """
    confirm = rows[rows["stage"] == "confirm"]
    complete = confirm[confirm["state"] == "COMPLETE"]
    picked = [row for _, row in rows[rows["trial_id"].isin(list(frozen))].iterrows()]  # one, or one per sweep where several are pooled
    runs = complete[np.logical_or.reduce([alike(complete, row) for row in picked])] if picked else complete
    runs = one_version(runs)
    notes = [_unfinished(arm, row, runs) for _, row in confirm[confirm["state"] != "COMPLETE"].iterrows()]
    if len(runs) < len(complete):
        files = listed(dict.fromkeys(frozen[str(row["trial_id"])] for row in picked))
        rule = f"the configuration frozen last ({files})" if picked else "the configuration started last"
        what = f"of {rule}" if len(runs) else f"{rule}, and none of it is COMPLETE"
        rest = f"{len(complete) - len(runs)} of {len(complete)} confirmation trials are of another configuration or an earlier attempt"
        notes.append(f"{arm}: {rest} and enter nothing; what counts is {what.removeprefix('of ')}.")
    if unplanned := sorted(set(map(int, runs["seed"])) - set(seeds)) if seeds else []:
        notes.append(f"{arm}: seeds confirmed, but not in confirm.seeds (any more), enter nothing: {listed(unplanned)}.")
        runs = runs[runs["seed"].isin(list(seeds))]
    elsewhere = len(complete) if runs.empty else int((~alike(complete, runs.iloc[0])).sum())
    return Choice(runs, len(complete), elsewhere, tuple(notes))


def one_version(runs: pd.DataFrame) -> pd.DataFrame:
    """Of COMPLETE confirmation trials of one arm, those of the configuration and data that started last, a seed each, ascending."""
    if runs.empty:
        return runs
    versions = [group for _, group in runs.groupby([*SETTINGS, "dataset_sha"], dropna=False)]
    runs = max(versions, key=lambda group: str(group["started_at"].max()))
    return runs.sort_values("trial_id", key=lambda ids: ids.map(_attempt)).drop_duplicates("seed", keep="last").sort_values("seed")


def alike(rows: pd.DataFrame, one: pd.Series[Any], free: Iterable[str] = FREE) -> pd.Series[bool]:
    """Per row, whether it has the settings of `one` in everything but the columns `free`."""
    names = [name for name in results.CONFIG if name not in free]
    return (rows[names].eq(one[names]) | (rows[names].isna() & one[names].isna())).all(axis=1)


def _attempt(trial_id: str) -> tuple[str, int]:
    config_id, _, number = str(trial_id).partition("-")
    return config_id, int(number) if number.isdigit() else 1


def _unfinished(arm: str, row: pd.Series[Any], runs: pd.DataFrame) -> str:
    why = f": {str(row['error']).strip().splitlines()[-1]}" if isinstance(row["error"], str) and row["error"].strip() else ""
    again = " (another attempt of it is COMPLETE and used)" if row["config_id"] in set(runs["config_id"]) else ""
    return f"{arm}: confirmation seed {row['seed']} is {row['state']} and enters nothing{again}{why.rstrip('.')}."
