"""How many steps a FLOPs budget pays for, counted before the first of them.

A step's operations follow from which tokens it packs, and those from the data order and loss dropout alone: both are streams of the seed.
So the whole run is laid out once without being computed, the count is exactly the `train_flops_unpacked` that training will count, and the
schedule can end with the last step that is paid for: the same one on any number of workers. (The paper's reference divides epochs
instead, and rounds up.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from jepa_ray.config import TrialConfig
from jepa_ray.data.views import TokenTable
from jepa_ray.training.cost import FlopModel
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.runtime import StepTotals
from jepa_ray.training.state import StepInputs
from jepa_ray.training.step import micro_batches, totals_of

Epochs = list[list[NDArray[np.int64]]]


def affordable(
    epochs: Sequence[Sequence[NDArray[np.int64]]],
    table: TokenTable,
    config: TrialConfig,
    flop_model: FlopModel,
    term: Term | None,
) -> Epochs:
    """The leading steps of `epochs` that `optim.max_train_flops` pays for, epoch by epoch; all of them where there is no budget.

    Args:
        epochs: example indices of every step, as `epochs.epoch_steps` gives them.
        term: the trial's JEPA term; None: it has none.
    Raises:
        ValueError: the budget pays for no step at all.
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
        raise ValueError(f"optim.max_train_flops = {budget:.4g} pays for no step (the first costs {first:.4g}); raise it")
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
    """Operations of each step, `FlopModel.unpacked_flops`."""
    inputs = StepInputs(config=config, table=table, packing="flat")
    for step, rows in enumerate(steps):
        active = None if term is None or term.is_dropped(step) else term
        totals = StepTotals()
        for batch in micro_batches(inputs, rows, step, active):
            totals.add(totals_of(batch))
        yield flop_model.unpacked_flops(totals)
