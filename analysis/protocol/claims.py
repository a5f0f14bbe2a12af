"""From the tables of one sweep to its claims: which arm is compared with which, and every number that a verdict needs.

A claim is a method against its baseline twin: the arm without a JEPA term on the same task, family and model with the same loss side
(`loss_on`, `train_end_of_turn`). An arm with a control in place of the term, or without a trained end of turn where others train it, is a
claim of its own kind, `control`.
What is missing, left out or cannot be paired is a sentence in `notes` of the claim or of the sweep.

May import: confirmed, declared, equal, jepa_ray.results, pandas. Decides nothing; `ruling.py` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.files import check
from analysis.protocol.confirmed import (
    GROUP,
    MARGIN,
    SIDE,
    Choice,
    Tables,
    choose,
    listed,
    margin_of,
    planned,
    progress,
    read_frozen,
    split_of,
)
from analysis.protocol.declared import Declared, declared
from analysis.protocol.equal import Arm, Panel, at_equal_flops, at_equal_seconds, at_equal_steps
from jepa_ray import results

TRAINING = [
    "learning_rate", "batch_size", "num_epochs", "schedule", "warmup_ratio", "weight_decay", "beta1", "beta2", "max_grad_norm",
    "gamma", "lora_r", "lora_alpha", "lora_dropout",
]  # fmt: skip
"""Knobs that a run without any JEPA gradient depends on, and that each arm may have tuned for itself."""


@dataclass
class Claim:
    """One method against one baseline. Shares are in [0, 1]; seeds and examples are those that both arms have."""

    method: str
    baseline: str | None
    kind: str
    """claim or control"""
    task: str
    family: str
    model: str
    ours: dict[int, float] = field(default_factory=dict)
    theirs: dict[int, float] = field(default_factory=dict)
    right: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
    """Ours and theirs, (seeds, examples) each, seeds ascending; None where the predictions do not allow it (a note says why)."""
    stopping: dict[str, float] = field(default_factory=dict)
    """Mean difference of prefix, contains (of what is right by the metric or starts with, has, the reference) and stopped, where both
    arms have them at every seed."""
    panels: list[Panel] = field(default_factory=list)
    """At equal steps, FLOPs and seconds, in this order; empty where no seed is in both arms."""
    doubt: str | None = None
    """Why the answers are not those that the scores were made of, so that nothing can be ruled; None where they are, or there are none."""
    notes: list[str] = field(default_factory=list)

    @property
    def equal_flops(self) -> Panel | None:
        """Method minus baseline where both have spent the same training FLOPs."""
        return next((panel for panel in self.panels if panel.at == "equal FLOPs"), None)


@dataclass
class Evidence:
    """Everything that one results folder says about its claims."""

    margin: float = MARGIN
    """The difference that matters: `confirm.margin` of the sweep."""
    counts: list[dict[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    declared: Declared | None = None
    """What sweep.yaml declares; None where it is missing."""


def gather(folder: Path, metric: str = "test_accuracy") -> Evidence:
    """The claims of the sweep in `folder`. Raises ValueError for a metric that has no answers behind it, or an unreadable trials table."""
    split, column = split_of(metric)
    check(folder)
    try:
        trials = results.read_trials(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"The trials table of {folder} cannot be read, a file of it may be half-written: {error}.") from error
    found = Evidence(margin=margin_of(planned(folder)), declared=declared(folder))
    frozen, doubts = read_frozen(folder)
    found.notes += [*progress(folder, trials), *doubts]
    if trials.empty:
        found.notes.append("No trial has finished yet, so there is no claim.")
        return found
    keys = ["arm", "method", *GROUP]
    arms: dict[tuple[Any, ...], Arm] = {}
    for key, rows in trials.groupby(keys, sort=True):
        assert isinstance(key, tuple)
        choice = choose(str(key[0]), rows, frozen)
        runs, note = _of_the_plan(str(key[0]), choice.runs, found.declared)
        found.notes += note
        arms[key] = Arm(str(key[0]), runs, rows[rows["stage"] == "matched"])
        _count(rows, choice, len(runs), found)
    found.notes += _selected_anew(folder, found.counts)
    ids = [str(i) for arm in arms.values() for i in arm.confirmed["trial_id"]]
    tables = Tables(folder, ids, split, column, found.notes)
    for group, _ in trials.groupby(GROUP, sort=True):
        inside = {key: frame for key, frame in arms.items() if key[2:] == group}
        _pair(inside, metric, tables, found)
    return found


def _of_the_plan(arm: str, runs: pd.DataFrame, plan: Declared | None) -> tuple[pd.DataFrame, list[str]]:
    """The confirmation on the seeds that sweep.yaml names: others beside them would make a number of seeds that grew with the results."""
    if plan is None or not plan.seeds:
        return runs, []
    inside = runs["seed"].isin(plan.seeds)
    others = sorted(map(int, runs.loc[~inside, "seed"]))
    told = f"{arm}: seed(s) {listed(others)} are confirmed, but not in confirm.seeds (any more); they enter nothing."
    return runs[inside], [told] if others else []


def _selected_anew(folder: Path, counts: list[dict[str, Any]]) -> list[str]:
    """A sentence where configurations were selected again after others had been scored on the test split."""
    files = sorted(path.name for path in folder.glob("selection-*.json"))
    if not files or all(line["complete"] <= line["chosen"] for line in counts):
        return []
    return [
        f"Configurations were selected anew ({listed(files)}) after others had been scored on the test split: what follows is exploratory. "
        "To confirm it, run a sweep of another name."
    ]


def _count(rows: pd.DataFrame, choice: Choice, used: int, found: Evidence) -> None:
    """The arm's line of counts, and a sentence for what is left out of them."""
    arm, search = str(rows["arm"].iloc[0]), rows[rows["stage"] == "search"]
    line = {"arm": arm, **{name: str(rows[name].iloc[0]) for name in GROUP}, "search": len(search)}
    line |= {"confirm": int((rows["stage"] == "confirm").sum()), "complete": choice.complete, "chosen": len(choice.runs), "used": used}
    found.counts.append(line | {"matched": int((rows["stage"] == "matched").sum())})
    found.notes += choice.notes
    failed = int((search["state"] == "FAILED").sum())
    if failed:
        found.notes.append(f"{arm}: {failed} of {len(search)} search trials FAILED.")


def _pair(arms: dict[tuple[Any, ...], Arm], metric: str, tables: Tables, found: Evidence) -> None:
    """Every method of one task, family and model with its twin or twins."""
    found.notes += [f"{arm.name}: no COMPLETE confirmation trial, so no claim." for arm in arms.values() if arm.confirmed.empty]
    filled = {key: arm for key, arm in arms.items() if not arm.confirmed.empty}
    baselines = {key: arm for key, arm in filled.items() if (arm.confirmed["objective"] == "none").all()}
    paired: set[Any] = set()
    for key, ours in filled.items():
        if key in baselines:
            continue
        twins = [other for other, theirs in baselines.items() if _side(ours) == _side(theirs)]
        control = str(ours.confirmed["control"].iloc[0])
        # Without a trained end of turn an arm shows the reference's defect; it is a control where others do train it.
        defect = not ours.confirmed["train_end_of_turn"].iloc[0] and any(
            arm.confirmed["train_end_of_turn"].iloc[0] for arm in filled.values()
        )
        kind = "control" if defect or control not in ("none", "None", "nan") else "claim"
        choices: list[tuple[Any, ...] | None] = [*twins] or [None]
        for twin in choices:
            claim = Claim(method=key[0], baseline=None if twin is None else twin[0], kind=kind, task=key[2], family=key[3], model=key[4])
            found.claims.append(claim)
            if twin is None:
                side = ", ".join(f"{name} {value}" for name, value in zip(SIDE, _side(ours), strict=True))
                claim.notes.append(
                    f"No confirmed baseline twin (objective none, {side}, same task, family and model), so nothing to compare with."
                )
                continue
            paired.add(twin)
            if len(twins) > 1:
                claim.notes.append(f"{len(twins)} arms are baseline twins of {key[0]}; each makes a claim of its own.")
            _fill(claim, ours, baselines[twin], metric, tables)
    found.notes += [f"{key[0]}: no method has this baseline as its twin." for key in baselines if key not in paired]


def _side(arm: Arm) -> tuple[Any, ...]:
    return tuple(arm.confirmed[name].iloc[0] for name in SIDE)


def _fill(claim: Claim, method: Arm, baseline: Arm, metric: str, tables: Tables) -> None:
    ours, theirs = method.confirmed.set_index("seed"), baseline.confirmed.set_index("seed")
    if set(ours["dataset_sha"].dropna()) != set(theirs["dataset_sha"].dropna()):
        claim.notes.append("The two arms were confirmed on different data (dataset_sha differs), so they cannot be paired.")
        return
    alone = sorted(set(map(int, ours.index)) ^ set(map(int, theirs.index)))
    if alone:
        claim.notes.append(f"Seed(s) {listed(alone)} are confirmed in one of the two arms only and enter nothing.")
    both = ours.index.intersection(theirs.index)
    broken = [seed for seed in both if not np.isfinite([ours[metric][seed], theirs[metric][seed]]).all()]
    if broken:
        claim.notes.append(f"{metric} is missing or NaN at seed(s) {listed(broken)}, which enter nothing.")
    seeds = [seed for seed in both if seed not in broken]
    if not seeds:
        claim.notes.append(f"No seed has {metric} in both arms.")
        return
    claim.ours = {int(seed): float(ours[metric][seed]) for seed in seeds}
    claim.theirs = {int(seed): float(theirs[metric][seed]) for seed in seeds}
    ours, theirs = ours.loc[seeds], theirs.loc[seeds]
    _note_tuning(claim, ours, theirs)
    by_answer = [arm["trial_id"].astype(str) for arm in (ours, theirs)]
    for name in ("prefix", "contains", "stopped"):
        gap = ours[f"{tables.split}_{name}"] - theirs[f"{tables.split}_{name}"]
        if name in tables.known and all(ids.isin(tables.known.index).all() for ids in by_answer):
            gap = by_answer[0].map(tables.known[name]) - by_answer[1].map(tables.known[name])
        if gap.notna().all():
            claim.stopping[name] = float(gap.mean())
    claim.right = _by_example(claim, ours, theirs, metric, tables)
    claim.panels = [
        at_equal_steps(ours, theirs, metric, tables.curves),
        at_equal_flops(replace(method, confirmed=ours), replace(baseline, confirmed=theirs), metric, tables.curves),
        at_equal_seconds(ours, theirs, metric, tables.curves),
    ]
    claim.notes += [note for panel in claim.panels for note in panel.notes]


def _note_tuning(claim: Claim, ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """A control without gradient is its baseline, unless the two were tuned to different values: then it measures what tuning is worth."""
    control = str(ours["control"].iloc[0])
    if control not in ("zero", "monitor"):
        return
    pairs = {name: (ours[name].iloc[0], theirs[name].iloc[0]) for name in TRAINING}
    apart = [
        f"{name} {a:g} against {b:g}" if isinstance(a, float) else f"{name} {a} against {b}"
        for name, (a, b) in pairs.items()
        if a != b and not (pd.isna(a) and pd.isna(b))
    ]
    if apart:
        claim.notes.append(
            f"The two arms were tuned apart: {', '.join(apart)}. Control {control} sends no gradient; with the same values it would "
            "give the baseline's answers exactly, so this difference is what tuning by chance is worth."
        )


def _by_example(
    claim: Claim, ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, tables: Tables
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Both arms' answers, right or not, as (seeds, examples) on the examples that every one of the trials has."""
    frames = [[tables.answers.get(str(i)) for i in arm["trial_id"]] for arm in (ours, theirs)]
    lack = sum(series is None for arm in frames for series in arm)
    if lack:
        claim.notes.append(
            f"{lack} of {2 * len(ours)} confirmation trials have no {tables.split} predictions, so nothing is known by example."
        )
        return None
    listed: list[pd.Series[Any]] = [series for arm in frames for series in arm if series is not None]
    if any(not series.index.is_unique for series in listed):
        claim.notes.append("An example_id stands twice in the predictions of one trial, so answers cannot be paired by example.")
        return None
    table = pd.concat(listed, axis=1, join="inner")
    known = table.dropna().sort_index()
    most = max(len(series) for series in listed)
    if len(known) < most:
        claim.doubt = (
            f"{len(known)} of {most} examples have a judged answer in all {len(listed)} trials; the others enter nothing by example"
        )
    if known.empty:
        return None
    right_2SN = known.to_numpy(dtype=bool).T.reshape(2, len(ours), -1)
    told = np.array([ours[metric], theirs[metric]], dtype=float)
    if len(known) == most and np.abs(told - right_2SN.mean(axis=2)).max() > 1e-6:
        claim.doubt = f"{metric} of the trials table is not the mean of the predictions: the tables do not belong together"
    return right_2SN[0], right_2SN[1]
