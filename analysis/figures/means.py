"""Means over an arm's runs, at the points that all runs have, so that a curve averages the same seeds from end to end.

If some runs end earlier, the mean of the others is over different seeds, and the curve would jump or bend for that reason alone. A run
without any curve is left out, and the caption names the seeds that are in. Imports only pandas and `analysis.text_tables`.
"""

from __future__ import annotations

import pandas as pd

from analysis.text_tables import counted, named


def shared(rows: pd.DataFrame, at: str = "epoch") -> tuple[pd.DataFrame, list[str]]:
    """The rows at points for which every run of the curve (`label`, `name`) has a value, and a sentence per arm on the others.

    `rows` have the columns `label`, `name`, `trial_id` and `at`; each row is one run's value.
    """
    if rows.empty:
        return rows, []
    runs = rows.groupby(["label", "name"])["trial_id"].transform("nunique")
    here = rows.groupby(["label", "name", at])["trial_id"].transform("nunique")
    whole = here == runs
    notes = []
    for label, left in rows.assign(here=here, runs=runs)[~whole].groupby("label", sort=True):
        points = ", ".join(f"{point:g}" for point in sorted(left[at].unique()))
        fewest, most = int(left["here"].min()), int(left["runs"].max())
        notes.append(f"{label}: {at} {points} left out of the mean, as only {fewest} of {most} runs reached it.")
    return rows[whole], notes


def over(rows: pd.DataFrame, runs: pd.DataFrame) -> str:
    """The seeds over which the means of `rows` are, for a caption: `an arm's seeds`, and exceptions for arms without all of their `runs`.

    `rows` come from `shared`; `runs` have the columns `label`, `trial_id` and `seed`.
    """
    parts = []
    for label, arm in runs.groupby("label", sort=True):
        curves = rows[rows["label"] == label]
        if curves.empty:
            parts.append(f"{label}: none of {counted(len(arm), 'run')} has a curve")
        entered: dict[tuple[int, ...], list[str]] = {}
        for name, curve in curves.groupby("name", sort=False):
            here = arm.loc[arm["trial_id"].isin(curve["trial_id"]), "seed"]
            entered.setdefault(tuple(sorted(map(int, here))), []).append(str(name))
        for seeds, names in entered.items():
            if len(seeds) < len(arm):
                which = "" if len(entered) == 1 else f" of {', '.join(names)}"
                parts.append(f"{label}{which}: {named('seed', seeds)} of {counted(len(arm), 'run')}, as the others have no curve")
    return "an arm's seeds" + (f" ({'; '.join(parts)})" if parts else "")
