"""Epochs: the order of the training examples, and the one loop over their steps.

Fine-tuning, the first stage, tiny bases and masked encoders all train through `train_epoch`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_ray.config import EvaluationConfig, OptimConfig
from jepa_ray.streams import stream
from jepa_ray.system.heartbeat import HEARTBEAT
from jepa_ray.training.runtime import NonFinite, Runtime, StepTotals, of_every_rank, over_ranks

Rows = NDArray[np.int64]
"""Example indices of a step."""


def epoch_steps(num_examples: int, optim: OptimConfig, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Example indices of each step of an epoch (counted from 0): a permutation from the stream "data order", cut into batches."""
    order = stream(seed, "data order", epoch).permutation(num_examples)
    return [order[start : start + optim.batch_size] for start in range(0, num_examples, optim.batch_size)]


def all_epochs(num_examples: int, optim: OptimConfig, seed: int) -> list[list[Rows]]:
    """The steps of every epoch."""
    return [epoch_steps(num_examples, optim, seed, epoch) for epoch in range(optim.num_epochs)]


@dataclass
class EpochPart:
    """The steps of an epoch that are finished."""

    steps: int = 0
    totals: StepTotals = field(default_factory=StepTotals)
    """Of this rank."""
    seconds: float = 0.0

    def saved(self, runtime: Runtime) -> dict[str, Any]:
        """For the working checkpoint, with the totals of each rank: their sum would be rounded in another order. Every rank calls this."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "totals": [dict(vars(totals)) for totals in of_every_rank(self.totals, runtime)],
        }

    @classmethod
    def of(cls, saved: Mapping[str, Any], runtime: Runtime) -> EpochPart:
        """This rank's part. On another number of workers, rank 0 has the totals of all."""
        ranks = [StepTotals.of(values) for values in saved["totals"]]
        if len(ranks) != runtime.world_size:
            everyone = StepTotals()
            for totals in ranks:
                everyone.add(totals)
            ranks = [everyone] + [StepTotals() for _ in range(1, runtime.world_size)]
        return cls(saved["steps"], ranks[runtime.rank], saved["seconds"])


def validated_after(epochs: Sequence[Sequence[Rows]], evaluation: EvaluationConfig) -> list[int]:
    """Optimizer steps after which a trial of these steps is validated, ascending; the last step is always among them."""
    ends = list(itertools.accumulate(len(steps) for steps in epochs))
    regular = {end for number, end in enumerate(ends, start=1) if number % evaluation.every == 0}
    return sorted(regular | {step for step in evaluation.at_steps if step < ends[-1]} | {ends[-1]})


def train_epoch(
    train: Callable[[Rows, int], StepTotals],
    steps: Sequence[Rows],
    done: int,
    total_steps: int,
    runtime: Runtime,
    phase: str = "train",
    *,
    part: EpochPart | None = None,
    until: int | None = None,
    after_step: Callable[[int], None] = lambda step: None,
) -> StepTotals:
    """Train on `steps` in order; return the totals of the epoch so far, over all its finished steps and all workers.

    Args:
        train: runs one optimizer step on the given examples; its second argument is the number of steps before it.
        done: steps of the whole training before the first of these; total_steps: of the whole training.
        phase: shown in the console during training.
        part: the steps of the epoch that are finished, which are skipped; kept up to date after every step. None: none of them.
        until: train the first `until` steps of the epoch only. None: all.
        after_step: called after every step, with the number of steps so far; its time is not counted as training.
    Raises:
        NonFinite: a loss or gradient is not finite; names the step and the mean losses before it.
    """
    part = EpochPart() if part is None else part
    HEARTBEAT.enter(phase)
    for step, rows in enumerate(steps[part.steps : until], start=done + part.steps):
        started = time.perf_counter()
        try:
            step_totals = train(rows, step)
        except NonFinite as error:
            raise NonFinite(f"{error}; {_means(part.totals)}") from error
        part.totals.add(step_totals)
        part.steps += 1
        HEARTBEAT.trained(step + 1, total_steps, *step_totals.shown(runtime))
        part.seconds += time.perf_counter() - started
        after_step(step + 1)
    return over_ranks(part.totals, runtime)


def _means(totals: StepTotals) -> str:
    """The last finite values in words: mean losses of the epoch's steps so far."""
    if not totals.num_labels:
        return "it was the first step of its epoch"
    jepa = f", JEPA {totals.jepa_sum / totals.num_pairs:.4g}" if totals.num_pairs else ""
    return f"the earlier steps of its epoch were finite (mean cross-entropy {totals.ce_sum / totals.num_labels:.4g}{jepa})"
