"""Where a trial runs, and what its workers do together: wrap the network, sum counts, and stop at a step that is not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from jepa_ray.models.network import Network


@dataclass(frozen=True)
class Runtime:
    """Where a trial runs: set by Ray's worker, or by hand."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    num_threads: int = 1


@dataclass
class StepTotals:
    """Sums over the micro-batches of one or more steps on this rank."""

    ce_sum: float = 0.0
    num_labels: int = 0
    jepa_sum: float = 0.0
    num_pairs: int = 0
    tokens: int = 0
    attended: int = 0
    """Query-key pairs that attention covers."""
    frozen_tokens: int = 0
    """Tokens that went through a separate target encoder, without gradient."""
    frozen_attended: int = 0
    path_tokens: int = 0
    """Tokens of every sequence and view counted separately, shared ones each time: independent of packing and micro-batches."""
    path_attended: int = 0
    frozen_path_tokens: int = 0
    frozen_path_attended: int = 0

    def add(self, other: StepTotals) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def shown(self, runtime: Runtime) -> tuple[int, float]:
        """For the heartbeat, without communication: tokens times the number of ranks, and cross-entropy per label on this rank."""
        return self.tokens * runtime.world_size, self.ce_sum / max(1, self.num_labels)


class NonFinite(ArithmeticError):
    """A loss or gradient that is not a finite number."""


def bare(model: nn.Module) -> nn.Module:
    """The module inside a data-parallel wrapper, or itself."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def unwrap(model: nn.Module) -> Network:
    """The Network inside a data-parallel wrapper, or itself."""
    inner = bare(model)
    assert isinstance(inner, Network)
    return inner


def data_parallel(network: nn.Module, runtime: Runtime) -> nn.Module | None:
    """The network wrapped in DistributedDataParallel; None with a single worker."""
    if runtime.world_size == 1:
        return None
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


def check_finite(totals: StepTotals, norm: float, step: int, runtime: Runtime) -> None:
    """Raise NonFinite on all ranks if a loss or the gradient norm is not finite on one: they must leave a step together."""
    finite = math.isfinite(totals.ce_sum) and math.isfinite(totals.jepa_sum) and math.isfinite(norm)
    if runtime.world_size > 1:
        everywhere = torch.tensor(float(finite), device=runtime.device)
        torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
        finite = bool(everywhere > 0)
    if not finite:
        raise NonFinite(f"step {step + 1}: cross-entropy sum {totals.ce_sum:g}, JEPA sum {totals.jepa_sum:g}, gradient norm {norm:g}")
