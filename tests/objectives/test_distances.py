"""Distances: values derived by hand, shapes, dtypes and gradients of each."""

from __future__ import annotations

import math

import pytest
import torch

from jepa_ray.config import ObjectiveConfig
from jepa_ray.objectives.distances import DISTANCES

SOURCE = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 2.0]])
TARGET = torch.tensor([[3.0, 4.0], [-2.0, 0.0], [2.0, 0.0]])
BY_HAND = {
    "cosine": [0.0, 2.0, 1 - 1 / math.sqrt(2)],  # the same, opposite, 45 degrees apart
    "l2": [0.0, 3.0, 2.0],
    "mse": [0.0, 9 / 2, 4 / 2],  # over two coordinates
}


def test_every_distance_is_here_and_can_be_configured() -> None:
    assert BY_HAND.keys() == DISTANCES.keys()
    for name in DISTANCES:
        assert ObjectiveConfig(distance=name).distance == name  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DISTANCES)
def test_values_by_hand(name: str) -> None:
    assert DISTANCES[name](SOURCE, TARGET).tolist() == pytest.approx(BY_HAND[name], abs=1e-6)
    assert DISTANCES[name](TARGET, SOURCE).tolist() == pytest.approx(BY_HAND[name], abs=1e-6)


@pytest.mark.parametrize("name", DISTANCES)
def test_gradients_are_finite_and_reach_both_views(name: str) -> None:
    source, target = SOURCE.clone().requires_grad_(), TARGET.clone().requires_grad_()
    DISTANCES[name](source, target).sum().backward()  # type: ignore[no-untyped-call]
    for gradient in (source.grad, target.grad):
        assert gradient is not None and gradient.isfinite().all()
        assert gradient[2].abs().max() > 0
    assert source.grad is not None and source.grad[0].abs().max() < 1e-6  # equal views: already at the minimum


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_computed_in_fp32(name: str, dtype: torch.dtype) -> None:
    large = torch.full((1, 4096), 100.0, dtype=dtype)  # a state of norm 6,400, whose square overflows in half precision
    out = DISTANCES[name](large, -large)
    assert out.dtype == torch.float32 and out.shape == (1,)
    assert out.item() == pytest.approx({"cosine": 2.0, "l2": 12_800.0, "mse": 40_000.0}[name], rel=1e-5)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_zero_state_and_no_pairs(name: str) -> None:
    zero = torch.zeros(1, 2, requires_grad=True)
    DISTANCES[name](zero, torch.ones(1, 2)).sum().backward()  # type: ignore[no-untyped-call]
    assert zero.grad is not None and zero.grad.isfinite().all()
    assert DISTANCES[name](torch.zeros(0, 2), torch.zeros(0, 2)).shape == (0,)
