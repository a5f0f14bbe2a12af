"""Waits of the GPU: host syncs and copies from torch's profiler, and the shapes of calls to attention kernels."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

WAITS = (
    *("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"),
    *("aten::item", "aten::_local_scalar_dense", "aten::nonzero"),
)
COPIES = {"Memcpy DtoH": "device to host copies", "Memcpy HtoD": "host to device copies"}
"""Beginning of the profiler's name of a copy -> name of the figure."""
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")


def counted(call: Callable[[], Any], steps: int) -> dict[str, float]:
    """Waits, copies and kernels per step, over a call of `steps` steps. One device-wide wait per step comes from the benchmark itself."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    with profile(activities=activities) as profiler:
        call()
    names = Counter(_names(profiler))
    counts = {name: names[name] / steps for name in WAITS}
    for beginning, title in COPIES.items():
        counts[title] = sum(count for name, count in names.items() if name.startswith(beginning)) / steps
    return counts | {"kernel launches": sum(names[name] for name in LAUNCHES) / steps}


def places(call: Callable[[], Any], steps: int) -> dict[str, float]:
    """`file:line` -> number of times per step that Python waits for the GPU there, from torch's own warnings. Empty without a GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("default")
    waits = [one for one in caught if "called a synchronizing" in str(one.message)]
    at = Counter(f"{'/'.join(Path(wait.filename).parts[-3:])}:{wait.lineno}" for wait in waits)
    return {place: times / steps for place, times in at.most_common()}


def _names(profiler: Any) -> Iterator[str]:
    raw = getattr(getattr(profiler, "profiler", None), "kineto_results", None)
    # Read raw events if possible: torch's own event tree takes longer to build than the steps took to run.
    events = raw.events() if raw is not None else profiler.events()
    for event in events:
        yield event.name() if callable(event.name) else event.name


@contextmanager
def sdpa_shapes() -> Iterator[set[tuple[Any, ...]]]:
    """Collect the distinct shapes (query, key, whether masked) of calls to scaled dot-product attention; none if another kernel
    computes it.
    """
    seen: set[tuple[Any, ...]] = set()
    original = F.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_compiling():
            mask = kwargs.get("attn_mask", args[1] if len(args) > 1 else None)
            seen.add((tuple(query.shape), tuple(key.shape), mask is not None))
        return original(query, key, *args, **kwargs)

    F.scaled_dot_product_attention = watched
    try:
        yield seen
    finally:
        F.scaled_dot_product_attention = original
