"""The worth of earlier sweeps to a new one: each family in turn is the new one, and searches of the others are the earlier sweeps.

    python -m benchmarks.warm_start [--json] [--replays N] [--table FILE]

Reads the grid of `benchmarks.search_efficiency`. In each replay the product's default search has run on every other family; then the new
family is searched. `none`: without the earlier sweeps. `first m`: their best m configurations by relative rank are tried after the
method's own values (`jepa_ray/plan/warm_start.py`; the product's `search.warm_start` is m = 3). `injected`: all of their finished
trials are added to the sampler's study as if they were the new arm's, with scores standardised within their arm and rescaled to the new
arm's mean and spread. A real search cannot know these before its own trials finish; here they are read from the grid, which favours
`injected`.

`after x`: worth of the choice (accuracy on held-out seeds) once a search has paid the share x of the total cost of `none`, in points above
`none` at the same cost; `+-`: its standard error over replays, paired. Exits 1 if the product's method gains nothing after a quarter, on
the mean over families.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import InMemoryStorage

from benchmarks.replay import contenders, grid
from benchmarks.replay.contenders import Contender, Draw
from benchmarks.replay.grid import Grid
from benchmarks.replay.searches import Trace, search
from benchmarks.search_efficiency import SPACE, TABLE
from benchmarks.timing import finish
from jepa_ray import plan
from jepa_ray.config import SweepConfig, arms
from jepa_ray.orchestration.studies import ArmStudy
from jepa_ray.plan.load import load_sweep
from jepa_ray.plan.warm_start import COUNT, Earlier, best

SHARES = (0.25, 0.5, 1.0)
Prepare = Callable[[optuna.Study, SweepConfig, Grid, Draw, list[Earlier]], None]


def nothing(study: optuna.Study, sweep: SweepConfig, new: Grid, drawn: Draw, earlier: list[Earlier]) -> None:
    """Ignore the earlier sweeps."""


def first(count: int) -> Prepare:
    """Enqueue the best `count` earlier configurations after the arm's own values."""

    def prepare(study: optuna.Study, sweep: SweepConfig, new: Grid, drawn: Draw, earlier: list[Earlier]) -> None:
        for params in best(earlier, count):
            study.enqueue_trial(params, skip_if_exists=True)

    return prepare


def injected(study: optuna.Study, sweep: SweepConfig, new: Grid, drawn: Draw, earlier: list[Earlier]) -> None:
    """Add all earlier trials to the study as finished trials, on the new arm's own scale."""
    arm = next(arm for arm in arms(sweep) if arm.method == "jepa")
    distributions = {path: distribution.to_optuna() for path, distribution in plan.space(sweep, arm).items()}
    own_scores = [new.final(cell, drawn.searched[:1]) for cell in new.cells()]
    for name in dict.fromkeys(trial.arm for trial in earlier):
        trials = [trial for trial in earlier if trial.arm == name]
        scores = np.array([trial.score for trial in trials])
        standard = (scores - scores.mean()) / (scores.std() or 1.0) * np.std(own_scores) + np.mean(own_scores)
        for trial, score in zip(trials, standard, strict=True):
            study.add_trial(
                optuna.trial.create_trial(
                    value=float(score), params=dict(trial.params), distributions=distributions, user_attrs={"copied": True}
                )
            )


WAYS: Mapping[str, Prepare] = {"none": nothing, **{f"first {count}": first(count) for count in (1, 2, COUNT, 5)}, "injected": injected}


def replay(way: Prepare, default: Contender, new: Grid, drawn: Draw, base: SweepConfig, earlier: list[Earlier]) -> Trace:
    """The default search of a new family, prepared in one of the `WAYS`."""
    sweep, storage = contenders.sweep_of(default, base, new, drawn), InMemoryStorage()
    arm = next(arm for arm in arms(sweep) if arm.method == "jepa")
    ArmStudy(sweep, arm, storage)  # `search` reopens it, as a resumed sweep does, with the trials that `way` adds
    way(optuna.load_study(study_name=arm.name, storage=storage), sweep, new, drawn, earlier)
    return search(sweep, new, drawn.searched, storage=storage)


def measure(grids: Mapping[str, Grid], base: SweepConfig, replays: int) -> dict[str, float]:
    """Figures of every way with each family as the new one, and their means over families."""
    widest = max(grids.values(), key=lambda family_grid: len(family_grid.cells()))
    default = Contender("the default", space=contenders.ranges(widest))  # the same for all families, as in a single file
    results: dict[str, float] = {}
    for family, new in grids.items():
        worths: dict[str, list[contenders.Replay]] = {name: [] for name in WAYS}
        for number in range(replays):
            earlier = [
                Earlier(other.family, params, score)
                for other in grids.values()
                if other is not new
                for params, score in _earlier(default, other, base, number).complete
            ]
            drawn = contenders.draw(new, number)
            for name, way in WAYS.items():
                worths[name].append(contenders.valued(replay(way, default, new, drawn, base, earlier), new, drawn))
        unit = float(np.mean([one.trace.paid for one in worths["none"]]))
        for name, replayed in worths.items():
            for share in SHARES if name != "none" else ():
                gains = [
                    100 * (one.gap(share * unit) - other.gap(share * unit)) for one, other in zip(replayed, worths["none"], strict=True)
                ]
                results[f"{family}, {name}, after {share:g}"] = float(np.mean(gains))
                results[f"{family}, {name}, after {share:g} +-"] = float(np.std(gains, ddof=1) / math.sqrt(len(gains)))
    for name in WAYS:
        for share in SHARES if name != "none" else ():
            lines = [f"{family}, {name}, after {share:g}" for family in grids]
            results[f"all, {name}, after {share:g}"] = float(np.mean([results[line] for line in lines]))
            results[f"all, {name}, after {share:g} +-"] = math.hypot(*(results[f"{line} +-"] for line in lines)) / len(lines)
    return results


def _earlier(default: Contender, other: Grid, base: SweepConfig, number: int) -> Trace:
    """The earlier sweep on another family."""
    drawn = contenders.draw(other, number)
    return search(contenders.sweep_of(default, base, other, drawn), other, drawn.searched)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.warm_start", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--replays", type=int, default=50)
    parser.add_argument("--table", type=Path, default=TABLE, help="the grid's table")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        grids = grid.read(options.table)
        if len(grids) < 2:
            raise ValueError(f"{options.table} contains only {', '.join(grids)}; earlier sweeps need another family: collect one more")
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    results: dict[str, Any] = measure(grids, load_sweep(SPACE), options.replays)
    product = f"all, first {COUNT}, after {SHARES[0]:g}"
    if options.json:
        results = {name: value if math.isfinite(value) else None for name, value in results.items()}
    finish("warm_start", results, {product: (">=", 0.0)}, options.json, {"replays": options.replays, "families": ", ".join(grids)})


if __name__ == "__main__":
    main()
