"""The confirmation of a sweep: the trials that count, their answers and learning curves.

A confirmation consists of the COMPLETE trials of one configuration of an arm, one per planned seed. The configuration is the one that the
selection froze last (`choose`). Every trial that is left out is reported in a sentence.
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
from analysis.text_tables import named
from jepa_ray import results

SETTINGS = [name for name in results.CONFIG if name != "seed"]
FREE = ("seed", "evaluate_test", "eval_at_steps", "eval_batch_size", "attention", "compile")
"""Settings in which a confirmation may differ from the frozen configuration: its seed and test, validations of the search within an epoch,
and what a search by an earlier version did not write, or wrote in another way."""
BY_EXAMPLE = {
    "accuracy": "correct",
    "exact": "exact",
    "prefix": "prefix_correct",
    "contains": "contains",
    "paper": "paper_correct",
    "equivalent": "equivalent",
}
"""Metrics that a verdict can judge -> their column of the predictions table."""
KNOWN = {"prefix": "prefix_correct", "contains": "contains"}
"""Comparisons with the reference that do not require an answer to end -> their column of the predictions table."""
SPLITS = ("test", "val")


def split_of(metric: str) -> tuple[str, str]:
    """test_accuracy -> (test, correct): the split, and the column of the predictions table whose mean is the metric. Else ValueError."""
    split, _, name = metric.partition("_")
    if split not in SPLITS or name not in BY_EXAMPLE:
        legal = ", ".join(f"{s}_{n}" for s in SPLITS for n in BY_EXAMPLE)
        raise ValueError(f"A verdict needs a metric that is a mean over answers, higher is better: {legal}; not {metric!r}.")
    return split, BY_EXAMPLE[name]


class Tables:
    """The confirmed trials' answers and learning curves; reads only the columns needed, once."""

    def __init__(self, folder: Path, ids: list[str], split: str, column: str, notes: list[str]) -> None:
        self.split, self.column = split, column
        self.answers: dict[str, pd.Series[Any]] = {}
        self.known = pd.DataFrame(columns=list(KNOWN))
        """Per trial, the share of answers that are right by the metric, or start with (contain) the reference and continue: what the metric
        would be if stopping did not matter, regardless of how the task judges."""
        self.leaked: dict[str, pd.Series[Any]] = {}
        """Per trial and example, whether its Text is also in training or validation; trials without this mark are missing."""
        self.clusters: dict[str, pd.Series[Any]] = {}
        """Per trial and example, the example's source; examples without one are missing."""
        self.curves: dict[str, pd.DataFrame] = {}
        if not ids:
            return
        wanted = [("trial_id", "in", ids)]
        damaged: list[str] = []
        columns = list(dict.fromkeys(["trial_id", "example_id", column, "leaked", "cluster", *KNOWN.values()]))
        answers = read_sound(folder, "predictions", damaged, columns, [*wanted, ("split", "==", split)])
        self.answers = {str(key): rows.set_index("example_id")[column] for key, rows in answers.groupby("trial_id")}
        marked = answers.dropna(subset=["leaked"])
        self.leaked = {str(key): rows.set_index("example_id")["leaked"].astype(bool) for key, rows in marked.groupby("trial_id")}
        sources = answers.dropna(subset=["cluster"])
        self.clusters = {str(key): rows.set_index("example_id")["cluster"] for key, rows in sources.groupby("trial_id")}
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
    """Rows of the trials table: COMPLETE, of one configuration and data set, one per seed, seeds ascending."""
    complete: int
    """COMPLETE confirmation trials of the arm, including those left out."""
    elsewhere: int
    """How many of these have another configuration: the arm was selected again after it had been scored."""
    notes: tuple[str, ...]
    """One sentence per run that is left out."""


def read_frozen(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The last frozen search trial of each arm -> its file (selection.json, selection-2.json, ...).

    Also returns a sentence if that cannot be determined.
    """
    frozen: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob("selection*.json"), key=lambda path: (len(path.name), path.name)):
        try:
            arms = json.loads(path.read_text(encoding="utf-8"))["arms"]
            frozen |= {str(arm): (str(best["trial_id"]), path.name) for arm, best in arms.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{path.name} cannot be read ({type(error).__name__}), so the last frozen configuration is unknown"
            return {}, [f"{why}; if an arm has several confirmed configurations, the one started last counts."]
    return dict(frozen.values()), []


def choose(arm: str, rows: pd.DataFrame, frozen: Mapping[str, str], seeds: Collection[int] = ()) -> Choice:
    """The confirmation that counts: COMPLETE trials of the last frozen configuration, one per planned seed.

    Every analysis, the console's tables and the verdict use this rule. `rows` are all trials of the arm (one task, family and model);
    `arm` is its name in notes; `frozen` comes from `read_frozen`; `seeds` are the declared ones (empty: unknown, all count). Other seeds
    are ignored, as their number could have grown with the results. If no selection names a trial of these rows, the configuration whose
    trials started last counts. Runs of earlier configurations and superseded attempts are ignored.
    """
    confirm = rows[rows["stage"] == "confirm"]
    complete = confirm[confirm["state"] == "COMPLETE"]
    picked = [row for _, row in rows[rows["trial_id"].isin(list(frozen))].iterrows()]  # one, or one per sweep if several are pooled
    runs = complete[np.logical_or.reduce([alike(complete, row) for row in picked])] if picked else complete
    runs = one_version(runs)
    notes = [_unfinished(arm, row, runs) for _, row in confirm[confirm["state"] != "COMPLETE"].iterrows()]
    if len(runs) < len(complete):
        files = listed(dict.fromkeys(frozen[str(row["trial_id"])] for row in picked))
        rule = f"only the configuration frozen last ({files}) counts" if picked else "only the configuration started last counts"
        rule += "" if len(runs) else ", and none of its trials is COMPLETE"
        rest = f"{len(complete) - len(runs)} of {len(complete)} confirmation trials are from another configuration or an earlier attempt"
        notes.append(f"{arm}: {rest} and are ignored; {rule}.")
    if unplanned := sorted(set(map(int, runs["seed"])) - set(seeds)) if seeds else []:
        notes.append(f"{arm}: ignored, as not (or no longer) in confirm.seeds: {named('seed', unplanned)}.")
        runs = runs[runs["seed"].isin(list(seeds))]
    elsewhere = len(complete) if runs.empty else int((~alike(complete, runs.iloc[0])).sum())
    return Choice(runs, len(complete), elsewhere, tuple(notes))


def one_version(runs: pd.DataFrame) -> pd.DataFrame:
    """Of an arm's COMPLETE confirmation trials, those of the configuration and data set started last, one per seed, ascending."""
    if runs.empty:
        return runs
    versions = [group for _, group in runs.groupby([*SETTINGS, "dataset_sha"], dropna=False)]
    runs = max(versions, key=lambda group: str(group["started_at"].max()))
    # Of two on one seed, the later: an attempt again, or (with another id) on weights that were changed in the meantime.
    runs = runs.sort_values("trial_id", key=lambda ids: ids.map(_attempt)).sort_values("started_at", kind="stable")
    return runs.drop_duplicates("seed", keep="last").sort_values("seed")


def alike(rows: pd.DataFrame, one: pd.Series[Any], free: Iterable[str] = FREE) -> pd.Series[bool]:
    """Per row, whether it has the settings of `one`, ignoring the columns `free`."""
    names = [name for name in results.CONFIG if name not in free]
    return (rows[names].eq(one[names]) | (rows[names].isna() & one[names].isna())).all(axis=1)


def _attempt(trial_id: str) -> tuple[str, int]:
    config_id, _, number = str(trial_id).partition("-")
    return config_id, int(number) if number.isdigit() else 1


def _unfinished(arm: str, row: pd.Series[Any], runs: pd.DataFrame) -> str:
    why = f": {str(row['error']).strip().splitlines()[-1]}" if isinstance(row["error"], str) and row["error"].strip() else ""
    again = " (another attempt is COMPLETE and used)" if row["config_id"] in set(runs["config_id"]) else ""
    return f"{arm}: confirmation seed {row['seed']} is {row['state']} and is ignored{again}{why.rstrip('.')}."
