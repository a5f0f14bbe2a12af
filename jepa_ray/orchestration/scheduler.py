"""The three parts that Tune needs: what to run next (searcher), when to stop (scheduler), where events go (callback).

Early stopping is one asynchronous successive halving (ASHA) per arm, so arms never cut each other. Ray's AsyncHyperBandScheduler
decides; this module adds one instance per arm, rungs that survive a restart of the sweep (rebuilt from the tables), and a last epoch
that always counts as finished, not as cut. Tune does not carry out a stop, because it would kill the process: the trial learns of the
stop and ends on its own (see `worker.py`).
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from ray.tune import Callback
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from jepa_ray.config import SchedulerConfig
from jepa_ray.orchestration.jobs import Job

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

NUM_RUNGS = 20
"""Rungs at grace_period * reduction_factor ** 0, 1, ...: more than any trial reaches, so the last rung need not be known."""


class JobSource(Protocol):
    """Where jobs come from and where their outcomes go: a stage of the sweep (`stages.py`)."""

    def next(self) -> Job | None:
        """The next job; None if there will never be another."""

    def started(self, job: Job) -> None:
        """The job's process has started."""

    def progress(self, job: Job, metrics: dict[str, Any]) -> None:
        """An epoch has ended."""

    def finished(self, job: Job, outcome: dict[str, Any]) -> None:
        """The job's row is written; `outcome` has `state`, `error` and the final metrics."""

    def restarted(self, job: Job, reason: str) -> None:
        """The job's process died; the job resumes from its last epoch in a new one."""

    def died(self, job: Job, reason: str) -> None:
        """The job's process died more than `max_failures` times. No row is written yet."""

    def step(self) -> None:
        """Called in every turn of Tune's loop; may raise KeyboardInterrupt to leave the loop cleanly."""


class _NotSaved:
    """`Tuner` pickles everything it receives for its own restore, which is not used here: `study.db` and the tables keep the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: Any) -> Self:
        return self


class JobSearcher(_NotSaved, Searcher):
    """Serves a source's jobs to Tune. Outcomes go through `Events`, which also learns why a process died."""

    def __init__(self, source: JobSource, first: Job) -> None:
        super().__init__()
        self._source, self._first = source, [first]

    def suggest(self, trial_id: str) -> Any:
        job = self._first.pop() if self._first else self._source.next()
        return Searcher.FINISHED if job is None else {"job": job.to_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: see `Events`."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see `_NotSaved`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `_NotSaved`."""


class Events(_NotSaved, Callback):
    """Passes the events of trials on to the source."""

    def __init__(self, source: JobSource) -> None:
        self._source = source

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._source.step()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._source.started(_job(trial))

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any) -> None:
        if not result.get("final"):
            self._source.progress(_job(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._source.finished(_job(trial), trial.last_result)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._source.restarted(_job(trial), _reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._source.died(_job(trial), _reason(trial))


class ArmScheduler(_NotSaved, FIFOScheduler):
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
        self._halving(_job(trial).arm).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        time, value = result.get(self._config.time_attr), result.get(self._score)
        if result.get("final") or self._config.name == "none" or time is None or value is None or not math.isfinite(value):
            return str(TrialScheduler.CONTINUE)
        job = _job(trial)
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


def _job(trial: Trial) -> Job:
    return Job.from_json(trial.config["job"])


def _reason(trial: Trial) -> str:
    """Why a trial's process ended, according to Ray, in one line."""
    # Tune keeps the exception in a file in its storage (get_pickled_error() looks in a place to which it has not been copied yet).
    path = Path(trial.pickled_error_file) if trial.pickled_error_file else None
    error = pickle.loads(path.read_bytes()) if path is not None and path.exists() else None
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0]}" if cause is not None and lines else "Ray gives no reason"
