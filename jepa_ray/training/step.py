"""One optimizer step of LLM-JEPA: micro-batches, losses, loss dropout and schedule.

    loss = gamma * sum CE / num_labels + lambda * sum d(source, target) / num_pairs

Both sums run over the whole step, all micro-batches and all workers, and are divided once by the step's counts. So gradient
accumulation and data parallelism change rounding only. The counts come from the token table, without communication.

The JEPA term (`jepa_term.py`) is *active* in a step unless the trial has none, lambda is 0, or loss dropout skips the step; an inactive
step has no view tokens and is bit-identical to a step of the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jepa_ray.config import ObjectiveConfig, TrialConfig
from jepa_ray.data.packing import Packed, ViewBatch
from jepa_ray.models.loading import uses_bf16
from jepa_ray.models.network import compilable
from jepa_ray.objectives.layouts import num_pairs
from jepa_ray.streams import derive_seed
from jepa_ray.training.device import clear
from jepa_ray.training.jepa_term import Term, gradient_norm
from jepa_ray.training.micro_batches import micro_batches
from jepa_ray.training.optimizer import clip_gradients, lr_factor
from jepa_ray.training.parallel import accumulating
from jepa_ray.training.runtime import StepTotals, check_finite, unwrap
from jepa_ray.training.state import TrainState


def train_step(
    state: TrainState, rows: NDArray[np.int64], step: int, total_steps: int, batches: Sequence[ViewBatch] | None = None
) -> StepTotals:
    """One optimizer step on the examples `rows`, of which this rank takes its share. `step` counts from 0.

    `batches`: this rank's micro-batches of the step, if they have been packed before.

    Raises:
        NonFinite: the loss or the gradient norm is not finite; names the step.
    """
    config, runtime, model, optimizer, term = state.config, state.runtime, state.model, state.optimizer, state.term
    assert term is not None or state.objective is None, "the trial has a JEPA term, but its state does not"
    optim = config.optim
    totals = StepTotals()
    active = None if term is None or term.is_dropped(step) else term
    if batches is None:
        batches = list(micro_batches(state, rows, step, active))
    num_labels = state.count_labels(rows)
    pairs = num_pairs(active.objective, state.table, rows.tolist()) if active is not None else 0
    weight = active.lambda_at(step, total_steps) if active is not None else 0.0

    def accumulate(batches: Sequence[ViewBatch]) -> list[Tensor]:
        sums: list[Tensor] = []
        for number, batch in enumerate(batches):
            torch.manual_seed(derive_seed(config.seed, "dropout", step, runtime.rank, number))
            with accumulating(model, last=number == len(batches) - 1):
                ce_sum, jepa_sum = losses(model, batch, config, torch.device(runtime.device), active, step)
                loss = loss_of_sums(ce_sum, jepa_sum, config.objective, num_labels, pairs, weight)
                (loss * runtime.world_size).backward()  # data-parallel training averages gradients over ranks
            sums += [ce_sum.detach(), jepa_sum.detach()]
        return sums

    while (sums := _gradients(state, accumulate, batches)) is None:
        clear(runtime.device)
        batches = list(micro_batches(state, rows, step, active))
    for batch in batches:
        totals.add(totals_of(batch))
    norm = state.grad_norm = clip_gradients(model, optim.max_grad_norm)
    totals.ce_sum, totals.jepa_sum = read_sums(sums)
    check_finite(totals, norm, step, runtime)
    rate = optim.learning_rate * lr_factor(step, total_steps, optim)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.step()
    if term is not None:
        term.update(step, total_steps)
    return totals


def _gradients(
    state: TrainState, accumulate: Callable[[Sequence[ViewBatch]], list[Tensor]], batches: Sequence[ViewBatch]
) -> list[Tensor] | None:
    """The losses' sums, with the gradients of all micro-batches in place; None if they did not fit and smaller ones may.

    An attempt that fails leaves no gradient behind. (Returning drops the exception, which keeps the pass's tensors alive.)
    """

    def afresh() -> list[Tensor]:
        state.optimizer.zero_grad(set_to_none=True)
        return accumulate(batches)

    try:
        return compilable(state.network, afresh)
    except torch.OutOfMemoryError:
        if not state.fit_less():
            raise
    state.optimizer.zero_grad(set_to_none=True)
    return None


def read_sums(sums: Sequence[Tensor]) -> tuple[float, float]:
    """Totals of cross-entropy and JEPA term, which alternate in `sums`. Read once per step, because reading makes the host wait."""
    values = torch.stack(list(sums)).tolist()
    ce_sum = jepa_sum = 0.0
    for ce, jepa in zip(values[0::2], values[1::2], strict=True):  # Python's `sum` rounds differently since 3.12
        ce_sum, jepa_sum = ce_sum + ce, jepa_sum + jepa
    return ce_sum, jepa_sum


def losses(
    model: nn.Module, batch: ViewBatch, config: TrialConfig, device: torch.device, term: Term | None = None, step: int = 0
) -> tuple[Tensor, Tensor]:
    """Sums over the batch: cross-entropy of its labels, and the JEPA term over its pairs (0 if it has none).

    `term` may be omitted when a step is only inspected; it is then created from the configuration.
    """
    if term is None and batch.num_pairs:
        term = Term.of(config, unwrap(model), weight=1.0)
    ce_sum, source_PD, target_PD = states(model, batch, config, device, term)
    jepa_sum = ce_sum.new_zeros(())
    if term is not None and (batch.num_pairs or term.gathers):  # a worker without pairs takes part in the exchange too
        jepa_sum = term.sum_over_pairs(source_PD, target_PD, step)
    if unwrap(model).head is not None and not jepa_sum.requires_grad:
        # Data-parallel training needs the head's parameters in the graph even if the loss does not use them.
        jepa_sum = jepa_sum + source_PD.sum() * 0.0
    return ce_sum, jepa_sum


def states(
    model: nn.Module, batch: ViewBatch, config: TrialConfig, device: torch.device, term: Term | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of the labels' cross-entropy, and the term's source (P, D) and target (P, D), in fp32."""
    network = unwrap(model)
    bf16, on_device = uses_bf16(config.model, device), network.place(batch)
    # Two blocks: within one, autocast uses a weight's first bf16 copy again. Under FSDP that would be the average's, without a gradient.
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        frozen_PD = term.frozen_target(network, on_device) if term is not None else None
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        ce_sum, source_PD, target_PD = model(on_device)
    return ce_sum, source_PD, target_PD if frozen_PD is None else frozen_PD


def loss_of_sums(
    ce_sum: Tensor, jepa_sum: Tensor, objective: ObjectiveConfig | None, num_labels: int, num_pairs: int, weight: float
) -> Tensor:
    """gamma * CE + lambda * JEPA, each divided by its count over the whole step; `weight` is the step's lambda."""
    gamma = objective.gamma if objective is not None else 1.0
    loss = ce_sum * (gamma / num_labels)
    return loss + jepa_sum * (weight / max(1, num_pairs)) if jepa_sum.requires_grad else loss


def totals_of(batch: ViewBatch) -> StepTotals:
    """The counts of a micro-batch."""
    frozen = batch.frozen
    lengths = np.array([len(path) for path in batch.packed.nodes], dtype=np.int64)
    frozen_lengths = np.array([len(path) for path in frozen.nodes] if frozen is not None else [], dtype=np.int64)
    return StepTotals(
        num_labels=batch.num_labels,
        num_pairs=batch.num_pairs,
        tokens=batch.packed.num_tokens,
        attended=attended_pairs(batch.packed),
        frozen_tokens=frozen.num_tokens if frozen is not None else 0,
        frozen_attended=attended_pairs(frozen) if frozen is not None else 0,
        path_tokens=int(lengths.sum()),
        path_attended=int((lengths * (lengths + 1) // 2).sum()),
        frozen_path_tokens=int(frozen_lengths.sum()),
        frozen_path_attended=int((frozen_lengths * (frozen_lengths + 1) // 2).sum()),
    )


def lambda_from_gradients(state: TrainState, rows: NDArray[np.int64], ratio: float) -> float:
    """lambda that makes the norm of the JEPA term's gradient over `rows` `ratio` times that of gamma * cross-entropy's.

    Norms are over the language model's trained parameters, which both terms train. Takes two backward passes over the whole step and no
    optimizer step; every rank returns the same value. ValueError if the term has no gradient.
    """
    config, runtime, model = state.config, state.runtime, state.model
    term = Term.of(config, state.network, weight=1.0)
    assert term is not None
    counts = state.count_labels(rows), max(1, num_pairs(term.objective, state.table, rows.tolist()))
    norms = []
    for which in (0, 1):
        model.zero_grad(set_to_none=True)
        batches = list(micro_batches(state, rows, 0, term))
        for number, batch in enumerate(batches):
            torch.manual_seed(derive_seed(config.seed, "dropout", 0, runtime.rank, number))
            with accumulating(model, last=number == len(batches) - 1):
                sums = losses(model, batch, config, torch.device(runtime.device), term)
                # The other sum has weight 0: data-parallel training waits for every parameter's gradient.
                ((sums[which] / counts[which] + sums[1 - which] * 0.0) * runtime.world_size).backward()
        norms.append(gradient_norm(state.network.lm))
    model.zero_grad(set_to_none=True)
    if norms[1] == 0:
        raise ValueError("lambda cannot be set from gradients: the JEPA term's gradient is zero at the first step; set lambda to a number")
    return ratio * term.objective.gamma * norms[0] / norms[1]


def attended_pairs(packed: Packed) -> int:
    """Query-key pairs that distinct tokens need: a token at depth d attends to d + 1. Extra work of kernels is not counted, and a
    sliding window is not subtracted."""
    nodes = np.unique(np.concatenate(packed.nodes))
    return int((packed.position_ids.reshape(-1)[nodes] + 1).sum())
