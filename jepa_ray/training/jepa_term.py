"""The JEPA term of a step: views, target encoder, distance, regularisers and weight.

views      <- layout of the objective, drawn for each step                           (`objectives/layouts.py`)
target     <- the network, or a moving average of its trained weights without gradient
term_sum   <- sum over pairs of d(source, target), plus regularisers once per pair
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from jepa_ray.config import ObjectiveConfig, TrialConfig
from jepa_ray.data.packing import Views
from jepa_ray.data.views import TokenTable
from jepa_ray.models.device_batch import DeviceBatch
from jepa_ray.models.network import Depth, Network
from jepa_ray.objectives.distances import Others, distance
from jepa_ray.objectives.ema import Average
from jepa_ray.objectives.layouts import exchange, views_of
from jepa_ray.objectives.predictors import make_head
from jepa_ray.objectives.regularisers import regulariser
from jepa_ray.objectives.schedules import ema_momentum, is_dropped, lambda_factor
from jepa_ray.streams import derive_seed
from jepa_ray.training.parallel import call_with, is_sharded, whole


def active_objective(config: TrialConfig) -> ObjectiveConfig | None:
    """The JEPA term, or None if it has no effect: for the baseline, and for lambda = 0 (except in controls that measure the term)."""
    objective = config.objective
    if objective is None or (objective.fixed_lambda == 0 and objective.control not in ("monitor", "zero")):
        return None
    return objective


def fit_network(network: Network, objective: ObjectiveConfig | None, seed: int) -> Network:
    """Add to a network what an objective needs other than predictor tokens: a head, and the depth at which states are read."""
    if objective is not None:
        head = make_head(objective, int(network.causal_lm.config.hidden_size), seed)
        network.head = head.to(network.device) if head is not None else None
        network.depth = Depth(objective.layer, objective.final_norm)
    return network


@dataclass
class Term:
    """The JEPA term of one trial, with the state it keeps between steps."""

    objective: ObjectiveConfig
    seed: int
    weight: float
    """lambda before its schedule."""
    average: Average | None = None
    """Average of the trained weights, if the target encoder is one."""

    @classmethod
    def of(cls, config: TrialConfig, network: Network, weight: float | None = None) -> Term | None:
        """None if the trial has no active term. `weight`: lambda, if the objective takes it from the first gradients."""
        objective = active_objective(config)
        if objective is None:
            return None
        fixed = objective.fixed_lambda
        assert fixed is not None or weight is not None, "lambda comes from the first step's gradients, but was not passed"
        average = Average(network.lm.named_parameters(prefix="lm")) if objective.target == "ema" else None
        return cls(objective, config.seed, fixed if fixed is not None else float(weight or 0.0), average)

    @property
    def is_weighed(self) -> bool:
        """Whether the term is part of the loss; False for the controls that only measure it."""
        return self.objective.control not in ("monitor", "zero")

    @property
    def gathers(self) -> bool:
        """Whether workers exchange the pairs of a step."""
        return self.objective.compares_pairs and self.objective.gather and dist.is_initialized() and dist.get_world_size() > 1

    def is_dropped(self, step: int) -> bool:
        """Whether loss dropout skips the term in this step."""
        return is_dropped(self.objective, self.seed, step)

    def lambda_at(self, step: int, total_steps: int) -> float:
        """Weight of the term's mean over pairs; 0 for the controls that only measure it."""
        if not self.is_weighed:
            return 0.0
        return self.weight * lambda_factor(self.objective, step, total_steps)

    def views(self, table: TokenTable, rows: Sequence[int], step: int, partner: Mapping[int, int] | None) -> Views:
        """Views that a micro-batch encodes."""
        return views_of(self.objective, table, rows, seed=self.seed, step=step, partner=partner)

    def partners(self, rows: Sequence[int], step: int) -> dict[int, int] | None:
        """For all examples of a step: whose target each gets, if the control shuffles pairs."""
        return exchange(rows, self.seed, step) if self.objective.control == "shuffled" else None

    def update(self, step: int, total_steps: int) -> None:
        """Update the moving average after the optimizer's step."""
        if self.average is not None:
            self.average.update(ema_momentum(self.objective, step, total_steps))

    def frozen_target(self, network: Network, batch: DeviceBatch) -> Tensor | None:
        """(P, D) targets from the averaged weights, without gradient; None if the network itself encodes them."""
        takes_part = self.average is not None and is_sharded(network)  # a worker without pairs too: all make the same passes
        if batch.frozen is None and not takes_part:
            return None
        assert self.average is not None
        was_training = network.training
        network.eval()
        with torch.no_grad():
            states_XD = call_with(network, self.average.parameters(), batch.frozen or batch.rows)
        network.train(was_training)
        if batch.frozen is None:
            return None
        target: Tensor = batch.target.read(states_XD)
        return target

    def sum_over_pairs(self, source_PD: Tensor, target_PD: Tensor, step: int) -> Tensor:
        """d summed over the pairs of a micro-batch, plus the regularisers times the number of pairs.

        If the term `gathers`, regularisers are statistics of all workers' states, and each worker adds the share of its pairs. The sum over
        workers and, through the exchange, its gradient are then those of one worker with all pairs.
        """
        objective = self.objective
        if objective.control == "constant_target":
            target_PD = constant_target(target_PD, self.seed)
        if objective.target in ("stop_target", "ema"):
            target_PD = target_PD.detach()
        elif objective.target == "stop_source":
            source_PD = source_PD.detach()
        if objective.control == "monitor":
            source_PD, target_PD = source_PD.detach(), target_PD.detach()
        # A worker without pairs takes part too: the exchange must run forward and backward on all workers.
        others = gather_pairs(source_PD, target_PD) if self.gathers else None
        term = distance(objective, source_PD, target_PD, others).sum()
        if objective.regularised:
            states = (others.source_ND, others.target_ND) if others is not None else (source_PD, target_PD)
            generator = torch.Generator(device="cpu").manual_seed(derive_seed(self.seed, "slices", step))
            term = term + regulariser(objective, *states, generator) * len(source_PD)
        return term


def constant_target(target_PD: Tensor, seed: int) -> Tensor:
    """One fixed random state for all pairs, with the norm of a typical state, about sqrt(D): each coordinate is standard normal."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "constant target"))
    return torch.randn(target_PD.shape[-1], generator=generator).to(target_PD).expand_as(target_PD)


def gather_pairs(source_PD: Tensor, target_PD: Tensor) -> Others:
    """The pairs of all workers, with gradient."""
    source_ND, offset = gather_rows(source_PD)
    target_ND, _ = gather_rows(target_PD)
    return Others(source_ND, target_ND, offset)


def gather_rows(rows_PD: Tensor) -> tuple[Tensor, int]:
    """Rows of all workers in rank order, and the offset of this worker's rows. Differentiable: the backward pass sums over workers.

    Workers may have different numbers of rows.
    """
    from torch.distributed.nn.functional import all_gather

    count = torch.tensor([len(rows_PD)], device=rows_PD.device)
    counts = [torch.zeros_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    sizes = [int(size) for size in counts]
    padded = torch.cat([rows_PD, rows_PD.new_zeros(max(sizes) - len(rows_PD), rows_PD.shape[1])])
    gathered: Any = all_gather(padded)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)]), int(np.sum(sizes[: dist.get_rank()]))


def gradient_norm(model: nn.Module) -> float:
    """Global norm of all existing gradients."""
    norms = [whole(parameter.grad.float().norm()) for parameter in model.parameters() if parameter.grad is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0
