"""What a sweep has confirmed: the trials that count, the planned ones that are missing, their answers and learning curves.

A confirmation is the COMPLETE trials of one configuration of one arm, a seed each. What is left out is a sentence.
May import: jepa_ray.results, pandas, yaml.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from jepa_ray import results

GROUP = ["task", "family", "model"]
SETTINGS = [name for name in results.CONFIG if name != "seed"]
BY_EXAMPLE = {
    "accuracy": "correct",
    "exact": "exact",
    "prefix": "prefix_correct",
    "contains": "contains",
    "paper": "paper_correct",
    "equivalent": "equivalent",
}
"""Metrics that a verdict can be about -> their column of the predictions table."""
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
        self.curves: dict[str, pd.DataFrame] = {}
        if not ids:
            return
        wanted = [("trial_id", "in", ids)]
        try:
            answers = results.read_predictions(folder, ["trial_id", "example_id", column], [*wanted, ("split", "==", split)])
            self.answers = {str(key): rows.set_index("example_id")[column] for key, rows in answers.groupby("trial_id")}
        except (OSError, ValueError) as error:
            notes.append(
                f"The predictions table cannot be read, a file of it may be half-written, so nothing is known by example: {error}."
            )
        name = next(name for name, behind in BY_EXAMPLE.items() if behind == column)
        filters = [*wanted, ("split", "==", "val"), ("name", "==", f"val_{name}")]
        try:
            curves = results.read_metrics(folder, ["trial_id", "value", "train_flops"], filters)
            self.curves = {str(key): rows.sort_values("train_flops") for key, rows in curves.dropna().groupby("trial_id")}
        except (OSError, ValueError) as error:
            notes.append(f"The metrics table cannot be read, a file of it may be half-written, so there are no learning curves: {error}.")


def progress(folder: Path, trials: pd.DataFrame) -> list[str]:
    """Is everything there that sweep.yaml asks for? Sentences, one for each arm that lacks seeds."""
    path = folder / "sweep.yaml"
    if not path.is_file():
        return ["There is no sweep.yaml, so it cannot be told whether all planned trials are here."]
    try:
        plan = yaml.safe_load(path.read_text(encoding="utf-8"))
        tasks = [plan["task"]] if isinstance(plan["task"], str) else list(plan["task"])
        arms = [(method, task, family) for method in plan["methods"] for task in tasks for family in plan["families"]]
        seeds = {int(seed) for seed in (plan["confirm"] or {}).get("seeds", ())}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        return [f"sweep.yaml cannot be read ({type(error).__name__}), so it cannot be told whether all planned trials are here."]
    if not seeds:
        return ["The sweep confirms nothing (no confirm.seeds), and search results favour whoever was picked."]
    done = trials[trials["stage"] == "confirm"]
    have = {key: set(map(int, rows["seed"])) & seeds for key, rows in done.groupby(["method", "task", "family"])}
    missing = {arm: sorted(seeds - have.get(arm, set())) for arm in arms}
    number = sum(map(len, missing.values()))
    if number:
        planned = len(arms) * len(seeds)
        ended = f"{planned - number} of {planned} planned confirmation trials have ended: the sweep is still running or was interrupted"
        return [f"{ended}; what follows uses what is there."] + [
            f"{'/'.join(arm)}: no trial yet for confirmation seed(s) {listed(lack)}." for arm, lack in missing.items() if lack
        ]
    return []


def confirmed(arm: str, rows: pd.DataFrame, counts: list[dict[str, Any]], notes: list[str]) -> pd.DataFrame:
    """The COMPLETE confirmation trials of the configuration frozen last, by ascending seed; adds the arm's line of counts."""
    confirm = rows[rows["stage"] == "confirm"]
    complete = confirm[confirm["state"] == "COMPLETE"]
    later = _latest(complete)
    counts.append(
        {
            "arm": arm,
            **{name: str(rows[name].iloc[0]) for name in GROUP},
            "search": int((rows["stage"] == "search").sum()),
            "confirm": len(confirm),
            "complete": len(complete),
            "used": len(later),
        }
    )
    for _, row in confirm[confirm["state"] != "COMPLETE"].iterrows():
        why = f": {str(row['error']).strip().splitlines()[-1]}" if isinstance(row["error"], str) and row["error"].strip() else ""
        notes.append(f"{arm}: confirmation seed {row['seed']} is {row['state']} and enters nothing{why}.")
    failed = rows[(rows["stage"] == "search") & (rows["state"] == "FAILED")]
    if len(failed):
        notes.append(f"{arm}: {len(failed)} of {(rows['stage'] == 'search').sum()} search trials FAILED.")
    if len(later) < len(complete):
        others = f"{len(complete) - len(later)} of {len(complete)} confirmation trials"
        notes.append(f"{arm}: {others} are of another configuration or an earlier attempt; used is the one started last.")
    return later


def _latest(complete: pd.DataFrame) -> pd.DataFrame:
    if complete.empty:
        return complete
    versions = [group for _, group in complete.groupby([*SETTINGS, "dataset_sha"], dropna=False)]
    latest = max(versions, key=lambda group: str(group["started_at"].max()))
    return latest.sort_values("trial_id").drop_duplicates("seed", keep="last").sort_values("seed")


def listed(values: Iterable[Any]) -> str:
    """Values as in a sentence: 4, 23, 82."""
    return ", ".join(str(value) for value in values)
