"""Learning rate schedule, AdamW's parameter groups, and gradient clipping."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from jepa_ray.config import OptimConfig, TrialConfig
from jepa_ray.models.network import Network
from jepa_ray.training.parallel import is_sharded, local


def lr_factor(step: int, total: int, optim: OptimConfig) -> float:
    """Factor on the peak learning rate at `step` (from 0) of `total`: linear warm-up, then decay that reaches 0 after the last step."""
    warmup = round(optim.warmup_ratio * total)
    if step < warmup:
        return (step + 1) / warmup
    left = (total - step) / max(1, total - warmup)
    if optim.schedule == "linear":
        return left
    return 0.5 * (1 + math.cos(math.pi * (1 - left))) if optim.schedule == "cosine" else 1.0


def make_optimizer(network: Network, config: TrialConfig) -> torch.optim.AdamW:
    """AdamW over the trained parameters: weight decay on matrices only, and a separate learning rate factor for the predictor."""
    optim = config.optim
    predictor_ids = {id(parameter) for name, parameter in network.named_parameters() if not name.startswith("lm.")}
    factor = config.objective.predictor_lr_factor if config.objective is not None else 1.0
    groups: list[dict[str, Any]] = []
    for is_predictor, scale in ((False, 1.0), (True, factor)):
        trained = [p for p in network.parameters() if p.requires_grad and (id(p) in predictor_ids) == is_predictor]
        groups += [
            # No decay on a head: decay would pull it towards zero, not towards the identity.
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": 0.0 if is_predictor else optim.weight_decay, "factor": scale},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0, "factor": scale},
        ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=optim.learning_rate, betas=(optim.beta1, optim.beta2), fused=True)


def clip_gradients(model: nn.Module, max_norm: float | None) -> float:
    """Scale gradients down to the global norm `max_norm`; return the norm before scaling."""
    gradients = [local(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients)).double()
    if is_sharded(model):  # from norms of shards to those of whole gradients
        dist.all_reduce(norms.square_())
        norms.sqrt_()
    # fsum rounds once, so zero gradients (predictor tokens in a step that loss dropout skips) leave the norm bit-identical.
    norm = math.sqrt(math.fsum(each * each for each in norms.tolist()))
    if max_norm is not None and norm > max_norm:
        torch._foreach_mul_(gradients, max_norm / norm)
    return norm
