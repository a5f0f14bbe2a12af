"""The NVIDIA GPUs of this machine, as nvidia-smi names them: no CUDA context is created, and torch is not imported."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str
    memory: float
    """Bytes in total."""
    compute_capability: float

    @property
    def has_bf16(self) -> bool:
        """Tensor cores compute in bf16 since compute capability 8.0 (Ampere)."""
        return self.compute_capability >= 8.0


def local_gpus() -> list[Gpu]:
    """GPUs of this machine; none if nvidia-smi is missing or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse(done.stdout)


def parse(text: str) -> list[Gpu]:
    """GPUs of nvidia-smi's output, one line `name, MiB, compute capability` each; other lines are left out."""
    out = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 2)]
        try:
            out.append(Gpu(parts[0], float(parts[1]) * 2**20, float(parts[2])))
        except (IndexError, ValueError):
            continue
    return out
