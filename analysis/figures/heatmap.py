"""Lambda by k (the paper's Figures 7 and 9): in every cell the mean, its interval and how many trials are in it."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from scipy import stats

from analysis.figures import style
from analysis.figures.style import Plot
from analysis.reading import Sweep
from analysis.tables import Table, percent

FAINT_TO_STRONG = LinearSegmentedColormap.from_list("blues", ["#e8f1f8", "#0072b2"])
MOST_EXACT = 8
"""Up to this many different lambdas are shown as they are; more are put into bins of a factor of two."""


def plot(sweep: Sweep) -> Plot:
    """COMPLETE search trials of methods with a JEPA term; a panel per arm. Trials that were cut early are counted, not averaged.

    Several sweeps of one grid, a seed each, are pooled before: then a cell's trials are its seeds.
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
        why = "trials/ holds no COMPLETE search trial with lambda and k: `space: {objective.lambda: ..., objective.k: ...}` makes it."
        return Plot("heatmap", title, why, table, sources=("trials",))
    low, high = 100 * complete[sweep.metric].min(), 100 * complete[sweep.metric].max()
    cells = sorted(complete["cell"].unique())
    several = complete["k"].nunique() > 1
    # With one k there is nothing to spread over its axis: the arms share one panel, a row each.
    frames = [(label, complete[complete["label"] == label], "k") for label in labels] if several else [("", complete, "label")]
    tallest = max(frame[by].nunique() for _, frame, by in frames)
    with style.drawing():
        figure, axes = style.panels([label for label, *_ in frames], columns=1 if len(cells) > 5 else 2, height=0.6 + 0.48 * tallest)
        for (_, frame, by), axis in zip(frames, axes, strict=True):
            _cells(axis, frame, by, cells, sweep.metric, (float(low), float(high)))
    spans = "" if exact(rows["lambda"]) else " Lambda was searched continuously: a cell spans a factor of two around its value."
    caption = (
        f"{len(complete)} COMPLETE search trials of {len(rows)}, {what} in %, mean, 95 % interval and count; empty: never tried. The "
        f"interval is t's over a cell's trials; of a single trial, Wilson's over its validation answers, which knows no seeds.{spans}"
    )
    return Plot("heatmap", title, caption, table, figure, ("trials",))


def _cells(axis: Axes, trials: pd.DataFrame, by: str, cells: list[float], metric: str, limits: tuple[float, float]) -> None:
    """Rows are the values of `by` (k, or the arm), columns the lambdas; every cell says what it holds."""
    low, high = limits
    rows = sorted(trials[by].unique())
    means = trials.pivot_table(index=by, columns="cell", values=metric, aggfunc="mean").reindex(index=rows, columns=cells)
    edges = [[place - 0.5 for place in range(count + 1)] for count in (len(cells), len(rows))]
    axis.pcolormesh(*edges, 100 * means.to_numpy(), cmap=FAINT_TO_STRONG, vmin=low, vmax=max(high, low + 1e-9))
    axis.invert_yaxis()
    for place, row in enumerate(rows):
        for column, cell in enumerate(cells):
            inside = 100 * trials.loc[(trials[by] == row) & (trials["cell"] == cell), metric]
            if len(inside):
                bounds = interval(inside / 100, trials.loc[inside.index, "val_examples"])
                spread = f"\n[{100 * bounds[0]:.0f}, {100 * bounds[1]:.0f}]" if bounds is not None else ""
                strong = (inside.mean() - low) / max(high - low, 1e-9) > 0.6
                words = f"{inside.mean():.1f}{spread}\nn = {len(inside)}"
                axis.text(column, place, words, ha="center", va="center", fontsize=7, color="#ffffff" if strong else "#1b1f23")
    axis.set_xticks(range(len(cells)), [f"{cell:.3g}" for cell in cells])
    axis.set_yticks(range(len(rows)), [str(row) for row in rows])
    axis.set_xlabel("lambda")
    if by == "k":
        axis.set_ylabel("k")
    axis.grid(False)


def interval(shares: pd.Series[float], examples: pd.Series[float]) -> tuple[float, float] | None:
    """95 % interval of a cell's mean share: t's over its trials; of one, Wilson's (1927) over its answers; None without either."""
    if len(shares) > 1:
        if shares.std() == 0:
            return None
        half = float(stats.t.ppf(0.975, len(shares) - 1)) * float(shares.std()) / len(shares) ** 0.5
        return max(0.0, float(shares.mean()) - half), min(1.0, float(shares.mean()) + half)
    if not len(shares) or examples.isna().any() or not (number := int(examples.iloc[0])):
        return None
    found = stats.binomtest(round(float(shares.iloc[0]) * number), number).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def exact(values: pd.Series[float]) -> bool:
    """Whether they are a grid's: few, and none with a fraction and more than three significant digits, as a sampler's have."""
    return values.nunique() <= MOST_EXACT and bool(values.map(lambda value: value % 1 == 0 or float(f"{value:.3g}") == value).all())


def binned(values: pd.Series[float]) -> pd.Series[float]:
    """Themselves where they are few; otherwise the nearest power of two (2.7 -> 2, 3 -> 4), 0 staying 0."""
    if exact(values):
        return values
    return values.map(lambda value: 2.0 ** round(math.log2(value)) if value > 0 else 0.0)
