"""The contenders, the splits of the seeds, and the worth of a search after every FLOP it paid.

A replay draws the search seeds, the held-out seeds and the cell that a search starts from, as for a user without prior knowledge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.replay.grid import Cell, Grid
from benchmarks.replay.searches import Reruns, Trace, paper, search
from jepa_ray.config import SweepConfig, canonical
from jepa_ray.streams import stream

PAPER_LAMBDAS = (0.5, 1.0, 2.0, 4.0)
WITHIN = 0.01
"""A choice is good if its worth is at most this far below the reference's."""


@dataclass(frozen=True)
class Contender:
    """A search: keys of `search:` and `scheduler:` that differ from the product's defaults."""

    name: str
    search: Mapping[str, Any] | None = None
    scheduler: Mapping[str, Any] | None = None
    reruns: Reruns | None = None
    choices: bool = False
    """Search lists of values instead of ranges."""
    space: Mapping[str, Any] | None = None
    """The space; None: the grid's space."""
    methods: tuple[str, ...] = ("jepa",)
    """Arms that run and are paid for."""
    own_start: bool = False
    """Start from the file's own values instead of a random cell."""
    at_most: int | None = None
    """Maximum number of replays, for contenders with slow suggestions; None: no limit."""


@dataclass(frozen=True)
class Draw:
    """The random draws of one replay."""

    number: int
    searched: tuple[int, ...]
    """Search seeds; a sweep uses the first."""
    held_out: tuple[int, ...]
    start: Cell
    """The method's own values, which a sweep tries first."""
    order: tuple[Cell, ...]
    """The paper's cells in the order in which they run (the paper gives no order)."""


@dataclass(frozen=True)
class Replay:
    """One search, valued on the held-out seeds."""

    trace: Trace
    gaps: tuple[tuple[float, float], ...]
    """(FLOPs paid, worth of the choice from then on minus that of the reference), in order."""
    smooth: float = 0.0
    """Worth of the smoothed reference minus that of the reference."""

    def gap(self, paid: float) -> float:
        """Worth minus the reference's once `paid` FLOPs are paid; -inf before there is a choice."""
        return next((gap for cost, gap in reversed(self.gaps) if cost <= paid), -math.inf)


def draw(grid: Grid, number: int, num_searched: int | None = None) -> Draw:
    """The draws of replay `number`; `num_searched` search seeds, by default half of all seeds."""
    rng = stream(number, "search efficiency", grid.family)
    seeds = [int(seed) for seed in rng.permutation(grid.seeds)]
    half = num_searched or len(seeds) // 2
    cells = grid.cells()
    start = cells[rng.integers(len(cells))]
    theirs = [cell for cell in cells if cell[1] in PAPER_LAMBDAS and cell[3] == 0]
    return Draw(number, tuple(seeds[:half]), tuple(seeds[half:]), start, tuple(theirs[index] for index in rng.permutation(len(theirs))))


def reference(grid: Grid, drawn: Draw) -> Cell:
    """The grid's best cell by its mean over the search seeds: the choice of an unlimited search on all of them."""
    return max(grid.cells(), key=lambda cell: grid.final(cell, drawn.searched))


def smoothed(grid: Grid, drawn: Draw) -> Cell:
    """The cell with the best mean over itself and the cells one step away along an axis: about nine times the runs, so less luck."""
    axes = grid.axes()

    def around(cell: Cell) -> float:
        near = [cell]
        for axis, values in enumerate(axes):
            place = values.index(cell[axis])
            steps = [values[other] for other in (place - 1, place + 1) if 0 <= other < len(values)]
            near += [(*cell[:axis], value, *cell[axis + 1 :]) for value in steps]  # type: ignore[misc]
        return float(np.mean([grid.final(other, drawn.searched) for other in near]))

    return max(grid.cells(), key=around)


def ranges(grid: Grid) -> dict[str, Any]:
    """The grid's space as a user would write it: ranges, half a step wider than the axes, and a list for loss dropout.

    Equally spaced values thus get equal shares; a value with a wider gap below it (lambda 16) gets more.
    """
    rates, lambdas, ks, dropouts = grid.axes()

    def around(values: Sequence[float]) -> dict[str, Any]:
        half = math.sqrt(values[1] / values[0])
        return {"float": [values[0] / half, values[-1] * half], "log": True}

    return {
        "optim.learning_rate": around(rates),
        "objective.lambda": around(lambdas),
        "objective.k": {"int": [int(ks[0]), int(ks[-1])]},
        "objective.loss_dropout": {"choice": list(dropouts)},
    }


def lists(grid: Grid) -> dict[str, Any]:
    """The grid's space as lists of its values."""
    paths = ("optim.learning_rate", "objective.lambda", "objective.k", "objective.loss_dropout")
    return {path: {"choice": list(values)} for path, values in zip(paths, grid.axes(), strict=True)}


def sweep_of(contender: Contender, base: SweepConfig, grid: Grid, drawn: Draw) -> SweepConfig:
    """The contender's sweep in this replay. `base` is the grid's own sweep; its search and scheduler are not used."""
    tree = canonical(base)
    rate, lambda_, k, dropout = drawn.start
    epochs = len(next(iter(next(iter(grid.runs["jepa"].values())).values())).scores)
    tree |= {"search": {**(contender.search or {}), "seed": drawn.number}, "scheduler": dict(contender.scheduler or {})}
    tree["families"] = [grid.family]
    tree["base"]["optim"]["num_epochs"] = epochs
    tree["space"] = dict(contender.space or (lists(grid) if contender.choices else ranges(grid)))
    if not contender.own_start:
        tree["base"]["optim"]["learning_rate"] = rate
        tree["methods"]["jepa"] |= {"lambda": lambda_, "k": k, "loss_dropout": dropout}
    return SweepConfig.model_validate(tree)


def valued(trace: Trace, grid: Grid, drawn: Draw) -> Replay:
    """The trace, with every choice valued on the held-out seeds relative to the reference."""
    level = grid.final(reference(grid, drawn), drawn.held_out)
    gaps = tuple((paid, grid.final(cell, drawn.held_out) - level) for paid, cell in trace.choices)
    return Replay(trace, gaps, grid.final(smoothed(grid, drawn), drawn.held_out) - level)


def run(contender: Contender, base: SweepConfig, grid: Grid, replays: int, slots: int = 2) -> list[Replay]:
    """Run the contender in replays 0, 1, ...; every contender gets the same draws."""
    out = []
    for number in range(replays):
        drawn = draw(grid, number)
        sweep = sweep_of(contender, base, grid, drawn)
        trace = search(sweep, grid, drawn.searched, methods=contender.methods, slots=slots, reruns=contender.reruns)
        out.append(valued(trace, grid, drawn))
    return out


def run_paper(grid: Grid, replays: int) -> list[Replay]:
    """Run the paper's protocol in the same replays."""
    drawn = [draw(grid, number) for number in range(replays)]
    return [valued(paper(grid, one.searched, one.order), grid, one) for one in drawn]


@dataclass(frozen=True)
class Figures:
    """A contender over all replays. FLOPs are inf if a level is never reached."""

    name: str
    reached: float
    """FLOPs from which on the mean over replays is within `WITHIN` of the reference."""
    smooth: float
    """FLOPs from which on the mean is within `WITHIN` of the smoothed reference."""
    as_good: float
    """FLOPs from which on the mean is at least the final mean of the paper's protocol."""
    first: float
    """Median over replays of the FLOPs at which a replay's choice is first within `WITHIN` of the reference."""
    share: float
    """Share of replays whose choice is within `WITHIN` at `reached` (at the end, if that is inf)."""
    at_budget: float
    """Mean gap to the reference once the budget is paid; negative: worse than the reference."""
    share_at_budget: float
    paid: float
    """Mean FLOPs of the whole search."""
    gap: float
    """Mean gap at its end."""
    error: float
    """Standard error of `gap` over replays (too small, because replays share seeds)."""
    runs: float
    cut: float
    replays: int


def figures(name: str, replays: Sequence[Replay], budget: float, goal: float = 0.0) -> Figures:
    """All figures of a contender; `budget` in FLOPs, `goal` the final mean gap of the paper's protocol."""
    ends = np.array([replay.gaps[-1][1] for replay in replays])
    reached = settled(replays)
    firsts = [next((paid for paid, gap in replay.gaps if gap >= -WITHIN), math.inf) for replay in replays]
    return Figures(
        name=name,
        reached=reached,
        smooth=settled(replays, float(np.mean([replay.smooth for replay in replays])) - WITHIN),
        as_good=settled(replays, goal),
        first=float(np.median(firsts)),
        share=_share(replays, reached),
        at_budget=float(np.mean([replay.gap(budget) for replay in replays])),
        share_at_budget=_share(replays, budget),
        paid=float(np.mean([replay.trace.paid for replay in replays])),
        gap=float(ends.mean()),
        error=float(ends.std(ddof=1) / math.sqrt(len(ends))) if len(ends) > 1 else math.nan,
        runs=float(np.mean([replay.trace.runs for replay in replays])),
        cut=float(np.mean([replay.trace.cut for replay in replays])),
        replays=len(replays),
    )


def settled(replays: Sequence[Replay], level: float = -WITHIN) -> float:
    """The least FLOPs from which on the mean gap over replays stays at `level` or above; inf if it never does.

    The mean is a step function that changes when a replay changes its choice; after a search ends, its last choice remains.
    """
    gaps = np.full(len(replays), -np.inf)
    changes = sorted((paid, index, gap) for index, replay in enumerate(replays) for paid, gap in replay.gaps)
    since = math.inf
    for position, (paid, index, gap) in enumerate(changes):
        gaps[index] = gap
        if position + 1 < len(changes) and changes[position + 1][0] == paid:
            continue  # changes at the same moment count together
        if gaps.mean() < level - 1e-12:
            since = math.inf
        elif since == math.inf:
            since = paid
    return since


def _share(replays: Iterable[Replay], paid: float) -> float:
    return float(np.mean([replay.gap(paid) >= -WITHIN for replay in replays]))
