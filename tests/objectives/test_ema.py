"""The average of the trained weights: its recursion by hand, what it covers, saving, and encoding with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jepa_ray.objectives.ema import Average


def scalar(value: float, *, trained: bool = True, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value], dtype=dtype), requires_grad=trained)


def values(average: Average) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in average.parameters().items()}


def put(parameter: Tensor, value: float) -> None:
    with torch.no_grad():
        parameter.fill_(value)


def test_the_recursion_by_hand() -> None:
    weight = scalar(1)
    average = Average([("w", weight)])
    assert values(average) == {"w": [1.0]}
    put(weight, 5)
    assert values(average) == {"w": [1.0]}  # a copy
    average.update(0.75)
    assert values(average) == {"w": [2.0]}  # 0.75 * 1 + 0.25 * 5
    put(weight, -2)
    average.update(0.5)
    assert values(average) == {"w": [0.0]}  # (2 - 2) / 2
    average.update(1)
    assert values(average) == {"w": [0.0]}
    average.update(0)
    assert values(average) == {"w": [-2.0]}


def test_only_what_is_trained_in_fp32_and_without_gradient() -> None:
    average = Average([("trained", scalar(1, dtype=torch.bfloat16)), ("frozen", scalar(2, trained=False))])
    (name, tensor), *others = average.parameters().items()
    assert name == "trained" and not others
    assert tensor.dtype == torch.float32 and not tensor.requires_grad
    Average([]).update(0.5)


def test_small_changes_are_not_lost_to_rounding() -> None:
    weight = scalar(1, dtype=torch.bfloat16)
    average = Average([("w", weight)])
    put(weight, 1.0078125)  # the next bf16 number
    average.update(0.999)
    assert values(average)["w"][0] == pytest.approx(1 + 0.001 * 0.0078125, abs=1e-7)


def test_a_constant_stays_and_a_jump_is_followed_geometrically() -> None:
    weight = scalar(0)
    average = Average([("w", weight)])
    put(weight, 1)
    for _ in range(30):
        average.update(0.9)
    assert values(average)["w"][0] == pytest.approx(1 - 0.9**30, rel=1e-5)


def test_saved_and_loaded() -> None:
    network = nn.Linear(3, 2)
    average = Average(network.named_parameters())
    put(network.weight, 4)
    average.update(0.5)
    state = average.state_dict()
    fresh = Average(nn.Linear(3, 2).named_parameters())
    fresh.load_state_dict(state)
    assert values(fresh) == values(average)
    put(network.weight, 9)
    average.update(0.5)
    assert values(fresh) != values(average)  # neither shares memory with its source
    assert torch.equal(state["weight"], fresh.parameters()["weight"])


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"weight": torch.ones(2, 3)}, r"must contain the 2 trained parameters, but 1 differ, first bias: absent saved, \[2\] here"),
        ({"weight": torch.ones(2, 4), "bias": torch.ones(2)}, r"first weight: \[2, 4\] saved, \[2, 3\] here"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "a": torch.ones(1)}, r"first a: \[1\] saved, absent here"),
    ],
)
def test_another_average_is_refused_whole(saved: dict[str, Tensor], message: str) -> None:
    average = Average(nn.Linear(3, 2).named_parameters())
    before = values(average)
    with pytest.raises(ValueError, match=message):
        average.load_state_dict(saved)
    assert values(average) == before


def test_encoding_with_the_average() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    network[0].weight.requires_grad_(False)  # frozen: shared with the online network
    average = Average(network.named_parameters())
    inputs = torch.randn(5, 3, requires_grad=True)
    before = network(inputs).detach()
    for parameter in network.parameters():
        if parameter.requires_grad:
            put(parameter, 0.3)
    with torch.no_grad():
        target = torch.func.functional_call(network, dict(average.parameters()), (inputs,))
    torch.testing.assert_close(target, before)
    assert not torch.allclose(network(inputs), before)  # the online weights are restored, and have changed since
    (network(inputs) - target).square().sum().backward()
    assert all(not tensor.requires_grad and tensor.grad is None for tensor in average.parameters().values())
    assert network[2].weight.grad is not None and network[2].weight.grad.abs().max() > 0
