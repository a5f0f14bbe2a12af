"""The rate of matrix products on this machine's CPU, measured in a fraction of a second, for the hours of a plan."""

from __future__ import annotations

import time

import torch

from jepa_ray.plan.cpu import Precision

ROWS, WIDTH = 512, 768
"""A product of the size of a small model's linear layer: (ROWS, WIDTH) x (WIDTH, WIDTH)."""
SECONDS, FEWEST = 0.3, 3
"""How long is measured, and the fewest products that are timed."""


def matmul_rate(precision: Precision, threads: int) -> float:
    """Operations per second of matrix products on this many threads. The fastest counts: others were disturbed by other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            left, right = (
                torch.ones(rows, WIDTH, dtype=torch.bfloat16 if precision == "bf16" else torch.float32) for rows in (ROWS, WIDTH)
            )
            left @ right  # the first product also chooses a kernel
            seconds: list[float] = []
            end = time.perf_counter() + SECONDS
            while len(seconds) < FEWEST or time.perf_counter() < end:
                start = time.perf_counter()
                left @ right
                seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return 2 * ROWS * WIDTH * WIDTH / min(seconds)
