"""Recovers from the tables what a lost study.db contained: an arm's search trials, with their values, curves and places.

Parameters are read from a row's columns and accepted only if they lead to the row's configuration again. Suggestions without a row
(repeats, trials that were running) are drawn anew at their places, so the search continues as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jepa_ray import plan, results
from jepa_ray.config import Arm, SweepConfig, TrialConfig
from jepa_ray.config.space import Distribution
from jepa_ray.plan import warm_start

StandsFor = Callable[[str, str, TrialConfig], bool]
"""(config_id, arm, configuration) -> whether the id is that of the arm's configuration."""
Curve = Mapping[int, float]
"""Epoch (or step) -> value of the search's metric."""


@dataclass(frozen=True)
class Told:
    """A search trial from the tables, in the terms of a study."""

    row: Mapping[str, Any]
    place: int
    params: Mapping[str, Any] | None
    """None if the row's configuration is not in this space; its place is taken all the same."""
    curve: Curve = field(default_factory=dict)


def told(
    sweep: SweepConfig,
    arm: Arm,
    space: Mapping[str, Distribution],
    rows: Mapping[str, dict[str, Any]],
    curves: Mapping[str, Curve],
    stands_for: StandsFor,
) -> list[Told]:
    """The arm's search trials, by place. `rows`: those of `results.finished`; `curves`: by trial_id."""
    searched = [row for row in rows.values() if row["arm"] == arm.name and row["stage"] == "search"]
    searched.sort(key=lambda row: (row["number"] is None, row["number"] or 0, str(row["started_at"]), str(row["trial_id"])))
    trials: list[Told] = []
    for row in searched:
        params = _params(sweep, arm, space, row, stands_for)
        if params is None and row["number"] is None:
            continue  # not a suggestion: the row of an arm that could not be prepared, for example
        last = trials[-1].place if trials else 0
        place = int(row["number"]) if row["number"] is not None else last + 1
        trials.append(Told(row, place, params, curves.get(str(row["trial_id"]), {})))
    return trials


def curves(folder: Path, metric: str, unit: Literal["epoch", "step"]) -> dict[str, Curve]:
    """trial_id -> curve of `metric` over epochs or optimizer steps, finite values only."""
    split, _, name = metric.partition("_")
    table = results.read_metrics(
        folder, ["trial_id", unit, "name", "value"], filters=[("split", "==", split), ("name", "in", [name, metric])]
    )
    out: dict[str, dict[int, float]] = {}
    for trial_id, time, value in zip(table["trial_id"], table[unit], table["value"], strict=True):
        # In epochs, a validation within one is not part of a study's curve.
        if time >= 1 and time == int(time) and math.isfinite(value):
            out.setdefault(str(trial_id), {})[int(time)] = float(value)
    return dict(out)


def _params(
    sweep: SweepConfig, arm: Arm, space: Mapping[str, Distribution], row: Mapping[str, Any], stands_for: StandsFor
) -> dict[str, Any] | None:
    placed = warm_start.place({path: row.get(warm_start.column_of(path)) for path in space}, space)
    if placed is None or placed[1]:
        return None
    try:
        config = plan.trial_config(sweep, arm, placed[0])
    except ValueError:
        return None
    return placed[0] if stands_for(str(row["config_id"]), arm.name, config) else None
