"""The table of a finished grid: every cell's validation curve and counted FLOPs, by seed. It is collected from sweeps and read for
replays; nothing runs here.
"""

from __future__ import annotations

import itertools
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jepa_ray import plan, results
from jepa_ray.config import SweepConfig, arms, canonical, columns
from jepa_ray.plan.load import load_sweep

Cell = tuple[float, float, int, float]
"""(learning rate, lambda, k, loss dropout); for the baseline (learning rate, 0, 0, 0)."""
KNOBS = ("learning_rate", "lambda", "k", "loss_dropout")

SCHEMA = pa.schema(
    [
        ("family", pa.dictionary(pa.int8(), pa.string())),
        ("method", pa.dictionary(pa.int8(), pa.string())),
        ("seed", pa.int16()),
        ("learning_rate", pa.float64()),
        ("lambda", pa.float64()),
        ("k", pa.int8()),
        ("loss_dropout", pa.float64()),
        ("epoch", pa.int16()),
        ("train_flops", pa.float64()),
        ("val_accuracy", pa.float32()),
    ]
)
"""One row per run and epoch. `train_flops` is counted from the run's start to the end of the epoch."""


@dataclass(frozen=True)
class Curve:
    """The reports of one run, epoch by epoch."""

    flops: tuple[float, ...]
    """Counted training FLOPs from the start to the end of each epoch."""
    scores: tuple[float, ...]
    """Validation accuracy at the end of each epoch, 0 to 1."""


@dataclass(frozen=True)
class Grid:
    """All runs of one family: method -> cell -> seed -> curve. Every cell has every seed."""

    family: str
    runs: Mapping[str, Mapping[Cell, Mapping[int, Curve]]]

    @property
    def seeds(self) -> list[int]:
        """The seeds, ascending."""
        return sorted(next(iter(self.runs["jepa"].values())))

    def cells(self, method: str = "jepa") -> list[Cell]:
        """The method's cells, ascending."""
        return sorted(self.runs[method])

    def axes(self, method: str = "jepa") -> tuple[list[float], ...]:
        """For each of `KNOBS`, the values in the method's cells, ascending."""
        return tuple(sorted({cell[axis] for cell in self.runs[method]}) for axis in range(len(KNOBS)))

    def final(self, cell: Cell, seeds: Sequence[int], method: str = "jepa") -> float:
        """Mean over seeds of the accuracy after the last epoch."""
        runs = self.runs[method][cell]
        return sum(runs[seed].scores[-1] for seed in seeds) / len(seeds)

    def nearest(self, knobs: Mapping[str, float], method: str = "jepa") -> Cell:
        """The cell with the nearest value of each knob, on a log scale for learning rate and lambda. A missing knob gets its lowest."""
        axes = self.axes(method)
        nearest = [
            min(values, key=lambda value: abs(_scaled(name, value) - _scaled(name, knobs.get(name, values[0]))))
            for name, values in zip(KNOBS, axes, strict=True)
        ]
        return nearest[0], nearest[1], int(nearest[2]), nearest[3]

    def noise(self, method: str = "jepa") -> float:
        """Standard deviation over seeds of a cell's final accuracy without the effect that a seed has on all cells: the residual of
        cell + seed, with (cells - 1) x (seeds - 1) degrees of freedom."""
        scores_CS = np.array([[self.final(cell, [seed], method) for seed in self.seeds] for cell in self.cells(method)])
        rest_CS = scores_CS - scores_CS.mean(1, keepdims=True) - scores_CS.mean(0, keepdims=True) + scores_CS.mean()
        return math.sqrt((rest_CS**2).sum() / ((len(scores_CS) - 1) * (len(self.seeds) - 1)))


def _scaled(name: str, value: float) -> float:
    return math.log(value) if name in ("learning_rate", "lambda") and value > 0 else value


def collect(folders: Sequence[Path], space_file: Path) -> pa.Table:
    """The table of finished sweeps of `space_file`, each with one family and one search seed, with its origin in the schema's metadata.

    ValueError if a folder is not such a sweep, if a run is missing, failed or cut short, or if two folders have the same family and seed.
    """
    if not folders:
        raise ValueError("no folder given: pass the sweeps' folders, such as results/efficiency-*")
    rows: list[dict[str, Any]] = []
    commands, origins, seen = [], set[tuple[Any, Any, Any]](), dict[tuple[str, int], Path]()
    for folder in folders:
        sweep, changes = _sweep(folder, space_file)
        key = (sweep.families[0], sweep.base.seed)
        if key in seen:
            raise ValueError(f"{folder}: family {key[0]} with seed {key[1]} is already in {seen[key]}; pass only one of the two")
        seen[key] = folder
        runs, origin = _runs(folder, sweep)
        rows += runs
        origins |= origin
        commands.append(shlex.join(["python", "-m", "jepa_ray.sweep", f"search_spaces/{space_file.name}", *changes]))
    metadata = {
        "commands": "\n".join(commands),
        "origins": json.dumps(
            [
                {"git_sha": sha, "versions": json.loads(versions or "{}"), "device": device}
                for sha, versions, device in sorted(origins, key=str)
            ]
        ),
    }
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: tuple(row[name] for name in SCHEMA.names[:8])), schema=SCHEMA)
    return table.replace_schema_metadata(metadata)


def _sweep(folder: Path, space_file: Path) -> tuple[SweepConfig, list[str]]:
    """The sweep of a folder and its changes to the file: name, seed, family, and fewer values of a knob.

    ValueError if anything else differs.
    """
    if not (folder / "sweep.yaml").exists():
        raise ValueError(f"{folder} has no sweep.yaml, so it is not a sweep's folder; pass folders such as results/efficiency-1")
    held, file = load_sweep(folder / "sweep.yaml"), load_sweep(space_file)
    if len(held.families) != 1:
        raise ValueError(f"{folder} has {len(held.families)} families; run one sweep per family and seed")
    changes = [f"name={held.name}", f"base.seed={held.base.seed}", f"families=[{held.families[0]}]"]
    for path, distribution in held.space.items():
        full = file.space.get(path)
        if full is not None and distribution != full and set(distribution.choice or ()) < set(full.choice or ()):
            changes.append(f"space.{path}={{choice: {json.dumps(distribution.choice)}}}")
    if held.search.num_trials != file.search.num_trials:
        changes.append(f"search.num_trials={held.search.num_trials}")
    asked, have = canonical(load_sweep(space_file, changes)), canonical(held)
    other = [key for key in asked if key not in ("output", "resources") and asked[key] != have[key]]
    if other:
        verb = "differs" if len(other) == 1 else "differ"
        raise ValueError(f"{folder}: its {', '.join(other)} {verb} from {space_file}; run the sweep again from that file")
    return held, changes


def _runs(folder: Path, sweep: SweepConfig) -> tuple[list[dict[str, Any]], set[tuple[Any, Any, Any]]]:
    """Rows of all runs of a sweep, and the distinct (git_sha, versions, device) of those runs. ValueError if runs are missing."""
    trials = results.read_trials(folder)
    trials = trials[trials["stage"] == "search"]
    curves = results.read_metrics(folder, filters=[("split", "==", "val"), ("name", "==", "val_accuracy")])
    by_trial = {str(name): curve.sort_values("epoch") for name, curve in curves.groupby("trial_id")}
    complete = {(row["method"], *(row[name] for name in KNOBS)): row for row in trials[trials["state"] == "COMPLETE"].to_dict("records")}
    rows, origins, missing = [], set(), []
    for arm in arms(sweep):
        for params in plan.grid(sweep, arm):
            knobs = columns(plan.trial_config(sweep, arm, params))
            cell = tuple(knobs[name] for name in KNOBS)
            row = complete.get((arm.method, *cell))
            curve = by_trial.get(row["trial_id"]) if row is not None else None
            if row is None or curve is None or curve["epoch"].tolist() != list(range(1, sweep.base.optim.num_epochs + 1)):
                missing.append(f"{arm.method} " + " ".join(f"{name} {value:g}" for name, value in zip(KNOBS, cell, strict=True)))
                continue
            if curve["value"].isna().any():
                missing.append(f"{arm.method} {cell} (validation accuracy is not a number)")
                continue
            origins.add((row["git_sha"], row["versions"], row["device"]))
            common = {"family": arm.family, "method": arm.method, "seed": sweep.base.seed, **dict(zip(KNOBS, cell, strict=True))}
            for epoch, flops, value in zip(curve["epoch"], curve["train_flops"], curve["value"], strict=True):
                rows.append({**common, "epoch": int(epoch), "train_flops": float(flops), "val_accuracy": float(value)})
    if missing:
        shown = "; ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ValueError(
            f"{folder}: {len(missing)} runs are missing or not COMPLETE over all epochs ({shown}); finish the sweep, or omit the folder"
        )
    return rows, origins


def write(table: pa.Table, path: Path) -> None:
    """Store a collected table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", use_dictionary=True)


def read(path: Path) -> dict[str, Grid]:
    """Family -> its grid. ValueError if the file does not exist or lacks a run."""
    if not path.exists():
        raise ValueError(f"the table {path} does not exist; make it with --collect from finished sweeps")
    return {str(family): grid_of(str(family), rows) for family, rows in pq.read_table(path).to_pandas().groupby("family", observed=True)}


def grid_of(family: str, frame: pd.DataFrame) -> Grid:
    """The grid of one family's rows. ValueError if a cell or one of its seeds is missing."""
    runs: dict[str, dict[Cell, dict[int, Curve]]] = {}
    for key, run in frame.sort_values("epoch").groupby(["method", "seed", *KNOBS], observed=True):
        method, seed, rate, lambda_, k, dropout = cast(tuple[str, int, float, float, int, float], key)
        cell: Cell = (float(rate), float(lambda_), int(k), float(dropout))
        curve = Curve(tuple(run["train_flops"].tolist()), tuple(run["val_accuracy"].astype(float).tolist()))
        runs.setdefault(str(method), {}).setdefault(cell, {})[int(seed)] = curve
    seeds = {int(seed) for seed in frame["seed"]}
    for method, cells in runs.items():
        for cell, by_seed in cells.items():
            if set(by_seed) != seeds:
                raise ValueError(f"{family}: {method} {cell} lacks seeds {sorted(seeds - set(by_seed))}; collect the table again")
        full = math.prod(len({cell[axis] for cell in cells}) for axis in range(len(KNOBS)))
        if len(cells) != full:
            some = set(itertools.product(*({cell[axis] for cell in cells} for axis in range(len(KNOBS))))) - set(cells)
            raise ValueError(f"{family}: {method} has {len(cells)} of {full} cells and lacks {sorted(some)[0]}; collect the table again")
    return Grid(family, runs)
