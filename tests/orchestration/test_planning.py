"""The check against the card before a sweep starts, and the correction after its first trial."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_ray.orchestration import planning
from jepa_ray.orchestration.planning import Planned, at_start, card_of
from jepa_ray.plan.hardware import CARDS
from jepa_ray.preparation import cpu_rate
from jepa_ray.system.gpus import Gpu
from tests.plan.test_requirements import FLOPS, LLAMA_8B, make_estimate, make_sweep

H100, V100 = Gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20, 9.0), Gpu("Tesla V100-SXM2-32GB", 32768 * 2**20, 7.0)
ARM = "baseline/llama3"


def on_machine(monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu], config: Any = None) -> None:
    estimate = make_estimate(config) if config is not None else make_estimate()
    monkeypatch.setattr(planning, "local_gpus", lambda: gpus)
    monkeypatch.setattr(planning, "estimate", lambda sweep: ({ARM: estimate}, []))


def test_the_card_of_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, [H100, V100])
    assert card_of(make_sweep(hardware="a100-40gb")) == CARDS["a100-40gb"]
    smallest = card_of(make_sweep())
    assert smallest is not None and smallest.name == "V100 32 GB"
    assert card_of(make_sweep(gpus_per_worker=0, hardware="h100")) is None
    on_machine(monkeypatch, [])
    assert card_of(make_sweep()) is None


def test_a_sweep_starts_on_a_card_that_can_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, [H100])
    planned = at_start(make_sweep(), 1.0)
    assert planned is not None and any("H100 SXM" in line for line in planned.hardware)
    assert at_start(make_sweep(), 0.0) is None, "trials run on CPUs"
    on_machine(monkeypatch, [])
    assert at_start(make_sweep(), 1.0) is None, "the GPUs are on other nodes, and unknown"


def test_a_model_that_cannot_fit_and_a_card_without_bf16_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, [H100], LLAMA_8B)
    with pytest.raises(ValueError, match="does not fit on H100 SXM with any micro-batch size"):
        at_start(make_sweep(hardware="b200"), 1.0)  # the card that is there counts
    on_machine(monkeypatch, [V100])
    with pytest.raises(ValueError, match="V100 32 GB has no bf16"):
        at_start(make_sweep(), 1.0)


def test_the_first_trial_corrects_the_cost() -> None:
    planned = Planned(make_sweep(), {ARM: make_estimate()}, [], CARDS["h100"])
    needed = planned.needed[ARM]
    assert needed.train_seconds is not None and needed.evaluation_seconds is not None
    outcome = {"train_flops": FLOPS, "train_seconds": 1.75 * needed.train_seconds, "val_seconds": 1.75 * needed.evaluation_seconds}
    sentence = planned.measured(ARM, outcome)
    assert sentence is not None and "an MFU of 0.20 (measured in the first trial)" in sentence
    assert needed.trial_seconds is not None and needed.test_seconds is not None
    hours = 1.75 * (12 * needed.trial_seconds + 2 * needed.test_seconds) / 3600  # prefill is slowed by both, so a little more
    assert float(sentence.split()[1]) == pytest.approx(hours, rel=0.1)
    assert planned.measured("other", outcome) is None
    assert planned.measured(ARM, {"train_flops": FLOPS, "train_seconds": None}) is None
    assert Planned(make_sweep(), {ARM: make_estimate()}, [], None).measured(ARM, outcome) is None


def test_hours_on_cpus_are_for_trials_that_would_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, [])
    asked: list[tuple[str, int]] = []

    def rate(precision: str, threads: int) -> float:
        asked.append((precision, threads))
        return 1e11

    monkeypatch.setattr(cpu_rate, "matmul_rate", rate)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    bf16 = {"model": {"precision": "bf16"}}
    for sweep in (make_sweep(gpus_per_worker=None), make_sweep(gpus_per_worker=0, cpus_per_worker=2, base=bf16, hardware="h100")):
        planned = planning.plan(sweep)
        assert planned.needed[ARM].trial_seconds is not None and "on this machine's" in planned.hardware[-1]
    assert asked == [("fp32", 1), ("bf16", 2)]
    cluster = make_sweep(gpus_per_worker=0, address="auto")
    tiny = make_sweep(gpus_per_worker=0).model_copy(update={"model": "tiny"})
    for sweep in (make_sweep(gpus_per_worker=1), make_sweep(gpus_per_worker=None, hardware="h100"), cluster, tiny):
        assert planning.plan(sweep).cpus is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert planning.plan(make_sweep(gpus_per_worker=0)).cpus is None
    assert planning.plan(make_sweep(gpus_per_worker=0, address="local")).cpus is not None
