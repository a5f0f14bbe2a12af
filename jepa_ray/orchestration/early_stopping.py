"""Early stopping: one asynchronous successive halving (ASHA) per arm, so arms never stop each other.

Ray's AsyncHyperBandScheduler decides; this module adds one instance per arm, rungs that survive a restart of the sweep (rebuilt from
the tables), and a last epoch that always counts as finished, not as stopped. Tune does not carry out a stop, because it would kill the
process: the trial learns of the stop and ends on its own (see `worker.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from jepa_ray.config import SchedulerConfig
from jepa_ray.config.sweep import NUM_RUNGS
from jepa_ray.orchestration.jobs import Job
from jepa_ray.orchestration.tune_adapters import NotSaved, job_of

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class ArmScheduler(NotSaved, FIFOScheduler):
    """Runs trials in the order in which the searcher serves them; ASHA decides, arm by arm, which ones stop early."""

    def __init__(self, config: SchedulerConfig, metric: str, mode: str, stop: Callable[[Job], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._config, self._score, self._mode, self._stop = config, metric, mode, stop
        self._arms: dict[str, AsyncHyperBandScheduler] = {}
        self._cut: set[str] = set()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Keep our own metric and mode. (Otherwise Tune would insist that every report contains the metric.)"""
        return True

    def remember(self, arm: str, trial_id: str, curve: Iterable[tuple[float, float]]) -> None:
        """Put a trial of an earlier run on the rungs: `curve` is (time, metric) per report."""
        past: Any = SimpleNamespace(trial_id=trial_id)
        halving: Any = self._halving(arm)
        halving.on_trial_add(None, past)
        for time, value in curve:
            halving.on_trial_result(None, past, self._measured(time, value))

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        self._halving(job_of(trial).arm).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        time, value = result.get(self._config.time_attr), result.get(self._score)
        if result.get("final") or self._config.name == "none" or time is None or value is None or not math.isfinite(value):
            return str(TrialScheduler.CONTINUE)
        job = job_of(trial)
        decision = self._halving(job.arm).on_trial_result(tune_controller, trial, self._measured(time, value))
        last = result.get("epoch", 0) >= job.config.optim.num_epochs
        if decision == TrialScheduler.STOP and not last and trial.trial_id not in self._cut:
            self._cut.add(trial.trial_id)
            self._stop(job)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Nothing: the last epoch is on its rung already."""

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """Nothing: a trial that never ran is on no rung."""

    def _measured(self, time: float, value: float) -> dict[str, float]:
        return {self._config.time_attr: time, self._score: value}

    def _halving(self, arm: str) -> AsyncHyperBandScheduler:
        if arm not in self._arms:
            # Ray annotates int but accepts any number.
            grace, factor = cast(int, self._config.grace_period), self._config.reduction_factor
            self._arms[arm] = AsyncHyperBandScheduler(
                time_attr=self._config.time_attr,
                metric=self._score,
                mode=self._mode,
                grace_period=grace,
                reduction_factor=factor,
                max_t=cast(int, grace * factor**NUM_RUNGS),
                stop_last_trials=False,
            )
        return self._arms[arm]
