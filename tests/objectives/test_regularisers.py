"""Regularisers: values by hand, SIGReg against its closed form and numerical integration, gradients, and batches of one or none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from jepa_ray.config import ObjectiveConfig
from jepa_ray.objectives.regularisers import (
    EPSILON,
    NUM_SLICES,
    covariance,
    directions,
    epps_pulley,
    regulariser,
    sigreg,
    variance,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def closed_form(x: list[float]) -> float:
    """The integral in closed form (see `epps_pulley`)."""
    pairs = sum(math.exp(-((a - b) ** 2) / 2) for a in x for b in x) / len(x)
    return (
        math.sqrt(2 * math.pi) * pairs - 2 * math.sqrt(math.pi) * sum(math.exp(-a * a / 4) for a in x) + len(x) * math.sqrt(2 * math.pi / 3)
    )


def integrated(x: list[float]) -> float:
    """The definition itself: complex characteristic functions, integrated over the line."""
    sample = np.array(x)

    def integrand(t: float) -> float:
        gap = np.exp(1j * t * sample).mean() - math.exp(-t * t / 2)
        return float(abs(gap) ** 2 * math.exp(-t * t / 2))

    return len(x) * float(quad(integrand, -np.inf, np.inf)[0])


def test_variance_by_hand() -> None:
    # Coordinate 1 is 0, 1: variance 1/2 with n - 1 = 1. Coordinate 2 is 0, 4: variance 8, beyond the hinge.
    states = torch.tensor([[0.0, 0.0], [1.0, 4.0]])
    assert variance(states).item() == pytest.approx((1 - math.sqrt(0.5 + EPSILON) + 0) / 2, rel=1e-6)
    # All the same: 1 - sqrt(0.0001) = 0.99 for every coordinate.
    assert variance(torch.full((5, 3), 7.0)).item() == pytest.approx(0.99, rel=1e-6)
    assert variance(3 * random(2000, 4)).item() == 0.0


def test_covariance_by_hand() -> None:
    # Coordinates 1 and 2 are equal (-1, 0, 1): C_12 = 2/2 = 1; coordinate 3 (1, -2, 1) is uncorrelated with both.
    # Off the diagonal: C_12^2 + C_21^2 = 2, over D = 3.
    states = torch.tensor([[-1.0, -1.0, 1.0], [0.0, 0.0, -2.0], [1.0, 1.0, 1.0]]) + 5
    assert covariance(states).item() == pytest.approx(2 / 3)
    # Two states, four coordinates, via X X': coordinates 1 and 2 differ by 2, variance and covariance 2^2 / 2 = 2: 2 * 2^2 / 4 = 2.
    states = torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 1.0, 1.0]])
    assert covariance(states).item() == pytest.approx(2.0)


@pytest.mark.parametrize("shape", [(5, 12), (12, 5), (6, 6)])
def test_covariance_is_that_of_the_matrix(shape: tuple[int, int]) -> None:
    states = random(*shape, seed=1)
    matrix = torch.cov(states.T)
    expected = (matrix.square().sum() - matrix.diagonal().square().sum()) / shape[1]
    torch.testing.assert_close(covariance(states), expected)


@pytest.mark.parametrize("x", [[0.0], [0.7], [-3.0], [0.0, 0.0], [-1.0, 1.0], [0.3, -0.2, 1.5, 2.5]])
def test_epps_pulley_is_the_integral(x: list[float]) -> None:
    assert closed_form(x) == pytest.approx(integrated(x), abs=1e-7)
    # The tail that is cut off at t = 5 is less than 4 * P * integral of exp(-t^2 / 2) over |t| > 5 = 6e-6 * P.
    assert epps_pulley(torch.tensor(x)[:, None]).item() == pytest.approx(integrated(x), abs=1e-5 * len(x))


def test_epps_pulley_of_one_point_by_hand() -> None:
    # sqrt(2 pi) - 2 sqrt(pi) exp(-x^2 / 4) + sqrt(2 pi / 3): at 0, 2.5066 - 3.5449 + 1.4472; far away, without the middle term.
    at_zero, away = epps_pulley(torch.tensor([[0.0, 8.0]])).tolist()
    assert at_zero == pytest.approx(2.5066 - 3.5449 + 1.4472, abs=2e-4)
    assert away == pytest.approx(2.5066 + 1.4472, abs=2e-4)


def test_epps_pulley_treats_columns_apart_and_does_not_know_their_order_or_sign() -> None:
    sample = random(9, 4, seed=2)
    together = epps_pulley(sample)
    torch.testing.assert_close(torch.cat([epps_pulley(sample[:, i : i + 1]) for i in range(4)]), together)
    torch.testing.assert_close(epps_pulley(sample.flip(0)), together)
    torch.testing.assert_close(epps_pulley(-sample), together)


def test_sigreg_is_at_its_floor_for_a_gaussian_and_grows_with_the_batch_for_anything_else() -> None:
    floor = math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)  # the mean for N(0, 1), for every P
    width, slices = 64, directions(64, generator(1))
    # Its standard deviation is about that of one slice over the root of the number of slices; averaging 16 samples divides it by 4.
    gaussian = sum(sigreg(random(512, width, seed=30 + sample), slices).item() for sample in range(16)) / 16
    assert gaussian == pytest.approx(floor, rel=0.1)
    collapsed = {
        "one point": torch.zeros(512, width),
        "one direction": random(512, 1, seed=4) * torch.ones(1, width) / 8,
        "too small": 0.3 * random(512, width, seed=5),
        "too large": 4 * random(512, width, seed=6),
        "off centre": random(512, width, seed=7) + 1,
    }
    for name, states in collapsed.items():
        whole, half = sigreg(states, slices).item(), sigreg(states[:256], slices).item()
        assert whole > 10 * gaussian, name
        assert 1.5 < whole / half < 2.5, name


def test_directions_are_units_of_the_generator_given() -> None:
    slices = directions(7, generator(3))
    assert slices.shape == (7, NUM_SLICES)
    torch.testing.assert_close(slices.norm(dim=0), torch.ones(NUM_SLICES))
    torch.testing.assert_close(slices, directions(7, generator(3)), rtol=0, atol=0)
    assert not torch.equal(slices, directions(7, generator(4)))
    before = torch.random.get_rng_state()
    directions(7, generator(3))
    assert torch.equal(torch.random.get_rng_state(), before)


TERMS: dict[str, Callable[[Tensor], Tensor]] = {
    "variance": variance,
    "covariance": covariance,
    "sigreg": lambda states: sigreg(states, directions(states.shape[1], generator())),
}


@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_finite_and_not_zero(name: str) -> None:
    states = (0.2 * random(6, 5, seed=8)).requires_grad_()
    TERMS[name](states).backward()  # type: ignore[no-untyped-call]
    assert states.grad is not None and states.grad.isfinite().all() and (states.grad.abs().amax(dim=1) > 0).all()
    same = torch.ones(4, 3, requires_grad=True)  # full collapse: the root of zero variance, zero differences
    TERMS[name](same).backward()  # type: ignore[no-untyped-call]
    assert same.grad is not None and same.grad.isfinite().all()


@pytest.mark.parametrize("name", TERMS)
def test_small_steps_lead_down(name: str) -> None:
    states = (0.5 * random(16, 4, seed=9) + 0.3).requires_grad_()
    value = TERMS[name](states)
    value.backward()  # type: ignore[no-untyped-call]
    assert states.grad is not None
    assert TERMS[name]((states - 0.05 * states.grad / states.grad.norm()).detach()) < value


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("num", [0, 1])
def test_one_state_or_none_is_no_nan(name: str, num: int) -> None:
    out = TERMS[name](torch.full((num, 3), 2.0))
    assert out.shape == () and out.dtype == torch.float32 and out.isfinite()
    assert (out > 0) == (name == "sigreg" and num == 1)  # a variance needs two states; a test statistic does not


@pytest.mark.parametrize("name", TERMS)
def test_computed_in_fp32(name: str) -> None:
    half = (300 * random(8, 512, seed=10)).bfloat16()  # whose squares, summed, are beyond half precision
    torch.testing.assert_close(TERMS[name](half), TERMS[name](half.float()), rtol=0, atol=0)
    assert TERMS[name](half.half()).isfinite()


@pytest.mark.parametrize("name", TERMS)
def test_the_objective_weighs_each_term_and_takes_the_mean_of_both_sides(name: str) -> None:
    source, target = 0.3 * random(6, 4, seed=11), random(6, 4, seed=12)
    single = {one: regulariser(ObjectiveConfig(**{one: 1.0}), source, target, generator()) for one in TERMS}  # type: ignore[arg-type]
    expected = (TERMS[name](source) + TERMS[name](target)) / 2
    torch.testing.assert_close(single[name], expected)
    torch.testing.assert_close(regulariser(ObjectiveConfig(**{name: 3.0}), source, target, generator()), 3 * expected)  # type: ignore[arg-type]
    mixed = regulariser(ObjectiveConfig(variance=1, covariance=2, sigreg=0.5), source, target, generator())
    torch.testing.assert_close(mixed, single["variance"] + 2 * single["covariance"] + single["sigreg"] / 2)


def test_a_weight_of_zero_draws_nothing_and_has_no_gradient() -> None:
    drawn_from = generator(5)
    before = drawn_from.get_state()
    out = regulariser(ObjectiveConfig(), random(3, 2).requires_grad_(), random(3, 2), drawn_from)
    assert out.item() == 0 and not out.requires_grad
    regulariser(ObjectiveConfig(variance=1, covariance=1), random(3, 2), random(3, 2), drawn_from)
    assert torch.equal(drawn_from.get_state(), before)
    regulariser(ObjectiveConfig(sigreg=1), random(3, 2), random(3, 2), drawn_from)
    assert not torch.equal(drawn_from.get_state(), before)


def test_nothing_flows_into_a_target_that_is_stopped() -> None:
    source, target = random(5, 3).requires_grad_(), random(5, 3, seed=1).requires_grad_()
    objective = ObjectiveConfig(variance=1, covariance=1, sigreg=1)
    regulariser(objective, source, target.detach(), generator()).backward()  # type: ignore[no-untyped-call]
    assert target.grad is None and source.grad is not None and source.grad.abs().max() > 0
