"""The cost of Ray, Optuna and the tables per trial: a sweep of short one-worker trials against the bare training loop.

    python -m benchmarks.overhead [--json] [--trials N]

Both run the same configurations with the same `run_trial`, the bare loop in this process after a warm-up trial. The sweep runs one
trial at a time, like the loop; its time is counted from the end of its warm-up trial to the end of its last trial. Starting Ray and
tokenising happen once; their time is not included and printed separately. Exits 1 if the overhead is more than a second per trial.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_S = 1.0
"""Limit of the overhead: seconds per trial over the bare loop."""


@dataclass
class Clock:
    """A listener that records when trials start and end, and their configurations."""

    first: float = 0.0
    last: float = 0.0
    warm: float = 0.0
    """End of the first trial: the process that runs the others is warm from here."""
    jobs: list[Any] = field(default_factory=list)

    def started(self, job: Any) -> None:
        self.first = self.first or time.perf_counter()

    def finished(self, job: Any, outcome: dict[str, Any]) -> None:
        assert outcome["state"] == "COMPLETE", outcome
        self.last = time.perf_counter()
        self.warm = self.warm or self.last
        self.jobs.append(job)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *details: None


def main() -> int:
    """Print seconds per trial of both; returns 0 if the limit is met, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--trials", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jepa-ray-overhead-") as folder:
        figures = measure(Path(folder), options.trials)
    if options.json:
        print(json.dumps(figures))
    else:
        bare, sweep = figures["bare_s_per_trial"], figures["sweep_s_per_trial"]
        print(f"{figures['trials']} trials of {bare:.2f} s each in the bare loop, {sweep:.2f} s in the sweep")
        print(f"overhead {figures['overhead_s_per_trial']:.2f} s per trial (at most {LIMIT_S:g} wanted)")
        once, first = figures["start_s"], figures["first_trial_s"]
        print(f"once per sweep: {once:.1f} s for Ray and prepared data, {first:.1f} s for the first trial's process and imports")
    return 0 if figures["reached"] else 1


def measure(folder: Path, num_trials: int) -> dict[str, Any]:
    """Run the sweep, then the same configurations one after another in this process."""
    from jepa_ray.orchestration.cluster import connect, settings

    settings()
    from jepa_ray.config import SweepConfig
    from jepa_ray.orchestration.run import run_sweep

    sweep = SweepConfig.model_validate(
        {
            "name": "overhead",
            "output": str(folder),
            "methods": {"baseline": "none"},
            "data": {"num_train": 128, "num_val": 16, "num_test": 16},
            "space": {"optim.learning_rate": {"float": [1e-3, 1e-2], "log": True}},
            # One additional trial: the first one starts the process.
            "search": {"algorithm": "random", "num_trials": num_trials + 1},
            "scheduler": {"name": "none"},
            "confirm": {"seeds": []},
            "resources": {"max_concurrent": 1, "dashboard": False},
            "base": {"optim": {"num_epochs": 1, "batch_size": 32}, "evaluation": {"max_new_tokens": 8}},
        }
    )
    clock, began = Clock(), time.perf_counter()
    (folder / sweep.name).mkdir()
    with connect(sweep.resources) as cluster:
        run_sweep(sweep, folder / sweep.name, cluster, clock)
    sweep_s = (clock.last - clock.warm) / num_trials

    from jepa_ray.preparation.prepare import prepare
    from jepa_ray.training.runtime import Runtime
    from jepa_ray.training.trial import run_trial

    prepared = prepare(sweep, "llama3", "nl-rx")
    seconds = []
    for number, job in enumerate(clock.jobs):
        started = time.perf_counter()
        result = run_trial(job.config, prepared, Runtime(num_threads=1), lambda metrics: None, folder / "bare" / str(number))
        seconds.append(time.perf_counter() - started)
        assert result.state == "COMPLETE", result.error
    bare_s = sum(seconds[1:]) / num_trials
    overhead = sweep_s - bare_s
    return {
        "trials": num_trials,
        "bare_s_per_trial": bare_s,
        "sweep_s_per_trial": sweep_s,
        "overhead_s_per_trial": overhead,
        "start_s": clock.first - began,
        "first_trial_s": clock.warm - clock.first,
        "reached": overhead <= LIMIT_S,
    }


if __name__ == "__main__":
    sys.exit(main())
