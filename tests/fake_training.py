"""A stand-in for training that tests of the search can observe and control: milliseconds per epoch, and a log of every epoch.

    <folder>/control/hold            while it exists, epochs after the first wait before they report
    <folder>/control/doom/<arm>      trials of that method kill their own process in epoch 2
    <folder>/control/lost            the next trial that trains loses its GPU, once; its process cannot be used again
    <folder>/control/full            while it exists, no trial can write: its disk is full
    <folder>/control/dear            while it exists, a JEPA term costs 50 % more FLOPs
    <folder>/control/refuse/<family> data and model of that family cannot be prepared
    <folder>/log/<config_id>.<rank>  one line per trained epoch: epoch and pid

`val_accuracy` is epoch * learning_rate (divided by k if k > 1), so that the best configuration is known in advance. With k = 7
training fails, on the last rank only; k = 8 gives a value that is not finite.

As a script, it is the command line of `jepa_ray.sweep` with this training instead of the real one.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ray.config import SweepConfig, TrialConfig
from jepa_ray.orchestration.cluster import settings
from jepa_ray.results import TrialResult, load_progress, save_progress
from jepa_ray.system.digests import Weights

settings()  # Ray reads them on import, which a test may do before anything else here does

EPOCHS = 3
SHA = "0123456789abcdef"
ONE_AT_A_TIME = {"dashboard": False, "max_concurrent": 1}
"""Resources of a sweep in which nothing depends on concurrency: every stage starts its processes, and each loads Ray Train and torch."""


@dataclass(frozen=True)
class FakePrepared:
    train: np.ndarray
    test: np.ndarray | None
    dataset_sha: str = SHA
    identity: str = SHA
    former_identity: str = ""
    weights: Weights = field(default_factory=Weights)
    report: dict[str, Any] = field(default_factory=dict)


def prepare(sweep: SweepConfig, family: str, task: str) -> FakePrepared:
    if (Path(sweep.output) / sweep.name / "control" / "refuse" / family).exists():
        raise ValueError(f"there is no {family} here; get one")
    return FakePrepared(train=np.arange(200_000), test=np.arange(5))


def run_trial(
    config: TrialConfig, prepared: FakePrepared, runtime: Any, report: Callable[[dict[str, float]], None], scratch: Path
) -> TrialResult:
    """Same contract as `training.trial.run_trial`: saves progress before it reports; resumes from `scratch` on its own."""
    assert not prepared.train.flags.writeable, "the table was copied out of the object store"
    assert (prepared.test is not None) == config.evaluation.test, "the test split was visible in the search or missing in the confirmation"
    folder, config_id = scratch.parents[1], scratch.name
    progress = load_progress(scratch / "progress.json")
    metrics = list(progress.metrics) if progress else []
    k, rate = (config.objective.k if config.objective else 0), config.optim.learning_rate
    if k == 7 and runtime.rank == runtime.world_size - 1:
        raise RuntimeError("unlucky number")
    value = 0.0
    for epoch in range(len(metrics) + 1, config.optim.num_epochs + 1):
        if runtime.world_size > 1:
            import torch
            import torch.distributed as dist

            ones = torch.ones(1)
            dist.all_reduce(ones)
            assert ones.item() == runtime.world_size
        log = folder / "log" / f"{config_id}.{runtime.rank}"
        log.parent.mkdir(exist_ok=True)
        with log.open("a") as stream:
            stream.write(f"{epoch} {os.getpid()}\n")
        doom = folder / "control" / "doom"
        if epoch == 2 and doom.exists() and (doom / ("jepa" if config.objective else "base")).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if (folder / "control" / "lost").exists():
            from jepa_ray.training import device

            (folder / "control" / "lost").unlink()
            device.works = lambda _: False  # for the rest of this process
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        while epoch > 1 and (folder / "control" / "hold").exists():
            time.sleep(0.02)
        if (folder / "control" / "full").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch))
        value = float("nan") if k == 8 else epoch * rate / max(k, 1)
        expensive = config.objective is not None and (folder / "control" / "dear").exists() and config.optim.max_train_flops is None
        cost = {"train_flops": (150.0 if expensive else 100.0) * epoch, "train_seconds": 0.01 * epoch}
        metrics.append({"step": epoch, "epoch": epoch, "split": "val", "name": "val_accuracy", "value": value, **cost})
        if runtime.rank == 0:
            save_progress(
                scratch / "progress.json", TrialResult("RUNNING", None, {"val_accuracy": value, "epochs_done": epoch}, list(metrics))
            )
        report({"epoch": epoch, "step": epoch, **cost, "val_accuracy": value, "train_ce": 1.0 / epoch})
    summary: dict[str, Any] = {"val_accuracy": value, "epochs_done": len(metrics), "num_workers": runtime.world_size}
    if metrics:
        summary["train_flops"] = summary["train_flops_unpacked"] = metrics[-1]["train_flops"]
    if config.evaluation.test:
        summary["test_accuracy"] = value / 2
    return TrialResult("COMPLETE", None, summary, metrics, [{"split": "val", "example_id": "1", "prediction": "a", "correct": True}])


def make_sweep(output: Path, **changes: Any) -> SweepConfig:
    """Two arms, four trials each, one family."""
    tree: dict[str, Any] = {
        "name": "fake",
        "output": str(output),
        "methods": {"base": "none", "jepa": {}},
        "space": {"optim.learning_rate": {"float": [0.001, 0.1], "log": True}},
        "search": {"num_trials": 4},
        "scheduler": {"name": "none"},
        "confirm": {"seeds": []},
        "resources": {"dashboard": False},
        "base": {"optim": {"num_epochs": EPOCHS, "learning_rate": 0.01}},
    }
    return SweepConfig.model_validate(tree | changes)


@dataclass
class Heard:
    """A listener that records all events."""

    events: list[tuple[str, ...]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *details: self.events.append((name, *(getattr(detail, "trial_id", str(detail)) for detail in details)))

    def count(self, name: str) -> int:
        return sum(event[0] == name for event in self.events)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 150) -> Any:
    """The first true value of `condition`; fails the test if there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


def epochs_trained(folder: Path, config_id: str, rank: int = 0) -> list[int]:
    return [int(line.split()[0]) for line in (folder / "log" / f"{config_id}.{rank}").read_text().splitlines()]


def holding(folder: Path, rank: int = 0) -> list[tuple[str, int]]:
    """(config_id, pid) of trials that wait in epoch 2."""
    waiting = []
    for path in (folder / "log").glob(f"*.{rank}"):
        lines = path.read_text().split("\n")
        if len(lines) == 3 and lines[1].startswith("2 "):
            waiting.append((path.name.partition(".")[0], int(lines[1].split()[1])))
    return waiting


@contextmanager
def hold(folder: Path) -> Iterator[Callable[[], None]]:
    """Trials wait in epoch 2 until the yielded function is called or the block ends."""
    path = folder / "control" / "hold"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

    def release() -> None:
        path.unlink(missing_ok=True)

    try:
        yield release
    finally:
        release()


if __name__ == "__main__":
    from jepa_ray import sweep

    sys.exit(sweep.main(None, prepare, run_trial))  # type: ignore[arg-type]
