"""Singular values of Enc(Text) - Enc(Code) (the paper's Figure 3, left): if few are large, a linear map takes one to the other."""

from __future__ import annotations

import pandas as pd

from analysis.figures import style
from analysis.figures.means import over, shared
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep, shown_runs
from analysis.text_tables import Table


def plot(sweep: Sweep) -> Plot:
    """Mean over an arm's seeds at the last diagnosis; dotted grey: before training, over all arms."""
    title = "Singular values of Enc(Text) - Enc(Code)"
    runs, notes = shown_runs(sweep)
    rows = sweep.metrics[sweep.metrics["name"].str.fullmatch(r"diag_sv_\d+")].dropna(subset=["value"])
    rows = rows.merge(runs[["trial_id", "label", "group", "method"]], on="trial_id")
    rows = rows.assign(index=rows["name"].str.removeprefix("diag_sv_").astype(int))
    rows = rows[rows["value"] > 0]
    last = rows.sort_values("step").drop_duplicates(["trial_id", "index"], keep="last")
    last, left_out = shared(last.assign(name=""), "index")
    notes += left_out
    first = rows[rows["step"] == 0]
    lines = []
    for label, arm in last.groupby("label", sort=True):
        mean = arm.groupby("index")["value"].mean()
        lines.append(
            [str(label), str(arm["trial_id"].nunique()), *(f"{mean.get(index, float('nan')):.4g}" for index in _shown(last["index"]))]
        )
    header = ["arm", "runs", *(f"σ{index}" for index in _shown(last["index"]))]
    table = Table(title, header, lines, "No singular values.")
    if last.empty:
        why = "metrics/ contains no diag_sv_*: run a sweep with `base.evaluation.diagnostic_pairs` above 0."
        return Plot("singular_values", title, why, table, notes=tuple(notes))
    looks = style.looks(sweep)
    groups = sorted(last["group"].unique())
    with style.drawing():
        figure, axes = style.panels(groups)
        for group, axis in zip(groups, axes, strict=True):
            before = first[first["group"] == group].groupby("index")["value"].mean()
            if len(before):
                axis.plot(before.index, before, color=style.FAINT, linestyle=":", linewidth=1)
                axis.annotate(
                    "before training",
                    (before.index[-1], before.iloc[-1]),
                    color=style.FAINT,
                    fontsize=7.5,
                    ha="left",
                    va="center",
                    xytext=(4, 0),
                    textcoords="offset points",
                )
            panel = last[last["group"] == group]
            for method in (name for name in looks if name in set(panel["method"])):
                style.band(axis, panel[panel["method"] == method].groupby("index")["value"], looks[method])
            axis.set_yscale("log")
            axis.set_xlabel("index")
        axes[0].set_ylabel("singular value")
        style.legend(figure, sweep)
    count = last["trial_id"].nunique()
    whose = f"{count} runs, mean over {over(last, runs)} at the last diagnosis"
    caption = f"{whose}; band: ± one sd; the {last['index'].max()} largest values, log scale."
    return Plot("singular_values", title, caption, table, figure, notes=tuple(notes))


def _shown(indices: pd.Series[int]) -> list[int]:
    available = sorted(set(indices))
    return [index for index in available if index <= 10 or index in (20, 50, 100)]
