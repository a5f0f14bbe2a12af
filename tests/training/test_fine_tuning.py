"""Interrupted after any step, a trial ends as if it had not been: metrics, predictions, weights and optimizer, bit for bit on a CPU."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_ray.config import DataConfig, EvaluationConfig, LoraConfig, ObjectiveConfig, PretrainConfig, TrialConfig
from jepa_ray.results import load_progress, write_trial
from jepa_ray.system import full_disk
from jepa_ray.training import checkpoint, fine_tuning, first_stage, saving
from jepa_ray.training.epochs import EpochPart, validated_after
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.runtime import Runtime, StepTotals
from jepa_ray.training.saving import Checkpoints
from jepa_ray.training.state import TrainState
from jepa_ray.training.trial import run_trial
from tests import tiny_models as tiny

LORA = LoraConfig(r=2, dropout=0.3)
WANDERING = ("_seconds", "_at", "peak_memory_bytes", "git_sha", "versions")
"""Endings of columns that depend on the clock or the checkout."""
OBJECTIVES: dict[str, dict[str, Any]] = {
    "lora, predictors, both dropouts": {"objective": ObjectiveConfig(k=2, loss_dropout=0.5), "lora": LORA},
    "full, average as target": {"objective": ObjectiveConfig(k=1, target="ema", ema_momentum=0.9)},
    "lora, average as target": {"objective": ObjectiveConfig(k=1, target="ema", ema_momentum=0.9, ema_end=1.0), "lora": LORA},
    "lambda from gradients": {"objective": ObjectiveConfig.model_validate({"k": 2, "lambda": {"grad_ratio": 0.5}}), "lora": LORA},
    "baseline, diagnosed": {"evaluation__diagnostic_pairs": 4, "evaluation__diagnostic_share": 9.0, "lora": LORA},
    "diagnosed, micro-batches, validated within epochs": {
        "objective": ObjectiveConfig(k=1),
        "lora": LORA,
        "optim__micro_batch_size": 2,
        "evaluation__diagnostic_pairs": 4,
        "evaluation__diagnostic_share": 9.0,
        "evaluation__at_steps": (2, 3, 4, 8, 99),
        "evaluation__every": 2,
    },
}


class Killed(BaseException):
    """Stands for the end of the process."""


class Minutes:
    """A clock that each optimizer step moves by one minute, and that kills before step `at` (from 0)."""

    def __init__(self) -> None:
        self.now, self.at = 0.0, -1

    def step(self, state: TrainState, rows: Any, step: int, *rest: Any) -> StepTotals:
        if step == self.at:
            raise Killed
        self.now += 60
        return REAL_STEP(state, rows, step, *rest)


REAL_STEP = fine_tuning.train_step


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Minutes:
    clock = Minutes()
    for module in (fine_tuning, first_stage):
        monkeypatch.setattr(module, "train_step", clock.step)
        monkeypatch.setattr(module, "Checkpoints", functools.partial(Checkpoints, clock=lambda: clock.now))
    return clock


@pytest.fixture
def llama(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["llama3"]


def config_of(path: Path, **changes: Any) -> TrialConfig:
    return tiny.trial(path, **{"optim__num_epochs": 3, "optim__learning_rate": 1e-2, **changes})


def end_of(config: TrialConfig, prepared: Prepared, scratch: Path, runtime: Runtime, report: Any = lambda _: None) -> dict[str, Any]:
    """Everything that a trial ends with and that does not depend on the clock."""
    built: list[TrainState] = []
    real = fine_tuning.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "build", lambda *args: built.append(real(*args)) or built[-1])  # type: ignore[func-returns-value]
        result = run_trial(config, prepared, runtime, report, scratch)
    assert result.state == "COMPLETE", result.error
    (state,) = built
    return {
        "summary": {name: value for name, value in result.summary.items() if not name.endswith(WANDERING)},
        "metrics": [
            {name: value for name, value in row.items() if not name.endswith(WANDERING)} for row in result.metrics if row["split"] != "step"
        ],
        "predictions": result.predictions,
        "weights": tiny.weights(state.network),
        "optimizer": state.optimizer.state_dict(),
        "average": state.term.average.state_dict() if state.term is not None and state.term.average is not None else {},
        "lambda": state.term.weight if state.term is not None else None,
    }


def assert_same(actual: Any, wanted: Any, place: str = "") -> None:
    """Equal bit for bit, with the place of the first difference."""
    if isinstance(wanted, torch.Tensor):
        assert torch.equal(actual, wanted), place
    elif isinstance(wanted, dict):
        assert actual.keys() == wanted.keys(), place
        for name, value in wanted.items():
            assert_same(actual[name], value, f"{place}/{name}")
    elif isinstance(wanted, (list, tuple)):
        assert len(actual) == len(wanted), place
        for number, value in enumerate(wanted):
            assert_same(actual[number], value, f"{place}/{number}")
    else:
        assert actual == wanted or (actual != actual and wanted != wanted), f"{place}: {actual} is not {wanted}"


def saved(scratch: Path) -> dict[str, Any]:
    return torch.load(scratch / "checkpoint.pt", weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_killed_within_an_epoch_it_ends_as_if_it_had_not_been(objective: str, llama: Path, tmp_path: Path, clock: Minutes) -> None:
    """Nine steps in three epochs, a checkpoint every two (and before the first validation); killed twice."""
    config, prepared = config_of(llama, **OBJECTIVES[objective], evaluation__test=True), tiny.prepared_of(llama, test=4)
    runtime = Runtime(checkpoint_minutes=2)
    whole = end_of(config, prepared, tmp_path / "whole", Runtime(checkpoint_minutes=1e9))
    first = 3 + list(OBJECTIVES).index(objective) % 3
    for at in (first, 8):
        clock.at = at
        with pytest.raises(Killed):
            run_trial(config, prepared, runtime, lambda _: None, tmp_path / "cut")
        reached = saved(tmp_path / "cut")
        assert at - 2 < reached["spent"]["step"] + reached["part"]["steps"] <= at
        torch.rand(7)
    assert reached["part"]["steps"] in (1, 2), "it was not within an epoch"
    clock.at = -1
    assert_same(end_of(config, prepared, tmp_path / "cut", runtime), whole)


def test_killed_after_every_single_step_it_ends_the_same(llama: Path, tmp_path: Path, clock: Minutes) -> None:
    changes = OBJECTIVES["diagnosed, micro-batches, validated within epochs"]
    config, prepared = config_of(llama, **changes), tiny.prepared_of(llama)
    whole = end_of(config, prepared, tmp_path / "whole", Runtime(checkpoint_minutes=1e9))
    for clock.at in range(1, 9):
        with pytest.raises(Killed):
            run_trial(config, prepared, Runtime(checkpoint_minutes=0), lambda _: None, tmp_path / "cut")
    clock.at = -1
    assert_same(end_of(config, prepared, tmp_path / "cut", Runtime(checkpoint_minutes=0)), whole)


def test_a_first_stage_is_resumed_within_an_epoch(llama: Path, tmp_path: Path, clock: Minutes) -> None:
    stage = PretrainConfig(data=DataConfig(task="paraphrase"), learning_rate=2e-3, num_epochs=2, batch_size=4)
    config = config_of(llama, pretrain=stage, objective=ObjectiveConfig(k=1, loss_dropout=0.5), optim__num_epochs=1)
    prepared = replace(tiny.prepared_of(llama), first_stage_table=tiny.table_of(llama, tiny.EXAMPLES[50:62]), first_stage_sha="p")
    whole = end_of(config, prepared, tmp_path / "whole" / "scratch", Runtime(checkpoint_minutes=1e9))
    clock.at = 5  # in its second epoch
    with pytest.raises(Killed):
        run_trial(config, prepared, Runtime(checkpoint_minutes=2), lambda _: None, tmp_path / "cut" / "scratch")
    reached = saved(tmp_path / "cut" / "scratch" / "pretrain")
    assert (reached["epoch"], reached["part"]["steps"], len(reached["losses"])) == (1, 1, 1)
    clock.at = -1
    assert_same(end_of(config, prepared, tmp_path / "cut" / "scratch", Runtime(checkpoint_minutes=2)), whole)


def test_a_checkpoint_of_an_earlier_version_is_resumed(llama: Path, tmp_path: Path) -> None:
    """It was taken after an epoch and its validation, and says nothing of steps within one."""
    config, prepared = config_of(llama, **OBJECTIVES["lora, predictors, both dropouts"]), tiny.prepared_of(llama)
    whole = end_of(config, prepared, tmp_path / "whole", Runtime())

    def die(metrics: dict[str, float]) -> None:
        raise Killed

    with pytest.raises(Killed):
        run_trial(config, prepared, Runtime(checkpoint_minutes=0), die, tmp_path / "cut")
    old = saved(tmp_path / "cut")
    assert old.pop("part")["steps"] == 0 and old.pop("validated") == 3 and old["epoch"] == 1
    checkpoint.write(tmp_path / "cut", old)
    assert_same(end_of(config, prepared, tmp_path / "cut", Runtime()), whole)


def test_few_checkpoints_are_written_and_reports_need_none(llama: Path, tmp_path: Path, clock: Minutes) -> None:
    """A trial that is much shorter than `checkpoint_minutes` writes none. After a kill it reports what it has reported before, with the
    same numbers, and progress.json does not go back."""
    config, prepared = config_of(llama, **OBJECTIVES["lora, predictors, both dropouts"]), tiny.prepared_of(llama)
    reports: list[dict[str, float]] = []

    def until_second(metrics: dict[str, float]) -> None:
        reports.append(metrics)
        if metrics["epoch"] == 2:
            raise Killed

    writes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        real = checkpoint.write
        patch.setattr(checkpoint, "write", lambda scratch, copies: writes.append(copies["part"]["steps"]) or real(scratch, copies))  # type: ignore[func-returns-value]
        with pytest.raises(Killed):
            run_trial(config, prepared, Runtime(checkpoint_minutes=1e3), until_second, tmp_path)
    assert writes == []

    def again(metrics: dict[str, float]) -> None:
        reached = load_progress(tmp_path / "progress.json")
        assert reached is not None and reached.summary["epochs_done"] == 2
        reports.append(metrics)

    assert run_trial(config, prepared, Runtime(checkpoint_minutes=1e3), again, tmp_path).state == "COMPLETE"
    kept = [{name: value for name, value in report.items() if not name.endswith(WANDERING)} for report in reports]
    assert [report["epoch"] for report in kept] == [1, 2, 1, 2] and kept[:2] == kept[2:]


def test_a_full_disk_is_no_failure_of_the_trial(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Minutes) -> None:
    config, prepared = config_of(llama, **OBJECTIVES["lora, predictors, both dropouts"]), tiny.prepared_of(llama)
    whole = end_of(config, prepared, tmp_path / "whole", Runtime(checkpoint_minutes=1e9))
    real = torch.save

    def full(copies: dict[str, Any], path: Path) -> None:
        if copies["spent"]["step"] + copies["part"]["steps"] < 5:
            return real(copies, path)
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space") as raised:
            run_trial(config, prepared, Runtime(checkpoint_minutes=2), lambda _: None, tmp_path / "cut")
    assert full_disk.is_full(raised.value)
    reached = saved(tmp_path / "cut")  # the one before it is whole
    assert reached["spent"]["step"] + reached["part"]["steps"] == 3 and not list((tmp_path / "cut").glob(".*"))
    assert_same(end_of(config, prepared, tmp_path / "cut", Runtime()), whole)


# --- validations within an epoch


def test_validations_within_an_epoch_change_no_other_number(llama: Path, tmp_path: Path) -> None:
    changes = {**OBJECTIVES["lora, predictors, both dropouts"], "evaluation__diagnostic_pairs": 4}
    prepared, reports = tiny.prepared_of(llama), list[dict[str, float]]()
    plain = end_of(config_of(llama, **changes), prepared, tmp_path / "plain", Runtime())
    config = config_of(llama, **changes, evaluation__at_steps=(2, 3, 4, 12))
    at_steps = end_of(config, prepared, tmp_path / "steps", Runtime(), reports.append)
    assert [(report["step"], report["epoch"]) for report in reports] == [(2, 2 / 3), (3, 1), (4, 4 / 3), (6, 2)]
    assert "train_ce" not in reports[0] and "val_accuracy" in reports[0] and reports[0]["train_flops"] < reports[1]["train_flops"]
    extra = [row for row in at_steps["metrics"] if row["step"] in (2, 4)]
    assert {(row["step"], row["epoch"], row["split"]) for row in extra} == {(2, 2 / 3, "val"), (4, 4 / 3, "val")}
    at_steps["metrics"] = [row for row in at_steps["metrics"] if row["step"] not in (2, 4)]
    assert_same(at_steps, plain)
    stopped = load_progress(tmp_path / "steps" / "progress.json")
    assert stopped is not None
    write_trial(tmp_path, "0" * 16, config, "jepa/x", "search", replace(stopped, state="PRUNED"))


def test_a_trial_that_is_stopped_within_an_epoch_ends_with_what_it_reported(llama: Path, tmp_path: Path) -> None:
    config = config_of(llama, evaluation__at_steps=(2,), lora=LORA)
    told: list[dict[str, float]] = []

    def stop(metrics: dict[str, float]) -> None:
        told.append(metrics)
        raise Killed

    with pytest.raises(Killed):
        run_trial(config, tiny.prepared_of(llama), Runtime(), stop, tmp_path)
    reached = load_progress(tmp_path / "progress.json")
    assert reached is not None
    assert (reached.summary["steps"], reached.summary["epochs_done"], reached.summary["val_accuracy"]) == (2, 0, told[0]["val_accuracy"])
    assert reached.summary["train_flops"] == told[0]["train_flops"] > 0 and len(reached.predictions) == 6


def test_rungs_that_appear_while_a_trial_is_interrupted_are_not_validated_with_later_weights(
    llama: Path, tmp_path: Path, clock: Minutes
) -> None:
    prepared, steps = tiny.prepared_of(llama), list[float]()
    clock.at = 5
    with pytest.raises(Killed):
        run_trial(config_of(llama), prepared, Runtime(checkpoint_minutes=2), lambda _: None, tmp_path)
    assert (saved(tmp_path)["part"]["steps"], saved(tmp_path)["validated"]) == (2, 3)
    clock.at = -1
    later = config_of(llama, evaluation__at_steps=(2, 5))
    run_trial(later, prepared, Runtime(), lambda metrics: steps.append(metrics["step"]), tmp_path)
    assert steps == [5, 6]


def test_steps_after_which_a_trial_is_validated() -> None:
    epochs: Any = [[0] * 4, [0] * 4, [0] * 2]
    assert validated_after(epochs, EvaluationConfig()) == [4, 8, 10]
    assert validated_after(epochs, EvaluationConfig(every=2)) == [8, 10]
    assert validated_after(epochs, EvaluationConfig(every=3, at_steps=(1, 4, 9, 10, 11))) == [1, 4, 9, 10]


# --- several workers


def test_two_workers_resume_within_an_epoch(llama: Path, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_killed_and_resumed, (tmp_path, llama), nprocs=2)  # type: ignore[no-untyped-call]
    for rank in (0, 1):
        cut, whole = (torch.load(tmp_path / f"{name}.{rank}.pt", weights_only=False) for name in ("cut", "whole"))
        assert_same(cut, whole)
    assert len(saved(tmp_path / "cut")["part"]["totals"]) == 2


def _killed_and_resumed(rank: int, folder: Path, path: Path) -> None:
    """Body of one of two workers: a whole trial, and one that is killed twice; examples are an odd number."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    config = config_of(
        path,
        objective=ObjectiveConfig(k=1, loss_dropout=0.3, target="ema", ema_momentum=0.9),
        lora=LORA,
        optim__batch_size=3,
        evaluation__at_steps=(5,),
    )
    prepared = tiny.prepared_of(path, train=13, val=5)
    torch.save(end_of(config, prepared, folder / "whole", Runtime(rank, 2, checkpoint_minutes=1e9)), folder / f"whole.{rank}.pt")
    for at, agree in ((4, 1), (13, 2)):
        saving.AGREE_EVERY = agree
        with _dying(at), pytest.raises(Killed):
            run_trial(config, prepared, Runtime(rank, 2, checkpoint_minutes=0), lambda _: None, folder / "cut")
        dist.barrier()
        reached = saved(folder / "cut")
        assert reached["spent"]["step"] + reached["part"]["steps"] == at - at % agree, (at, reached["spent"], reached["part"])
        assert reached["part"]["steps"] > 0 and reached["part"]["totals"][0] != reached["part"]["totals"][1]
    torch.save(end_of(config, prepared, folder / "cut", Runtime(rank, 2, checkpoint_minutes=1e9)), folder / f"cut.{rank}.pt")
    dist.destroy_process_group()


@contextmanager
def _dying(at: int) -> Iterator[None]:
    clock = Minutes()
    clock.at = at
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "train_step", clock.step)
        yield


def test_the_part_of_an_epoch_on_another_number_of_workers() -> None:
    ranks = [StepTotals(ce_sum=1.5, num_labels=3, tokens=10), StepTotals(ce_sum=0.25, num_labels=1, tokens=7)]
    part = {"steps": 4, "seconds": 2.0, "totals": [{name: float(value) for name, value in vars(totals).items()} for totals in ranks]}
    two = [EpochPart.of(part, Runtime(rank, 2)) for rank in (0, 1)]
    assert [asdict(each.totals) for each in two] == [vars(totals) for totals in ranks] and type(two[0].totals.tokens) is int
    assert EpochPart.of(part, Runtime()) == EpochPart(4, StepTotals(ce_sum=1.75, num_labels=4, tokens=17), 2.0)
    assert EpochPart.of(part, Runtime(rank=2, world_size=3)) == EpochPart(4, StepTotals(), 2.0)
    assert EpochPart.of(EpochPart(4, ranks[0], 2.0).saved(Runtime()), Runtime()) == EpochPart(4, ranks[0], 2.0)
