"""The state of training, resolved once: data, network, optimizer and JEPA term."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jepa_ray.config import ObjectiveConfig, TrialConfig
from jepa_ray.data.packing import Backend, count_labels
from jepa_ray.data.views import TokenTable
from jepa_ray.models.network import Network
from jepa_ray.training import checkpoint
from jepa_ray.training.jepa_term import Term, active_objective
from jepa_ray.training.parallel import Shards
from jepa_ray.training.runtime import Runtime


def backend_of(config: TrialConfig) -> Backend:
    """The packing backend. `auto` means a trie, which never has more tokens than the others and attends over the same paths."""
    return "trie" if config.model.packing == "auto" else config.model.packing


@dataclass(kw_only=True)
class StepInputs:
    """Everything that determines the micro-batches of a step."""

    config: TrialConfig
    table: TokenTable
    """The training examples."""
    runtime: Runtime = field(default_factory=Runtime)
    packing: Backend | None = None
    """How token paths are packed (see `data/packing.py`); None: as configured."""

    @property
    def backend(self) -> Backend:
        return self.packing or backend_of(self.config)

    @property
    def objective(self) -> ObjectiveConfig | None:
        """None if there is no JEPA term, or its weight is 0."""
        return active_objective(self.config)

    def count_labels(self, rows: NDArray[np.int64]) -> int:
        """Labels of a step over all ranks, at least 1: the divisor of its cross-entropy."""
        optim = self.config.optim
        return max(1, count_labels(self.table, rows.tolist(), loss_on=optim.loss_on, train_end_of_turn=optim.train_end_of_turn))


@dataclass(kw_only=True)
class TrainState(StepInputs):
    """The inputs of a step, plus everything that a step changes."""

    network: Network
    optimizer: torch.optim.Optimizer
    term: Term | None = None
    """None: next-token training only."""
    parallel: nn.Module | None = None
    """The network in DistributedDataParallel, if there are several workers and it is not sharded."""
    shards: Shards | None = None
    """If the network is sharded."""
    saved: dict[str, Any] | None = None
    """The rest of the working checkpoint; None if training starts from scratch."""

    @property
    def model(self) -> nn.Module:
        """The module to call in the forward pass."""
        return self.network if self.parallel is None else self.parallel

    def gathered(self) -> AbstractContextManager[Network]:
        """The network with its whole weights, for passes that are not training steps. Every rank enters and leaves."""
        return nullcontext(self.network) if self.shards is None else self.shards.gathered()

    def snapshot(self, **more: Any) -> dict[str, Any]:
        """CPU copies of everything that a step changes, and `more`, for `checkpoint.write`. Every rank calls this; rank 0's counts."""
        if self.runtime.rank != 0 and self.shards is None:
            return {}
        if self.term is not None:
            more |= {"lambda": self.term.weight}
            if self.term.average is not None:
                more |= {"average": dict(self.term.average.parameters())}
        return checkpoint.snapshot(self.network, self.optimizer, **more)
