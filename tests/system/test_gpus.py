"""nvidia-smi's output, and its absence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jepa_ray.system.gpus import Gpu, local_gpus, parse


def test_names_memory_and_bf16() -> None:
    gpus = parse("NVIDIA H100 80GB HBM3, 81559, 9.0\nTesla V100-SXM2-32GB, 32768, 7.0\nsomething else\n\n")
    assert gpus == [Gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20, 9.0), Gpu("Tesla V100-SXM2-32GB", 32 * 2**30, 7.0)]
    assert [gpu.has_bf16 for gpu in gpus] == [True, False]


def test_a_machine_without_nvidia_smi_has_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("nvidia-smi") is None and local_gpus() == []
    broken = tmp_path / "nvidia-smi"
    broken.write_text("#!/bin/sh\nexit 9\n")
    broken.chmod(0o755)
    assert local_gpus() == [], "the driver is not loaded"
    broken.write_text("#!/bin/sh\necho NVIDIA A10G, 23028, 8.6\n")
    assert [gpu.name for gpu in local_gpus()] == ["NVIDIA A10G"]
