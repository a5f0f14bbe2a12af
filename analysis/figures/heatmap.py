"""Lambda by k (the paper's Figures 7 and 9): each cell shows its mean, the interval, and the number of trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from scipy import stats

from analysis.figures import style
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep
from analysis.text_tables import Table, percent

FAINT_TO_STRONG = LinearSegmentedColormap.from_list("blues", [to_rgba(style.METHODS[0], 0.05), to_rgba(style.METHODS[0], 0.6)], N=40)
"""One colour, stronger for higher values, on a light or dark page; so few steps that the colour bar is drawn, not embedded as a picture."""
NARROWEST = 0.055
"""A cell narrower than this share of its panel has no room for text; its numbers are in the table."""
MOST_EXACT = 8
"""Up to this many different lambdas are shown unchanged; more are put into bins of a factor of two."""


def plot(sweep: Sweep) -> Plot:
    """COMPLETE search trials of methods with a JEPA term; one panel per arm. Trials that were cut early are counted, not averaged.

    Several sweeps of one grid, one per seed, are pooled first; a cell's trials are then its seeds.
    """
    title = "Lambda by k"
    rows = sweep.trials[(sweep.trials["stage"] == "search") & ~sweep.trials["is_baseline"]].dropna(subset=["lambda", "k"])
    rows = rows.assign(cell=binned(rows["lambda"]))
    complete = rows[(rows["state"] == "COMPLETE") & rows[sweep.metric].notna()]
    lines = []
    for (label, k, cell), trials in rows.groupby(["label", "k", "cell"], sort=True):
        done = trials.loc[trials.index.isin(complete.index), sweep.metric]
        moments = {"mean": float(done.mean()) if len(done) else None, "sd": float(done.std()) if len(done) > 1 else None}
        best = f"{100 * done.max():.2f}" if len(done) else "-"
        bounds = interval(done, trials.loc[done.index, "val_examples"])
        within = "-" if bounds is None else f"{100 * bounds[0]:.2f} to {100 * bounds[1]:.2f}"
        lines.append([str(label), f"{k:g}", f"{cell:g}", str(len(done)), str(len(trials) - len(done)), percent(moments), within, best])
    what = sweep.metric.replace("_", " ")
    header = ["arm", "k", "lambda", "complete", "cut early or failed", f"{what} (%, mean ± sd)", "95 % interval", "highest %"]
    table = Table(title, header, lines, "No search trial with lambda and k.")
    labels = sorted(complete["label"].unique())
    if complete.empty:
        why = "trials/ contains no COMPLETE search trial with lambda and k: use `space: {objective.lambda: ..., objective.k: ...}`."
        return Plot("heatmap", title, why, table, sources=("trials",))
    low, high = 100 * complete[sweep.metric].min(), 100 * complete[sweep.metric].max()
    cells = sorted(complete["cell"].unique())
    several = complete["k"].nunique() > 1
    # With one k its axis would have a single row: the arms share one panel instead, one row each.
    frames = [(label, complete[complete["label"] == label], "k") for label in labels] if several else [("", complete, "label")]
    tallest = max(frame[by].nunique() for _, frame, by in frames)
    with style.drawing():
        figure, axes = style.panels([label for label, *_ in frames], columns=1 if len(cells) > 5 else 2, height=0.6 + 0.48 * tallest)
        limits = float(low), float(high)
        meshes = [_cells(axis, frame, by, cells, sweep.metric, limits) for (_, frame, by), axis in zip(frames, axes, strict=True)]
        bar = figure.colorbar(meshes[0], ax=axes, label=f"{what} (%)", shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)
    spans = "" if exact(rows["lambda"]) else " Lambda was searched continuously: a cell spans a factor of two around its value."
    caption = (
        f"{len(complete)} COMPLETE search trials of {len(rows)}; {what} in %: mean, 95 % interval and count. Empty: not tried. "
        f"The interval is a t-interval over a cell's trials; for a single trial, Wilson's over its validation answers, which ignores seeds."
        f"{spans}"
    )
    return Plot("heatmap", title, caption, table, figure, ("trials",))


def _cells(axis: Axes, trials: pd.DataFrame, by: str, cells: list[float], metric: str, limits: tuple[float, float]) -> QuadMesh:
    """Draw the cells: rows are the values of `by` (k to scale, or the arm), columns the lambdas (log scale)."""
    low, high = limits
    rows = sorted(trials[by].unique())
    means = trials.pivot_table(index=by, columns="cell", values=metric, aggfunc="mean").reindex(index=rows, columns=cells)
    across, down = on_log_scale(cells), [float(row) for row in rows] if by == "k" else [float(place) for place in range(len(rows))]
    wide, tall = edges(across), edges(down)
    mesh = axis.pcolormesh(wide, tall, 100 * means.to_numpy(), cmap=FAINT_TO_STRONG, vmin=low, vmax=max(high, low + 1e-9))
    room = [(right - left) / (wide[-1] - wide[0]) >= NARROWEST for left, right in itertools.pairwise(wide)]
    axis.invert_yaxis()
    for place, row in enumerate(rows):
        for column, cell in enumerate(cells):
            inside = 100 * trials.loc[(trials[by] == row) & (trials["cell"] == cell), metric]
            if len(inside) and room[column]:
                bounds = interval(inside / 100, trials.loc[inside.index, "val_examples"])
                spread = f"\n[{100 * bounds[0]:.0f}, {100 * bounds[1]:.0f}]" if bounds is not None else ""
                words = f"{inside.mean():.1f}{spread}\nn = {len(inside)}"
                axis.text(across[column], down[place], words, ha="center", va="center", fontsize=7, color=style.INK)
    axis.set_xticks(across, [f"{cell:.3g}" for cell in cells])
    axis.set_yticks(down, [str(row) for row in rows])
    axis.set_xlabel("lambda")
    if by == "k":
        axis.set_ylabel("k")
    axis.grid(False)
    return mesh


def on_log_scale(values: Sequence[float]) -> list[float]:
    """Positions of ascending values >= 0 on an axis of powers of two; 0, which has no logarithm, is placed one step before the first."""
    logs = [math.log2(value) for value in values if value > 0]
    steps = [after - before for before, after in itertools.pairwise(logs)]
    zero = (logs[0] if logs else 0.0) - (min(steps) if steps else 1.0)
    return [math.log2(value) if value > 0 else zero for value in values]


def edges(places: Sequence[float]) -> list[float]:
    """Borders of cells around these ascending positions: halfway between neighbours, and equally far out at both ends."""
    if len(places) == 1:
        return [places[0] - 0.5, places[0] + 0.5]
    middles = [(before + after) / 2 for before, after in itertools.pairwise(places)]
    return [2 * places[0] - middles[0], *middles, 2 * places[-1] - middles[-1]]


def interval(shares: pd.Series[float], examples: pd.Series[float]) -> tuple[float, float] | None:
    """95 % interval of a cell's mean share: a t-interval over its trials, for one trial Wilson's (1927) over its answers; else None."""
    if len(shares) > 1:
        if shares.std() == 0:
            return None
        half = float(stats.t.ppf(0.975, len(shares) - 1)) * float(shares.std()) / len(shares) ** 0.5
        return max(0.0, float(shares.mean()) - half), min(1.0, float(shares.mean()) + half)
    if not len(shares) or examples.isna().any() or not (number := int(examples.iloc[0])):
        return None
    bounds = stats.binomtest(round(float(shares.iloc[0]) * number), number).proportion_ci(0.95, method="wilson")
    return float(bounds.low), float(bounds.high)


def exact(values: pd.Series[float]) -> bool:
    """Whether the values look like a grid's: few, and none with a fraction and more than three significant digits."""
    return values.nunique() <= MOST_EXACT and bool(values.map(lambda value: value % 1 == 0 or float(f"{value:.3g}") == value).all())


def binned(values: pd.Series[float]) -> pd.Series[float]:
    """The values unchanged if `exact`, otherwise the nearest power of two (2.7 -> 2, 3 -> 4); 0 remains 0."""
    if exact(values):
        return values
    return values.map(lambda value: 2.0 ** round(math.log2(value)) if value > 0 else 0.0)
