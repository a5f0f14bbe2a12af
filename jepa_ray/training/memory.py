"""Tokens per forward pass for which a GPU has memory: the default size of micro-batches, and whether a trial needs several GPUs."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist

from jepa_ray.config import TrialConfig
from jepa_ray.data.packing import count_labels
from jepa_ray.data.views import TokenTable
from jepa_ray.models.footprint import FP32, Training, footprint, labels_at_once, margin, tokens_that_fit
from jepa_ray.models.loading import uses_bf16
from jepa_ray.models.network import Network
from jepa_ray.models.shapes import ARCHITECTURES, Shape
from jepa_ray.training.jepa_term import active_objective
from jepa_ray.training.runtime import Runtime

MOST_TOKENS = 1 << 14
"""A pass of this many tokens keeps a GPU busy; larger ones are not faster."""
UNKNOWN = 4096
"""Tokens for an architecture whose memory is not known."""


def fitting(network: Network, config: TrialConfig, table: TokenTable, runtime: Runtime, *, sharded: bool) -> int | None:
    """Tokens of a forward pass, the same on all ranks; None on a CPU, where a step is one pass. Every rank calls this."""
    if not runtime.device.startswith("cuda"):
        return None
    tokens = torch.tensor(within(available(runtime), network, config, table, runtime, sharded=sharded), device=runtime.device)
    if runtime.world_size > 1:
        dist.all_reduce(tokens, dist.ReduceOp.MIN)
    return int(tokens)


def available(runtime: Runtime) -> float:
    """Bytes that this process may use: what is free on its GPU, and what it holds already."""
    free, total = torch.cuda.mem_get_info(runtime.device)
    return margin(min(free + torch.cuda.memory_reserved(runtime.device), runtime.gpu_share * total))


def within(memory: float, network: Network, config: TrialConfig, table: TokenTable, runtime: Runtime, *, sharded: bool) -> int:
    """Tokens of a forward pass within so many bytes, those of the trial's state included; at least 1."""
    shape = shape_of(network)
    if shape is None:
        return UNKNOWN
    made = footprint(shape, training_of(network, config, runtime, sharded=sharded))
    objective, rows = active_objective(config), np.arange(len(table))
    lengths = table.lm.lengths.sum() + (table.text.lengths.sum() + table.code.lengths.sum() if objective is not None else 0)
    optim = config.optim
    labels = count_labels(table, rows.tolist(), loss_on=optim.loss_on, train_end_of_turn=optim.train_end_of_turn)
    share = labels / max(1, int(lengths))
    return max(1, min(MOST_TOKENS, tokens_that_fit(memory, made, labels_per_token=share, labels_at_once=labels_at_once(shape.vocabulary))))


def fits_one_gpu(network: Network, config: TrialConfig, table: TokenTable, runtime: Runtime) -> bool:
    """Whether every worker's GPU has memory for a whole copy of the trial; True on a CPU. Every rank calls this."""
    if not runtime.device.startswith("cuda"):
        return True
    enough = torch.tensor(int(fits(available(runtime), network, config, table, runtime)), device=runtime.device)
    dist.all_reduce(enough, dist.ReduceOp.MIN)  # all ranks must decide the same
    return bool(enough)


def fits(memory: float, network: Network, config: TrialConfig, table: TokenTable, runtime: Runtime) -> bool:
    """Whether so many bytes hold whole weights, gradients and optimizer states, and a pass of the longest example.

    For an architecture whose activations are not known, the former alone: per trained weight a gradient, DDP's copy of it and two moments.
    """
    if shape_of(network) is None:
        return sum(p.numel() * (p.element_size() + (4 * FP32 if p.requires_grad else 0)) for p in network.parameters()) <= memory
    longest = table.lm.lengths + (table.text.lengths + table.code.lengths if active_objective(config) is not None else 0)
    return within(memory, network, config, table, runtime, sharded=False) >= min(MOST_TOKENS, int(longest.max()))


def shape_of(network: Network) -> Shape | None:
    """The network's shape; None for an architecture whose memory is not known."""
    lm_config = network.causal_lm.config
    return Shape.of(lm_config.to_dict()) if lm_config.model_type in ARCHITECTURES else None


def training_of(network: Network, config: TrialConfig, runtime: Runtime, *, sharded: bool) -> Training:
    """How a network is trained, as far as it changes memory."""
    objective, lora = active_objective(config), config.lora
    return Training(
        rank=lora.r if lora is not None else None,
        dropout=lora.dropout if lora is not None else 0.0,
        precision="bf16" if uses_bf16(config.model, torch.device(runtime.device)) else "fp32",
        average=objective is not None and objective.target == "ema",
        gradient_checkpointing=config.model.gradient_checkpointing,
        workers=runtime.world_size,
        sharding="fsdp" if sharded else "ddp",
        kernel=network.kernel,
        device="cuda" if runtime.device.startswith("cuda") else "cpu",
    )
