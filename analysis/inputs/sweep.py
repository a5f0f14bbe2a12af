"""A results folder as the analysis sees it: trials with their groups, curves, and a sentence for everything that isn't there.

A half-written or damaged file costs its own trial only: the others are read and the file is named. Columns are read, not whole
tables: metrics by name, predictions by trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.inputs.confirmation import Choice, alike, choose, one_version, read_frozen
from analysis.inputs.preregistration import GROUP, Declared, declared, pairs, progress
from analysis.inputs.tables import check, load, read_sound
from analysis.text_tables import counted
from jepa_ray import results

OBJECTIVE_KNOBS = ("lambda", "k", "loss_dropout", "gamma")
"""Knobs of the JEPA term: in a baseline's row they say nothing."""
SCALES = ("rank_text", "rank_code", "anisotropy_text", "anisotropy_code", "contrast", "r1", "r1_chance", "mrr")
CURVES = [
    *(f"val_{name}" for name in ("accuracy", "exact", "prefix", "contains", "stopped", "paper", "equivalent", "retrieval")),
    *("train_ce", "train_jepa", "diag_val_ce", "diag_val_jepa"),
    *(f"diag_{name}" for name in (*SCALES, "linearity", "linearity_relative", "ridge_r2", "pairs", "sv_mean", "sv_max")),
    *(f"diag_sv_{index}" for index in range(1, 101)),
]
"""Names of the metrics table that a figure or table here is made of."""


@dataclass(frozen=True)
class Sweep:
    """One results folder. `trials` has, besides the table's columns, `label` (the arm), `group` (its panel: what baseline and method
    have in common), `is_baseline` (no JEPA term) and `counts` (the confirmation that counts, see `confirmed.choose`)."""

    folder: Path
    trials: pd.DataFrame
    metrics: pd.DataFrame
    declared: Declared = field(default_factory=Declared)
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """label -> a sentence for each confirmation trial, or group of them, that does not count."""
    frozen: frozenset[str] = frozenset()
    """Search trials that a selection froze an arm to last (`confirmed.read_frozen`)."""

    @property
    def metric(self) -> str:
        """Column of the trials table that selects."""
        return self.declared.metric

    @property
    def mode(self) -> str:
        """max or min"""
        return self.declared.mode

    def pairs(self, rows: pd.DataFrame) -> list[tuple[str, str]]:
        """Baseline and method of every declared comparison among these rows of `trials`, by label."""
        return pairs(self.declared.arms, rows)

    def confirmation(self, label: str) -> Choice:
        """The confirmation of an arm that counts; where several folders are pooled, that of the configuration that started last."""
        rows = self.trials[self.trials["label"] == label]
        counted = rows[rows["counts"]]
        runs, notes = one_version(counted), list(self.left_out.get(label, ()))
        if len(runs) < len(counted):
            others = f"{len(counted) - len(runs)} of {len(counted)} confirmation trials are of other settings"
            notes.append(f"{label}: {others} and enter nothing.")
        complete = (rows["stage"] == "confirm") & (rows["state"] == "COMPLETE")
        elsewhere = int(complete.sum()) if runs.empty else int((~alike(rows[complete], runs.iloc[0])).sum())
        return Choice(runs, int(complete.sum()), elsewhere, tuple(notes))

    def best(self, rows: pd.DataFrame) -> pd.Series[Any] | None:
        """The best search trial among these rows of one arm: the one that the selection froze, and ranked here only where none did.

        The selection ranked what its own study had suggested, which need not be every row that is here. None: no COMPLETE one.
        """
        frozen = rows[rows["trial_id"].isin(self.frozen)]
        return results.best_trial(rows if frozen.empty else frozen, self.metric, self.mode)

    @property
    def absent(self) -> list[str]:
        """Names of the arms that were declared and have no trial, in the order of declaration."""
        here = set(self.trials["arm"])
        return [arm.name for arm in self.declared.arms if arm.name not in here]

    @property
    def methods(self) -> list[str]:
        """Names of the methods, baselines (objective none) first."""
        rows = self.trials[["method", "is_baseline"]].drop_duplicates("method")
        return [str(name) for name in rows.sort_values(["is_baseline", "method"], ascending=[False, True])["method"]]

    @property
    def baselines(self) -> set[str]:
        """Methods without a JEPA term."""
        return set(self.trials.loc[self.trials["is_baseline"], "method"].astype(str))

    @property
    def groups(self) -> list[str]:
        """Panels, in alphabetical order."""
        return sorted(self.trials["group"].unique())


def read(folder: Path, curves: Sequence[str] = CURVES) -> Sweep:
    """The sweep in `folder`, with those curves of its metrics table.

    Raises ValueError where the folder doesn't exist or is no sweep's, and where none of its trials can be read.
    """
    check(folder)
    notes: list[str] = []
    trials = read_sound(folder, "trials", notes)
    if trials.empty and notes and any((folder / "trials").glob("*.parquet")):
        raise ValueError(f"{folder}: no file of trials/ can be read ({notes[-1]})")
    named = [("name", "in", list(curves))]
    metrics = read_sound(folder, "metrics", notes, where=named) if curves else pd.DataFrame(columns=results.METRICS.names)
    if curves and len(trials):
        bare = len(set(trials["trial_id"]) - set(metrics["trial_id"]))
        if bare:
            notes.append(f"{bare} of {len(trials)} trials have no curves in metrics/; figures of curves are without them.")
    plan, (frozen, doubts) = declared(folder), read_frozen(folder)
    trials = _grouped(trials)
    choices = {str(label): choose(str(label), arm, frozen, plan.seeds) for label, arm in trials.groupby("label", sort=True)}
    counted = {trial_id for choice in choices.values() for trial_id in choice.runs["trial_id"]}
    return Sweep(
        folder,
        trials.assign(counts=trials["trial_id"].isin(counted)),
        metrics,
        plan,
        (*notes, *_unfinished(folder, plan, trials), *doubts),
        {label: choice.notes for label, choice in choices.items()},
        frozenset(frozen),
    )


def read_predictions(folder: Path, trial_ids: Sequence[str], split: str, columns: Sequence[str]) -> pd.DataFrame:
    """Answers of these trials on one split, these columns only; other trials' files aren't opened."""
    paths = [folder / "predictions" / f"{trial_id}.parquet" for trial_id in trial_ids]
    return load(
        [path for path in paths if results.damage(path, results.PREDICTIONS) is None], "predictions", columns, [("split", "==", split)]
    )


def shown_runs(sweep: Sweep) -> tuple[pd.DataFrame, list[str]]:
    """The runs that represent each arm, and what to say of them: its confirmed seeds, or else its best COMPLETE search trial."""
    chosen: list[pd.DataFrame] = []
    notes: list[str] = []
    for label, arm in sweep.trials.groupby("label", sort=True):
        confirmed = sweep.confirmation(str(label))
        notes += confirmed.notes
        if len(confirmed.runs):
            chosen.append(confirmed.runs)
            continue
        best = sweep.best(arm)
        if best is None:
            notes.append(f"{label}: no COMPLETE trial, so it is not drawn.")
            continue
        complete = int(((arm["stage"] == "search") & (arm["state"] == "COMPLETE")).sum())
        notes.append(f"{label}: not confirmed; drawn is its best search trial of {complete}, which favours it.")
        chosen.append(arm[arm["trial_id"] == best["trial_id"]])
    return (pd.concat(chosen) if chosen else sweep.trials.head(0)), notes


def last_values(metrics: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """trial_id x name: each curve's last value."""
    rows = metrics[metrics["name"].isin(names)].sort_values("step").drop_duplicates(["trial_id", "name"], keep="last")
    return rows.pivot(index="trial_id", columns="name", values="value")


def _grouped(trials: pd.DataFrame) -> pd.DataFrame:
    shown = [name for name in GROUP if trials[name].nunique() > 1] or ["family"]
    group = trials[shown].astype(str).agg(" · ".join, axis=1) if len(trials) else pd.Series([], dtype=str)
    several = len(trials[["arm", "model", "task"]].drop_duplicates()) > trials["arm"].nunique()
    label = trials["arm"] + " (" + trials["model"] + ", " + trials["task"] + ")" if several else trials["arm"]
    return trials.assign(label=label, group=group, is_baseline=trials["objective"].eq("none"))


def _unfinished(folder: Path, plan: Declared, trials: pd.DataFrame) -> list[str]:
    notes = []
    started = len(list(folder.glob("scratch/*/progress.json")))
    if started:
        notes.append(f"{counted(started, 'trial')} started and not ended: the sweep is running or was cut off. Below is what has ended.")
    if trials.empty:
        return [*notes, *plan.notes, "No trial has ended yet."]
    notes += progress(plan, trials)
    confirmed = trials[trials["stage"] == "confirm"]
    if confirmed.loc[confirmed["state"] == "COMPLETE", "seed"].nunique() == 1:
        notes.append("Confirmed on one seed only: there is no spread over seeds, so no test and no interval.")
    return notes
