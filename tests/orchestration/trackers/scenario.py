"""What every tracker must survive: a trial whose sweep is interrupted, whose steps are trained again, and which then ends.

The adapters' tests run it with the real package, and read the result back with the real client.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jepa_ray import results
from jepa_ray.config import SweepConfig, TrialConfig
from jepa_ray.orchestration.jobs import Job, write
from jepa_ray.orchestration.trackers import Tracker, trackers
from jepa_ray.orchestration.tracking import Lane, tracked
from jepa_ray.results import Stage, State, TrialResult

CURVE = {"step_ce": {1: 3.0, 2: 2.5, 3: 2.0, 4: 1.5, 5: 1.25, 6: 1.0}, "val_accuracy": {3: 0.25, 6: 0.5}, "test_accuracy": {6: 0.375}}
"""Metric, by its name in the metrics table -> step -> value: what the run of the scenario has in the end."""
FINAL = {"val_accuracy": 0.5, "test_accuracy": 0.375, "wall_seconds": 12.5, "steps": 6, "device": "cpu", "alarms": None}
ONLY_FINAL = {name: value for name, value in FINAL.items() if isinstance(value, (int, float)) and name not in CURVE}
"""Final numbers that no curve ends with."""


def sweep_of(folder: Path, **track: Any) -> SweepConfig:
    return SweepConfig.model_validate({"name": "shown", "output": str(folder), "methods": {"jepa": {}}, "track": track})


def job_of(folder: Path, trial_id: str = "a1b2", stage: Stage = "confirm", number: int | None = None, **changes: Any) -> Job:
    config = TrialConfig.model_validate({"model": {"family": "llama3"}, "objective": {"lambda": 0.5, "k": 2}, "seed": 82, **changes})
    return Job(trial_id, trial_id, "jepa/llama3", stage, folder / "shown", config, number)


def rows(*steps: int, names: Sequence[str] = tuple(CURVE)) -> list[dict[str, Any]]:
    """Rows of the metrics table at these steps."""
    return [
        {"step": step, "epoch": step / 3, "split": name.partition("_")[0], "name": name, "value": CURVE[name][step]}
        for name in names
        for step in steps
        if step in CURVE[name]
    ]


def result(state: State = "COMPLETE", error: str | None = None) -> TrialResult:
    noise = [
        {"step": 0, "epoch": 0, "split": "pretrain", "name": "pretrain_ce", "value": 9.0},
        {"step": 3, "epoch": 1, "split": "diag", "name": "diag_sv_1", "value": 9.0},
        {"step": 3, "epoch": 1, "split": "diag", "name": "diag_ridge_r2", "value": float("nan")},
    ]
    return TrialResult(state, error, dict(FINAL), [*rows(1, 2, 3, 4, 5, 6), *noise])


def interrupted_and_resumed(folder: Path, reopened: Callable[[], Tracker], state: State = "COMPLETE") -> list[str]:
    """Run the scenario in `folder/shown`; returns what was said. `reopened` makes the tracker of a new process."""
    said: list[str] = []
    job = job_of(folder)
    live = ("step_ce", "val_accuracy")
    lane = Lane(reopened(), "shown", job.folder, said.append)
    lane.start()
    lane.started(tracked("shown", job))
    lane.rows(job.trial_id, rows(1, names=live))
    lane.rows(job.trial_id, rows(2, 3, names=live))
    lane.stop(100)
    lane = Lane(reopened(), "shown", job.folder, said.append)
    lane.start()
    lane.started(tracked("shown", job))
    lane.rows(job.trial_id, rows(2, 3, 4, names=live))
    lane.rows(job.trial_id, rows(5, names=live))
    write(job, result(state, "ValueError: no luck" if state == "FAILED" else None))
    lane.ended(job.trial_id)
    lane.stop(100)
    (kept,) = (json.loads(path.read_text()) for path in (job.folder / "tracked").glob("*/*.json"))
    assert kept["ended"] and kept["sent"]["step_ce"] == 6
    return said


def opened(folder: Path, **track: Any) -> Callable[[], Tracker]:
    """Makes the one tracker of a sweep file anew."""

    def make() -> Tracker:
        (tracker,) = trackers(sweep_of(folder, **track), folder / "shown", said.append)
        return tracker

    said: list[str] = []
    return make


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings that a tracker shows: those of the trials table."""
    (row,) = results.read_trials(folder / "shown").to_dict("records")
    return {name: row[name] for name in ("lambda", "k", "learning_rate", "family", "task", "seed")}
