"""The measured rate of matrix products: the fastest of several counts, and torch is left as it was."""

from __future__ import annotations

import time

import pytest
import torch

from jepa_ray.plan.cpu import Precision
from jepa_ray.preparation import cpu_rate
from jepa_ray.preparation.cpu_rate import matmul_rate


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_fastest_product_counts(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three products take 2, 1 and 3 seconds of a clock that the test turns."""
    monkeypatch.setattr(cpu_rate, "SECONDS", 0.0)
    clock = iter([0.0, 10.0, 12.0, 20.0, 21.0, 30.0, 33.0, 40.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert matmul_rate(precision, 1) == 2 * 512 * 768 * 768


def test_threads_are_those_asked_for_and_then_those_from_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_rate, "SECONDS", 0.0)
    asked: list[int] = []
    before = torch.get_num_threads()
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert 1e8 < matmul_rate("fp32", 3) < 1e16, "a CPU of this century"
    assert asked == [3, before]
