"""When a checkpoint is due, and the thread that writes it: on a clock of the test's own."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_ray.system import full_disk
from jepa_ray.training import checkpoint, saving
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.saving import Checkpoints


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Stopped(BaseException):
    """As the worker's TrialStopped."""


def written(scratch: Path) -> Any:
    return checkpoint.read(scratch, torch.device("cpu"))


def test_a_checkpoint_is_due_when_the_minutes_have_passed(tmp_path: Path) -> None:
    clock, taken = Clock(), []

    def take() -> dict[str, Any]:
        taken.append(clock.now)
        return {"at": clock.now}

    with Checkpoints(tmp_path, Runtime(checkpoint_minutes=2), take, clock) as checkpoints:
        for step in range(1, 11):
            clock.now += 50
            checkpoints.after_step(step)
    assert taken == [250.0, 400.0, 550.0], "every third step of 50 s is the first after two minutes"
    assert written(tmp_path) == {"at": 550.0}


def test_a_phase_that_would_lose_too_much_is_preceded_by_one(tmp_path: Path) -> None:
    clock, taken = Clock(), []

    def take() -> dict[str, Any]:
        taken.append(clock.now)
        return {"at": clock.now}

    with Checkpoints(tmp_path, Runtime(checkpoint_minutes=2), take, clock) as checkpoints:
        checkpoints.before(1e9)
        assert taken == [], "nothing has been trained"
        clock.now += 59
        checkpoints.after_step(1)
        checkpoints.before(None)
        assert taken == [], "if it takes as long as the training did, little is lost"
        clock.now += 1
        checkpoints.before(59)
        assert taken == []
        checkpoints.before(None)
        checkpoints.before(1e9)
        assert taken == [160.0], "the second would be the same"
        clock.now += 119
        checkpoints.save_if_due()
        assert taken == [160.0]
        checkpoints.save_if_due(1)
        assert taken == [160.0, 279.0]


def test_it_is_written_while_training_goes_on_and_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later steps do not change the copy; the next one waits until this one is written."""
    go, order, real = threading.Event(), [], checkpoint.write
    weight = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(weight.parameters())
    weight(torch.ones(2)).sum().backward()
    optimizer.step()

    def slow(scratch: Path, copies: dict[str, Any]) -> None:
        assert go.wait(60)
        order.append(f"written {copies['number']}")
        real(scratch, copies)

    def take() -> dict[str, Any]:
        order.append("taken")
        return checkpoint.snapshot(weight, optimizer, number=order.count("taken"), nested=[(weight.bias, 3)])

    monkeypatch.setattr(checkpoint, "write", slow)
    before = {name: value.detach().clone() for name, value in weight.named_parameters()}
    moment = optimizer.state_dict()["state"][0]["exp_avg"].clone()
    with Checkpoints(tmp_path, Runtime(checkpoint_minutes=0), take) as checkpoints:
        checkpoints.after_step(1)
        optimizer.step()
        assert not torch.equal(weight.weight, before["weight"]) and written(tmp_path) is None
        threading.Timer(0.05, go.set).start()
        checkpoints.save_if_due()
        first = order[:3]
    assert first == ["taken", "written 1", "taken"] and order[-1] == "written 2"
    order.clear()
    copies = checkpoint.snapshot(weight, optimizer, number=0)
    optimizer.step()
    assert not torch.equal(copies["trained"]["weight"], weight.weight)
    assert not torch.equal(copies["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert not torch.equal(moment, copies["optimizer"]["state"][0]["exp_avg"]) and copies["optimizer"]["state"][0]["step"] == 2


def half(copies: Any, path: Path) -> None:
    """A disk that fills up in the middle of the file."""
    path.write_bytes(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("at", ["next step", "end", "failure", "stop"])
def test_an_error_of_the_thread_surfaces_and_the_previous_checkpoint_stays(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.write(tmp_path, {"number": 1})
    monkeypatch.setattr(torch, "save", half)
    clock, expected = Clock(), Stopped if at == "stop" else OSError
    with pytest.raises(expected) as raised, Checkpoints(tmp_path, Runtime(), lambda: {"number": 2}, clock) as checkpoints:
        clock.now += 300
        checkpoints.after_step(1)
        if at == "next step":
            checkpoints._thread.join()  # type: ignore[union-attr]
            checkpoints.after_step(2)  # no checkpoint is due
            pytest.fail("the error came too late")
        if at == "failure":
            raise ArithmeticError("the loss is not finite")
        if at == "stop":
            raise Stopped
    assert full_disk.is_full(raised.value) == (at != "stop"), "the sweep stops, the trial is not FAILED"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"] and written(tmp_path) == {"number": 1}


def test_several_workers_are_asked_together_and_not_after_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def says(yes: bool, runtime: Runtime) -> bool:
        asked.append(yes)
        return True  # rank 0's answer

    monkeypatch.setattr(saving, "rank_zero_says", says)
    taken: list[int] = []

    def take() -> dict[str, Any]:
        taken.append(1)
        return {}

    with Checkpoints(tmp_path, Runtime(rank=1, world_size=2), take) as checkpoints:
        for step in range(1, 2 * saving.AGREE_EVERY + 1):
            checkpoints.after_step(step)
    assert asked == [False, False] and len(taken) == 2, "it did not follow rank 0"
    assert list(tmp_path.iterdir()) == [], "only rank 0 writes"
