"""Learning curves of all trials, by arm: the selection metric on validation after every epoch, without averaging.

Matched runs are counted but not drawn, as their schedule differs.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import style
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep
from analysis.text_tables import Table, counted

MOST_LINES = 30
"""Up to this many trials of an arm are drawn one by one; of more, the median and spread are drawn."""


def plot(sweep: Sweep) -> Plot:
    """One line per trial (of many: median, spread and best); a cross where a trial was cut early, a triangle where one failed."""
    title, header = "Learning curves of all trials", ["arm", "epoch", "trials", "lowest %", "median %", "highest %"]
    trials_drawn = sweep.trials.loc[sweep.trials["stage"] != "matched", ["trial_id", "label", "group", "method", "state"]]
    rows = sweep.metrics[sweep.metrics["name"] == sweep.metric].merge(trials_drawn, on="trial_id")
    rows = rows.dropna(subset=["value"])
    what = sweep.metric.replace("_", " ")
    table = Table(title, header, _by_epoch(rows), f"No {what} by epoch in metrics/.")
    if rows.empty:
        return Plot("curves", title, f"metrics/ contains no {what}: any sweep writes it after its first epoch.", table)
    looks = style.looks(sweep)
    groups = sorted(rows["group"].unique())
    with style.drawing():
        figure, axes = style.panels(groups)
        for group, axis in zip(groups, axes, strict=True):
            panel = rows[rows["group"] == group]
            for method in style.fewest_last(panel["method"]):
                look, arm = looks[method], panel[panel["method"] == method]
                if arm["trial_id"].nunique() > MOST_LINES:
                    _summarised(axis, arm, look)
                    continue
                lines = style.thin(arm["trial_id"].nunique())
                for trial, curve in arm.groupby("trial_id"):
                    end = curve.iloc[-1]
                    axis.plot(curve["epoch"], 100 * curve["value"], color=look.colour, linestyle=look.dash, **lines)
                    style.told(axis.lines[-1], f"trial {trial}, {end['state'].lower()}, {100 * end['value']:.2f} %")
                    marker = {"PRUNED": "x", "FAILED": "v"}.get(str(end["state"]), ".")
                    axis.plot([end["epoch"]], [100 * end["value"]], marker, color=look.colour, markersize=4, alpha=lines["alpha"])
            style.epochs(axis)
        axes[0].set_ylabel(f"{what} (%)")
        style.legend(figure, sweep)
    trials = rows["trial_id"].nunique()
    caption = f"{trials} of {len(trials_drawn)} trials (search and confirmation); × where one was cut early, ▾ where one failed."
    if (rows.groupby("label")["trial_id"].nunique() > MOST_LINES).any():
        caption += f" For an arm with more than {MOST_LINES} trials: median and 10th to 90th percentile of those still running, "
        caption += "and the best trial in bold."
    matched = len(sweep.trials) - len(trials_drawn)
    caption += f" Not shown: {counted(matched, 'matched trial')}, whose schedule is shorter." if matched else ""
    return Plot("curves", title, caption, table, figure)


def _summarised(axis: Axes, arm: pd.DataFrame, look: style.Look) -> None:
    """The median of an arm's trials at each epoch, a band from the 10th to the 90th percentile, and the trial that ended best."""
    by_epoch = 100 * arm.groupby("epoch")["value"].quantile(np.array([0.1, 0.5, 0.9])).unstack()
    axis.fill_between(by_epoch.index, by_epoch[0.1], by_epoch[0.9], color=look.colour, alpha=0.15, linewidth=0)
    axis.plot(by_epoch.index, by_epoch[0.5], color=look.colour, linestyle=look.dash, marker=look.marker)
    ends = arm.sort_values("epoch").drop_duplicates("trial_id", keep="last")
    best = arm[arm["trial_id"] == ends.sort_values("value")["trial_id"].iloc[-1]]
    axis.plot(best["epoch"], 100 * best["value"], color=look.colour, linewidth=2.4)
    style.told(axis.lines[-1], f"best: trial {best['trial_id'].iloc[0]}")


def _by_epoch(rows: pd.DataFrame) -> list[list[str]]:
    lines = []
    for (label, epoch), cell in rows.groupby(["label", "epoch"], sort=True):
        value = 100 * cell["value"]
        figures = (f"{number:.2f}" for number in (value.min(), value.median(), value.max()))
        lines.append([str(label), f"{epoch:g}", str(len(cell)), *figures])
    return lines
