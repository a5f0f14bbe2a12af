"""The parts in the order in which they run, with their times on a GPU. Together they stay under eight minutes, process starts included."""

from __future__ import annotations

from dataclasses import dataclass

BUDGET_S = 480.0


@dataclass(frozen=True)
class Part:
    """One measurement, in its own process."""

    name: str
    target: str
    """`module:function`, called with a Form and Findings."""
    limit_s: float
    """Seconds after which its process is killed in any case."""
    takes_spare: bool = False
    """In the full form it also gets the seconds that earlier parts did not use, and measures more in them."""


PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part("card", "benchmarks.gpu.card:run", 20),
        Part("selfcheck", "benchmarks.gpu.selfcheck:run", 75),
        Part("generation", "benchmarks.gpu.generation:run", 30),
        Part("trial", "benchmarks.gpu.trials:run", 55),
        Part("step-nlrx-lora", "benchmarks.gpu.steps:nlrx_lora", 50, takes_spare=True),
        Part("step-nlrx-full", "benchmarks.gpu.steps:nlrx_full", 50, takes_spare=True),
        Part("step-gsm8k-lora", "benchmarks.gpu.steps:gsm8k_lora", 45, takes_spare=True),
        Part("step-gsm8k-full", "benchmarks.gpu.steps:gsm8k_full", 45, takes_spare=True),
        Part("reference", "benchmarks.gpu.reference:run", 45),
        Part("ray", "benchmarks.gpu.sweeps:run", 60),
    )
}
SMALL_LIMIT_S = 240.0
"""Limit of every part's small form: machines without a GPU may be slow, and their time is cheap."""
