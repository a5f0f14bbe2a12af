"""Step-level rows: when they are made, what they contain, how many there are, and that resuming doubles none."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_ray.config import LoraConfig, ObjectiveConfig, OptimConfig
from jepa_ray.results import METRICS, TrialResult, load_progress, read_metrics, write_trial
from jepa_ray.training import epochs, fine_tuning, step_log
from jepa_ray.training.cost import FlopModel, Spent
from jepa_ray.training.epochs import EpochPart
from jepa_ray.training.optimizer import lr_factor
from jepa_ray.training.runtime import Runtime, StepTotals
from jepa_ray.training.saving import Checkpoints
from jepa_ray.training.step_log import MOST_ROWS, NAMES, StepLog
from jepa_ray.training.trial import run_trial
from tests import tiny_models as tiny

OPTIM = OptimConfig(learning_rate=0.1, warmup_ratio=0.5)
FLOPS = FlopModel(per_token=2, per_token_forward=0, per_pair=0, per_label=0)


class Trained:
    """A log, and the training that it follows: each step takes as long as it is told."""

    def __init__(self, runtime: Runtime | None = None, per_epoch: int = 1000) -> None:
        self.log = StepLog(runtime or Runtime(), OPTIM, total_steps=per_epoch, steps_per_epoch=per_epoch, logged_s=0.0)
        self.spent, self.part, self.per_epoch = Spent(), EpochPart(), per_epoch

    def step(self, seconds: float, totals: StepTotals, norm: float = 1.0) -> None:
        self.log.add(totals, norm)
        self.part.totals.add(totals)
        self.part.steps += 1
        self.part.seconds += seconds
        self.log.after_step(self.spent, self.part, 0, FLOPS, last=self.part.steps == self.per_epoch)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.log.into(TrialResult("RUNNING")).metrics

    def curve(self, name: str) -> list[tuple[int, float]]:
        return [(row["step"], row["value"]) for row in self.rows if row["name"] == name]


def test_a_row_averages_the_steps_since_the_last_one() -> None:
    """Two rows of two steps each, derived by hand; the fifth step has no row yet."""
    seen: list[Mapping[str, Any]] = []
    trained = Trained(Runtime(observe=seen.extend), per_epoch=10)
    trained.step(2.0, StepTotals(ce_sum=6.0, num_labels=2, tokens=10, jepa_sum=1.0, num_pairs=4), norm=1.0)
    assert trained.rows == []
    trained.step(3.0, StepTotals(ce_sum=2.0, num_labels=6, tokens=40), norm=4.0)  # loss dropout has skipped the term
    trained.step(4.0, StepTotals(ce_sum=1.0, num_labels=1, tokens=3))
    trained.step(1.5, StepTotals(ce_sum=2.0, num_labels=1, tokens=8))
    trained.step(1.0, StepTotals(ce_sum=9.0, num_labels=1, tokens=8))
    assert trained.curve("step_ce") == [(2, 8.0 / 8), (4, 3.0 / 2)]
    assert trained.curve("step_jepa") == [(2, 1.0 / 4)], "steps without the term"
    assert trained.curve("step_grad_norm") == [(2, 2.5), (4, 1.0)]
    assert trained.curve("step_tokens_per_second") == [(2, 50 / 5.0), (4, 11 / 5.5)]
    assert trained.curve("step_learning_rate") == [(2, pytest.approx(0.04)), (4, pytest.approx(0.08))], "five steps of warm-up"
    assert all(value > 1e6 for _, value in trained.curve("step_memory_bytes"))
    row = next(row for row in trained.rows if row["step"] == 4)
    assert (row["epoch"], row["split"], row["train_seconds"], row["train_flops"]) == (0.4, "step", 10.5, 2 * 61)
    assert seen == trained.rows and {row["name"] for row in seen} == set(NAMES)


def test_an_epoch_ends_with_a_row_and_steps_that_last_longer_than_the_interval_have_one_each() -> None:
    trained = Trained(per_epoch=3)
    for seconds in (7.0, 8.0, 0.001):
        trained.step(seconds, StepTotals(ce_sum=1.0, num_labels=1))
    assert [(row["step"], row["epoch"]) for row in trained.rows if row["name"] == "step_ce"] == [(1, 1 / 3), (2, 2 / 3), (3, 1)]


def test_rows_never_exceed_the_limit_and_lose_no_step() -> None:
    trained = Trained(per_epoch=10**6)
    for number in range(2_000):
        trained.step(6.0, StepTotals(ce_sum=float(number), num_labels=1, jepa_sum=1.0, num_pairs=1, tokens=12))
        assert len(trained.log.points) * len(NAMES) <= MOST_ROWS
    assert MOST_ROWS / 4 < len(trained.rows) <= MOST_ROWS and trained.log.every_s > step_log.EVERY_S
    steps = [point.steps for point in trained.log.points] + [trained.log.open.steps]
    assert sum(steps) == 2_000
    at = 0
    for point in trained.log.points:  # each point is the mean of exactly its own steps: at, ..., at + steps - 1
        (value,) = [row["value"] for row in point.rows() if row["name"] == "step_ce"]
        assert value == pytest.approx(at + (point.steps - 1) / 2) and point.step == at + point.steps
        assert {row["value"] for row in point.rows() if row["name"] == "step_tokens_per_second"} == {2.0}
        at += point.steps


def test_only_the_first_worker_has_rows_and_it_does_not_know_the_flops_of_the_others() -> None:
    first, second = Trained(Runtime(rank=0, world_size=2)), Trained(Runtime(rank=1, world_size=2))
    for trained in (first, second):
        trained.step(5.0, StepTotals(ce_sum=1.0, num_labels=1, tokens=10))
    assert second.rows == [] and {row["name"] for row in first.rows} == set(NAMES) - {"step_jepa"}
    assert first.curve("step_tokens_per_second") == [(1, 4.0)]
    assert "train_flops" not in first.rows[0] and first.rows[0]["train_seconds"] == 5.0


# --- in a trial


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def llama(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["llama3"]


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A clock that each optimizer step moves by one minute: every step has a row. Kills before step `at`."""
    clock: dict[str, Any] = {"now": 0.0, "at": -1}
    real = fine_tuning.train_step

    def train_step(state: Any, rows: Any, step: int, *rest: Any) -> StepTotals:
        if step == clock["at"]:
            raise Killed
        clock["now"] += 60
        return real(state, rows, step, *rest)

    monkeypatch.setattr(fine_tuning, "train_step", train_step)
    monkeypatch.setattr(fine_tuning, "Checkpoints", functools.partial(Checkpoints, clock=lambda: clock["now"]))
    monkeypatch.setattr(epochs, "time", type("Clock", (), {"perf_counter": staticmethod(lambda: clock["now"])}))
    return clock


def steps_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    return [(row["step"], row["name"]) for row in rows if row["split"] == "step"]


def test_a_trial_that_is_killed_has_each_row_once_and_a_stopped_one_has_those_so_far(
    llama: Path, tmp_path: Path, minutes: dict[str, Any]
) -> None:
    """Nine steps, checkpoints after 2, 3 (before the first validation) and 5; killed in epoch 2 after 6, which is trained twice."""
    config = tiny.trial(llama, optim__num_epochs=3, lora=LoraConfig(r=2, dropout=0.3), objective=ObjectiveConfig(k=1))
    prepared, runtime = tiny.prepared_of(llama), Runtime(checkpoint_minutes=2)
    whole = run_trial(config, prepared, runtime, lambda _: None, tmp_path / "whole")
    minutes["at"] = 6
    with pytest.raises(Killed):
        run_trial(config, prepared, runtime, lambda _: None, tmp_path / "cut")
    reached = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)
    assert reached["spent"]["step"] + reached["part"]["steps"] == 5, "nothing is trained again"
    stopped = load_progress(tmp_path / "cut" / "progress.json")
    assert stopped is not None and {step for step, _ in steps_of(stopped.metrics)} == {1, 2, 3, 4, 5, 6}
    minutes["at"] = -1
    resumed = run_trial(config, prepared, runtime, lambda _: None, tmp_path / "cut")
    wanted = [(step, name) for step in range(1, 10) for name in NAMES]
    assert steps_of(whole.metrics) == steps_of(resumed.metrics) == wanted
    for name in ("step_ce", "step_jepa", "step_grad_norm", "step_learning_rate", "step_tokens_per_second"):
        curves = [[row["value"] for row in result.metrics if row["name"] == name] for result in (whole, resumed)]
        assert curves[0] == curves[1] and len(curves[0]) == 9, name
    rates = [config.optim.learning_rate * lr_factor(step, 9, config.optim) for step in range(9)]
    assert [row["value"] for row in whole.metrics if row["name"] == "step_learning_rate"] == rates
    assert all(row["value"] > 0 for row in whole.metrics if row["name"] == "step_grad_norm")

    write_trial(tmp_path, "0" * 16, config, "jepa/x", "search", resumed)
    table = read_metrics(tmp_path, filters=[("split", "==", "step")])
    assert len(table) == 54 and table["train_flops"].notna().all() and list(table.columns) == METRICS.names


def test_the_losses_of_an_epoch_are_the_means_of_its_rows(llama: Path, tmp_path: Path, minutes: dict[str, Any]) -> None:
    """One row per step, all steps with the same number of pairs."""
    config = tiny.trial(llama, optim__num_epochs=2, objective=ObjectiveConfig(k=1))
    result = run_trial(config, tiny.prepared_of(llama), Runtime(checkpoint_minutes=1e9), lambda _: None, tmp_path)
    of = {name: [row["value"] for row in result.metrics if row["name"] == name] for name in ("train_jepa", "step_jepa")}
    assert [sum(of["step_jepa"][:3]) / 3, sum(of["step_jepa"][3:]) / 3] == pytest.approx(of["train_jepa"])


def test_a_trial_shows_all_its_rows_but_those_of_the_test_split(llama: Path, tmp_path: Path) -> None:
    shown: list[Mapping[str, Any]] = []
    config = tiny.trial(llama, optim__num_epochs=2, evaluation__test=True, evaluation__diagnostic_pairs=4)
    result = run_trial(config, tiny.prepared_of(llama, test=4), Runtime(observe=shown.extend), lambda _: None, tmp_path)

    def keys(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
        return sorted((row["step"], row["name"]) for row in rows)

    assert keys(shown) == keys([row for row in result.metrics if row["split"] != "test"])
    assert {row["split"] for row in shown} == {"train", "val", "diag", "step"}
