"""Distances: values derived by hand, shapes, dtypes, gradients; invariance under permutation, scale and sharding."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from jepa_ray.config import ObjectiveConfig
from jepa_ray.objectives.distances import DISTANCES, Others, distance, infonce, normalized

SOURCE = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 2.0]])
TARGET = torch.tensor([[3.0, 4.0], [-2.0, 0.0], [2.0, 0.0]])
BY_HAND = {
    "cosine": [0.0, 2.0, 1 - 1 / math.sqrt(2)],  # the same, opposite, 45 degrees apart
    "l2": [0.0, 3.0, 2.0],
    "mse": [0.0, 9 / 2, 4 / 2],  # over two coordinates
    "smooth_l1": [0.0, (3 - 1 / 2) / 2, (2 - 1 / 2) / 2],  # coordinates that differ by 3 and by 2: on the straight part
}
SHARPNESS = 2.0  # a temperature of 1 / 2 doubles the cosines


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_distance_is_here_and_can_be_configured() -> None:
    assert BY_HAND.keys() == DISTANCES.keys()
    assert set(get_args(ObjectiveConfig.model_fields["distance"].annotation)) == {*DISTANCES, "infonce"}


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
    assert out.item() == pytest.approx({"cosine": 2.0, "l2": 12_800.0, "mse": 40_000.0, "smooth_l1": 199.5}[name], rel=1e-5)


@pytest.mark.parametrize("name", [*DISTANCES, "infonce"])
def test_a_zero_state_and_no_pairs(name: str) -> None:
    objective = ObjectiveConfig(distance=name)  # type: ignore[arg-type]
    zero = torch.zeros(1, 2, requires_grad=True)
    distance(objective, zero, torch.ones(1, 2)).sum().backward()  # type: ignore[no-untyped-call]
    assert zero.grad is not None and zero.grad.isfinite().all()
    empty = torch.zeros(0, 2, requires_grad=True)
    none = distance(objective, empty, torch.zeros(0, 2))
    assert none.shape == (0,)
    none.sum().backward()  # type: ignore[no-untyped-call]
    assert empty.grad is not None and empty.grad.shape == (0, 2)


def test_smooth_l1_is_half_the_square_near_zero_and_bounded_in_its_pull() -> None:
    # |x| = 1/2 is on the curved part: 1/8; 100 on the straight part: 99.5. Over two coordinates.
    source = torch.tensor([[0.5, 100.0]], requires_grad=True)
    out = DISTANCES["smooth_l1"](source, torch.zeros(1, 2))
    assert out.tolist() == pytest.approx([(1 / 8 + 99.5) / 2])
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert source.grad is not None and source.grad.tolist() == [[0.25, 0.5]]  # x / D, and 1 / D at most


def test_infonce_by_hand() -> None:
    # Cosines of source 1 with the targets: 1, 0; of source 2: 0, 1; times SHARPNESS: -log(e^2 / (e^2 + e^0)), both, either way.
    source, target = torch.tensor([[5.0, 0.0], [0.0, 0.1]]), torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    expected = -math.log(math.exp(SHARPNESS) / (math.exp(SHARPNESS) + 1))
    for symmetric in (False, True):
        assert infonce(source, target, temperature=1 / SHARPNESS, symmetric=symmetric).tolist() == pytest.approx([expected] * 2)


def test_infonce_directions_differ_and_symmetric_is_their_mean() -> None:
    # Both sources point at target 1; target 2 is orthogonal. Cosines: rows (sources) 1 0 / 1 0.
    source, target = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    forward = [math.log1p(math.exp(-SHARPNESS)), math.log1p(math.exp(SHARPNESS))]  # right; wrong by the whole gap
    backward = [math.log(2), math.log(2)]  # each target is as near to one source as to the other
    at = 1 / SHARPNESS
    assert infonce(source, target, temperature=at).tolist() == pytest.approx(forward)
    assert infonce(target, source, temperature=at).tolist() == pytest.approx(backward)
    both = infonce(source, target, temperature=at, symmetric=True)
    assert both.tolist() == pytest.approx([(f + b) / 2 for f, b in zip(forward, backward, strict=True)])


@pytest.mark.parametrize("symmetric", [False, True])
def test_infonce_over_two_shards_is_infonce_over_their_concatenation(symmetric: bool) -> None:
    source, target = random(7, 5, seed=1), random(7, 5, seed=2)
    whole_source, whole_target = source.clone().requires_grad_(), target.clone().requires_grad_()
    whole = infonce(whole_source, whole_target, temperature=0.3, symmetric=symmetric)
    whole.sum().backward()  # type: ignore[no-untyped-call]
    source.requires_grad_()
    target.requires_grad_()
    parts = [
        infonce(
            source[first:stop],
            target[first:stop],
            temperature=0.3,
            symmetric=symmetric,
            all_source_ND=source,
            all_target_ND=target,
            offset=first,
        )
        for first, stop in ((0, 3), (3, 7))
    ]
    torch.cat(parts).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(torch.cat(parts), whole)
    torch.testing.assert_close(source.grad, whole_source.grad)
    torch.testing.assert_close(target.grad, whole_target.grad)
    alone = torch.cat([infonce(source[:3], target[:3], temperature=0.3), infonce(source[3:], target[3:], temperature=0.3)])
    assert (alone < whole - 1e-3).all()  # fewer negatives make it easier: the shards alone are another loss


def test_infonce_gives_its_known_values_at_the_extremes() -> None:
    one = infonce(random(1, 4), random(1, 4, seed=1), temperature=0.07, symmetric=True)
    assert one.tolist() == [0.0]  # no negatives
    same = torch.ones(8, 4)
    assert infonce(same, same, temperature=0.07).tolist() == pytest.approx([math.log(8)] * 8)  # collapsed: chance


@pytest.mark.parametrize("name", [*DISTANCES, "infonce"])
def test_exchanging_pairs_exchanges_their_values(name: str) -> None:
    objective = ObjectiveConfig(distance=name)  # type: ignore[arg-type]
    source, target, order = random(6, 4, seed=3), random(6, 4, seed=4), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(distance(objective, source[order], target[order]), distance(objective, source, target)[order])


SCALES = {"cosine": 0, "infonce": 0, "l2": 1, "mse": 2}


@pytest.mark.parametrize("name", [*DISTANCES, "infonce"])
def test_what_the_length_of_the_states_changes(name: str) -> None:
    source, target = random(4, 8, seed=5), random(4, 8, seed=6)
    plain = ObjectiveConfig(distance=name)  # type: ignore[arg-type]
    once, tenfold = distance(plain, source, target), distance(plain, 10 * source, 10 * target)
    if name in SCALES:
        torch.testing.assert_close(tenfold, 10 ** SCALES[name] * once)
    else:
        assert (tenfold > 10 * once).all() and (tenfold < 100 * once).all()  # Huber: between linear and square
    if name in DISTANCES and name != "cosine":
        unit = ObjectiveConfig(distance=name, normalize=True)  # type: ignore[arg-type]
        torch.testing.assert_close(distance(unit, 10 * source, 3 * target), distance(unit, source, target))


def test_normalised_mse_and_l2_are_functions_of_the_cosine() -> None:
    # |s - t|^2 = 2 - 2 cos for unit vectors.
    source, target = random(5, 16, seed=7), random(5, 16, seed=8)
    cos = distance(ObjectiveConfig(), source, target)
    torch.testing.assert_close(distance(ObjectiveConfig(distance="mse", normalize=True), source, target), 2 * cos / 16)
    torch.testing.assert_close(distance(ObjectiveConfig(distance="l2", normalize=True), source, target), (2 * cos).sqrt())
    assert normalized(source).norm(dim=-1).tolist() == pytest.approx([1.0] * 5)


def test_dispatch_takes_the_knobs_and_the_others() -> None:
    source, target = random(4, 3, seed=9), random(4, 3, seed=10)
    objective = ObjectiveConfig(distance="infonce", temperature=0.5, symmetric=True)
    torch.testing.assert_close(distance(objective, source, target), infonce(source, target, temperature=0.5, symmetric=True))
    shard = distance(objective, source[1:3], target[1:3], Others(source, target, 1))
    torch.testing.assert_close(shard, distance(objective, source, target)[1:3])


@pytest.mark.parametrize("name", [*DISTANCES, "infonce"])
def test_nothing_flows_into_a_side_that_is_stopped(name: str) -> None:
    objective = ObjectiveConfig(distance=name)  # type: ignore[arg-type]
    source, target = random(3, 4, seed=11).requires_grad_(), random(3, 4, seed=12).requires_grad_()
    distance(objective, source, target.detach()).sum().backward()  # type: ignore[no-untyped-call]
    assert target.grad is None
    assert source.grad is not None and source.grad.isfinite().all() and (source.grad.abs().amax(dim=1) > 0).all()
