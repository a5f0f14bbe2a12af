"""Budget spent by arm: FLOPs of search, confirmation and matched runs; tokens and seconds are in the table."""

from __future__ import annotations

import pandas as pd

from analysis.figures import style
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep
from analysis.text_tables import Table, counted, significant

STAGES = (("search", 0.95, None), ("confirm", 0.45, None), ("matched", 0.3, "////"))
"""Stage, and the opacity and hatch of its part of the bar."""


def plot(sweep: Sweep) -> Plot:
    """Bars of training FLOPs; trials of unknown cost are counted, not guessed."""
    title = "Budget spent by arm"
    priced = sweep.trials.dropna(subset=["train_flops"])
    scale, prefix = style.unit(float(priced.groupby("label")["train_flops"].sum().max()) if len(priced) else 0.0)
    lines = []
    for (label, stage), rows in sweep.trials.groupby(["label", "stage"], sort=True):
        sums = [f"{rows['train_tokens'].sum():.3g}", significant(float(rows["train_flops"].sum()) / scale)]
        seconds = [f"{rows[name].sum():.0f}" for name in ("train_seconds", "wall_seconds")]
        lines.append([str(label), str(stage), str(len(rows)), str(int(rows["train_flops"].isna().sum())), *sums, *seconds])
    header = [
        "arm",
        "stage",
        "trials",
        "of unknown cost",
        "tokens (shared prefixes once)",
        f"computed {prefix}FLOPs",
        "training s",
        "wall s",
    ]
    table = Table(title, header, lines, "No trial yet.")
    if priced.empty:
        return Plot("budget", title, "trials/ contains no trial with FLOPs yet.", table, sources=("trials",))
    shades = "full colour: search, pale: confirmation" + (", hatched: matched runs" if (priced["stage"] == "matched").any() else "")
    looks = style.looks(sweep)
    labels = sorted(priced["label"].unique())
    methods = priced.drop_duplicates("label").set_index("label")["method"]
    with style.drawing():
        figure, (axis,) = style.panels([""], height=0.6 + 0.24 * len(labels))
        left = pd.Series(0.0, index=labels)
        for stage, strength, hatch in STAGES:
            size = priced[priced["stage"] == stage].groupby("label")["train_flops"].sum().reindex(labels, fill_value=0.0)
            colours = [looks[str(methods[label])].colour for label in labels]
            axis.barh(labels, size / scale, left=left / scale, color=colours, alpha=strength, hatch=hatch, height=0.7, linewidth=0)
            left = left + size
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(f"{prefix}FLOPs computed ({shades})")
    unknown = len(sweep.trials) - len(priced)
    caption = f"{len(priced)} trials, {significant(float(priced['train_flops'].sum()) / scale)} {prefix}FLOPs computed in all" + (
        f"; not shown: {counted(unknown, 'trial')} of unknown cost." if unknown else "."
    )
    return Plot("budget", title, caption, table, figure, ("trials",))
