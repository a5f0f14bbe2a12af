"""What a trial has spent so far, for its row of the trials table; the same for causal models and masked encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jepa_ray.training.device import peak_memory
from jepa_ray.training.step import Runtime


def cost_so_far(spent: Mapping[str, Any]) -> dict[str, float]:
    """What training has cost by now, as it stands with each point of a curve and in `trials`."""
    return {
        "train_flops": float(spent["flops"]),
        "train_flops_unpacked": float(spent["unpacked"]),
        "train_seconds": spent["train_seconds"],
    }


def spent_columns(spent: Mapping[str, Any], epochs_done: int, runtime: Runtime) -> dict[str, Any]:
    """Columns of `trials`: tokens, seconds, optimizer steps, epochs, memory. FLOPs and training seconds stand with the curves."""
    return {
        "train_tokens": float(spent["tokens"]),
        "val_seconds": spent["val_seconds"],
        "wall_seconds": spent["wall"],
        "peak_memory_bytes": peak_memory(runtime.device),
        "epochs_done": epochs_done,
        "steps": spent["step"],
    }
