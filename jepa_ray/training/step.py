"""One optimizer step of LLM-JEPA, and what surrounds it: data order, loss dropout, schedule.

    loss = gamma * sum CE / num_labels + lambda * sum d(source, target) / num_pairs

Both sums run over the whole step, all micro-batches and all workers, and are divided once by the step's counts. So gradient
accumulation and data parallelism change nothing but rounding. The counts are known from the token table, without communication.

The JEPA term (`jepa.py`) is *active* in a step unless there is none, lambda is 0, or loss dropout skips the step; an inactive step
carries no view tokens and is, bit for bit, a step of the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_ray.config import ObjectiveConfig, OptimConfig, TrialConfig
from jepa_ray.data.packing import Backend, Packed, ViewBatch, count_labels, make_batch
from jepa_ray.data.views import TokenTable
from jepa_ray.models.loading import uses_bf16
from jepa_ray.models.network import DeviceBatch, Network
from jepa_ray.objectives.layouts import num_pairs
from jepa_ray.streams import derive_seed, stream
from jepa_ray.training.device import default_micro_batch
from jepa_ray.training.jepa_term import Term, active_objective, gradient_norm
from jepa_ray.training.optimizer import clip_gradients, lr_factor


@dataclass(frozen=True)
class Runtime:
    """Where a trial runs: filled in by Ray's worker, or by hand."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    num_threads: int = 1


@dataclass
class StepTotals:
    """Sums over the micro-batches of one or many steps on this rank."""

    ce_sum: float = 0.0
    num_labels: int = 0
    jepa_sum: float = 0.0
    num_pairs: int = 0
    tokens: int = 0
    attended: int = 0
    """Query-key pairs that attention had to cover."""
    frozen_tokens: int = 0
    """Tokens that went through a target encoder of its own, without gradient."""
    frozen_attended: int = 0
    path_tokens: int = 0
    """Tokens of every sequence and view by itself, shared ones each time: the same however they are packed and cut into micro-batches."""
    path_attended: int = 0
    frozen_path_tokens: int = 0
    frozen_path_attended: int = 0

    def add(self, other: StepTotals) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def shown(self, runtime: Runtime) -> tuple[int, float]:
        """For the heartbeat: tokens, as if every rank had this rank's, and cross-entropy per label on this rank. Costs no communication."""
        return self.tokens * runtime.world_size, self.ce_sum / max(1, self.num_labels)


class NonFinite(ArithmeticError):
    """A loss or gradient that is not a finite number."""


def backend_of(config: TrialConfig) -> Backend:
    """The packing backend. A trie holds no more tokens than any other and attends over the same paths, so it is what `auto` means."""
    return "trie" if config.model.packing == "auto" else config.model.packing


def epoch_steps(num_examples: int, optim: OptimConfig, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Example indices of each step of an epoch (counted from 0): a permutation from the stream "data order", cut into batches."""
    order = stream(seed, "data order", epoch).permutation(num_examples)
    return [order[start : start + optim.batch_size] for start in range(0, num_examples, optim.batch_size)]


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    table: TokenTable,
    rows: NDArray[np.int64],
    config: TrialConfig,
    step: int,
    total_steps: int,
    backend: Backend,
    runtime: Runtime,
    term: Term | None = None,
) -> StepTotals:
    """One optimizer step on the examples `rows`, of which this rank takes every world_size-th.

    Args:
        model: a Network, or the same wrapped in DistributedDataParallel.
        backend: how token paths are packed (see `data/packing.py`).
        term: the trial's JEPA term; None: it has none.
    Raises:
        NonFinite: the loss or the gradient norm is not finite; names the step.
    """
    assert term is not None or active_objective(config) is None, "the trial has a JEPA term, and train_step was not given it"
    optim = config.optim
    totals = StepTotals()
    optimizer.zero_grad(set_to_none=True)
    active = None if term is None or term.is_dropped(step) else term
    batches = list(micro_batches(table, rows, config, step, backend, runtime, active))
    num_labels = max(1, count_labels(table, rows.tolist(), loss_on=optim.loss_on, train_end_of_turn=optim.train_end_of_turn))
    pairs = num_pairs(active.objective, table, rows.tolist()) if active is not None else 0
    weight = active.lambda_at(step, total_steps) if active is not None else 0.0
    sums: list[Tensor] = []
    for number, batch in enumerate(batches):
        torch.manual_seed(derive_seed(config.seed, "dropout", step, runtime.rank, number))
        last = number == len(batches) - 1
        hold_back = nullcontext() if last or runtime.world_size == 1 else model.no_sync()  # type: ignore[operator]
        with hold_back:
            ce_sum, jepa_sum = losses(model, batch, config, torch.device(runtime.device), active, step)
            loss = loss_of_sums(ce_sum, jepa_sum, config.objective, num_labels, pairs, weight)
            (loss * runtime.world_size).backward()  # data-parallel training averages gradients over ranks
        totals.add(totals_of(batch))
        sums += [ce_sum.detach(), jepa_sum.detach()]
    norm = clip_gradients(model, optim.max_grad_norm)
    totals.ce_sum, totals.jepa_sum = read_sums(sums)
    finite = math.isfinite(totals.ce_sum) and math.isfinite(totals.jepa_sum) and math.isfinite(norm)
    if runtime.world_size > 1:  # all ranks must leave together, or the others would wait for this one
        everywhere = torch.tensor(float(finite), device=runtime.device)
        torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
        finite = bool(everywhere > 0)
    if not finite:
        raise NonFinite(f"step {step + 1}: cross-entropy sum {totals.ce_sum:g}, JEPA sum {totals.jepa_sum:g}, gradient norm {norm:g}")
    rate = optim.learning_rate * lr_factor(step, total_steps, optim)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.step()
    if term is not None:
        term.update(step, total_steps)
    return totals


def micro_batches(
    table: TokenTable,
    rows: NDArray[np.int64],
    config: TrialConfig,
    step: int,
    backend: Backend,
    runtime: Runtime,
    term: Term | None,
) -> Iterator[ViewBatch]:
    """This rank's share of a step, packed. Every rank gets the same number of micro-batches; a short one may be empty.

    `term`: the JEPA term; None where there is none, or loss dropout skips it.
    """
    mine = rows[runtime.rank :: runtime.world_size]
    share = -(-len(rows) // runtime.world_size)
    default = default_size(table, runtime.device, term.objective if term is not None else None)
    size = min(config.optim.micro_batch_size or default or share, share)
    partner = term.partners(rows.tolist(), step) if term is not None else None
    for start in range(0, share, size):
        chosen = mine[start : start + size].tolist()
        yield make_batch(
            table,
            chosen,
            backend=backend,
            views=term.views(table, chosen, step, partner) if term is not None else None,
            loss_on=config.optim.loss_on,
            train_end_of_turn=config.optim.train_end_of_turn,
        )


def default_size(table: TokenTable, device: str, objective: ObjectiveConfig | None) -> int | None:
    """Examples of a micro-batch where none is configured; None: all in one pass, as a term that compares pairs with each other needs."""
    if objective is not None and objective.compares_pairs:
        return None
    return default_micro_batch(table, device, with_views=objective is not None and objective.encodes_views)


def read_sums(sums: Sequence[Tensor]) -> tuple[float, float]:
    """Totals of cross-entropy and JEPA term, which alternate in `sums`. Read once for the whole step: reading makes the host wait."""
    values = torch.stack(list(sums)).tolist()
    ce_sum = jepa_sum = 0.0
    for ce, jepa in zip(values[0::2], values[1::2], strict=True):  # Python's `sum` rounds otherwise from 3.12 on
        ce_sum, jepa_sum = ce_sum + ce, jepa_sum + jepa
    return ce_sum, jepa_sum


def losses(
    model: nn.Module, batch: ViewBatch, config: TrialConfig, device: torch.device, term: Term | None = None, step: int = 0
) -> tuple[Tensor, Tensor]:
    """Sums over the batch: cross-entropy of its labels, and the JEPA term over its pairs (0 where it carries none).

    `term` may be left out where a step is only looked at: it is then made from the configuration.
    """
    if term is None and batch.num_pairs:
        term = Term.of(config, unwrap(model), weight=1.0)
    logits_NV, label_ids_N, source_PD, target_PD = states(model, batch, config, device, term)
    ce_sum = F.cross_entropy(logits_NV.float(), label_ids_N, reduction="sum")
    jepa_sum = ce_sum.new_zeros(())
    if term is not None and (batch.num_pairs or term.gathers):  # a worker without pairs still takes part in the exchange
        jepa_sum = term.sum_over_pairs(source_PD, target_PD, step)
    if unwrap(model).head is not None and not jepa_sum.requires_grad:
        # Data-parallel training needs the head's parameters in the graph, also where nothing is trained by them.
        jepa_sum = jepa_sum + source_PD.sum() * 0.0
    return ce_sum, jepa_sum


def states(
    model: nn.Module, batch: ViewBatch, config: TrialConfig, device: torch.device, term: Term | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits (N, V) and ids (N,) of the labels, and the term's source (P, D) and target (P, D), in fp32."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16(config.model, device)):
        on_device = DeviceBatch.of(batch, device)
        frozen_PD = term.frozen_target(unwrap(model), on_device) if term is not None else None
        logits_NV, source_PD, target_PD = model(on_device)
    return logits_NV, on_device.label_ids_N, source_PD, target_PD if frozen_PD is None else frozen_PD


def loss_of_sums(
    ce_sum: Tensor, jepa_sum: Tensor, objective: ObjectiveConfig | None, num_labels: int, num_pairs: int, weight: float
) -> Tensor:
    """gamma * CE + lambda * JEPA, each divided by its count over the whole step; `weight` is the step's lambda."""
    gamma = objective.gamma if objective is not None else 1.0
    loss = ce_sum * (gamma / num_labels)
    return loss + jepa_sum * (weight / max(1, num_pairs)) if jepa_sum.requires_grad else loss


def totals_of(batch: ViewBatch) -> StepTotals:
    """The counts that a micro-batch adds."""
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


def lambda_from_gradients(
    model: nn.Module, table: TokenTable, rows: NDArray[np.int64], config: TrialConfig, backend: Backend, runtime: Runtime, ratio: float
) -> float:
    """lambda at which the JEPA term's gradient over the examples `rows` has `ratio` times the norm of gamma * cross-entropy's.

    Norms over the language model's trained parameters, those that both terms train. Two backward passes over the whole step, without an
    optimizer step; the same on every rank. ValueError where the term has no gradient.
    """
    term = Term.of(config, unwrap(model), weight=1.0)
    assert term is not None
    optim = config.optim
    labels = max(1, count_labels(table, rows.tolist(), loss_on=optim.loss_on, train_end_of_turn=optim.train_end_of_turn))
    counts = labels, max(1, num_pairs(term.objective, table, rows.tolist()))
    norms = []
    for which in (0, 1):
        model.zero_grad(set_to_none=True)
        batches = list(micro_batches(table, rows, config, 0, backend, runtime, term))
        for number, batch in enumerate(batches):
            torch.manual_seed(derive_seed(config.seed, "dropout", 0, runtime.rank, number))
            hold_back = nullcontext() if number == len(batches) - 1 or runtime.world_size == 1 else model.no_sync()  # type: ignore[operator]
            with hold_back:
                sums = losses(model, batch, config, torch.device(runtime.device), term)
                # The other sum takes part with weight 0: data-parallel training waits for every parameter's gradient.
                ((sums[which] / counts[which] + sums[1 - which] * 0.0) * runtime.world_size).backward()
        norms.append(gradient_norm(unwrap(model).lm))
    model.zero_grad(set_to_none=True)
    if norms[1] == 0:
        raise ValueError("lambda cannot come from the gradients: the JEPA term's is zero at the first step; give lambda as a number")
    return ratio * term.objective.gamma * norms[0] / norms[1]


def attended_pairs(packed: Packed) -> int:
    """Query-key pairs that separate tokens need: one at depth d sees d + 1. (What kernels compute on top is not counted; nor is a
    sliding window subtracted.)"""
    nodes = np.unique(np.concatenate(packed.nodes))
    return int((packed.position_ids.reshape(-1)[nodes] + 1).sum())


def bare(model: nn.Module) -> nn.Module:
    """The module inside a data-parallel wrapper, or itself."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def unwrap(model: nn.Module) -> Network:
    """The Network inside a data-parallel wrapper, or itself."""
    inner = bare(model)
    assert isinstance(inner, Network)
    return inner


def data_parallel(network: nn.Module, runtime: Runtime) -> nn.Module:
    """The network itself, or wrapped in DistributedDataParallel where there are several workers."""
    if runtime.world_size == 1:
        return network
    device_ids = [torch.device(runtime.device)] if runtime.device.startswith("cuda") else None
    return nn.parallel.DistributedDataParallel(network, device_ids=device_ids)


def over_ranks(totals: StepTotals, runtime: Runtime) -> StepTotals:
    """The sums over all workers."""
    if runtime.world_size == 1:
        return totals
    names = list(vars(totals))
    sums = torch.tensor([float(getattr(totals, name)) for name in names], dtype=torch.float64, device=runtime.device)
    torch.distributed.all_reduce(sums)
    return StepTotals(**{name: type(getattr(totals, name))(value) for name, value in zip(names, sums.tolist(), strict=True)})
