"""The device that a trial runs on: prepared before it, tested and cleared after it. On a CPU there is nothing to do.

Reasons, observed with PyTorch 2.13 on Hopper cards: cuDNN's attention builds a plan for every new shape, which takes 0.4 to 1 s, and
packed rows have thousands of shapes; after a CUDA error such as an illegal address, every later kernel of that process fails as well.
"""

from __future__ import annotations

import gc
import resource

import torch


class DeviceLost(RuntimeError):
    """The GPU no longer responds in this process; only a new process can continue."""


def make_ready(device: str) -> None:
    """Before a trial: disable attention that needs a plan per shape, and reset the memory high-water mark."""
    if device.startswith("cuda"):
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.cuda.reset_peak_memory_stats(device)


def works(device: str) -> bool:
    """Whether the device still computes; False after a CUDA error that persists in the process."""
    try:
        torch.ones(8, device=device).sum().item()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def clear(device: str) -> None:
    """After a trial: release the memory that PyTorch's allocator caches, for the next trial or another one on the same GPU."""
    if device.startswith("cuda"):
        gc.collect()
        torch.cuda.empty_cache()


def peak_memory(device: str) -> float:
    """Peak memory in bytes: of the GPU in this trial, or on a CPU of the process, which includes earlier trials of a reused process."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
