"""Where a trial runs, and what its workers do together: sum counts, and stop at a step that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from jepa_ray.config import Sharding

if TYPE_CHECKING:
    from jepa_ray.models.network import Network


def _ignore(rows: Sequence[Mapping[str, Any]]) -> None:
    pass


@dataclass(frozen=True)
class Runtime:
    """Where a trial runs: set by Ray's worker, or by hand."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    num_threads: int = 1
    gpu_share: float = 1.0
    """Share of its GPU that a worker has."""
    sharding: Sharding = "auto"
    """How several workers share the network (`parallel.py`)."""
    checkpoint_minutes: float = 5.0
    """Training that a process may lose when it dies: time between two working checkpoints. 0: one after every step."""
    keep: Path | None = None
    """Folder in which the trained model is written at the end (`keeping.py`); its name is the trial's id. None: it is not written."""
    observe: Callable[[Sequence[Mapping[str, Any]]], None] = field(default=_ignore, compare=False, repr=False)
    """Receives rows of the metrics table as they arise, on rank 0, for display only: it returns at once and raises nothing. Steps that
    are trained again after an interruption are shown again."""


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

    @classmethod
    def of(cls, values: Mapping[str, float]) -> StepTotals:
        """Inverse of `vars`, for values that have become floats."""
        counts: dict[str, Any] = {field.name: (float if field.type == "float" else int)(values[field.name]) for field in fields(cls)}
        return cls(**counts)

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
    from jepa_ray.models.network import Network  # not above: a worker makes its Runtime before it loads transformers, which takes seconds

    inner = bare(model)
    assert isinstance(inner, Network)
    return inner


def connect(runtime: Runtime) -> None:
    """First exchange between the workers, which starts their communication. RuntimeError with the remedy if that fails."""
    if runtime.world_size == 1:
        return
    try:
        ones = torch.ones(1, device=runtime.device)
        torch.distributed.all_reduce(ones)
        ones.item()  # errors of a GPU appear only when its result is read
    except RuntimeError as error:
        raise RuntimeError(not_connected(runtime.device.startswith("cuda"), str(error).strip().partition("\n")[0])) from error


def not_connected(on_gpus: bool, reason: str) -> str:
    """Why the workers of a trial cannot communicate, and the remedy."""
    if on_gpus:
        check = "every worker has a working GPU of its own (nvidia-smi), and that NCCL_SOCKET_IFNAME names an interface of each node if set"
    else:
        check = "GLOO_SOCKET_IFNAME, if set, names a network interface of each node"
    return f"{'NCCL' if on_gpus else 'gloo'} could not start: {reason}; check that {check}, or set resources.workers_per_trial=1"


def over_ranks(totals: StepTotals, runtime: Runtime) -> StepTotals:
    """The sums over all workers."""
    if runtime.world_size == 1:
        return totals
    sums = _on_device(totals, runtime)
    torch.distributed.all_reduce(sums)
    return StepTotals.of(dict(zip(vars(totals), sums.tolist(), strict=True)))


def of_every_rank(totals: StepTotals, runtime: Runtime) -> list[StepTotals]:
    """The totals of each worker, by rank. Every rank calls this."""
    if runtime.world_size == 1:
        return [totals]
    own = _on_device(totals, runtime)
    everyone = [torch.empty_like(own) for _ in range(runtime.world_size)]
    torch.distributed.all_gather(everyone, own)
    return [StepTotals.of(dict(zip(vars(totals), values.tolist(), strict=True))) for values in everyone]


def _on_device(totals: StepTotals, runtime: Runtime) -> torch.Tensor:
    return torch.tensor([float(value) for value in vars(totals).values()], dtype=torch.float64, device=runtime.device)


def rank_zero_says(yes: bool, runtime: Runtime) -> bool:
    """Rank 0's answer, on all ranks. Makes the host wait if there are several workers."""
    if runtime.world_size == 1:
        return yes
    answer = torch.tensor(float(yes), device=runtime.device)
    torch.distributed.broadcast(answer, 0)
    return bool(answer > 0)


def check_finite(totals: StepTotals, norm: float, step: int, runtime: Runtime) -> None:
    """Raise NonFinite on all ranks if a loss or the gradient norm is not finite on one: they must leave a step together."""
    finite = math.isfinite(totals.ce_sum) and math.isfinite(totals.jepa_sum) and math.isfinite(norm)
    if runtime.world_size > 1:
        everywhere = torch.tensor(float(finite), device=runtime.device)
        torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
        finite = bool(everywhere > 0)
    if not finite:
        raise NonFinite(f"step {step + 1}: cross-entropy sum {totals.ce_sum:g}, JEPA sum {totals.jepa_sum:g}, gradient norm {norm:g}")
