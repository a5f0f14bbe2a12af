"""What earlier sweeps are worth to a new one: every family in turn is the new one, searches of the others are the earlier sweeps.

    python -m benchmarks.warm_start [--json] [--replays N] [--table FILE]

Reads the grid of `benchmarks.search_efficiency`. In each replay the product's default search has run on every other family; then the new
family is searched from there. `none`: as if they were not there. `first m`: their best m configurations by relative rank are tried after
the method's own values (`jepa_ray/plan/warm_start.py`; the product's `search.warm_start` is m = 3). `injected`: all of their finished
trials are put into the sampler's study as if they were the new arm's, with scores standardised within their arm and brought to the new
arm's mean and spread, which a real search cannot know before its own trials are in; here they are read off the grid, in favour of
`injected`.

`after x`: worth of the choice (accuracy on held-out seeds) once a search has paid the share x of what `none` pays in all, in points above
`none` at the same cost; `+-`: its standard error over replays, pair by pair. Exits 1 where the product's way gains
nothing after a quarter, on the mean over families.
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
    """Earlier sweeps are not there."""


def first(count: int) -> Prepare:
    """The best `count` earlier configurations wait behind the arm's own values."""

    def prepare(study: optuna.Study, sweep: SweepConfig, new: Grid, drawn: Draw, earlier: list[Earlier]) -> None:
        for params in best(earlier, count):
            study.enqueue_trial(params, skip_if_exists=True)

    return prepare


def injected(study: optuna.Study, sweep: SweepConfig, new: Grid, drawn: Draw, earlier: list[Earlier]) -> None:
    """All earlier trials are finished trials of the study, on the new arm's own scale."""
    arm = next(arm for arm in arms(sweep) if arm.method == "jepa")
    distributions = {path: distribution.to_optuna() for path, distribution in plan.space(sweep, arm).items()}
    own = [new.final(cell, drawn.searched[:1]) for cell in new.cells()]
    for name in dict.fromkeys(trial.arm for trial in earlier):
        trials = [trial for trial in earlier if trial.arm == name]
        scores = np.array([trial.score for trial in trials])
        standard = (scores - scores.mean()) / (scores.std() or 1.0) * np.std(own) + np.mean(own)
        for trial, score in zip(trials, standard, strict=True):
            study.add_trial(
                optuna.trial.create_trial(
                    value=float(score), params=dict(trial.params), distributions=distributions, user_attrs={"copied": True}
                )
            )


WAYS: Mapping[str, Prepare] = {"none": nothing, **{f"first {count}": first(count) for count in (1, 2, COUNT, 5)}, "injected": injected}


def replay(way: Prepare, default: Contender, new: Grid, drawn: Draw, base: SweepConfig, earlier: list[Earlier]) -> Trace:
    """The default search of a new family that begins in one of `WAYS`."""
    sweep, storage = contenders.sweep_of(default, base, new, drawn), InMemoryStorage()
    arm = next(arm for arm in arms(sweep) if arm.method == "jepa")
    ArmStudy(sweep, arm, storage)  # `search` opens it again, as a sweep that is continued does, and finds what is put into it here
    way(optuna.load_study(study_name=arm.name, storage=storage), sweep, new, drawn, earlier)
    return search(sweep, new, drawn.searched, storage=storage)


def measure(grids: Mapping[str, Grid], base: SweepConfig, replays: int) -> dict[str, float]:
    """Figures of every way with every family as the new one, and their means over families."""
    widest = max(grids.values(), key=lambda own: len(own.cells()))
    default = Contender("the default", space=contenders.ranges(widest))  # the same for all, as one file would have it
    found: dict[str, float] = {}
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
        for name, own in worths.items():
            for share in SHARES if name != "none" else ():
                gains = [100 * (one.gap(share * unit) - other.gap(share * unit)) for one, other in zip(own, worths["none"], strict=True)]
                found[f"{family}, {name}, after {share:g}"] = float(np.mean(gains))
                found[f"{family}, {name}, after {share:g} +-"] = float(np.std(gains, ddof=1) / math.sqrt(len(gains)))
    for name in WAYS:
        for share in SHARES if name != "none" else ():
            lines = [f"{family}, {name}, after {share:g}" for family in grids]
            found[f"all, {name}, after {share:g}"] = float(np.mean([found[line] for line in lines]))
            found[f"all, {name}, after {share:g} +-"] = math.hypot(*(found[f"{line} +-"] for line in lines)) / len(lines)
    return found


def _earlier(default: Contender, other: Grid, base: SweepConfig, number: int) -> Trace:
    """The sweep that has run on another family."""
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
            raise ValueError(f"{options.table}: holds {', '.join(grids)} only; earlier sweeps need another family")
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    found: dict[str, Any] = measure(grids, load_sweep(SPACE), options.replays)
    product = f"all, first {COUNT}, after {SHARES[0]:g}"
    if options.json:
        found = {name: value if math.isfinite(value) else None for name, value in found.items()}
    finish("warm_start", found, {product: (">=", 0.0)}, options.json, {"replays": options.replays, "families": ", ".join(grids)})


if __name__ == "__main__":
    main()
