"""The card's properties, the library versions, and the attention kernels that accept the calls of the packed step."""

from __future__ import annotations

import math
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.form import Findings, Form

PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 operations a second, from the data sheets of the SXM cards."""
OTHER_BOARDS = ("PCIe", "NVL")
"""Slower boards with the same names."""
PLAN_S = 3.0
"""Upper bound of the seconds of a call in a new shape, forward and backward."""
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def run(form: Form, findings: Findings) -> None:
    """The part."""
    name = torch.cuda.get_device_name() if form.device == "cuda" else platform.processor() or platform.machine()
    findings.note({"name": name, "cpus": os.cpu_count(), "peak_bf16": peak(name), **versions()}, name)
    if form.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        capability = f"{properties.major}.{properties.minor}"
        findings.note({"memory_bytes": properties.total_memory, "capability": capability, "gpus": torch.cuda.device_count()})
    else:
        findings.note({"memory_bytes": None, "capability": None, "gpus": 0})
    enabled = [backend for backend in BACKENDS if _enabled(backend)]
    findings.note({"sdpa_enabled": enabled, "sdpa_takes": accepted(form.device)})
    speed = matmul_speed(form)
    findings.note(
        {"matmul_bf16_flops": speed},
        f"{name}, torch {torch.__version__}, SDPA {' '.join(enabled)}, masked GQA runs on "
        f"{' '.join(findings.figures['sdpa_takes']['masked, grouped']) or 'none'}, matmul {speed / 1e12:.3g} TFLOP/s",
    )
    cost = shape_cost(form)
    findings.note({"sdpa_seconds": cost}, f"{findings.headline}, masked call in a new shape {cost.get('new shape', math.nan):.2g} s")


def peak(name: str) -> float | None:
    """Dense bf16 operations a second of a card, by its name; None if unknown."""
    if any(board in name for board in OTHER_BOARDS):
        return None
    return next((speed for part, speed in PEAK_BF16.items() if part in name), None)


def versions() -> dict[str, Any]:
    """Versions of the driver and the libraries."""
    packages = {package: metadata.version(package) for package in ("torch", "transformers", "peft", "numpy")}
    return {
        **packages,
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "driver": _driver(),
    }


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False).stdout.split()
    return lines[0] if lines else None


def _enabled(backend: str) -> bool:
    switches: dict[str, Any] = {
        "flash": torch.backends.cuda.flash_sdp_enabled,
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled,
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled,
        "math": torch.backends.cuda.math_sdp_enabled,
    }
    return bool(switches[backend]())


def accepted(device: str) -> dict[str, list[str]]:
    """Kind of call -> backends that run it, forward and backward, in bf16 with 32 query heads and 8 (or 32) key/value heads."""
    mask = torch.ones(4, 1, 24, 40, dtype=torch.bool, device=device).tril(16)
    calls = {
        "masked, grouped": (mask, 8),
        "masked, expanded": (mask, 32),
        "causal, grouped": (None, 8),
        "causal, expanded": (None, 32),
    }
    return {kind: [name for name, backend in BACKENDS.items() if _runs(backend, device, *call)] for kind, call in calls.items()}


def _runs(backend: SDPBackend, device: str, mask: torch.Tensor | None, groups: int) -> bool:
    own, longest = (24, 40) if mask is not None else (40, 40)
    query = torch.randn(4, 32, own, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
    key, value = (torch.randn(4, groups, longest, 64, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    try:
        with sdpa_kernel([backend]):
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=groups != 32)
            out.sum().backward()
    except RuntimeError:  # "no available kernel"
        return False
    return True


def shape_cost(form: Form) -> dict[str, float]:
    """Median seconds of a masked call in a new shape, and of the same call again; with the kernel torch chooses, and without cuDNN.

    cuDNN builds a plan for every shape, and packed blocks keep having new shapes.
    """
    cost: dict[str, float] = {}
    was = torch.backends.cuda.cudnn_sdp_enabled()
    for number, way in enumerate(("", ", without cudnn")):
        torch.backends.cuda.enable_cudnn_sdp(was and not number)
        first: list[float] = []
        again: list[float] = []
        for shape in range(2 if form.small else 4):
            if form.left() < PLAN_S:
                break
            call = _masked_call(form.device, paths=3 + shape + 10 * number, own=17 + shape, longest=41 + 3 * shape)
            for seconds in (first, again):
                began = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - began)
        if not first:
            continue
        cost |= {f"new shape{way}": statistics.median(first), f"known shape{way}": statistics.median(again)}
    torch.backends.cuda.enable_cudnn_sdp(was)
    return cost


def _masked_call(device: str, *, paths: int, own: int, longest: int) -> Callable[[], None]:
    mask = torch.ones(paths, 1, own, longest, dtype=torch.bool, device=device).tril(longest - own)
    query = torch.randn(paths, 32, own, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
    key, value = (torch.randn(paths, 8, longest, 64, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))

    def call() -> None:
        F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def matmul_speed(form: Form) -> float:
    """Operations a second of one large bf16 product: the practical part of the peak."""
    size, repeats = (256, 2) if form.small else (8192, 20)
    left, right = (torch.randn(size, size, device=form.device, dtype=torch.bfloat16) for _ in range(2))

    def product() -> None:
        left @ right
        if form.device == "cuda":
            torch.cuda.synchronize()

    product()
    began = time.perf_counter()
    for _ in range(repeats):
        left @ right
    if form.device == "cuda":
        torch.cuda.synchronize()
    return 2 * size**3 * repeats / (time.perf_counter() - began)
