"""How a trial's network runs on its device: the attention of packed rows, and whether the layers are one compiled graph."""

from __future__ import annotations

from jepa_ray.config import ModelConfig, TrialConfig
from jepa_ray.models.device_batch import Kernel
from jepa_ray.models.network import Depth, Network

STEPS_THAT_REPAY = 300
"""Optimizer steps that repay compiling the graph: one to two minutes, against 25 to 60 ms of kernel launches per micro-batch of 16 layers
on an H100 (estimated from counts of kernels; see docs/performance.md)."""


def place(network: Network, config: TrialConfig, device: str, num_examples: int) -> None:
    """Choose the network's attention, and whether it is compiled. Every rank chooses the same."""
    network.kernel = kernel_of(config.model, device)
    steps = config.optim.num_epochs * -(-num_examples // config.optim.batch_size)
    network.compiled = network.kernel == "flex" and not runs_eagerly(network) and is_compiled(config.model, device, steps)


def kernel_of(model: ModelConfig, device: str) -> Kernel:
    """The attention of packed rows."""
    if model.attention != "auto":
        return model.attention
    return "flex" if device.startswith("cuda") or model.compile == "true" else "bucketed"


def is_compiled(model: ModelConfig, device: str, steps: int) -> bool:
    """Whether a trial of that many optimizer steps compiles its graph."""
    if model.compile != "auto":
        return model.compile == "true"
    return device.startswith("cuda") and model.packing != "plain" and steps >= STEPS_THAT_REPAY


def runs_eagerly(network: Network) -> str | None:
    """Why a network cannot be one graph, in words; None: it can. Complete: everything else compiles (tests/models/test_compiled.py)."""
    if network.depth != Depth():
        return "states before the final norm, or of an earlier layer, are read by hooks, which a graph does not see"
    return None
