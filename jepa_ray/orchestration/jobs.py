"""A trial as a job of the sweep: its names and folders, its resources, and its rows in the results.

Used by the driver, which hands out jobs, and by the workers, which run them. Imports neither Ray nor torch.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from jepa_ray import results
from jepa_ray.config import Sharding, TrialConfig, canonical
from jepa_ray.results import Stage, TrialResult

Metrics = dict[str, float]


@dataclass(frozen=True)
class Job:
    """One trial to run: its configuration, and the names and the folder of its results."""

    trial_id: str
    config_id: str
    arm: str
    stage: Stage
    folder: Path
    """The sweep's folder; on a cluster, it is on a file system that all nodes share."""
    config: TrialConfig
    number: int | None = None
    """For a search trial: its place among the suggestions of its arm, from 1."""

    @property
    def name(self) -> str:
        """By which people recognise it, where Ray's dashboard shows it."""
        return f"{self.arm} {self.trial_id}"

    @property
    def scratch(self) -> Path:
        """Checkpoint and progress of the trial while it runs."""
        return self.folder / "scratch" / self.config_id

    @property
    def progress(self) -> Path:
        return self.scratch / "progress.json"

    @property
    def model(self) -> Path:
        """Where a confirmed trial writes its model, until it is decided which one is kept."""
        return results.waiting_folder(self.folder, self.trial_id)

    def to_json(self) -> str:
        """Text form, because Tune copies, merges and flattens configurations and must not take a job apart."""
        fields = {name: getattr(self, name) for name in ("trial_id", "config_id", "arm", "stage", "number")}
        return json.dumps({**fields, "folder": str(self.folder), "config": canonical(self.config)})

    @classmethod
    def from_json(cls, text: str) -> Job:
        fields = json.loads(text)
        return cls(**{**fields, "folder": Path(fields["folder"]), "config": TrialConfig.model_validate(fields["config"])})


@dataclass(frozen=True)
class TrialResources:
    """The resources of one trial."""

    workers: int = 1
    cpus: int = 1
    """Per worker; also its number of torch threads."""
    gpus: float = 0.0
    """Per worker."""
    sharding: Sharding = "auto"
    """How several workers share the network."""
    checkpoint_minutes: float = 5.0
    """Between two working checkpoints of a trial."""

    @property
    def place(self) -> str:
        """The part of a trial's identity that its resources add: workers and device change precision and dropout, shards the rounding."""
        where = (f" {self.workers} workers" if self.workers > 1 else "") + (" on GPUs" if self.gpus else "")
        return where + (" in shards" if self.sharding == "fsdp" else "")

    def trial_resources(self) -> dict[str, float]:
        """Tune's request. The process of a trial with several workers only waits, but Tune refuses an empty request."""
        return {"cpu": 0, "memory": 10**6} if self.workers > 1 else {"cpu": self.cpus, "gpu": self.gpus}


def confirmation(best: TrialConfig, seed: int) -> TrialConfig:
    """A selected configuration with a fresh seed, to be scored on the test split as well."""
    return best.model_copy(update={"seed": seed, "evaluation": best.evaluation.model_copy(update={"test": True})})


def written(job: Job) -> bool:
    """Whether the trial's row exists: if an attempt was killed after writing it, the next one must not write it again."""
    return row_path(job).exists()


def write(job: Job, result: TrialResult) -> None:
    """Write the trial's rows, then remove its checkpoints."""
    # A process of a killed sweep may finish the trial just before it notices; its row is as good as this one.
    with contextlib.suppress(FileExistsError):
        results.write_trial(job.folder, job.trial_id, job.config, job.arm, job.stage, result, job.number)
    shutil.rmtree(job.scratch, ignore_errors=True)


def ended(job: Job, state: results.State, error: str | None = None) -> TrialResult:
    """The progress so far, as the result of a trial that did not reach its last epoch."""
    reached = results.load_progress(job.progress)
    reached = reached or TrialResult(state=state)
    return replace(reached, state=state, error=error, summary={**reached.summary, "finished_at": results.now()})


def row_path(job: Job) -> Path:
    """The file with the trial's row."""
    return job.folder / "trials" / f"{job.trial_id}.parquet"


def storage(folder: Path) -> Path:
    """Folder in which Tune and Train keep their own files while a sweep runs; removed at the end, because the tables are ours."""
    return folder.resolve() / "scratch" / ".ray"
