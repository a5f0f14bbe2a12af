"""Heads: initially the identity, drawn from their own stream, and trained from the first step on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jepa_ray.config import ObjectiveConfig
from jepa_ray.objectives.predictors import LinearHead, MlpHead, make_head

HEADS = [ObjectiveConfig(predictor="linear"), ObjectiveConfig(predictor="mlp"), ObjectiveConfig(predictor="mlp", predictor_width=3)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def head_of(objective: ObjectiveConfig, width: int = 5, seed: int = 0) -> torch.nn.Module:
    head = make_head(objective, width, seed)
    assert head is not None
    return head


def test_tokens_need_no_head() -> None:
    assert make_head(ObjectiveConfig(predictor="tokens"), 5, 0) is None


@pytest.mark.parametrize("objective", HEADS)
def test_starts_as_the_identity_in_fp32(objective: ObjectiveConfig) -> None:
    states = random(4, 5, seed=1).bfloat16()
    out = head_of(objective)(states)
    assert out.dtype == torch.float32
    assert torch.equal(out, states.float())
    assert head_of(objective)(torch.zeros(0, 5)).shape == (0, 5)


def test_shapes() -> None:
    shapes = {
        0: [(5, 5), (5,)],
        1: [(5, 5), (5,), (5, 5), (5,)],  # as wide as the states
        2: [(3, 5), (3,), (5, 3), (5,)],
    }
    for number, objective in enumerate(HEADS):
        assert [tuple(parameter.shape) for parameter in head_of(objective).parameters()] == shapes[number]


def test_differences_are_mapped_without_a_bias() -> None:
    """For in-sequence layouts: W (h_t - h_r), so that a zero step gives a zero prediction."""
    head = head_of(ObjectiveConfig(layout="tube", predictor="linear"))
    assert [tuple(parameter.shape) for parameter in head.parameters()] == [(5, 5)]
    states = random(4, 5, seed=1)
    assert torch.equal(head(states), states), "the identity at first"
    with torch.no_grad():
        head.weight_DD.mul_(2)  # type: ignore[operator,union-attr]
    assert torch.equal(head(states), 2 * states) and not head(torch.zeros(1, 5)).any()


def test_values_by_hand() -> None:
    linear = LinearHead(2)
    with torch.no_grad():
        linear.weight_DD.copy_(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
        linear.bias_D.copy_(torch.tensor([10.0, 20.0]))
    assert linear(torch.tensor([[3.0, 4.0]])).tolist() == [[18.0, 23.0]]
    mlp = MlpHead(2, 1, torch.Generator())
    with torch.no_grad():
        mlp.weight_HD.copy_(torch.tensor([[1.0, 1.0]]))
        mlp.weight_DH.copy_(torch.tensor([[1.0], [-1.0]]))
    # The hidden unit sees 20 (or -20), where GELU is the identity (or 0) to rounding; its value is added to one, subtracted from the other.
    assert mlp(torch.tensor([[8.0, 12.0], [-8.0, -12.0]])).tolist() == [[28.0, -8.0], [-8.0, -12.0]]


@pytest.mark.parametrize("objective", HEADS)
def test_drawn_from_the_named_stream_alone(objective: ObjectiveConfig) -> None:
    before = torch.random.get_rng_state()
    first = head_of(objective, seed=82)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    again, other = head_of(objective, seed=82), head_of(objective, seed=23)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    same = all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert same == (objective.predictor == "linear")  # whose start has nothing random in it


def test_hidden_units_start_within_their_bound() -> None:
    weight = head_of(ObjectiveConfig(predictor="mlp", predictor_width=400), width=16).get_parameter("weight_HD")
    assert weight.abs().max() <= 0.25  # 1 / sqrt(16)
    assert weight.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.05)  # of a uniform distribution


@pytest.mark.parametrize("objective", HEADS)
def test_every_parameter_learns_and_the_states_get_their_gradient(objective: ObjectiveConfig) -> None:
    head, states = head_of(objective, width=4), random(64, 4, seed=2)
    wanted = 2 * states.roll(1, dims=1)  # a map that is not the identity
    start = {name: parameter.detach().clone() for name, parameter in head.named_parameters()}
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    losses = []
    for _ in range(50):
        source = states.clone().requires_grad_()
        loss = (head(source) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert source.grad is not None and source.grad.isfinite().all() and source.grad.abs().max() > 0
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(not torch.equal(parameter, start[name]) for name, parameter in head.named_parameters())
