"""The state of training, resolved once: data, network, optimizer and JEPA term."""

from __future__ import annotations

import functools
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jepa_ray.config import ObjectiveConfig, TrialConfig
from jepa_ray.data.packing import Backend, count_labels
from jepa_ray.data.ragged import common_prefix
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
    tokens_that_fit: int | None = None
    """Tokens per forward pass for which there is memory, the same on all ranks; None: a whole step, as on a CPU."""

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

    def sized_by_memory(self, objective: ObjectiveConfig | None) -> bool:
        """Whether `tokens_that_fit` sizes micro-batches: the user has set no size, and the term does not need its pairs in one pass."""
        optim = self.config.optim
        chosen = optim.micro_batch_size is not None or optim.tokens_per_forward is not None
        return not chosen and not (objective is not None and objective.compares_pairs)

    def fit_less(self) -> bool:
        """After running out of memory: half as many tokens per forward pass. False if they are too few, or if the user chose the size."""
        if self.tokens_that_fit is None or not self.sized_by_memory(self.objective) or self.runtime.world_size > 1:
            return False
        shared, own = self.token_counts(with_views=True)
        if self.tokens_that_fit <= shared + int(own.max()):
            return False
        self.tokens_that_fit //= 2
        return True

    def token_counts(self, *, with_views: bool) -> tuple[int, NDArray[np.int64]]:
        """Upper bounds of a packed row's tokens: those that all examples share, counted once, and each example's others.

        `with_views`: Text, predictor tokens and Code of an example are encoded as well.
        """
        return self._token_counts[with_views]

    @functools.cached_property
    def _token_counts(self) -> tuple[tuple[int, NDArray[np.int64]], tuple[int, NDArray[np.int64]]]:
        table, objective = self.table, self.config.objective
        shared, own = [], []
        for part in (table.lm, table.text, table.code):
            shared.append(common_prefix(part) if self.backend == "trie" else 0)
            own.append(part.lengths - shared[-1])
        if objective is None:
            return (shared[0], own[0]), (shared[0], own[0])
        if objective.layout == "shared_prefix":  # its source is the training sequence's own prompt
            shared[1], own[1] = 0, np.zeros_like(own[1]) if self.backend == "trie" else table.prompt_length
        if objective.control == "shuffled":  # the target is that of any other example
            target = 1 if objective.layout == "reverse" else 2
            own[target] = np.full_like(own[target], own[target].max())
        # Predictor tokens in front are shared by all examples of a trie.
        in_front = objective.k if objective.layout == "prepend" and self.backend == "trie" else 0
        return (shared[0], own[0]), (sum(shared) + in_front, own[0] + own[1] + own[2] + objective.k - in_front)


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
    grad_norm: float = math.nan
    """Norm of the last step's gradients, before clipping."""
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
