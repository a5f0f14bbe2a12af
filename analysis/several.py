"""Several results folders as one: beside each other, each with panels of its own, or pooled as replicates of one design.

Tables of the folders' files (answers, embeddings, studies) stay per folder; what is here joins trials and curves.
May import: analysis.reading, analysis.protocol.declared, analysis.tables, pandas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.protocol.declared import Declared
from analysis.reading import Sweep
from analysis.tables import counted


def alike(sweeps: Sequence[Sweep]) -> bool:
    """Whether they selected by the same metric, so that one axis can show them all."""
    return len({(sweep.metric, sweep.mode) for sweep in sweeps}) == 1


def beside(sweeps: Sequence[Sweep]) -> Sweep:
    """One sweep whose panels and arms carry their folder's name. Raises ValueError where they selected by different metrics."""
    named = []
    for sweep in sweeps:
        name = sweep.folder.name
        trials = sweep.trials.assign(label=sweep.trials["label"] + f" ({name})", group=f"{name} · " + sweep.trials["group"].astype(str))
        named.append(replace(sweep, trials=trials, left_out={f"{label} ({name})": told for label, told in sweep.left_out.items()}))
    return pooled(named)


def pooled(sweeps: Sequence[Sweep]) -> Sweep:
    """One sweep of all their trials, an arm of the same name being the same arm; a trial that two folders hold counts once.

    Raises ValueError where they selected by different metrics.
    """
    if not alike(sweeps):
        shown = ", ".join(f"{sweep.folder} by {sweep.metric} ({sweep.mode})" for sweep in sweeps)
        raise ValueError(f"these sweeps selected by different metrics, so they can't be put together: {shown}; give them one by one")
    trials = pd.concat([sweep.trials for sweep in sweeps], ignore_index=True)
    twice = int(trials.duplicated("trial_id").sum())
    seen: set[str] = set()
    curves = []
    for sweep in sweeps:  # a trial's curve comes from the folder that its row comes from
        curves.append(sweep.metrics[~sweep.metrics["trial_id"].isin(seen)])
        seen |= set(sweep.trials["trial_id"])
    notes = [f"{sweep.folder.name}: {note}" for sweep in sweeps for note in sweep.notes]
    left_out: dict[str, list[str]] = {}
    for sweep in sweeps:
        for label, told in sweep.left_out.items():
            left_out.setdefault(label, []).extend(told)
    if twice:
        notes.append(f"{counted(twice, 'trial')} in more than one of the folders: counted once.")
    return replace(
        sweeps[0],
        folder=Path(" + ".join(str(sweep.folder) for sweep in sweeps)),
        trials=trials.drop_duplicates("trial_id").reset_index(drop=True),
        metrics=pd.concat(curves, ignore_index=True),
        declared=_both(sweeps),
        notes=tuple(notes),
        left_out={label: tuple(dict.fromkeys(notes)) for label, notes in left_out.items()},
    )


def _both(sweeps: Sequence[Sweep]) -> Declared:
    """What they declared together: all comparisons, and all seeds, unless one of them does not say."""
    arms = {arm: None for sweep in sweeps for arm in sweep.declared.arms}
    seeds = dict.fromkeys(seed for sweep in sweeps for seed in sweep.declared.seeds)
    known = all(sweep.declared.seeds for sweep in sweeps)
    return replace(sweeps[0].declared, arms=tuple(arms), seeds=tuple(seeds) if known else ())
