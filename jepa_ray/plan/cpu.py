"""Hours of a sweep on the CPUs of this machine, where no GPU is planned for: computed operations at a share of a measured rate.

The rate is that of matrix products in the precision of the trials, on as many threads as a worker has (`preparation/cpu_rate.py`); what
else the machine does counts only as far as it slows those products down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from jepa_ray.config import Arm, SweepConfig
from jepa_ray.plan.arms import Demand, Estimate, most_matched
from jepa_ray.plan.requirements import Requirement, cost, recomputed

Precision = Literal["fp32", "bf16"]
REACHED: Mapping[Precision, float] = MappingProxyType({"fp32": 0.7, "bf16": 0.5})
"""Share of the rate that a trial reaches, measured with SmolLM2-135M-Instruct (LoRA r = 16, batches of 16, one thread). In bf16 the cast of
weights, norms and the optimizer take a larger part. Models of a few million parameters reach much less."""


@dataclass(frozen=True)
class Cpus:
    """The CPUs of this machine."""

    count: int
    """That trials may use."""
    rate: float
    """Operations per second of matrix products on one worker's threads."""
    precision: Precision
    """Of the rate and of the trials."""


def precision_of(sweep: SweepConfig) -> Precision:
    """In which trials compute on a CPU."""
    return "bf16" if sweep.base.model.precision == "bf16" else "fp32"


def timed(sweep: SweepConfig, estimates: Mapping[str, Estimate], needed: Mapping[str, Requirement], cpus: Cpus) -> dict[str, Requirement]:
    """What trials need, with their seconds on these CPUs."""
    out = {}
    for name, one in needed.items():
        estimate = estimates[name]
        assert estimate.demand is not None, "a requirement without a demand"
        train, validations, test = _seconds(estimate.demand, estimate.train_flops, sweep.placement.workers_per_trial, cpus)
        out[name] = replace(one, train_seconds=train, evaluation_seconds=validations, test_seconds=test)
    return out


def _seconds(demand: Demand, flops: float, workers: int, cpus: Cpus) -> tuple[float, float, float]:
    """(training, validations, test) of a trial. A token of a prompt or an answer takes two operations per weight."""
    speed = cpus.rate * REACHED[cpus.precision] * workers
    evaluation = demand.evaluation
    prompt = 2 * demand.shape.num_parameters * (evaluation.prompt_tokens + evaluation.answer_tokens) / speed
    train = recomputed(demand.stages[-1].training) * flops / speed
    return train, evaluation.validations * evaluation.prompts * prompt, evaluation.test_prompts * prompt


def total(sweep: SweepConfig, declared: Sequence[Arm], needed: Mapping[str, Requirement], cpus: Cpus) -> str | None:
    """How long the whole sweep takes on these CPUs, in words; None if the seconds of an arm are unknown."""
    whole = cost(sweep, declared, needed)
    if whole is None:
        return None
    resources = sweep.placement
    fit = max(1, cpus.count // (resources.workers_per_trial * resources.cpus_per_worker))
    at_once = min(fit, resources.max_concurrent or fit)
    threads = f"{resources.cpus_per_worker} thread{'s' * (resources.cpus_per_worker != 1)}"
    return (
        f"about {duration(3600 * whole.hours / at_once)} on this machine's {cpus.count} CPU{'s' * (cpus.count != 1)}, {at_once} "
        f"trial{'s' * (at_once != 1)} at a time, with evaluation (an estimate from {cpus.rate / 1e9:.3g} GFLOP/s in {cpus.precision} on "
        f"{threads}, measured just now, of which trials reach about {REACHED[cpus.precision]:g}; a busy machine measures less, and tiny "
        "models are slower than this)"
        + ("; runs at equal FLOPs come on top" if most_matched(sweep, declared) else "")
        + ("; early stopping takes less" if sweep.scheduler.name != "none" else "")
    )


def duration(seconds: float) -> str:
    """Hours and minutes, as precise as an estimate is."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{max(1, round(seconds))} s"
    hours, rest = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours} h {rest} min" if hours and hours < 10 else f"{round(minutes / 60)} h" if hours else f"{minutes} min"
