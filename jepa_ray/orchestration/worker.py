"""One trial on Ray: the Tune trainable, its Ray Train workers, and the only place where a Runtime is filled in.

A trial with one worker trains in its own process (Ray Train's local mode, so Tune can hand the warm process to the next trial).
With several workers, a nested Train worker group trains, and this process only passes reports on.

Rank 0 writes the trial's row, regardless of its state, before the last report. A trial that the scheduler cuts learns of it from its
next `report()` and then ends on its own: no process is killed, so no placement group leaks and no row is written twice.
Only a trial whose process died more than `max_failures` times gets its FAILED row from the driver (`stages.py`).

Imports torch and the training code late, inside the worker, to keep the driver light. Knows nothing of Optuna or the console.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow.parquet as pq
import ray
from ray import tune

from jepa_ray import results
from jepa_ray.orchestration import gauges
from jepa_ray.orchestration.jobs import Job, Metrics, TrialResources, ended, row_path, storage, write, written
from jepa_ray.orchestration.progress import sending
from jepa_ray.orchestration.recipes import RunTrial, trial_runner
from jepa_ray.results import Stage
from jepa_ray.system import full_disk

if TYPE_CHECKING:
    from jepa_ray.training.prepared import Prepared
    from jepa_ray.training.runtime import Runtime


class TrialStopped(BaseException):
    """Raised by `report()` when the scheduler has cut the trial. Not an Exception, so that `run_trial` does not treat it as an error."""


class RankFailed(Exception):
    """Training failed on a rank of a worker group."""


DEATH_NOTICED_S = 3.0
"""Seconds within which Ray Train notices that a worker's process has died (it checks every 0.1 s)."""


_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset)|ProcessGroup")
"""In the error of an operation that another rank has left."""
_SETUP = "_setup_torch_process_group"
"""Ray Train's function in which the workers of a group connect to each other; its errors name it."""


@dataclass(frozen=True)
class SharedInputs:
    """Inputs that all trials of a stage share."""

    resources: TrialResources
    prepared: dict[tuple[str, str], list[Any]]
    """(family, task) -> [tokenised training and validation data, test table or None], stored once in the object store."""
    run_trial: RunTrial | None
    """None: that of the recipe (`recipes.trial_runner`). Tests and benchmarks pass their own."""
    mailbox: Any
    """Handle of the sweep's Mailbox actor."""
    keep: bool = False
    """Whether confirmed trials write their models."""
    tracked: bool = False
    """Whether a tracker waits for the rows of the trials' curves."""


def trainable(config: dict[str, Any], shared: SharedInputs) -> None:
    """Run one trial; Tune calls this in the trial's process. Raises only errors that a new attempt may cure: a process that died."""
    job = Job.from_json(config["job"])
    if not written(job):
        if shared.resources.workers > 1:
            _run_group(job, shared)
        else:
            _run_here(job, shared)
    row = pq.read_table(row_path(job)).to_pylist()[0]
    told = {name: row[name] for name in ("state", "error", "alarms", "model_error")}
    tune.report({"final": True, **told, **_numbers(row)})


def _numbers(row: dict[str, Any]) -> Metrics:
    names = [name for name in results.SUMMARY if name.startswith(("val_", "train_")) or name in ("wall_seconds", "epochs_done", "steps")]
    return {name: float(row[name]) for name in names if isinstance(row[name], (int, float))}


def _run_here(job: Job, shared: SharedInputs) -> None:
    """One worker, in this process."""
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    def report(metrics: Metrics) -> None:
        tune.report(metrics)  # returns when the driver has processed the report and hence has decided
        if ray.get(shared.mailbox.stopped.remote(job.trial_id)):
            raise TrialStopped

    TorchTrainer(lambda: _train(job, shared, report), scaling_config=ScalingConfig(num_workers=0)).fit()


def _run_group(job: Job, shared: SharedInputs) -> None:
    """Several workers, in their own Train worker group; this process passes their reports on to Tune."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig

    resources, mailbox, run = shared.resources, shared.mailbox, uuid.uuid4().hex
    (job.scratch / "failed.json").unlink(missing_ok=True)  # left by an attempt in which a process died
    trainer = TorchTrainer(
        _group_loop,
        train_loop_config={"job": job.to_json(), "shared": shared, "run": run},
        torch_config=TorchConfig(backend="nccl" if resources.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker={"CPU": resources.cpus, **({"GPU": resources.gpus} if resources.gpus else {})},
        ),
        run_config=RunConfig(
            name=f"{job.name.replace('/', ' ').replace(' ', '-')}-{run[:8]}",  # a folder has this name, too
            storage_path=str(storage(job.folder)),
            # Tune alone counts the processes that die (resources.max_failures). Train's default is to retry forever.
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
    if _SETUP in str(failure[0]):  # the workers have not met; another attempt would fail in the same way
        from jepa_ray.training.runtime import not_connected

        reason = str(failure[0]).strip().splitlines()[-1].strip()
        write(job, ended(job, "FAILED", not_connected(resources.gpus > 0, reason)))
        return
    causes = [_cause(error) for error in getattr(failure[0], "worker_failures", {}).values()]
    if not causes or not all(isinstance(cause, RankFailed) for cause in causes):
        raise failure[0]  # a process died; errors of the other ranks are a consequence
    reached = results.load_progress(job.scratch / "failed.json") or ended(job, "FAILED")
    # A rank that fails breaks what the others do together with it: their errors are a consequence, however early they come.
    reasons = [*([reached.error] if reached.error else []), *map(str, causes)]
    write(job, replace(reached, state="FAILED", error=next((reason for reason in reasons if not _LOST.search(reason)), reasons[0])))


def _cause(error: Exception) -> BaseException:
    """The exception of a worker's training function, without the wrappers of Train and Ray."""
    inner = getattr(error, "_base_exc", None) or getattr(error, "cause", None)
    return inner if isinstance(inner, BaseException) else error


def _group_loop(config: dict[str, Any]) -> None:
    """Body of one worker of a group."""
    job, shared, run = Job.from_json(config["job"]), cast(SharedInputs, config["shared"]), cast(str, config["run"])
    rank = ray.train.get_context().get_world_rank()
    numbers = iter(range(1_000_000_000))

    def report(metrics: Metrics) -> None:
        number = next(numbers)
        if rank == 0:
            ray.get(shared.mailbox.post.remote(run, metrics))
        if ray.get(shared.mailbox.wait.remote(run, number)):
            raise TrialStopped

    _train(job, shared, report)


def _train(job: Job, shared: SharedInputs, report: Callable[[Metrics], None]) -> None:
    """Run the trial on this worker; rank 0 writes its row."""
    from jepa_ray.training import device
    from jepa_ray.training.runtime import connect

    def observe(rows: Sequence[Mapping[str, Any]]) -> None:
        gauges.show(job, {row["name"]: row["value"] for row in rows})
        if shared.tracked:
            with contextlib.suppress(Exception):  # as for heartbeats: nobody waits, and nothing is lost that the tables do not have
                shared.mailbox.add_rows.remote(job.trial_id, list(rows))

    run_trial = shared.run_trial or trial_runner(job.config)
    keep = job.model if shared.keep and job.stage == "confirm" else None
    runtime = replace(_runtime(shared.resources, keep), observe=observe)

    watched = sending(shared.mailbox, job.trial_id, phase="load") if runtime.rank == 0 else contextlib.nullcontext()
    try:
        with watched:
            connect(runtime)
            data = _prepared(shared.prepared[job.config.model.family, job.config.data.task], job.stage)
            result = run_trial(job.config, data, runtime, report, job.scratch)
    except TrialStopped:
        result = ended(job, "PRUNED")
    except Exception as error:  # any error concerns this trial only: its row records it, the others continue
        if full_disk.is_full(error):
            raise full_disk.DiskFull(f"{error}: no trial of this sweep can continue") from error
        result = ended(job, "FAILED", f"{type(error).__name__}: {error}")
    if result.state == "FAILED" and not device.works(runtime.device):
        # The lost device would also fail every later trial of this process, so the trial is not FAILED: a new process resumes it.
        raise device.DeviceLost(f"{runtime.device} stopped responding after {result.error}")
    device.clear(runtime.device)  # only here, because an exception keeps the computed tensors alive
    if runtime.world_size > 1 and result.state == "FAILED":
        # The trial's own process decides whether the trial failed or another rank's process died (and broke this rank's operation).
        # Give Ray the time to notice a death first; raising ends the group, in which other ranks may wait for this one.
        if runtime.rank == 0:
            results.save_progress(job.scratch / "failed.json", result)
        time.sleep(DEATH_NOTICED_S)
        raise RankFailed(f"rank {runtime.rank}: {result.error}")
    if runtime.rank == 0:
        gauges.show(job, result.summary)  # scores on the test split are not among the rows
        write(job, result)


def _prepared(references: list[Any], stage: Stage) -> Prepared:
    """Read-only views into the object store. The search does not even fetch the test split."""
    prepared = ray.get(references[0])
    return cast("Prepared", replace(prepared, test=ray.get(references[1])) if stage != "search" else prepared)


def _runtime(resources: TrialResources, keep: Path | None = None) -> Runtime:
    import torch

    from jepa_ray.training.runtime import Runtime

    torch.set_num_threads(resources.cpus)
    rank, world_size, device = 0, 1, "cuda" if resources.gpus else "cpu"
    if resources.workers > 1:  # Train's context is not available inside a Tune trial
        from ray.train.torch import get_device

        context = ray.train.get_context()
        rank, world_size, device = context.get_world_rank(), context.get_world_size(), str(get_device())
    return Runtime(
        rank,
        world_size,
        device,
        num_threads=resources.cpus,
        sharding=resources.sharding,
        gpu_share=min(1.0, resources.gpus or 1.0),
        checkpoint_minutes=resources.checkpoint_minutes,
        keep=keep,
    )
