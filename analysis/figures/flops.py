"""Accuracy against training FLOPs (the paper's Figure 5): what an arm reached at a given cost."""

from __future__ import annotations

from analysis.figures import style
from analysis.figures.means import over, shared
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep, shown_runs
from analysis.text_tables import FLOPS, UNPACKED, Table, cost_column, percent, significant


def plot(sweep: Sweep) -> Plot:
    """Mean over seeds at every evaluation, against the mean FLOPs up to it."""
    title = "Accuracy against training FLOPs"
    runs, notes = shown_runs(sweep)
    what = sweep.metric.replace("_", " ")
    rows = sweep.metrics[sweep.metrics["name"] == sweep.metric].dropna(subset=["value", "train_flops"])
    cost = cost_column(rows)
    rows = rows.merge(runs[["trial_id", "label", "group", "method"]], on="trial_id")
    rows, left_out = shared(rows)
    notes += left_out
    unit, prefix = style.unit(float(rows[cost].max()) if len(rows) else 0.0)
    lines = []
    for (label, epoch), cell in rows.groupby(["label", "epoch"], sort=True):
        sd = float(cell["value"].std()) if len(cell) > 1 else None
        reached = percent({"mean": float(cell["value"].mean()), "sd": sd})
        seconds = float(cell["train_seconds"].mean())
        lines.append([str(label), f"{epoch:g}", str(len(cell)), significant(float(cell[cost].mean()) / unit), f"{seconds:.1f}", reached])
    header = [
        "arm",
        "epoch",
        "runs",
        f"{FLOPS[cost].replace('FLOPs', prefix + 'FLOPs')} so far",
        "seconds so far",
        f"{what} (%, mean ± sd)",
    ]
    table = Table(title, header, lines, f"No {what} with FLOPs.")
    if rows.empty:
        return Plot("flops", title, f"metrics/ contains no {what} with FLOPs: any sweep writes it.", table, notes=tuple(notes))
    looks = style.looks(sweep)
    groups = sorted(rows["group"].unique())
    with style.drawing():
        figure, axes = style.panels(groups)
        for group, axis in zip(groups, axes, strict=True):
            panel = rows[rows["group"] == group]
            for method in (name for name in looks if name in set(panel["method"])):
                arm = panel[panel["method"] == method]
                arm = arm.assign(spent=arm.groupby("epoch")[cost].transform("mean") / unit)
                style.band(axis, arm.groupby("spent")["value"], looks[method], scale=100)
            axis.set_xlim(left=0)
            axis.set_xlabel(f"training {prefix}FLOPs ({FLOPS[cost].split()[0]})")
        axes[0].set_ylabel(f"{what} (%)")
        style.legend(figure, sweep)
    whose = f"{rows['trial_id'].nunique()} runs, mean over {over(rows, runs)} after each epoch; band: ± one sd"
    how = "with every sequence and view separately" if cost == UNPACKED else "as computed"
    caption = f"{whose}; FLOPs are counted {how}, including those of the JEPA term."
    return Plot("flops", title, caption, table, figure, notes=tuple(notes))
