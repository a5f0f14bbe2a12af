"""Means over an arm's runs: at the points that all of them have, so that a curve is one of the same seeds from end to end.

Where one run ends before another, the mean of those that go on is another arm's, and a curve would jump or bend for that alone.
Imports pandas and `analysis.tables` only.
"""

from __future__ import annotations

import pandas as pd


def shared(rows: pd.DataFrame, at: str = "epoch") -> tuple[pd.DataFrame, list[str]]:
    """The rows whose curve (`label`, `name`) has a value of every one of its runs at that point, and a sentence per arm for the others.

    `rows` have the columns `label`, `name`, `trial_id` and `at`; a row is one run's value.
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
        notes.append(f"{label}: {at} {points} left out of the mean, which only {fewest} of {most} runs reached.")
    return rows[whole], notes
