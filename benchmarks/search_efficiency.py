"""How much training a search needs to find a good cell: searches replayed on a finished grid, against the paper's protocol.

    python -m benchmarks.search_efficiency [--json] [--replays N] [--table FILE] [--family NAME]
    python -m benchmarks.search_efficiency --collect results/efficiency-*      writes the table that the replays read

The grid (search_spaces/efficiency.yaml) has every cell of learning rate x lambda x k x loss dropout on several seeds. A replay splits
the seeds in half at random. A search sees validation curves of the search seeds and pays the counted training FLOPs of the epochs it
runs; the worth of its choice is the cell's mean final accuracy on the held-out seeds. The reference is the grid's best cell by its mean
over the search seeds, valued the same way, so no contender gains from luck on the seeds that selected. Nothing is trained and no GPU is
needed.

The searches are the product's own (`orchestration/studies.py`, `orchestration/early_stopping.py`), two trials at a time, over ranges; a
drawn configuration gets the nearest cell's record, and is paid for again if that cell has been run before. Each starts at a random cell,
as for a user without prior knowledge. The paper's protocol finds the best learning rate for the baseline, then runs 20 cells at that rate,
all on every search seed, in random order.

`to 1 pp`: FLOPs, in multiples of the paper's whole protocol, from which on the mean over replays stays within one percentage point of
the reference; `smooth`: the same for the cell that is best together with its neighbours; `as good`: FLOPs from which on the mean is at
least the final one of the paper's protocol; `median`: over replays, of the FLOPs when a replay is first within a point. Exits 1 if the
product's defaults need more than a quarter to 1 pp, with the baseline's own search paid as in the paper's protocol, or without. The last
lines also compare with the moment at which the paper's own grid gets within a point, before it is complete.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from benchmarks.replay import contenders, grid
from benchmarks.replay.contenders import Contender, Figures, figures
from jepa_ray.config import SweepConfig
from jepa_ray.plan.load import load_sweep

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "search_spaces" / "efficiency.yaml"
TABLE = ROOT / "benchmarks" / "data" / "search_efficiency.parquet"

DEFAULT = "the default"
PAID = "the default, baseline's search paid too"
NEVER = {"name": "none"}
LIMIT = 0.25
"""Limit of the default's FLOPs over the paper's."""


def lineup(epoch_flops: float) -> list[Contender]:
    """The contenders. `epoch_flops`: FLOPs of an epoch, the unit of schedulers that stop on FLOPs."""
    on_flops = {"name": "asha", "time_attr": "train_flops", "grace_period": epoch_flops, "reduction_factor": 3}
    return [
        Contender(DEFAULT),
        Contender(PAID, methods=("baseline", "jepa")),
        Contender("the default from the file's values", own_start=True),
        Contender("random", {"algorithm": "random"}, NEVER),
        Contender("TPE", {"algorithm": "tpe"}, NEVER),
        Contender("TPE, lists for ranges", {"algorithm": "tpe"}, NEVER, choices=True),
        Contender("TPE + ASHA on epochs, grace 1", {"algorithm": "tpe"}, {"name": "asha", "grace_period": 1, "reduction_factor": 3}),
        Contender("TPE + ASHA on epochs, grace 2", {"algorithm": "tpe"}, {"name": "asha", "grace_period": 2, "reduction_factor": 3}),
        Contender("TPE + ASHA on FLOPs, grace 1 epoch's", {"algorithm": "tpe"}, on_flops),
        Contender("TPE + ASHA on FLOPs, grace 2 epochs'", {"algorithm": "tpe"}, {**on_flops, "grace_period": 2 * epoch_flops}),
        Contender("GP", {"algorithm": "gp"}, NEVER, at_most=10),  # a suggestion takes about a second
    ]


def measure(
    family_grid: grid.Grid, base: SweepConfig, replays: int, lineup: Sequence[Contender], say: Any = lambda line: None
) -> tuple[Figures, list[Figures]]:
    """The paper's protocol and every contender, with a budget of a quarter of the protocol's FLOPs."""
    theirs = contenders.run_paper(family_grid, replays)
    budget = LIMIT * sum(replay.trace.paid for replay in theirs) / len(theirs)
    goal = sum(replay.gaps[-1][1] for replay in theirs) / len(theirs)
    paper, others = figures("the paper's protocol", theirs, budget, goal), []
    for contender in lineup:
        others.append(
            figures(contender.name, contenders.run(contender, base, family_grid, min(replays, contender.at_most or replays)), budget, goal)
        )
        say(row(others[-1], paper.paid))
    return paper, others


COLUMNS = ("to 1 pp", "smooth", "as good", "median", "share", "at 1/4", "share", "cost", "at end", "+-", "runs", "cut", "n")
HEAD = f"{'':<42}" + "".join(f"{name:>8}" for name in COLUMNS)


def row(result: Figures, unit: float) -> str:
    """One line of the table. `unit`: FLOPs of the paper's protocol."""
    flops = (
        result.reached / unit,
        result.smooth / unit,
        result.as_good / unit,
        result.first / unit,
        result.share,
        100 * result.at_budget,
        result.share_at_budget,
        result.paid / unit,
    )
    return (
        f"{result.name:<42}"
        + "".join(f"{value:8.{3 if index < 4 else 2}f}" for index, value in enumerate(flops))
        + f"{100 * result.gap:8.2f}{100 * result.error:8.2f}{result.runs:8.1f}{result.cut:8.1f}{result.replays:8d}"
    )


def main() -> None:
    """Print the table, or collect it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_efficiency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--replays", type=int, default=100, help="splits of the seeds")
    parser.add_argument("--table", type=Path, default=TABLE, help="the grid's table")
    parser.add_argument("--family", default="llama3")
    parser.add_argument("--collect", nargs="+", type=Path, metavar="FOLDER", help="write the table from finished sweeps, and stop")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if options.collect:
            table = grid.collect(options.collect, SPACE)
            grid.write(table, options.table)
            print(f"{options.table}: {table.num_rows} rows of {len(options.collect)} sweeps, {options.table.stat().st_size / 1e3:.0f} kB")
            return
        sys.exit(report(options.table, options.family, options.replays, options.json))
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def report(path: Path, family: str, replays: int, as_json: bool) -> int:
    """Print all figures; returns 0 if the default meets its limit, else 1."""
    grids = grid.read(path)
    if family not in grids:
        raise ValueError(f"{path} does not contain family {family!r}, only {', '.join(grids)}; pass --family")
    family_grid, base = grids[family], load_sweep(SPACE)
    if len(family_grid.seeds) < 2:
        raise ValueError(f"{path}: {family} has {len(family_grid.seeds)} seed; at least two are needed, one to search on and one held out")
    drawn = contenders.draw(family_grid, 0)
    best = contenders.reference(family_grid, drawn)
    epoch = family_grid.runs["jepa"][best][family_grid.seeds[0]].flops[0]
    noise, held = family_grid.noise(), len(drawn.held_out)
    head = [
        f"search_efficiency: {family}, {len(family_grid.cells())} cells x {len(family_grid.seeds)} seeds, "
        f"{len(drawn.searched)} searched, {held} held out",
        f"{replays} replays; FLOPs in units of the paper's whole protocol; worth in points above (below: -) the reference",
        f"noise: one run {100 * noise:.2f} points (sd over seeds within a cell), a held-out mean {100 * noise / math.sqrt(held):.2f}",
    ]
    if not as_json:
        print("\n".join([*head, "", HEAD]))
    paper, others = measure(
        family_grid, base, replays, lineup(epoch), say=(lambda line: None) if as_json else (lambda line: print(line, flush=True))
    )
    ours = [result for result in others if result.name in (DEFAULT, PAID)]
    reached = all(result.reached <= LIMIT * paper.paid for result in ours)
    if as_json:
        print(json.dumps(as_record(family_grid, replays, noise, paper, others, reached)))
    else:
        print(row(paper, paper.paid))
        print(
            f"\nthe paper's protocol: {paper.paid:.4g} FLOPs, {paper.runs:.0f} runs; "
            f"on the way it is within a point, on the mean, from {paper.reached:.4g} on"
        )
        for result in ours:
            verdict = "reached" if result.reached <= LIMIT * paper.paid else "MISSED"
            ratios = f"{result.reached / paper.paid:.3f} of the whole (at most {LIMIT:g} wanted: {verdict})"
            print(f"{result.name}: {result.reached:.4g} FLOPs, {ratios}, {result.reached / paper.reached:.3f} of that moment")
    return 0 if reached else 1


def as_record(
    family_grid: grid.Grid, replays: int, noise: float, paper: Figures, others: Sequence[Figures], reached: bool
) -> dict[str, Any]:
    """All figures as one JSON object; levels that are never reached are null."""

    def plain(result: Figures) -> dict[str, Any]:
        values = {name: getattr(result, name) for name in Figures.__dataclass_fields__ if name != "name"}
        return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()} | {
            "to_1pp_over_paper": result.reached / paper.paid if math.isfinite(result.reached) else None
        }

    return {
        "benchmark": "search_efficiency",
        "family": family_grid.family,
        "seeds": family_grid.seeds,
        "cells": len(family_grid.cells()),
        "replays": replays,
        "noise_sd": noise,
        "paper": plain(paper),
        **{result.name: plain(result) for result in others},
        "limit": LIMIT,
        "reached": reached,
    }


if __name__ == "__main__":
    main()
