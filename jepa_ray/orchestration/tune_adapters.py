"""What Tune needs of a stage: where its jobs come from (searcher) and where its events go (callback)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from ray.tune import Callback
from ray.tune.search import Searcher

from jepa_ray.orchestration.jobs import Job

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


class JobSource(Protocol):
    """Where jobs come from and where their outcomes go: a stage of the sweep (`stages.py`)."""

    def next(self) -> Job | None:
        """The next job; None if there will never be another."""

    def started(self, job: Job) -> None:
        """The job's process has started."""

    def progress(self, job: Job, metrics: dict[str, Any]) -> None:
        """The job has been validated."""

    def finished(self, job: Job, outcome: dict[str, Any]) -> None:
        """The job's row is written; `outcome` has `state`, `error` and the final metrics."""

    def restarted(self, job: Job, reason: str) -> None:
        """The job's process died; the job resumes from its working checkpoint in a new one."""

    def died(self, job: Job, reason: str) -> None:
        """The job's process died more than `max_failures` times. No row is written yet."""

    def step(self) -> None:
        """Called in every turn of Tune's loop; may raise KeyboardInterrupt to leave the loop cleanly."""


class NotSaved:
    """`Tuner` pickles everything it receives for its own restore, which is not used here: `study.db` and the tables keep the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: Any) -> Self:
        return self


class JobSearcher(NotSaved, Searcher):
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
        """Nothing: see `NotSaved`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `NotSaved`."""


class Events(NotSaved, Callback):
    """Passes the events of trials on to the source."""

    def __init__(self, source: JobSource) -> None:
        self._source = source

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._source.step()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._source.started(job_of(trial))

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any) -> None:
        if not result.get("final"):
            self._source.progress(job_of(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._source.finished(job_of(trial), trial.last_result)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._source.restarted(job_of(trial), _reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._source.died(job_of(trial), _reason(trial))


def job_of(trial: Trial) -> Job:
    return Job.from_json(trial.config["job"])


def _reason(trial: Trial) -> str:
    """Why a trial's process ended, according to Ray, in one line."""
    # Tune keeps the exception in a file in its storage (get_pickled_error() looks in a place to which it has not been copied yet).
    path = Path(trial.pickled_error_file) if trial.pickled_error_file else None
    error = pickle.loads(path.read_bytes()) if path is not None and path.exists() else None
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0]}" if cause is not None and lines else "Ray gives no reason"
