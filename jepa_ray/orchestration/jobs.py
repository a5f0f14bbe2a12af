"""A trial as a job of the sweep: its names and folders, what it occupies, and its rows in the results.

Used by both sides, the driver that hands jobs out and the workers that run them. Imports neither Ray nor torch.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from jepa_ray import results
from jepa_ray.config import TrialConfig, canonical
from jepa_ray.results import Stage, TrialResult

Metrics = dict[str, float]


@dataclass(frozen=True)
class Job:
    """One trial to run: which configuration, and under which name its results go where."""

    trial_id: str
    config_id: str
    arm: str
    stage: Stage
    folder: Path
    """The sweep's folder; on a cluster, on a file system that all nodes share."""
    config: TrialConfig
    number: int | None = None
    """Of a search trial: its place among the suggestions of its arm, from 1."""

    @property
    def scratch(self) -> Path:
        """Checkpoint and progress of the trial while it runs."""
        return self.folder / "scratch" / self.config_id

    @property
    def progress(self) -> Path:
        return self.scratch / "progress.json"

    def to_json(self) -> str:
        """Text form: Tune copies, merges and flattens configurations, and must find nothing to take apart."""
        fields = {name: getattr(self, name) for name in ("trial_id", "config_id", "arm", "stage", "number")}
        return json.dumps({**fields, "folder": str(self.folder), "config": canonical(self.config)})

    @classmethod
    def from_json(cls, text: str) -> Job:
        fields = json.loads(text)
        return cls(**{**fields, "folder": Path(fields["folder"]), "config": TrialConfig.model_validate(fields["config"])})


@dataclass(frozen=True)
class TrialResources:
    """What one trial occupies."""

    workers: int = 1
    cpus: int = 1
    """Per worker; also its number of torch threads."""
    gpus: float = 0.0
    """Per worker."""

    def trial_resources(self) -> dict[str, float]:
        """For Tune. The process of a trial with several workers only waits; Tune refuses a request for nothing at all."""
        return {"cpu": 0, "memory": 10**6} if self.workers > 1 else {"cpu": self.cpus, "gpu": self.gpus}


def written(job: Job) -> bool:
    """Whether the trial's row stands: an attempt that was killed after writing it must not write it again."""
    return row_path(job).exists()


def write(job: Job, result: TrialResult) -> None:
    """The trial's rows, then away with its checkpoints."""
    # A process of a sweep that was killed may finish the trial in the moment before it notices: its row is as good.
    with contextlib.suppress(FileExistsError):
        results.write_trial(job.folder, job.trial_id, job.config, job.arm, job.stage, result, job.number)
    shutil.rmtree(job.scratch, ignore_errors=True)


def ended(job: Job, state: results.State, error: str | None = None) -> TrialResult:
    """The progress so far as the result of a trial that did not reach its last epoch."""
    reached = results.load_progress(job.progress)
    reached = reached or TrialResult(state=state)
    return replace(reached, state=state, error=error, summary={**reached.summary, "finished_at": results.now()})


def row_path(job: Job) -> Path:
    """Where the trial's row stands."""
    return job.folder / "trials" / f"{job.trial_id}.parquet"


def storage(folder: Path) -> Path:
    """Where Tune and Train keep their own books while a sweep runs. Ours are the tables: this is removed at the end."""
    return folder.resolve() / "scratch" / ".ray"
