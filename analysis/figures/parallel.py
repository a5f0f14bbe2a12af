"""Parallel coordinates of the search: every line is a trial, from its knobs to its score."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.figures import style
from analysis.figures.style import Plot
from analysis.inputs.sweep import OBJECTIVE_KNOBS, Sweep
from analysis.text_tables import Table, significant
from jepa_ray import results

LEFT_OUT = {"family", "model", "task", "seed", "objective", "layout", "readout", "target", "predictor", "control"}


def plot(sweep: Sweep) -> Plot:
    """Numeric knobs that the search varied, each on its own axis (log if it spans a factor of ten), and the selection metric."""
    title = "Parallel coordinates of the search"
    rows = searched(sweep)
    knobs = varied(rows)
    what = sweep.metric.replace("_", " ")
    ordered = rows.sort_values(["label", sweep.metric], ascending=[True, sweep.mode == "min"])
    lines = [
        [str(row["label"]), str(row["trial_id"]), str(row["state"]), *(_cell(row[knob]) for knob in knobs), _cell(row[sweep.metric])]
        for _, row in ordered.iterrows()
    ]
    table = Table(title, ["arm", "trial", "state", *knobs, what], lines, "No search trial yet.")
    drawn = rows.dropna(subset=[sweep.metric])
    if not knobs or len(drawn) < 2:
        why = "the search varied no numeric knob, or fewer than two trials have a score: run a sweep with `space:`."
        return Plot("parallel", title, why.capitalize(), table, sources=("trials",))
    axes_names = [*knobs, sweep.metric]
    looks = style.looks(sweep)
    groups = sorted(drawn["group"].unique())
    scaled = {name: _scaled(drawn[name]) for name in knobs}
    with style.drawing():
        figure, panels = style.panels(groups, columns=1 if len(groups) < 3 else 2, height=2.1)
        for group, axis in zip(groups, panels, strict=True):
            panel = drawn[drawn["group"] == group]
            high = _scaled(panel[sweep.metric])
            for method in style.fewest_last(panel["method"]):
                look, arm = looks[method], panel[panel["method"] == method]
                drawn_as = {"color": look.colour, "linestyle": look.dash, "marker": look.marker, "markersize": 2.5, **style.thin(len(arm))}
                for index in arm.index:
                    heights = [scaled[name][index] for name in knobs] + [high[index]]
                    present = [(place, height) for place, height in enumerate(heights) if not np.isnan(height)]
                    (line,) = axis.plot(*zip(*present, strict=True), **drawn_as)
                    style.told(line, f"trial {arm.at[index, 'trial_id']}: {100 * arm.at[index, sweep.metric]:.2f} %")
            for place, name in enumerate(axes_names):
                values = panel[name] * 100 if name == sweep.metric else drawn[name]
                axis.axvline(place, color=style.GRID, linewidth=1, zorder=0)
                for height, end in ((-0.04, values.min()), (1.04, values.max())):
                    axis.text(place, height, f"{end:.3g}", ha="center", va="top" if height < 0 else "bottom", fontsize=7, color=style.FAINT)
            axis.set_xticks(range(len(axes_names)), [name.replace("_", " ") for name in knobs] + [f"{what} (%)"])
            axis.tick_params(axis="x", pad=10)
            axis.set_yticks([])
            axis.set_ylim(-0.12, 1.16)
            axis.set_xlim(-0.3, len(axes_names) - 0.7)
            axis.grid(False)
            axis.spines[["left", "bottom"]].set_visible(False)
            axis.title.set_position((0, 1.06))
        style.legend(figure, sweep)
    caption = (
        f"{len(drawn)} of {len(rows)} search trials have a {what}; a line has no point on the axis of a knob that its method does not have."
    )
    return Plot("parallel", title, caption, table, figure, ("trials",))


def searched(sweep: Sweep) -> pd.DataFrame:
    """Search trials; without a JEPA term its knobs are null, so that they are not taken for values."""
    rows = sweep.trials[sweep.trials["stage"] == "search"].copy()
    for name in OBJECTIVE_KNOBS:
        rows[name] = rows[name].astype(float).where(~rows["is_baseline"])
    return rows


def varied(rows: pd.DataFrame) -> list[str]:
    """Numeric settings with more than one value among the trials of some arm."""
    numeric = [name for name in results.CONFIG if name not in LEFT_OUT and pd.api.types.is_numeric_dtype(rows[name])]
    return [name for name in numeric if rows.groupby("label")[name].nunique().max() > 1]


def _scaled(values: pd.Series[float]) -> pd.Series[float]:
    """Scaled to 0..1, logarithmically if all values are positive and span a factor of ten; 0.5 if all are equal."""
    present = values.dropna()
    if len(present) and present.min() > 0 and present.max() >= 10 * present.min():
        values = pd.Series(np.log(values.astype(float)), index=values.index)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else values * 0.0 + 0.5


def _cell(value: float) -> str:
    return "-" if pd.isna(value) else significant(float(value))
