"""The device that a trial runs on: prepared before it, tested and cleared after it. On a CPU there is nothing to do.

Reasons, as known for PyTorch 2.13 on Hopper cards: cuDNN's attention builds a plan for every new shape, in 0.4 to 1 s each, and a packed
row brings thousands; a CUDA error such as an illegal address stays with its process, so that every later kernel fails, too.
"""

from __future__ import annotations

import gc
import resource

import torch

from jepa_ray.data.views import TokenTable

TOKENS_PER_PASS = 4096
"""Of a micro-batch on a GPU where `micro_batch_size` is not given: at 1B about 9 GB of activations (2.2 MB per token)."""


class DeviceLost(RuntimeError):
    """The GPU no longer answers in this process: only a new process can go on."""


def make_ready(device: str) -> None:
    """Before a trial: attention without plans per shape, and a memory high-water mark of its own."""
    if device.startswith("cuda"):
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.cuda.reset_peak_memory_stats(device)


def works(device: str) -> bool:
    """Whether the device still computes; after a CUDA error that stays with the process it does not."""
    try:
        torch.ones(8, device=device).sum().item()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def clear(device: str) -> None:
    """After a trial: give back what PyTorch's allocator keeps, so that the next trial, or its neighbour on the same GPU, finds it free."""
    if device.startswith("cuda"):
        gc.collect()
        torch.cuda.empty_cache()


def peak_memory(device: str) -> float:
    """Bytes: the GPU's high-water mark in this trial; on a CPU the process's, which includes earlier trials of a reused process."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def default_micro_batch(table: TokenTable, device: str, *, with_views: bool) -> int | None:
    """Examples of a micro-batch where the configuration names none; None: the whole step, as on a CPU.

    `with_views`: the Text and Code of an example are encoded as well. Counts unpacked tokens, so the row holds fewer.
    """
    if not device.startswith("cuda"):
        return None
    parts = (table.lm, table.text, table.code) if with_views else (table.lm,)
    return max(1, int(TOKENS_PER_PASS // max(1.0, sum(float(part.lengths.mean()) for part in parts))))
