"""How many steps fit into a FLOPs budget, counted before training.

A step's operations depend on its tokens only, and these on the data order and loss dropout only, both streams of the seed. So all steps
are laid out once without being computed, and the count equals the `train_flops_unpacked` that training will report. The schedule can
end with the last step that fits, the same one on any number of workers. (The paper's reference divides epochs instead, and rounds up.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from jepa_ray.config import TrialConfig
from jepa_ray.data.views import TokenTable
from jepa_ray.training.cost import FlopModel
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.micro_batches import micro_batches
from jepa_ray.training.runtime import StepTotals
from jepa_ray.training.state import StepInputs
from jepa_ray.training.step import totals_of

Epochs = list[list[NDArray[np.int64]]]


def affordable(
    epochs: Sequence[Sequence[NDArray[np.int64]]],
    table: TokenTable,
    config: TrialConfig,
    flop_model: FlopModel,
    term: Term | None,
) -> Epochs:
    """The leading steps of `epochs` that fit into `optim.max_train_flops`, epoch by epoch; all of them if there is no budget.

    Args:
        epochs: example indices of every step, as returned by `epochs.epoch_steps`.
        term: the trial's JEPA term, if it has one.
    Raises:
        ValueError: the budget is smaller than the cost of the first step.
    """
    budget = config.optim.max_train_flops
    if budget is None:
        return [list(steps) for steps in epochs]
    spent, first, kept = 0, 0, 0
    flat = [rows for steps in epochs for rows in steps]
    for cost in step_flops(flat, table, config, flop_model, term):
        first = first or cost
        if spent + cost > budget:
            break
        spent, kept = spent + cost, kept + 1
    if not kept:
        raise ValueError(f"optim.max_train_flops = {budget:.4g} is less than the first step costs ({first:.4g}); raise it")
    out: Epochs = []
    for steps in epochs:
        if kept > 0:
            out.append(list(steps[:kept]))
            kept -= len(steps)
    return out


def step_flops(
    steps: Sequence[NDArray[np.int64]],
    table: TokenTable,
    config: TrialConfig,
    flop_model: FlopModel,
    term: Term | None,
) -> Iterator[int]:
    """Operations of each step, as counted by `FlopModel.unpacked_flops`."""
    inputs = StepInputs(config=config, table=table, packing="flat")
    for step, rows in enumerate(steps):
        active = None if term is None or term.is_dropped(step) else term
        totals = StepTotals()
        for batch in micro_batches(inputs, rows, step, active):
            totals.add(totals_of(batch))
        yield flop_model.unpacked_flops(totals)
