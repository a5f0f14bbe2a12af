"""A FLOPs budget: the cost of a step is known exactly in advance, and the schedule ends with the last step that fits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa_ray.config import LoraConfig, ObjectiveConfig, TrialConfig
from jepa_ray.data.packing import Backend
from jepa_ray.training import step as steps
from jepa_ray.training import trial
from jepa_ray.training.cost import FlopModel
from jepa_ray.training.epochs import epoch_steps
from jepa_ray.training.flops_budget import affordable, step_flops
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.runtime import Runtime
from tests import tiny_models as tiny

OBJECTIVES = {
    "baseline": None,
    "jepa": ObjectiveConfig(k=2),
    "loss dropout": ObjectiveConfig(k=1, loss_dropout=0.5),
    "ema": ObjectiveConfig(target="ema", k=1),
    "infonce": ObjectiveConfig(distance="infonce", k=0),
    "tube": ObjectiveConfig(layout="tube"),
}


def config_of(checkpoint: Path, objective: ObjectiveConfig | None, **changes: Any) -> TrialConfig:
    return tiny.trial(checkpoint, objective=objective, optim__num_epochs=3, **changes)


def costs(config: TrialConfig, checkpoint: Path) -> list[int]:
    table, network = tiny.prepared_of(checkpoint).train, tiny.network_of(config)
    plan = [rows for epoch in range(3) for rows in epoch_steps(len(table), config.optim, config.seed, epoch)]
    return list(step_flops(plan, table, config, FlopModel.of(network), Term.of(config, network, weight=1.0)))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_steps_cost_what_training_counts(name: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    config = config_of(checkpoint, OBJECTIVES[name], lora=LoraConfig(r=2))
    result = trial.run_trial(config, tiny.prepared_of(checkpoint), Runtime(), lambda _: None, tmp_path)
    assert result.state == "COMPLETE", result.error
    assert sum(costs(config, checkpoint)) == result.summary["train_flops_unpacked"] >= result.summary["train_flops"] > 0


def test_it_stops_with_the_last_step_that_is_paid_for(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    free = config_of(checkpoint, ObjectiveConfig(k=2, loss_dropout=0.5))
    prices = costs(free, checkpoint)
    assert len(prices) == 9 and len(set(prices)) > 2
    budget = sum(prices[:5]) + prices[5] - 1  # one operation too few for the sixth step
    rates: list[tuple[int, int]] = []
    real = steps.lr_factor
    monkeypatch.setattr(steps, "lr_factor", lambda step, total, optim: rates.append((step, total)) or real(step, total, optim))
    config = config_of(checkpoint, free.objective, optim__max_train_flops=float(budget))
    reports: list[dict[str, float]] = []
    result = trial.run_trial(config, tiny.prepared_of(checkpoint), Runtime(), reports.append, tmp_path)
    assert result.state == "COMPLETE" and result.summary["train_flops_unpacked"] == sum(prices[:5])
    assert rates == [(step, 5) for step in range(5)], "the schedule has a different horizon"
    assert result.summary["steps"] == 5 and result.summary["epochs_done"] == 1, "three steps per epoch: the second epoch is cut short"
    epochs = {(row["step"], row["epoch"]) for row in result.metrics if row["name"] in ("train_ce", "val_accuracy", "step_ce")}
    assert epochs == {(3, 1), (5, 1 + 2 / 3)}
    assert [report["epoch"] for report in reports] == [1], "the last validation is the final one and is not reported"
    assert "val_accuracy" in result.summary


def test_a_budget_that_ends_within_the_first_epoch_completes_none(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    free = config_of(checkpoint, None)
    config = config_of(checkpoint, None, optim__max_train_flops=float(sum(costs(free, checkpoint)[:2])))
    result = trial.run_trial(config, tiny.prepared_of(checkpoint), Runtime(), lambda _: None, tmp_path)
    assert (result.state, result.summary["steps"], result.summary["epochs_done"]) == ("COMPLETE", 2, 0)
    assert {row["epoch"] for row in result.metrics if row["step"]} == {2 / 3}


def counted(config: TrialConfig, checkpoint: Path, backend: Backend, world_size: int) -> tuple[int, int]:
    """(train_flops, unpacked_flops) of one step over all workers."""
    table, network = tiny.prepared_of(checkpoint, train=12).train, tiny.network_of(config)
    term, totals = Term.of(config, network, weight=1.0), steps.StepTotals()
    for rank in range(world_size):
        runtime = Runtime(rank=rank, world_size=world_size)
        for batch in steps.micro_batches(tiny.inputs_of(table, config, backend, runtime), np.arange(12), 3, term):
            totals.add(steps.totals_of(batch))
    model = FlopModel.of(network)
    return model.train_flops(totals), model.unpacked_flops(totals)


@pytest.mark.parametrize("name", ["baseline", "jepa", "ema", "tube"])
def test_what_arms_are_compared_by_does_not_depend_on_how_they_were_run(name: str, tiny_checkpoints: dict[str, Path]) -> None:
    """Micro-batches, packing and workers change `train_flops`, because shared prefixes are computed once per forward pass, but not
    `unpacked_flops`, which the budget uses."""
    checkpoint = tiny_checkpoints["llama3"]
    runs = [
        counted(config_of(checkpoint, OBJECTIVES[name], optim__micro_batch_size=size), checkpoint, backend, workers)
        for size, backend, workers in ((None, "trie", 1), (2, "trie", 1), (None, "trie", 2), (None, "flat", 1), (3, "plain", 2))
    ]
    computed, unpacked = zip(*runs, strict=True)
    assert len(set(unpacked)) == 1 and len(set(computed)) >= 3 and computed[0] == min(computed) < unpacked[0]
    assert computed[3] == unpacked[0], "flat shares nothing"


def test_no_budget_is_all_steps_and_too_small_a_one_is_refused(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    config = config_of(checkpoint, None)
    prepared, network = tiny.prepared_of(checkpoint), tiny.network_of(config)
    epochs = [[np.arange(4), np.arange(4, 8)], [np.arange(8)]]
    arguments = (prepared.train, config, FlopModel.of(network), None)
    assert affordable(epochs, *arguments) == epochs  # type: ignore[arg-type]
    poor = config_of(checkpoint, None, optim__max_train_flops=1.0)
    result = trial.run_trial(poor, prepared, Runtime(), lambda _: None, tmp_path)
    assert result.state == "FAILED" and result.error is not None and "is less than the first step costs (" in result.error
    ample = config_of(checkpoint, None, optim__max_train_flops=1e30)
    whole = trial.run_trial(ample, prepared, Runtime(), lambda _: None, tmp_path / "ample")
    free = trial.run_trial(config, prepared, Runtime(), lambda _: None, tmp_path / "free")
    assert whole.predictions == free.predictions and whole.summary["train_ce"] == free.summary["train_ce"]
    assert dataclasses.replace(whole, summary={}, metrics=[]) == dataclasses.replace(free, summary={}, metrics=[])
