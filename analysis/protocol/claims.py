"""From the tables of one sweep to its claims: which arms are compared, and every number that a verdict needs.

The sweep declares which arms are compared (`results.read_arms`); `confirmation.choose` selects the trials that confirm an arm.
Whatever is missing, left out or cannot be paired is reported in `notes` of the claim or of the sweep.

Nothing is decided here; see `decision.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.inputs.confirmation import Choice, Tables, split_of
from analysis.inputs.preregistration import GROUP, NOT_RUN, Declared, listed, standing
from analysis.inputs.sweep import Sweep, read
from analysis.protocol.by_example import Leaked, by_example, leaked
from analysis.protocol.equal_cost import Arm, Panel, at_equal_flops, at_equal_seconds, at_equal_steps
from analysis.protocol.log_probability import LogProbability
from analysis.protocol.log_probability import compare as compare_logprob
from analysis.protocol.sources import clusters_of
from analysis.stats.clusters import Clusters
from analysis.stats.looks import History, Stage
from analysis.text_tables import named
from jepa_ray.results import JUDGED

TRAINING = [
    "learning_rate", "batch_size", "num_epochs", "schedule", "warmup_ratio", "weight_decay", "beta1", "beta2", "max_grad_norm",
    "gamma", "lora_r", "lora_alpha", "lora_dropout",
]  # fmt: skip
"""Knobs that affect a run without any JEPA gradient, and that each arm may have tuned separately."""


@dataclass
class Claim:
    """One method against its baseline or another method. Shares are in [0, 1]; seeds and examples are those that both arms have."""

    method: str
    baseline: str | None
    """The arm that the method is compared with; None if it has none with results."""
    kind: str
    """claim or control"""
    task: str
    family: str
    model: str
    ours: dict[int, float] = field(default_factory=dict)
    theirs: dict[int, float] = field(default_factory=dict)
    right: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
    """Right (True) or wrong, ours and theirs: (seeds, examples) each, in the order of `ours`; None, with a note, without usable
    predictions."""
    history: History = ()
    """The seeds by the look at which they became known, in the order of `ours`; empty: all at the first."""
    leaked: Leaked | None = None
    """Test examples that are also in training; None if there are no such examples."""
    clusters: Clusters | None = None
    """The clusters of the examples of `right`; None if examples are independent."""
    logprob: LogProbability | None = None
    """Log-probability of the references; None if a trial has none."""
    stopping: dict[str, float] = field(default_factory=dict)
    """Mean difference of prefix, contains and stopped, if both arms have them at every seed. An answer counts for prefix (contains) if the
    metric accepts it or if it starts with (contains) the reference."""
    panels: list[Panel] = field(default_factory=list)
    """At equal steps, FLOPs and seconds, in this order; empty if no seed is in both arms."""
    doubt: str | None = None
    """Why the answers do not match the scores, which rules out a verdict; None if they match or if there are no answers."""
    notes: list[str] = field(default_factory=list)
    extreme: str | None = None
    """Why no difference could show, which rules out a verdict: both arms are at the floor or at the ceiling on every seed; else None."""
    at_flops: Claim | None = None
    """The same claim after both arms have spent the same training FLOPs; None unless every seed is compared by trials of that cost."""
    wanted: str | None = None
    """Name of the arm that the sweep compares the method with; None if it has no baseline."""

    @property
    def equal_flops(self) -> Panel | None:
        """Method minus baseline after both have spent the same training FLOPs."""
        return next((panel for panel in self.panels if panel.at == "equal FLOPs"), None)


@dataclass
class Evidence:
    """Everything that one results folder contains about its claims."""

    declared: Declared = field(default_factory=Declared)
    """What the sweep declared before it ran."""
    counts: list[dict[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """A sentence for each declared arm without a claim because none of its trials were confirmed: not run, FAILED, or not yet."""
    notes: list[str] = field(default_factory=list)


def gather(folder: Path, metric: str = JUDGED) -> Evidence:
    """The claims of the sweep in `folder`. Raises ValueError if the metric is not a mean over answers or a table is unreadable."""
    split, column = split_of(metric)
    sweep = read(folder, curves=())
    trials = sweep.trials
    evidence = Evidence(declared=sweep.declared, notes=list(sweep.notes))
    if trials.empty:
        evidence.notes.append("No trial has finished yet, so there is no claim.")
        return evidence
    arm_of = dict(zip(trials["trial_id"].astype(str), trials["arm"].astype(str), strict=True))
    if sweep.declared.chosen_late(arm_of):
        evidence.declared = replace(sweep.declared, late=True)
        evidence.notes.append(
            "Claims were added after arms of theirs had results, so they may have been chosen for what these showed: Holm's correction "
            f"is over all {evidence.declared.claims} pairs of arms."
        )
    arms: dict[str, Arm] = {}
    for label, rows in trials.groupby("label", sort=True):
        choice = sweep.confirmation(str(label))
        scored = frozenset(rows.loc[rows["stage"] == "confirm", "trial_id"].astype(str))
        arms[str(label)] = Arm(str(label), choice.runs, rows[rows["stage"] == "matched"], scored)
        _count(rows, choice, evidence)
    evidence.notes += _selected_anew(folder, evidence.counts)
    ids = [str(i) for arm in arms.values() for rows in (arm.confirmed, arm.matched) for i in rows["trial_id"]]
    tables = Tables(folder, ids, split, column, evidence.notes)
    for _, group in trials.groupby(GROUP, sort=True):
        _compare(sweep, group, arms, metric, tables, evidence)
    for arm in [arm for arm in sweep.declared.arms if arm.name in sweep.absent]:
        zero = dict.fromkeys(("search", "confirm", "complete", "used", "elsewhere", "matched"), 0)
        evidence.counts.append({"arm": arm.name, "task": arm.task, "family": arm.family, "model": "-", **zero})
        evidence.absent.append(f"{arm.name}: {NOT_RUN}, so no claim.")
    return evidence


def _selected_anew(folder: Path, counts: list[dict[str, Any]]) -> list[str]:
    """A warning if configurations were selected again after others had been scored on the test split."""
    files = sorted(path.name for path in folder.glob("selection-*.json"))
    if not files or not any(line["elsewhere"] for line in counts):
        return []
    return [
        f"Configurations were selected anew ({listed(files)}) after others had been scored on the test split, so these results are "
        "exploratory. To confirm them, run a sweep under another name."
    ]


def _count(rows: pd.DataFrame, choice: Choice, evidence: Evidence) -> None:
    """Add the arm's line of counts, and a note for what it leaves out."""
    arm, search = str(rows["arm"].iloc[0]), rows[rows["stage"] == "search"]
    line = {"arm": arm, **{name: str(rows[name].iloc[0]) for name in GROUP}, "search": len(search)}
    line |= {"confirm": int((rows["stage"] == "confirm").sum()), "complete": choice.complete}
    line |= {"used": len(choice.runs), "elsewhere": choice.elsewhere}
    evidence.counts.append(line | {"matched": int((rows["stage"] == "matched").sum())})
    evidence.notes += choice.notes
    failed = int((search["state"] == "FAILED").sum())
    if failed:
        evidence.notes.append(f"{arm}: {failed} of {len(search)} search trials FAILED.")


def _compare(sweep: Sweep, group: pd.DataFrame, arms: Mapping[str, Arm], metric: str, tables: Tables, evidence: Evidence) -> None:
    """Add the declared comparisons of one task, family and model, claims and controls in the order of declaration."""
    labels = dict(zip(group["arm"], group["label"], strict=True))
    first = group.drop_duplicates("arm").set_index("arm")
    declared, involved = sweep.declared, {name for one in sweep.declared.comparisons for name in (one.arm, one.other)}
    for arm in [arm for arm in declared.arms if arm.name in labels]:
        ours = arms[labels[arm.name]]
        if ours.confirmed.empty:
            why = standing(group[group["label"] == ours.name]) or "no COMPLETE confirmation trial"
            evidence.absent.append(f"{ours.name}: {why}, so no claim.")
            continue
        task, family, model = (str(first.loc[arm.name, name]) for name in GROUP)
        for one in [one for one in declared.comparisons if one.arm == arm.name]:
            theirs = arms[labels[one.other]] if one.other in labels else None
            if theirs is not None and theirs.confirmed.empty:
                theirs = None
            claim = Claim(ours.name, None if theirs is None else theirs.name, one.kind, task, family, model, wanted=one.other)
            evidence.claims.append(claim)
            if theirs is None:
                other = f"Its baseline {one.other}" if one.other == arm.baseline else one.other
                claim.notes.append(f"{other} has no COMPLETE confirmation trial, so there is nothing to compare with.")
            else:
                _fill(claim, ours, theirs, metric, tables, declared, (one.arm, one.other))
        if arm.name in involved:
            continue
        if arm.kind == "baseline":
            evidence.notes.append(f"{arm.name}: no method is compared with this baseline.")
        elif arm.baseline is None:
            claim = Claim(ours.name, None, arm.kind, task, family, model)
            claim.notes.append("No baseline of the sweep has the same loss_on and train_end_of_turn, so there is nothing to compare with.")
            evidence.claims.append(claim)
        else:
            evidence.notes.append(f"{arm.name}: no claim of the sweep compares this method.")
    unknown = sorted(set(labels) - {arm.name for arm in sweep.declared.arms}) if sweep.declared.arms else []
    evidence.notes += [f"{name}: this arm has trials here but is not declared by the sweep, so it is ignored." for name in unknown]


def _fill(claim: Claim, method: Arm, baseline: Arm, metric: str, tables: Tables, declared: Declared, pair: tuple[str, str]) -> None:
    ours, theirs = method.confirmed.set_index("seed"), baseline.confirmed.set_index("seed")
    if set(ours["dataset_sha"].dropna()) != set(theirs["dataset_sha"].dropna()):
        claim.notes.append("The two arms were confirmed on different data (dataset_sha differs), so they cannot be paired.")
        return
    alone = sorted(set(map(int, ours.index)) ^ set(map(int, theirs.index)))
    if alone:
        claim.notes.append(f"Confirmed in one of the two arms only, so left out: {named('seed', alone)}.")
    both = ours.index.intersection(theirs.index)
    broken = [seed for seed in both if not np.isfinite([ours[metric][seed], theirs[metric][seed]]).all()]
    if broken:
        claim.notes.append(f"{metric} is missing or NaN, so left out: {named('seed', broken)}.")
    seeds = [seed for seed in both if seed not in broken]
    if not seeds:
        claim.notes.append(f"No seed has {metric} in both arms.")
        return
    ids = {int(seed): (str(ours["trial_id"][seed]), str(theirs["trial_id"][seed])) for seed in seeds}
    first = declared.after(method.scored | baseline.scored, ids)
    known = {seed: max(first, *(declared.number(one, seed, pair) for one in both)) for seed, both in ids.items()}
    seeds.sort(key=lambda seed: (known[seed], seed))
    claim.history = _history([known[seed] for seed in seeds], declared)
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
    examples = _by_example(claim, ours, theirs, metric, tables)
    claim.leaked = leaked(pd.concat([ours, theirs]), examples, tables) if tables.split == "test" else None
    claim.logprob = compare_logprob(ours, theirs, tables.split)
    claim.panels = [
        at_equal_steps(ours, theirs, metric, tables.curves),
        at_equal_flops(replace(method, confirmed=ours), replace(baseline, confirmed=theirs), metric, tables.curves),
        at_equal_seconds(ours, theirs, metric, tables.curves),
    ]
    claim.at_flops = _at_flops(claim, pd.concat([method.matched, ours, baseline.matched, theirs]), metric, tables)
    claim.notes += [note for panel in claim.panels for note in panel.notes]
    claim.extreme = _extreme(ours, theirs, metric)
    claim.notes += [] if claim.extreme is None else [claim.extreme]


def _at_flops(claim: Claim, runs: pd.DataFrame, metric: str, tables: Tables) -> Claim | None:
    panel = claim.equal_flops
    if panel is None or panel.metric != metric or list(panel.runs) != list(claim.ours):
        return None
    rows = runs.drop_duplicates("trial_id").set_index("trial_id", drop=False)
    ours, theirs = (rows.loc[list(side)] for side in zip(*panel.runs.values(), strict=True))
    scores = [dict(zip(claim.ours, map(float, side[metric]), strict=True)) for side in (ours, theirs)]
    same = replace(claim, ours=scores[0], theirs=scores[1], leaked=None, logprob=None, stopping={}, panels=[], doubt=None, notes=[])
    _by_example(same, ours, theirs, metric, tables)
    return same


def _by_example(claim: Claim, ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, tables: Tables) -> pd.Index[Any]:
    """Add the right and wrong answers of both arms and the clusters of their examples, and return the ids of these."""
    found = by_example(ours, theirs, metric, tables)
    claim.right, claim.doubt = found.right, found.doubt
    claim.notes += found.notes
    claim.clusters = clusters_of(map(str, [*ours["trial_id"], *theirs["trial_id"]]), found.examples, tables, claim.notes)
    return found.examples


def _history(numbers: Sequence[int], declared: Declared) -> History:
    """The stages of a claim from the number of the look at which each seed became known, ascending.

    The planned looks of a race are numbers of all seeds of the claim; those of a stage are counted from its first seed.
    """
    history: list[Stage] = []
    for number, inside in groupby(numbers):
        before = sum(stage.seeds for stage in history)
        race = tuple(look - before for look in declared.race_at(number) if look > before)
        history.append(Stage(len(list(inside)), number, race))
    return tuple(history)


def _extreme(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str) -> str | None:
    """A sentence if every trial of both arms is at the floor or at the ceiling, where no difference can show."""
    both = pd.concat([ours, theirs])
    if (both[metric] >= 1).all():
        return f"Ceiling: both arms reach a {metric} of 100 % on every seed, so no difference can show; the task is too easy."
    chance = float(both["chance"].max()) if metric.endswith("_accuracy") and both["chance"].notna().any() else 0.0
    if (both[metric] <= chance).all():
        level = f"at most {chance:.1%}, no better than guessing," if chance else "0 %"
        return f"Floor: both arms have a {metric} of {level} on every seed: neither has learned anything that could show a difference."
    return None


def _note_tuning(claim: Claim, ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """A control without gradient equals its baseline unless they were tuned to different values; then it measures the effect of tuning."""
    control = str(ours["control"].iloc[0])
    if control not in ("zero", "monitor") or str(theirs["objective"].iloc[0]) != "none":
        return
    pairs = {name: (ours[name].iloc[0], theirs[name].iloc[0]) for name in TRAINING}
    apart = [
        f"{name} {a:g} against {b:g}" if isinstance(a, float) else f"{name} {a} against {b}"
        for name, (a, b) in pairs.items()
        if a != b and not (pd.isna(a) and pd.isna(b))
    ]
    if apart:
        claim.notes.append(
            f"The two arms were tuned to different values: {', '.join(apart)}. Control {control} sends no gradient, so with the same "
            "values it would give exactly the baseline's answers: this difference measures only the luck of tuning."
        )
