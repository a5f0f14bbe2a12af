"""Forest plot: every difference between a method and its baseline, with its 95 % interval, in one picture.

    python -m analysis.figures.forest results/NAME [--output FOLDER]

Writes forest.svg (for a light page) and forest-dark.svg to FOLDER (default results/NAME) and prints the table behind them.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from analysis.command_line import run
from analysis.figures import style
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep, read
from analysis.inputs.tables import refuse_damaged
from analysis.protocol.claims import Evidence, gather
from analysis.stats.crossed import Interval
from analysis.text_tables import Table, points, text
from analysis.verdict import Report, judge

FILES = ("forest.svg", "forest-dark.svg")
PAGE = "#0d1117"
"""Background of a dark page: hollow dots are filled with it."""


@dataclass(frozen=True)
class Line:
    """One difference. Shares are in [0, 1]."""

    arm: str
    named: str
    """The arm; with the other one, if that is not its baseline."""
    at: str
    """`confirmed` or `equal FLOPs`."""
    kind: str
    """`claim` or `control`."""
    difference: float
    interval: tuple[float, float] | None
    over: str
    """What the interval is over."""
    seeds: int
    verdict: str

    @property
    def name(self) -> str:
        """Arm, with the condition if it is not the confirmation itself."""
        return self.named if self.at == "confirmed" else f"{self.named}, {self.at}"


def lines_of(sweep: Sweep) -> tuple[list[Line], float]:
    """Claims (as confirmed, then at equal FLOPs), then controls; and the margin. Raises ValueError if the trials table is unreadable."""
    evidence = gather(sweep.folder)
    report = judge(evidence)
    return lines_from(evidence, report), report.margin


def lines_from(evidence: Evidence, report: Report) -> list[Line]:
    """The same from a report that exists already."""
    panels = {(claim.method, claim.baseline): claim.equal_flops for claim in evidence.claims}
    usual = {(arm.name, arm.baseline) for arm in evidence.declared.arms}
    lines = []
    for ruling in sorted(report.verdicts, key=lambda ruling: ruling.kind != "claim"):
        if ruling.difference is None:
            continue
        pair = (ruling.method.partition(" (")[0], str(ruling.baseline).partition(" (")[0])
        named = ruling.method if pair in usual else " - ".join(pair)
        one = Line(
            ruling.method, named, "confirmed", ruling.kind, ruling.difference, *_over(ruling.interval), len(ruling.seeds), ruling.verdict
        )
        lines.append(one)
        panel, cost = panels.get((ruling.method, ruling.baseline)), ruling.at_flops
        if ruling.kind != "claim" or panel is None or panel.difference is None:
            continue
        if cost is not None and cost.interval is not None:
            between, over = _over(cost.interval)
        else:
            between, over = panel.interval, "-" if panel.interval is None else "seeds"
        verdict = "-" if cost is None else cost.verdict
        lines.append(Line(ruling.method, named, panel.at, ruling.kind, panel.difference, between, over, panel.seeds, verdict))
    return lines


def _over(interval: Interval | None) -> tuple[tuple[float, float] | None, str]:
    """The ends of an interval, and what it is over."""
    return (None, "-") if interval is None else ((interval.low, interval.high), "seeds and examples")


def plot(sweep: Sweep) -> Plot:
    """Dot: difference in test accuracy, hollow at equal FLOPs; bar: 95 % interval; shaded: differences below the margin."""
    lines, margin = lines_of(sweep)
    return drawn(sweep, lines, margin)


def drawn(
    sweep: Sweep, lines: Sequence[Line], margin: float, name: str = "forest", width: float = style.WIDTH, stacked: bool = False
) -> Plot:
    """The figure of these lines, `width` inches wide; `stacked`: names and numbers above the bars, for a narrow screen."""
    title = "Method minus baseline" if name == "forest" else "Controls minus baseline"
    rows = [[line.name, line.kind, points(line.difference), _interval(line), line.over, str(line.seeds), line.verdict] for line in lines]
    header = ["arm", "kind", "difference (points)", "95 % interval", "over", "seeds", "verdict"]
    table = Table(title, header, rows, "No method was confirmed together with a baseline.")
    if not lines:
        return Plot(name, title, f"{table.empty} A sweep with `confirm.seeds` and a baseline makes the figure.", table)
    method_of = dict(zip(sweep.trials["label"], sweep.trials["method"], strict=True))
    looks = style.looks(sweep)
    loser = "baseline" if all(line.named == line.arm for line in lines) else "other arm"
    claims = sum(line.kind == "claim" for line in lines)
    with style.drawing():
        figure, (axis,) = style.panels([""], height=0.15 + (0.4 if stacked else 0.29) * len(lines), width=width)
        axis.axvspan(-100 * margin, 100 * margin, color=style.GRID, linewidth=0, zorder=0)
        axis.axvline(0, color=style.FAINT, linewidth=0.8, zorder=1)
        for place, line in enumerate(lines):
            _bar(axis, place + 0.18 if stacked else place, line, looks[method_of[line.arm]])
            words = f"{points(line.difference)}  ({_interval(line)})"
            at = ("axes fraction", "data")
            if stacked:
                axis.annotate(line.name, (0, place - 0.22), xycoords=at, va="center", fontsize=8, annotation_clip=False)
                axis.annotate(words, (1, place - 0.22), xycoords=at, va="center", ha="right", fontsize=8, annotation_clip=False)
            else:
                axis.annotate(words, (1.02, place), xycoords=at, va="center", fontsize=8, annotation_clip=False)
        if 0 < claims < len(lines):
            axis.axhline(claims - 0.5, color=style.FAINT, linewidth=0.6, linestyle=":")
        if stacked:
            axis.grid(False)
            axis.set_yticks([])
            axis.spines["left"].set_visible(False)
            axis.set_xlabel("difference in test accuracy (points)")
        else:
            head = "difference (95 % interval)"
            axis.annotate(head, (1.02, 1), xycoords="axes fraction", va="bottom", fontsize=8, color=style.FAINT, annotation_clip=False)
            axis.set_yticks(range(len(lines)), [line.name for line in lines])
            axis.set_xlabel(f"difference in test accuracy (points); below 0 the {loser} is better")
        axis.set_ylim(len(lines) - 0.5, -0.5)
        axis.grid(False, axis="y")
    caption = (
        "Dot: mean over seeds; hollow: at equal FLOPs. Bar: 95 % interval over seeds and test examples (the table says where over seeds "
        f"only). Shaded: differences below the margin of {100 * margin:g}."
    )
    caption += " Below the dotted line: controls." if 0 < claims < len(lines) else ""
    return Plot(name, title, caption, table, figure, ("trials", "predictions"))


def _bar(axis: Axes, height: float, line: Line, look: style.Look) -> None:
    if line.interval is not None:
        low, high = line.interval
        axis.hlines(height, 100 * low, 100 * high, color=look.colour, linewidth=1.8, zorder=2)
    face = look.colour if line.at == "confirmed" else "white"
    axis.plot(100 * line.difference, height, look.marker, color=look.colour, markerfacecolor=face, markersize=6, zorder=3)


def _interval(line: Line) -> str:
    return "-" if line.interval is None else " to ".join(map(points, line.interval))


def svg(plot: Plot) -> str:
    """The figure as an SVG file for a light page, without background; text stays text."""
    assert plot.figure is not None
    stream = io.StringIO()
    with style.drawing():
        plot.figure.savefig(stream, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def dark(drawn: str) -> str:
    """The same file for a dark page."""
    for light, colour in {**style.DARK, "#ffffff": PAGE}.items():
        drawn = drawn.replace(light, colour)
    return drawn


def write(folder: Path, output: Path | None = None) -> Plot:
    """Write both files; the figure with its table. Raises ValueError if `folder` is not a sweep's or nothing was compared in it."""
    refuse_damaged(folder)
    made = plot(read(folder, curves=()))
    if made.figure is None:
        raise ValueError(f"{folder}: {made.caption}")
    output = output or folder
    output.mkdir(parents=True, exist_ok=True)
    drawn = svg(made)
    for name, content in zip(FILES, (drawn, dark(drawn)), strict=True):
        (output / name).write_text(content, encoding="utf-8")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 2 if a folder is not a sweep's, compares nothing, or cannot be written to."""
    parser = argparse.ArgumentParser(prog="python -m analysis.figures.forest", description="Every difference, with its 95 % interval.")
    parser.add_argument("sweep", type=Path, metavar="results/NAME")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to write (default results/NAME)")
    options = parser.parse_args(arguments)
    try:
        made = write(options.sweep, options.output)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(text(made.table), made.caption, sep="\n\n")
    return 0


if __name__ == "__main__":
    run(main)
