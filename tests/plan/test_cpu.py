"""The hours of a sweep on CPUs: the time of a measured trial, and the sums by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from jepa_ray.config import SweepConfig, arms
from jepa_ray.plan import budget
from jepa_ray.plan.cpu import REACHED, Cpus, duration, precision_of, timed, total
from jepa_ray.plan.requirements import requirements
from tests.plan.test_requirements import LLAMA_1B, make_estimate, make_sweep

ARM = "baseline/llama3"


def on_cpus(**resources: Any) -> SweepConfig:
    return make_sweep(gpus_per_worker=0, **resources)


def test_a_measured_trial_takes_the_time_that_is_planned() -> None:
    """SmolLM2-135M, LoRA r = 16 in bf16, 1000 examples: 190 s on a core with 200 GFLOP/s."""
    estimate = replace(make_estimate(), train_flops=1.9e13)
    sweep = on_cpus(base={"model": {"precision": "bf16"}})
    assert precision_of(sweep) == "bf16" and precision_of(on_cpus()) == "fp32"
    found = timed(sweep, {ARM: estimate}, requirements(sweep, {ARM: estimate}, None), Cpus(2, 200e9, "bf16"))[ARM]
    assert found.train_seconds == pytest.approx(190, rel=0.05)


@pytest.mark.parametrize(
    ("resources", "at_once", "workers"),
    [
        ({}, 4, 1),
        ({"max_concurrent": 3}, 3, 1),
        ({"cpus_per_worker": 4}, 1, 1),
        ({"workers_per_trial": 2}, 2, 2),
        ({"cpus_per_worker": 8}, 1, 1),
    ],
)
def test_the_whole_sweep_by_hand(resources: dict[str, Any], at_once: int, workers: int) -> None:
    """10 trials of the search and 2 of the confirmation; 4 validations of 512 prompts, 2000 test prompts, 150 tokens each."""
    sweep, estimate, cpus = on_cpus(**resources), make_estimate(), Cpus(4, 100e9, "fp32")
    needed = timed(sweep, {ARM: estimate}, requirements(sweep, {ARM: estimate}, None), cpus)
    speed = 100e9 * REACHED["fp32"] * workers
    prompt = 2 * 1_235_814_400 * 150 / speed
    trial = estimate.train_flops / speed + 4 * 512 * prompt
    hours = (12 * trial + 2 * 2000 * prompt) / at_once / 3600
    sentence = total(sweep, arms(sweep), needed, cpus)
    assert sentence is not None
    days = float(re.match(r"about ([\d.]+) days on this machine's 4 CPUs", sentence)[1])  # type: ignore[index]
    assert days == pytest.approx(hours / 24, abs=0.06)
    assert f"{at_once} trial{'s' * (at_once > 1)} at a time" in sentence and "from 100 GFLOP/s in fp32" in sentence
    (time,) = [line for line in budget.lines(sweep, arms(sweep), None, needed, cpus) if line.startswith("  time ")]
    assert time.endswith(sentence) and "GPU-hours" not in time


def test_what_is_not_known_has_no_hours() -> None:
    sweep, estimate = on_cpus(), replace(make_estimate(LLAMA_1B), demand=None)
    assert total(sweep, arms(sweep), requirements(sweep, {ARM: estimate}, None), Cpus(2, 1e11, "fp32")) is None
    assert not any("time  " in line for line in budget.lines(sweep, arms(sweep), None, requirements(sweep, {ARM: make_estimate()}, None)))


def test_durations_are_as_precise_as_an_estimate() -> None:
    told = [duration(seconds) for seconds in (0.2, 60, 200, 3599, 5400, 39_000, 48 * 3600)]
    assert told == ["1 s", "60 s", "3 min", "1 h 0 min", "1 h 30 min", "11 h", "2.0 days"]
