"""One trial on Ray: the Tune trainable, its Ray Train workers, and the only place where a Runtime is filled in.

A trial with one worker trains in its own process (Ray Train's local mode, so that Tune can hand the warm process to the next
trial). With several, a nested Train worker group does, and this process only passes reports on.

Who writes what: rank 0 writes the trial's row, whatever its state, before its last report. A trial that the scheduler cuts is
*told* so by its next `report()` and then ends by itself, in order: no process is killed, so no placement group leaks and no row
is written twice. Only a trial whose process died too often gets its FAILED row from the driver (`search.py`).

Imports torch and the training code late, inside the worker: the driver stays light. Knows nothing of Optuna or the console.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import math
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow.parquet as pq
import ray
from ray import tune

from jepa_ray import results
from jepa_ray.config import TrialConfig, canonical
from jepa_ray.results import Stage, TrialResult

if TYPE_CHECKING:
    from jepa_ray.training.prepare import Prepared
    from jepa_ray.training.trial import Runtime

Metrics = dict[str, float]
RunTrial = Callable[[TrialConfig, "Prepared", "Runtime", Callable[[Metrics], None], Path], TrialResult]


class TrialStopped(BaseException):
    """Raised by `report()` when the scheduler has cut the trial. Not an Exception: `run_trial` must not take it for an error."""


class RankFailed(Exception):
    """Training failed on a rank of a worker group."""


DEATH_NOTICED_S = 3.0
"""In this time Ray Train notices that a worker's process has died (it asks every 0.1 s)."""


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

    @property
    def scratch(self) -> Path:
        """Checkpoint and progress of the trial while it runs."""
        return self.folder / "scratch" / self.config_id

    @property
    def progress(self) -> Path:
        return self.scratch / "progress.json"

    def to_json(self) -> str:
        """Text form: Tune copies, merges and flattens configurations, and must find nothing to take apart."""
        fields = {"trial_id": self.trial_id, "config_id": self.config_id, "arm": self.arm, "stage": self.stage, "folder": str(self.folder)}
        return json.dumps({**fields, "config": canonical(self.config)})

    @classmethod
    def from_json(cls, text: str) -> Job:
        fields = json.loads(text)
        return cls(**{**fields, "folder": Path(fields["folder"]), "config": TrialConfig.model_validate(fields["config"])})


@dataclass(frozen=True)
class Slot:
    """What one trial occupies."""

    workers: int = 1
    cpus: int = 1
    """Per worker; also its number of torch threads."""
    gpus: float = 0.0
    """Per worker."""

    def trial_resources(self) -> dict[str, float]:
        """For Tune. The process of a trial with several workers only waits; Tune refuses a request for nothing at all."""
        return {"cpu": 0, "memory": 10**6} if self.workers > 1 else {"cpu": self.cpus, "gpu": self.gpus}


@dataclass(frozen=True)
class Stock:
    """What every trial of a stage shares."""

    slot: Slot
    prepared: dict[str, list[Any]]
    """Family -> [tokenised training and validation data, test table or None], in the object store once."""
    run_trial: RunTrial | None
    """None: `training.trial.run_trial`. Tests and benchmarks pass their own."""
    mailbox: Any
    """Handle of the sweep's Mailbox actor."""


class Mailbox:
    """How the driver tells a running trial to stop, and how a worker group hands its reports to the trial's process.

    One asynchronous actor per sweep. Tune's own reporting goes one way only, and Train's does not reach Tune.
    """

    def __init__(self) -> None:
        self._stopped: set[str] = set()
        self._posts: dict[str, list[Metrics]] = {}
        self._answers: dict[str, list[bool]] = {}
        self._changed = asyncio.Condition()

    async def stop(self, trial_id: str) -> None:
        """Mark a trial as cut."""
        self._stopped.add(trial_id)

    async def stopped(self, trial_id: str) -> bool:
        """Whether a trial has been cut."""
        return trial_id in self._stopped

    async def post(self, run: str, metrics: Metrics) -> None:
        """Rank 0 of a worker group hands in a report."""
        async with self._changed:
            self._posts.setdefault(run, []).append(metrics)
            self._changed.notify_all()

    async def collect(self, run: str, number: int, timeout_s: float) -> Metrics | None:
        """Report `number` (from 0) of a group, or None when it has not come within the time."""
        await self._until(lambda: len(self._posts.get(run, [])) > number, timeout_s)
        posts = self._posts.get(run, [])
        return posts[number] if len(posts) > number else None

    async def answer(self, run: str, stop: bool) -> None:
        """The trial's process answers the oldest report that has no answer yet."""
        async with self._changed:
            self._answers.setdefault(run, []).append(stop)
            self._changed.notify_all()

    async def wait(self, run: str, number: int) -> bool:
        """Every rank waits here for the answer to report `number`: True means stop. All ranks so leave at the same step."""
        await self._until(lambda: len(self._answers.get(run, [])) > number, None)
        return self._answers[run][number]

    async def forget(self, run: str) -> None:
        """Drop what is kept of a group that has ended."""
        self._posts.pop(run, None)
        self._answers.pop(run, None)

    async def _until(self, condition: Callable[[], bool], timeout_s: float | None) -> None:
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(condition), timeout_s)


def trainable(config: dict[str, Any], stock: Stock) -> None:
    """Run one trial; Tune calls this in the trial's process. Raises only what a new attempt may cure: a process that died."""
    job = Job.from_json(config["job"])
    if not written(job):
        if stock.slot.workers > 1:
            _run_group(job, stock)
        else:
            _run_here(job, stock)
    row = pq.read_table(_row(job)).to_pylist()[0]
    tune.report({"final": True, "state": row["state"], "error": row["error"], **_numbers(row)})


def written(job: Job) -> bool:
    """Whether the trial's row stands: an attempt that was killed after writing it must not write it again."""
    return _row(job).exists()


def write(job: Job, result: TrialResult) -> None:
    """The trial's rows, then away with its checkpoints."""
    # A process of a sweep that was killed may finish the trial in the moment before it notices: its row is as good.
    with contextlib.suppress(FileExistsError):
        results.write_trial(job.folder, job.trial_id, job.config, job.arm, job.stage, result)
    shutil.rmtree(job.scratch, ignore_errors=True)


def ended(job: Job, state: results.State, error: str | None = None) -> TrialResult:
    """The progress so far as the result of a trial that did not reach its last epoch."""
    reached = results.load_progress(job.progress)
    return replace(reached, state=state, error=error) if reached else TrialResult(state=state, error=error)


def _row(job: Job) -> Path:
    return job.folder / "trials" / f"{job.trial_id}.parquet"


def _numbers(row: dict[str, Any]) -> Metrics:
    names = [name for name in results.SUMMARY if name.startswith(("val_", "train_")) or name in ("wall_seconds", "epochs_done")]
    return {name: float(row[name]) for name in names if isinstance(row[name], (int, float))}


def _run_here(job: Job, stock: Stock) -> None:
    """One worker, in this process."""
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    def report(metrics: Metrics) -> None:
        tune.report(metrics)  # returns when the driver has processed it, and so has decided
        if ray.get(stock.mailbox.stopped.remote(job.trial_id)):
            raise TrialStopped

    TorchTrainer(lambda: _train(job, stock, report), scaling_config=ScalingConfig(num_workers=0)).fit()


def _run_group(job: Job, stock: Stock) -> None:
    """Several workers, in a Train worker group of their own; this process passes their reports on to Tune."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig

    slot, mailbox, run = stock.slot, stock.mailbox, uuid.uuid4().hex
    (job.scratch / "failed.json").unlink(missing_ok=True)  # of an attempt in which a process died
    trainer = TorchTrainer(
        _group_loop,
        train_loop_config={"job": job.to_json(), "stock": stock, "run": run},
        torch_config=TorchConfig(backend="nccl" if slot.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=slot.workers,
            use_gpu=slot.gpus > 0,
            resources_per_worker={"CPU": slot.cpus, **({"GPU": slot.gpus} if slot.gpus else {})},
        ),
        run_config=RunConfig(
            name=f"{job.trial_id}-{run[:8]}",
            storage_path=str(storage(job.folder)),
            # A process that dies is Tune's to count (resources.max_failures): one count. Train's default is to retry for ever.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )
    failure: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    number = 0
    while thread.is_alive():
        metrics = ray.get(mailbox.collect.remote(run, number, 0.25))
        if metrics is not None:
            tune.report(metrics)
            ray.get(mailbox.answer.remote(run, ray.get(mailbox.stopped.remote(job.trial_id))))
            number += 1
    mailbox.forget.remote(run)
    if not failure or written(job):
        return
    causes = [_cause(error) for error in getattr(failure[0], "worker_failures", {}).values()]
    if not causes or not all(isinstance(cause, RankFailed) for cause in causes):
        raise failure[0]  # a process died: what other ranks then complain of is a consequence
    reached = results.load_progress(job.scratch / "failed.json") or ended(job, "FAILED")
    write(job, replace(reached, state="FAILED", error=reached.error or str(causes[0])))


def _cause(error: Exception) -> BaseException:
    """What a worker's training function raised, out of the wrappings of Train and Ray."""
    inner = getattr(error, "_base_exc", None) or getattr(error, "cause", None)
    return inner if isinstance(inner, BaseException) else error


def _group_loop(config: dict[str, Any]) -> None:
    """Body of one worker of a group."""
    job, stock, run = Job.from_json(config["job"]), cast(Stock, config["stock"]), cast(str, config["run"])
    rank = ray.train.get_context().get_world_rank()
    numbers = iter(range(1_000_000_000))

    def report(metrics: Metrics) -> None:
        number = next(numbers)
        if rank == 0:
            ray.get(stock.mailbox.post.remote(run, metrics))
        if ray.get(stock.mailbox.wait.remote(run, number)):
            raise TrialStopped

    _train(job, stock, report)


def _train(job: Job, stock: Stock, report: Callable[[Metrics], None]) -> None:
    """Run the trial on this worker; rank 0 writes its row."""
    run_trial = stock.run_trial or _run_trial()
    runtime = _runtime(stock.slot)
    gauges = _gauges()
    tags = {"arm": job.arm, "trial": job.trial_id}

    def observed(metrics: Metrics) -> None:
        if runtime.rank == 0:
            values = {**metrics, "lambda": job.config.objective.lambda_ if job.config.objective else 0.0}
            for name, gauge in gauges.items():
                if math.isfinite(value := values.get(name, math.nan)):
                    gauge.set(value, tags)
        report(metrics)

    try:
        result = run_trial(job.config, _prepared(stock.prepared[job.config.model.family], job.stage), runtime, observed, job.scratch)
    except TrialStopped:
        result = ended(job, "PRUNED")
    except Exception as error:  # whatever it is, it is this trial's alone: its row says so, the others go on
        result = ended(job, "FAILED", f"{type(error).__name__}: {error}")
    if runtime.world_size > 1 and result.state == "FAILED":
        # Whether the trial failed or another rank's process died (and this rank's operation broke with it) is for the trial's own
        # process to say. Ray is given the time to notice a death first; raising ends the group, where others may wait for this rank.
        if runtime.rank == 0:
            results.save_progress(job.scratch / "failed.json", result)
        time.sleep(DEATH_NOTICED_S)
        raise RankFailed(f"rank {runtime.rank}: {result.error}")
    if runtime.rank == 0:
        write(job, result)


def _prepared(references: list[Any], stage: Stage) -> Prepared:
    """Read-only views into the object store. The test split is not even fetched while searching."""
    prepared = ray.get(references[0])
    return cast("Prepared", replace(prepared, test=ray.get(references[1])) if stage == "confirm" else prepared)


def _runtime(slot: Slot) -> Runtime:
    import torch

    from jepa_ray.training.trial import Runtime

    torch.set_num_threads(slot.cpus)
    if slot.workers == 1:  # Train's context is out of reach inside a Tune trial
        return Runtime(rank=0, world_size=1, device="cuda" if slot.gpus else "cpu", num_threads=slot.cpus)
    from ray.train.torch import get_device

    context = ray.train.get_context()
    return Runtime(rank=context.get_world_rank(), world_size=context.get_world_size(), device=str(get_device()), num_threads=slot.cpus)


def _run_trial() -> RunTrial:
    from jepa_ray.training.trial import run_trial

    return run_trial


@functools.cache
def _gauges() -> dict[str, Any]:
    """Ray metrics, by the name of the reported value: they appear on the dashboard's metrics page and in Grafana."""
    from ray.util.metrics import Gauge

    described = {
        "lambda": "Weight of the JEPA term",
        "train_ce": "Cross-entropy of the last epoch",
        "train_jepa": "JEPA loss of the last epoch",
        "val_exact": "Exact match on validation",
    }
    return {name: Gauge(f"jepa_ray_{name}", description=text, tag_keys=("arm", "trial")) for name, text in described.items()}


def storage(folder: Path) -> Path:
    """Where Tune and Train keep their own books while a sweep runs. Ours are the tables: this is removed at the end."""
    return folder.resolve() / "scratch" / ".ray"
