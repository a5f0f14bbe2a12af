"""A results folder as the analysis sees it: trials with their groups, curves, and a sentence for everything that is missing.

A half-written or damaged file affects its own trial only: it is named, and the others are read. Only the required parts of tables are
read: columns, metrics by name, predictions by trial.
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
"""Knobs of the JEPA term, meaningless in a baseline's row."""
SCALES = ("rank_text", "rank_code", "anisotropy_text", "anisotropy_code", "contrast", "r1", "r1_chance", "mrr")
CURVES = [
    *(f"val_{name}" for name in ("accuracy", "exact", "prefix", "contains", "stopped", "paper", "equivalent", "retrieval")),
    *("train_ce", "train_jepa", "diag_val_ce", "diag_val_jepa"),
    *(f"diag_{name}" for name in (*SCALES, "linearity", "linearity_relative", "ridge_r2", "pairs", "sv_mean", "sv_max")),
    *(f"diag_sv_{index}" for index in range(1, 101)),
]
"""Names in the metrics table that the figures and tables use."""


@dataclass(frozen=True)
class Sweep:
    """One results folder. In addition to the table's columns, `trials` has `label` (the arm), `group` (its panel: what baseline and method
    have in common), `is_baseline` (no JEPA term) and `counts` (whether it is part of the confirmation, see `confirmation.choose`)."""

    folder: Path
    trials: pd.DataFrame
    metrics: pd.DataFrame
    declared: Declared = field(default_factory=Declared)
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """label -> sentences on its confirmation trials that do not count."""
    frozen: frozenset[str] = frozenset()
    """The last frozen search trial of each arm (`confirmation.read_frozen`)."""
    _confirmed: dict[str, Choice] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `confirmation` has found: a page asks ten times for each arm."""

    @property
    def metric(self) -> str:
        """The column of the trials table that the sweep selects by."""
        return self.declared.metric

    @property
    def mode(self) -> str:
        """`max` or `min`."""
        return self.declared.mode

    def pairs(self, rows: pd.DataFrame) -> list[tuple[str, str]]:
        """(baseline, method) labels of every declared comparison among these rows of `trials`."""
        return pairs(self.declared.arms, rows)

    def confirmation(self, label: str) -> Choice:
        """The confirmation of an arm that counts; if several folders are pooled, that of the configuration started last."""
        if label not in self._confirmed:
            self._confirmed[label] = self._confirmation(label)
        return self._confirmed[label]

    def _confirmation(self, label: str) -> Choice:
        rows = self.trials[self.trials["label"] == label]
        counted = rows[rows["counts"]]
        runs, notes = one_version(counted), list(self.left_out.get(label, ()))
        if len(runs) < len(counted):
            others = f"{len(counted) - len(runs)} of {len(counted)} confirmation trials have other settings"
            notes.append(f"{label}: {others} and are ignored.")
        complete = (rows["stage"] == "confirm") & (rows["state"] == "COMPLETE")
        elsewhere = int(complete.sum()) if runs.empty else int((~alike(rows[complete], runs.iloc[0])).sum())
        return Choice(runs, int(complete.sum()), elsewhere, tuple(notes))

    def best(self, rows: pd.DataFrame) -> pd.Series[Any] | None:
        """The best search trial among these rows of one arm: the frozen one, else the best-ranked; None if none is COMPLETE.

        The frozen one need not rank first: the selection ranked only the suggestions of its own study.
        """
        frozen = rows[rows["trial_id"].isin(self.frozen)]
        return results.best_trial(rows if frozen.empty else frozen, self.metric, self.mode)

    @property
    def absent(self) -> list[str]:
        """Names of declared arms without a trial, in the order of declaration."""
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
    """The sweep in `folder`, with these curves of its metrics table.

    Raises ValueError if the folder does not exist or is not a sweep's, or if none of its trials can be read.
    """
    check(folder)
    notes: list[str] = []
    trials = read_sound(folder, "trials", notes)
    if trials.empty and notes and any((folder / "trials").glob("*.parquet")):
        raise ValueError(f"{folder}: no file in trials/ can be read ({notes[-1]})")
    named = [("name", "in", list(curves))]
    metrics = read_sound(folder, "metrics", notes, where=named) if curves else pd.DataFrame(columns=results.METRICS.names)
    if curves and len(trials):
        bare = len(set(trials["trial_id"]) - set(metrics["trial_id"]))
        if bare:
            notes.append(f"{bare} of {len(trials)} trials have no curves in metrics/ and are missing in figures of curves.")
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
    """These columns of the answers of these trials on one split; opens only these trials' files."""
    paths = [folder / "predictions" / f"{trial_id}.parquet" for trial_id in trial_ids]
    return load(
        [path for path in paths if results.damage(path, results.PREDICTIONS) is None], "predictions", columns, [("split", "==", split)]
    )


def shown_runs(sweep: Sweep) -> tuple[pd.DataFrame, list[str]]:
    """The runs that represent each arm (its confirmed seeds, or else its best COMPLETE search trial), and notes on them."""
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
            notes.append(f"{label}: not shown, as it has no COMPLETE trial.")
            continue
        complete = int(((arm["stage"] == "search") & (arm["state"] == "COMPLETE")).sum())
        notes.append(f"{label}: not confirmed; its best of {counted(complete, 'search trial')} is shown, which is biased upwards.")
        chosen.append(arm[arm["trial_id"] == best["trial_id"]])
    return (pd.concat(chosen) if chosen else sweep.trials.head(0)), notes


def last_values(metrics: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The last value of each curve, as a table trial_id x name."""
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
        notes.append(
            f"{counted(started, 'trial')} started but not ended: the sweep is running or was interrupted. Only ended trials are shown."
        )
    if trials.empty:
        return [*notes, *plan.notes, "No trial has ended yet."]
    notes += progress(plan, trials)
    confirmed = trials[trials["stage"] == "confirm"]
    if confirmed.loc[confirmed["state"] == "COMPLETE", "seed"].nunique() == 1:
        notes.append("Confirmed on one seed only: there is no spread over seeds, hence no test and no interval.")
    return notes
