"""What a trial trains: the network with everything its objective adds, the term, and the optimizer, new or from a working checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jepa_ray.config import GradRatio, TrialConfig
from jepa_ray.data.views import TokenTable
from jepa_ray.models.loading import load_network
from jepa_ray.models.network import Network
from jepa_ray.training import checkpoint as working
from jepa_ray.training.jepa_term import Term, active_objective, fit_network
from jepa_ray.training.optimizer import make_optimizer
from jepa_ray.training.step import Runtime, backend_of, data_parallel, epoch_steps, lambda_from_gradients


@dataclass
class Training:
    """The moving parts of a trial."""

    network: Network
    model: nn.Module
    """The network, or it in DistributedDataParallel."""
    optimizer: torch.optim.AdamW
    term: Term | None
    saved: dict[str, Any] | None
    """What the working checkpoint held besides; None: the trial begins."""

    def save(self, scratch: Path, **state: Any) -> None:
        """Write the working checkpoint."""
        if self.term is not None:
            state |= {"lambda": self.term.weight}
            if self.term.average is not None:
                state |= {"average": self.term.average.state_dict()}
        working.save(scratch, self.network, self.optimizer, **state)


def build(
    config: TrialConfig, checkpoint: str, table: TokenTable, runtime: Runtime, scratch: Path, revision: str | None = None
) -> Training:
    """Load, or go on from `scratch`. Called by every rank. `table` is what is trained on (its first step may set lambda).

    `revision`: the commit of a checkpoint on the hub.
    """
    objective = active_objective(config)
    network = load_network(
        checkpoint,
        config.model,
        config.lora,
        k=objective.k if objective is not None else 0,
        seed=config.seed,
        device=runtime.device,
        revision=revision,
    )
    fit_network(network, objective, config.seed)
    optimizer = make_optimizer(network, config)
    saved = working.load(scratch, network, optimizer)
    model = data_parallel(network, runtime)
    weight = None
    if objective is not None and isinstance(objective.lambda_, GradRatio):
        rows = epoch_steps(len(table), config.optim, config.seed, 0)[0]
        backend = backend_of(config)
        weight = (
            saved["lambda"] if saved else lambda_from_gradients(model, table, rows, config, backend, runtime, objective.lambda_.grad_ratio)
        )
    term = Term.of(config, network, weight)
    if term is not None and term.average is not None and saved is not None:
        term.average.load_state_dict(saved["average"])
    return Training(network, model, optimizer, term, saved)
