"""Epochs: the order of the training examples, and the one loop over their steps.

Fine-tuning, the first stage, tiny bases and masked encoders all train through `train_epoch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from jepa_ray.config import OptimConfig
from jepa_ray.streams import stream
from jepa_ray.system.heartbeat import HEARTBEAT
from jepa_ray.training.runtime import NonFinite, Runtime, StepTotals, over_ranks

Rows = NDArray[np.int64]
"""Example indices of a step."""


def epoch_steps(num_examples: int, optim: OptimConfig, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Example indices of each step of an epoch (counted from 0): a permutation from the stream "data order", cut into batches."""
    order = stream(seed, "data order", epoch).permutation(num_examples)
    return [order[start : start + optim.batch_size] for start in range(0, num_examples, optim.batch_size)]


def all_epochs(num_examples: int, optim: OptimConfig, seed: int) -> list[list[Rows]]:
    """The steps of every epoch."""
    return [epoch_steps(num_examples, optim, seed, epoch) for epoch in range(optim.num_epochs)]


def train_epoch(
    train: Callable[[Rows, int], StepTotals], steps: Sequence[Rows], done: int, total_steps: int, runtime: Runtime, phase: str = "train"
) -> StepTotals:
    """Train on `steps` in order; return the totals over them and over all workers.

    Args:
        train: runs one optimizer step on the given examples; its second argument is the number of steps before it.
        done: steps of the whole training before the first of these; total_steps: of the whole training.
        phase: shown in the console during training.
    Raises:
        NonFinite: a loss or gradient is not finite; names the step and the mean losses before it.
    """
    totals = StepTotals()
    HEARTBEAT.enter(phase)
    for step, rows in enumerate(steps, start=done):
        try:
            step_totals = train(rows, step)
        except NonFinite as error:
            raise NonFinite(f"{error}; {_means(totals)}") from error
        totals.add(step_totals)
        HEARTBEAT.trained(step + 1, total_steps, *step_totals.shown(runtime))
    return over_ranks(totals, runtime)


def _means(totals: StepTotals) -> str:
    """The last finite values in words: mean losses of the epoch's steps so far."""
    if not totals.num_labels:
        return "it was the first step of its epoch"
    jepa = f", JEPA {totals.jepa_sum / totals.num_pairs:.4g}" if totals.num_pairs else ""
    return f"the earlier steps of its epoch were finite (mean cross-entropy {totals.ce_sum / totals.num_labels:.4g}{jepa})"
