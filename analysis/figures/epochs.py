"""Accuracy by epoch (the paper's Figure 1, right, and Figure 8): mean and spread over the confirmed seeds of every arm."""

from __future__ import annotations

from analysis.figures import style
from analysis.figures.means import over, shared
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep, shown_runs
from analysis.text_tables import Table, percent


def plot(sweep: Sweep) -> Plot:
    """Mean over seeds with a band of one sample standard deviation."""
    title = "Accuracy by epoch"
    runs, notes = shown_runs(sweep)
    what = sweep.metric.replace("_", " ")
    rows = sweep.metrics[sweep.metrics["name"] == sweep.metric].dropna(subset=["value"])
    rows = rows.merge(runs[["trial_id", "label", "group", "method"]], on="trial_id")
    rows, left_out = shared(rows)
    notes += left_out
    lines = []
    for (label, epoch), cell in rows.groupby(["label", "epoch"], sort=True):
        sd = float(cell["value"].std()) if len(cell) > 1 else None
        lines.append([str(label), f"{epoch:g}", str(len(cell)), percent({"mean": float(cell["value"].mean()), "sd": sd})])
    table = Table(title, ["arm", "epoch", "runs", f"{what} (%, mean ± sd)"], lines, f"No {what} by epoch.")
    if rows.empty:
        return Plot("epochs", title, f"metrics/ contains no {what} of a finished trial: any sweep writes it.", table, notes=tuple(notes))
    looks = style.looks(sweep)
    groups = sorted(rows["group"].unique())
    with style.drawing():
        figure, axes = style.panels(groups)
        for group, axis in zip(groups, axes, strict=True):
            panel = rows[rows["group"] == group]
            for method in (name for name in looks if name in set(panel["method"])):
                style.band(axis, panel[panel["method"] == method].groupby("epoch")["value"], looks[method], scale=100)
            style.epochs(axis)
        axes[0].set_ylabel(f"{what} (%)")
        style.legend(figure, sweep)
    caption = f"{rows['trial_id'].nunique()} runs; line: mean over {over(rows, runs)}; band: ± one sd."
    return Plot("epochs", title, caption, table, figure, notes=tuple(notes))
