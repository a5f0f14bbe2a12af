"""Several results folders as one: side by side, each with its own panels, or pooled as replicates of one design.

Trials and curves are combined; other files (answers, embeddings, studies) stay per folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.inputs.preregistration import Declared
from analysis.inputs.sweep import Sweep
from analysis.text_tables import counted

ONE_RUN = ["trial_id", "label"]
"""The key of a run. The trial alone is not enough: a baseline may be in two folders, and is then an arm of each."""


def alike(sweeps: Sequence[Sweep]) -> bool:
    """Whether all selected by the same metric, so that one axis can show them."""
    return len({(sweep.metric, sweep.mode) for sweep in sweeps}) == 1


def beside(sweeps: Sequence[Sweep]) -> Sweep:
    """One sweep whose panels and arms carry their folder's name, so that arms are compared only as declared, and only within their folder.

    Raises ValueError if they selected by different metrics.
    """
    named = []
    for sweep in sweeps:
        alone = len({one.folder for one in sweeps if one.folder.name == sweep.folder.name}) == 1
        named.append(_named(sweep, sweep.folder.name if alone else str(sweep.folder)))
    return pooled(named)


def pooled(sweeps: Sequence[Sweep]) -> Sweep:
    """One sweep of all trials; arms of the same name are the same arm, and a trial of an arm that two folders contain counts once.

    Raises ValueError if they selected by different metrics.
    """
    if not alike(sweeps):
        shown = ", ".join(f"{sweep.folder} by {sweep.metric} ({sweep.mode})" for sweep in sweeps)
        raise ValueError(f"sweeps that selected by different metrics cannot be combined: {shown}; give them one by one")
    trials = pd.concat([sweep.trials for sweep in sweeps], ignore_index=True)
    twice = int(trials.duplicated(ONE_RUN).sum())
    seen: set[str] = set()
    curves = []
    for sweep in sweeps:  # a trial's curve comes from the same folder as its row
        curves.append(sweep.metrics[~sweep.metrics["trial_id"].isin(seen)])
        seen |= set(sweep.trials["trial_id"])
    notes = [f"{sweep.folder.name}: {note}" for sweep in sweeps for note in sweep.notes]
    left_out: dict[str, list[str]] = {}
    for sweep in sweeps:
        for label, sentences in sweep.left_out.items():
            left_out.setdefault(label, []).extend(sentences)
    if twice:
        notes.append(f"{counted(twice, 'trial')} in more than one folder, counted once.")
    return replace(
        sweeps[0],
        folder=Path(" + ".join(str(sweep.folder) for sweep in sweeps)),
        trials=trials.drop_duplicates(ONE_RUN).reset_index(drop=True),
        metrics=pd.concat(curves, ignore_index=True),
        declared=_both(sweeps),
        notes=tuple(notes),
        left_out={label: tuple(dict.fromkeys(notes)) for label, notes in left_out.items()},
        frozen=frozenset().union(*(sweep.frozen for sweep in sweeps)),
    )


def _named(sweep: Sweep, name: str) -> Sweep:
    """The sweep with the folder's name added to its panels, its arms (declared ones too) and its trials.

    Trials too, because folders that ran the same configuration have the same trial id but different curves.
    """

    def renamed(one: str) -> str:
        return f"{one} ({name})"

    rows = sweep.trials
    arms = (
        replace(
            arm,
            name=renamed(arm.name),
            baseline=None if arm.baseline is None else renamed(arm.baseline),
            against=None if arm.against is None else tuple(map(renamed, arm.against)),
        )
        for arm in sweep.declared.arms
    )
    named = {column: rows[column].map(renamed) for column in ("trial_id", "arm", "label")}
    return replace(
        sweep,
        trials=rows.assign(**named, group=f"{name} · " + rows["group"].astype(str)),
        metrics=sweep.metrics.assign(trial_id=sweep.metrics["trial_id"].map(renamed)),
        declared=replace(sweep.declared, arms=tuple(arms)),
        left_out={renamed(label): sentences for label, sentences in sweep.left_out.items()},
        frozen=frozenset(map(renamed, sweep.frozen)),
    )


def _both(sweeps: Sequence[Sweep]) -> Declared:
    """The combined declaration: all comparisons, and all seeds (none if one sweep declares none)."""
    arms = {arm: None for sweep in sweeps for arm in sweep.declared.arms}
    seeds = dict.fromkeys(seed for sweep in sweeps for seed in sweep.declared.seeds)
    all_declared = all(sweep.declared.seeds for sweep in sweeps)
    return replace(sweeps[0].declared, arms=tuple(arms), seeds=tuple(seeds) if all_declared else ())
