"""GPUs that a sweep can be planned for: memory, bandwidth, peak. Imports neither torch nor Ray.

Sources: the vendors' data sheets (NVIDIA H100, H200, B200 (HGX), A100, L40S, A10, V100, T4, GeForce RTX 4090; AWS for the A10G).
Peak: dense tensor-core operations in bf16 with fp32 accumulation (fp16 for cards without bf16), and operations in fp32 outside tensor
cores: PyTorch uses no TF32 for matrix products by default. Memory: what PyTorch reports, which
is a little less than on the data sheet because of error correction and the driver.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from jepa_ray.config import Hardware
from jepa_ray.system.gpus import Gpu

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """A GPU."""

    name: str
    memory: float
    """Bytes."""
    bandwidth: float | None
    """Bytes per second; None: an unknown card."""
    peak: float | None
    """Operations per second; None: an unknown card."""
    has_bf16: bool = True
    peak_fp32: float | None = None
    """Operations per second in fp32; None: an unknown card."""

    def peak_of(self, precision: str) -> float | None:
        """Operations per second in `bf16` or `fp32`; None: an unknown card."""
        return self.peak_fp32 if precision == "fp32" else self.peak


def _card(name: str, gib: float, bandwidth: float, peak: float, fp32: float, has_bf16: bool = True) -> Card:
    return Card(name, gib * GIB, bandwidth * 1e12, peak * 1e12, has_bf16, fp32 * 1e12)


CARDS: Mapping[Hardware, Card] = MappingProxyType(
    {
        "b200": _card("B200", 178, 7.7, 2250, 75),
        "h200": _card("H200", 139, 4.8, 989, 67),
        "h100": _card("H100 SXM", 79, 3.35, 989, 67),
        "h100-pcie": _card("H100 PCIe", 79, 2.0, 756, 51),
        "a100-80gb": _card("A100 80 GB", 79, 2.0, 312, 19.5),
        "a100-40gb": _card("A100 40 GB", 39, 1.55, 312, 19.5),
        "l40s": _card("L40S", 44, 0.864, 362, 91.6),
        "a10": _card("A10", 22, 0.6, 125, 31.2),
        "a10g": _card("A10G", 22, 0.6, 70, 35),
        "rtx4090": _card("RTX 4090", 23.5, 1.008, 165, 82.6),
        "v100": _card("V100 32 GB", 31.5, 0.9, 125, 15.7, has_bf16=False),
        "t4": _card("T4", 14.5, 0.32, 65, 8.1, has_bf16=False),
    }
)
_SPELLINGS: Sequence[tuple[frozenset[str], Hardware]] = (
    (frozenset({"B200"}), "b200"),
    (frozenset({"H200"}), "h200"),
    (frozenset({"H100", "PCIe"}), "h100-pcie"),
    (frozenset({"H100"}), "h100"),
    (frozenset({"A100", "40GB"}), "a100-40gb"),
    (frozenset({"A100"}), "a100-80gb"),
    (frozenset({"L40S"}), "l40s"),
    (frozenset({"A10G"}), "a10g"),
    (frozenset({"A10"}), "a10"),
    (frozenset({"RTX", "4090"}), "rtx4090"),
    (frozenset({"V100"}), "v100"),
    (frozenset({"T4"}), "t4"),
)
"""Words of the name that a driver gives, and the card; the first that matches counts."""


def _words(name: str) -> frozenset[str]:
    """Whole words: an RTX A1000 is no A100."""
    return frozenset(re.split(r"\W+", name))


def of_gpu(gpu: Gpu) -> Card:
    """The card of a GPU of this machine, with its own memory; peak and bandwidth are None if the table does not contain it."""
    known = next((CARDS[key] for parts, key in _SPELLINGS if parts <= _words(gpu.name)), None)
    memory = 0.985 * gpu.memory  # nvidia-smi counts what the driver keeps
    if known is None:
        return Card(gpu.name, memory, None, None, gpu.has_bf16)
    return Card(known.name, memory, known.bandwidth, known.peak, gpu.has_bf16, known.peak_fp32)
