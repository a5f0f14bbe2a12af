"""Accuracy of every arm (the paper's Figure 1, left) over confirmed seeds on test, with the paper's; a row per task, family and model."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis import paper_numbers as paper
from analysis.figures import style
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep, shown_runs
from analysis.paper_tables import variant
from analysis.text_tables import Table, percent


def plot(sweep: Sweep) -> Plot:
    """Dot: mean over seeds; bar: one sample standard deviation; hollow: the paper's number for the task and family, if there is one."""
    title = "Test accuracy of every arm"
    runs, _ = shown_runs(sweep)
    rows = runs[runs["stage"] == "confirm"].dropna(subset=["test_accuracy"])
    printed = {}
    lines = []
    for label, arm in rows.groupby("label", sort=True):
        values = arm["test_accuracy"]
        moments = {"mean": float(values.mean()), "sd": float(values.std()) if len(values) > 1 else None}
        reported = printed[str(label)] = _printed(arm.iloc[0])
        shown = "-" if reported is None else f"{reported[0]:.2f}" + ("" if reported[1] is None else f" ± {reported[1]:.2f}")
        lines.append(
            [str(label), *(str(arm[name].iloc[0]) for name in ("task", "family", "model")), str(len(arm)), percent(moments), shown]
        )
    header = ["arm", "task", "family", "model", "seeds", "test accuracy (%, mean ± sd)", "paper"]
    table = Table(title, header, lines, "No confirmed run with a test accuracy.")
    if rows.empty:
        why = "trials/ contains no confirmed run with a test accuracy: run a sweep with `confirm.seeds`."
        return Plot("accuracies", title, why, table, sources=("trials",))
    looks = style.looks(sweep)
    groups = sorted(rows["group"].unique())
    methods = [name for name in looks if name in set(rows["method"])]
    with style.drawing():
        figure, (axis,) = style.panels([""], height=0.6 + 0.16 * len(groups) * (len(methods) + 1))
        ticks = []
        for place, group in enumerate(groups):
            for number, method in enumerate(methods):
                height = place + 0.8 * ((number + 1) / (len(methods) + 1) - 0.5)
                for label, arm in rows[(rows["group"] == group) & (rows["method"] == method)].groupby("label", sort=True):
                    values, look = 100 * arm["test_accuracy"], looks[method]
                    spread = float(values.std()) if len(values) > 1 else 0.0
                    axis.errorbar(values.mean(), height, xerr=spread, color=look.colour, marker=look.marker, linewidth=1)
                    if (reported := printed[str(label)]) is not None:
                        axis.plot(reported[0], height, color=look.colour, marker=look.marker, markerfacecolor="none", linestyle="none")
            ticks.append(str(group))
        axis.set_yticks(range(len(groups)), ticks)
        axis.set_ylim(len(groups) - 0.5, -0.5)
        axis.set_xlim(left=0)
        axis.grid(False, axis="y")
        axis.set_xlabel("test accuracy (%)")
        style.legend(figure, sweep, only=methods, lines=False)
    hollow = " Hollow: the paper's numbers, for its own models." if any(reported is not None for reported in printed.values()) else ""
    caption = f"{len(rows)} confirmed runs; dot: mean over an arm's seeds; bar: ± one sd.{hollow}"
    return Plot("accuracies", title, caption, table, figure, ("trials",))


def _printed(run: pd.Series[Any]) -> tuple[float, float | None] | None:
    """The paper's mean and sd for a baseline or its own method on this task and family, from pretrained weights; None if there are none."""
    kind = variant(run)
    if kind not in ("baseline", "cosine") or run["loss_dropout"] or run["init"] != "pretrained" or pd.notna(run["pretrain_task"]):
        return None
    for name in ("T12", "T13", "T4", "T5"):
        for row in paper.COMPARISONS[name]:
            if (row.task, row.family) == (run["task"], run["family"]):
                return row.baseline if kind == "baseline" else row.jepa
    return None
