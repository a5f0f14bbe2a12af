"""Every benchmark starts: its imports work, and `--help` describes it. The measurements are not run here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

SHARED = ("__init__", "timing", "llama3_checkpoint", "smollm2_checkpoint")
"""Modules that benchmarks share."""
NAMES = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "benchmarks").glob("*.py") if path.stem not in SHARED)


def test_there_are_benchmarks() -> None:
    assert {"step", "generation", "overhead"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_starts(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0 and "--json" in capsys.readouterr().out
