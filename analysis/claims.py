"""From the tables of one sweep to its claims: which arm is compared with which, and every number that a verdict needs.

A claim is a method against its baseline twin: the arm without a JEPA term on the same task, family and model with the same loss side
(`loss_on`, `train_end_of_turn`). An arm with a control in place of the term is a claim of its own kind, `control`.
What is missing, left out or cannot be paired is a sentence in `notes` of the claim or of the sweep.

May import: confirmed, declared, jepa_ray.results, pandas. Decides nothing; `verdict.py` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.confirmed import GROUP, Tables, confirmed, listed, progress, split_of
from analysis.declared import Declared, declared
from jepa_ray import results

SIDE = ["loss_on", "train_end_of_turn"]
FLOPS_ALIKE = 0.02
"""Training costs that differ by less than this share are equal."""


@dataclass
class EqualFlops:
    """Method minus baseline where both have spent the same training FLOPs."""

    difference: float | None
    """Mean over `seeds` seeds; None where it cannot be told, and `how` says why."""
    seeds: int
    flops: float | None
    how: str


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
    """Mean difference of prefix, contains and stopped, where both arms have them at every seed."""
    equal_flops: EqualFlops | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Evidence:
    """Everything that one results folder says about its claims."""

    counts: list[dict[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    declared: Declared | None = None
    """What sweep.yaml declares; None where it is missing."""


def gather(folder: Path, metric: str = "test_accuracy") -> Evidence:
    """The claims of the sweep in `folder`. Raises ValueError for a metric that has no answers behind it, or an unreadable trials table."""
    split, column = split_of(metric)
    if not (folder / "trials").is_dir():
        raise ValueError(f"{folder} has no trials/ folder; name the folder of a sweep, such as results/lora.")
    try:
        trials = results.read_trials(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"The trials table of {folder} cannot be read, a file of it may be half-written: {error}.") from error
    found = Evidence(declared=declared(folder))
    found.notes += progress(folder, trials)
    if trials.empty:
        found.notes.append("No trial has finished yet, so there is no claim.")
        return found
    keys = ["arm", "method", *GROUP]
    arms: dict[tuple[Any, ...], pd.DataFrame] = {}
    for key, rows in trials.groupby(keys, sort=True):
        assert isinstance(key, tuple)
        arms[key] = confirmed(str(key[0]), rows, found.counts, found.notes)
    ids = [str(i) for frame in arms.values() for i in frame["trial_id"]]
    tables = Tables(folder, ids, split, column, found.notes)
    for group, _ in trials.groupby(GROUP, sort=True):
        inside = {key: frame for key, frame in arms.items() if key[2:] == group}
        _pair(inside, metric, tables, found)
    return found


def _pair(arms: dict[tuple[Any, ...], pd.DataFrame], metric: str, tables: Tables, found: Evidence) -> None:
    """Every method of one task, family and model with its twin or twins."""
    names = [str(key[0]) for key in arms]
    empty = [name for name, frame in zip(names, arms.values(), strict=True) if frame.empty]
    found.notes += [f"{name}: no COMPLETE confirmation trial, so no claim." for name in empty]
    filled = {key: frame for key, frame in arms.items() if not frame.empty}
    baselines = {key: frame for key, frame in filled.items() if (frame["objective"] == "none").all()}
    paired: set[Any] = set()
    for key, ours in filled.items():
        if key in baselines:
            continue
        twins = [other for other, theirs in baselines.items() if _side(ours) == _side(theirs)]
        control = str(ours["control"].iloc[0])
        kind = "control" if control not in ("none", "None", "nan") else "claim"
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
            _fill(claim, ours.set_index("seed"), baselines[twin].set_index("seed"), metric, tables)
    found.notes += [f"{key[0]}: no method has this baseline as its twin." for key in baselines if key not in paired]


def _side(rows: pd.DataFrame) -> tuple[Any, ...]:
    return tuple(rows[name].iloc[0] for name in SIDE)


def _fill(claim: Claim, ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, tables: Tables) -> None:
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
    for name in ("prefix", "contains", "stopped"):
        gap = ours[f"{tables.split}_{name}"] - theirs[f"{tables.split}_{name}"]
        if gap.notna().all():
            claim.stopping[name] = float(gap.mean())
    claim.right = _by_example(claim, ours, theirs, metric, tables)
    claim.equal_flops = _equal_flops(ours, theirs, metric, tables)


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
        claim.notes.append(
            f"{len(known)} of {most} examples have a judged answer in all {len(listed)} trials; the others enter nothing by example."
        )
    if known.empty:
        return None
    right_2SN = known.to_numpy(dtype=bool).T.reshape(2, len(ours), -1)
    told = np.array([ours[metric], theirs[metric]], dtype=float)
    if len(known) == most and np.abs(told - right_2SN.mean(axis=2)).max() > 1e-6:
        claim.notes.append(
            f"{metric} of the trials table is not the mean of the predictions (linear probe, or tables that do not belong together)."
        )
    return right_2SN[0], right_2SN[1]


def _equal_flops(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, tables: Tables) -> EqualFlops:
    """At the FLOPs of the cheaper arm. The costlier one is read off its validation curve, seed by seed, by linear interpolation.

    Its schedule runs on beyond that point (its learning rate is still higher there), which is to its disadvantage.
    """
    spent = np.array([ours["train_flops"], theirs["train_flops"]], dtype=float)
    if not np.isfinite(spent).all() or (spent <= 0).any():
        return EqualFlops(None, 0, None, "train_flops are missing in the trials table")
    cheaper = float(spent.mean(axis=1).min())
    if abs(spent[0].mean() / spent[1].mean() - 1) <= FLOPS_ALIKE:
        gap = float((ours[metric] - theirs[metric]).mean())
        return EqualFlops(gap, len(ours), cheaper, f"both arms cost the same within {100 * FLOPS_ALIKE:.0f} %, so {metric} itself")
    gaps = []
    for a, b in zip(ours["trial_id"], theirs["trial_id"], strict=True):
        curves = [tables.curves.get(str(i)) for i in (a, b)]
        if any(curve is None for curve in curves):
            continue
        points = [(curve["train_flops"].to_numpy(float), curve["value"].to_numpy(float)) for curve in curves if curve is not None]
        flops = min(points[0][0][-1], points[1][0][-1])
        if max(points[0][0][0], points[1][0][0]) > flops:
            continue  # the costlier arm was scored for the first time after that: no line to read from
        left, right = (float(np.interp(flops, *point)) for point in points)
        gaps.append(left - right)
    if not gaps:
        return EqualFlops(
            None, 0, cheaper, "the costlier arm was not scored on validation by then; evaluate more often (base.evaluation.every)"
        )
    return EqualFlops(
        float(np.mean(gaps)), len(gaps), cheaper, f"on validation curves of {len(gaps)} of {len(ours)} seeds, the schedule not shortened"
    )
