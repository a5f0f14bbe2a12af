"""What all figures share: the palette, panels, and `Plot`, a figure with its table. Imports Matplotlib without pyplot.

The palette is Okabe and Ito's, safe for colour-blind readers; the baseline is always grey. Methods differ in
colour, dash and marker, so that a greyscale print is readable too. In SVG every colour becomes a CSS variable, so that the page
controls light and dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from analysis.inputs.sweep import Sweep
from analysis.text_tables import Table

if TYPE_CHECKING:
    from pandas.api.typing import SeriesGroupBy

INK, FAINT, GRID = "#24292f", "#6b7178", "#e3e5e8"
GREYS = ("#8a9099", "#b0b5bc", "#6a7078")
METHODS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b5ea7")
"""Okabe-Ito without black and yellow (too faint on white), plus a violet."""
STATES = {"COMPLETE": "#56b4e9", "PRUNED": "#e69f00", "FAILED": "#d55e00"}
DARK = {
    INK: "#e6e8eb",
    FAINT: "#9aa1a9",
    GRID: "#33383f",
    "#0072b2": "#4aa3df",
    "#d55e00": "#f08a3c",
    "#009e73": "#2fc596",
    "#cc79a7": "#dd94bb",
    "#7b5ea7": "#a58cd0",
    "#6a7078": "#a3a9b1",
    "#b0b5bc": "#6f757d",
}
"""Replacements for colours that differ on a dark page."""
DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
WIDTH = 7.0
"""Inches: the text width of a page, or of a phone in landscape."""
LEGEND = 80
"""Characters in one line of a legend, five of them per handle."""
TOLD = "told:"
"""Starts the SVG id of an artist that `told` gave words."""
RC: dict[str, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "jepa_ray",
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn in all figures."""

    colour: str
    dash: Literal["-", "--", ":", "-."]
    marker: str


@dataclass(frozen=True)
class Plot:
    """A figure and the table behind it. Without a figure, `caption` says why, and how to get one."""

    name: str
    title: str
    caption: str
    table: Table
    figure: Figure | None = None
    sources: tuple[str, ...] = ("metrics",)
    """Tables of the results folder that it is computed from."""
    notes: tuple[str, ...] = field(default=())


def looks(sweep: Sweep) -> dict[str, Look]:
    """Method -> look. Baselines are grey."""
    greys, colours = 0, 0
    by_method = {}
    for method in sweep.methods:
        if method in sweep.baselines:
            by_method[method] = Look(GREYS[greys % len(GREYS)], DASHES[greys % len(DASHES)], MARKERS[greys % len(MARKERS)])
            greys += 1
        else:
            # Never the baseline's dash or marker, and different from the neighbours', so that no two methods differ in colour only.
            dash, marker = DASHES[1 + colours % (len(DASHES) - 1)], MARKERS[1 + colours % (len(MARKERS) - 1)]
            by_method[method] = Look(METHODS[colours % len(METHODS)], dash, marker)
            colours += 1
    return by_method


@contextmanager
def drawing() -> Iterator[None]:
    """Apply `RC` to Matplotlib inside the block, then restore the caller's settings."""
    with matplotlib.rc_context(cast(Any, RC)):
        yield


def panels(
    titles: Sequence[str], columns: int | None = None, height: float = 2.3, share: str = "row", width: float = WIDTH
) -> tuple[Figure, list[Axes]]:
    """One panel per title, in rows of `columns` (default: three, or one row of one or two wide panels)."""
    number = max(1, len(titles))
    columns = min(number, columns or (number if number <= 2 else 3))
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey={"row": False, "all": True}[share])
    axes = list(grid.flat)
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title)
    for axis in axes[number:]:
        axis.set_visible(False)
    return figure, axes[:number]


def legend(figure: Figure, sweep: Sweep, only: Sequence[str] | None = None, lines: bool = True) -> None:
    """Add a legend of methods above the panels, in the same order in all figures."""
    handles = [
        Line2D([], [], color=look.colour, linestyle=look.dash if lines else "none", marker=look.marker, label=method)
        for method, look in looks(sweep).items()
        if only is None or method in only
    ]
    if handles:
        longest = max(len(str(handle.get_label())) for handle in handles)
        columns = max(1, min(5, len(handles), LEGEND // (longest + 5)))
        figure.legend(handles=handles, loc="outside upper left", ncols=columns, columnspacing=1.4, handlelength=2.2)


def svg(plot: Plot) -> str:
    """The figure as SVG for an HTML page: without a fixed size, with colours as CSS variables and unique ids."""
    assert plot.figure is not None
    stream = io.StringIO()
    with drawing():
        plot.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="\1" role="img">', text, count=1
    )
    text = re.sub(rf'<g id="{TOLD}([^"]*)">', r'<g class="mark"><title>\1</title>', text)
    prefix = re.sub(r"\W+", "-", plot.name)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{prefix}-\1"', text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    for colour in [INK, FAINT, GRID, *GREYS, *METHODS]:
        text = text.replace(colour, f"var(--c{colour[1:]})")
    text = text.replace("#ffffff", "var(--card)")
    return text.replace("\n ", " ").strip()


def png(plot: Plot) -> bytes:
    """The figure as PNG on white, for Markdown."""
    assert plot.figure is not None
    stream = io.BytesIO()
    with drawing():
        plot.figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def colour_variables() -> tuple[str, str]:
    """CSS definitions of the variables that `svg` uses: for light and for dark pages."""
    colours = [INK, FAINT, GRID, *GREYS, *METHODS]
    light = " ".join(f"--c{colour[1:]}: {colour};" for colour in colours)
    dark = " ".join(f"--c{colour[1:]}: {DARK[colour]};" for colour in colours if colour in DARK)
    return light, dark


def unit(largest: float) -> tuple[float, str]:
    """Unit and prefix that make numbers up to `largest` short: 3e12 -> (1e12, "T")."""
    for size, name in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if largest >= size:
            return size, name
    return 1.0, ""


def epochs(axis: Axes) -> None:
    """Make the x axis count epochs in whole numbers."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    low, high = axis.get_xlim()
    if high - low < 1:
        axis.set_xlim(0, max(1.0, high))
    axis.set_xlabel("epoch")


def log_if_wide(axis: Axes, low: float, high: float, which: Literal["x", "y"] = "y") -> None:
    """Use a log scale if values span more than a factor of 30; only powers of ten are labelled."""
    if low > 0 and high > 30 * low:
        scale, place = (axis.set_yscale, axis.yaxis) if which == "y" else (axis.set_xscale, axis.xaxis)
        scale("log")
        place.set_minor_formatter(NullFormatter())


def thin(count: int) -> dict[str, Any]:
    """Width and opacity of one line among `count`: few lines stand out, hundreds form a cloud."""
    return {"linewidth": 1.2 if count <= 30 else 0.8, "alpha": max(0.15, min(0.85, 12 / max(1, count)))}


def fewest_last(methods: pd.Series[str]) -> list[str]:
    """Methods by their number of rows, descending, so that four lines of one arm are drawn over two hundred of another."""
    return [str(name) for name in methods.value_counts().index]


def told(artist: Artist, words: str) -> None:
    """Make `svg` show these words while the pointer is on the artist."""
    artist.set_gid(TOLD + words.replace('"', "'"))


def band(axis: Axes, values: SeriesGroupBy[Any, Any], look: Look, scale: float = 1.0) -> None:
    """The mean of each group against its key, with a band of one sample standard deviation (none for a single value)."""
    mean, sd = scale * values.mean(), scale * values.std().fillna(0.0)
    axis.plot(mean.index, mean, color=look.colour, linestyle=look.dash, marker=look.marker)
    if (sd > 0).any():
        axis.fill_between(mean.index, mean - sd, mean + sd, color=look.colour, alpha=0.12, linewidth=0)


def short(names: Sequence[str], limit: int = 14) -> list[str]:
    """The names, shortened to fit below an axis."""
    return [name if len(name) <= limit else name[: limit - 1] + "…" for name in names]


Draw = Callable[[Sweep], Plot]
