"""Schedules at their corners: first and last step, no warm-up and all warm-up, and loss dropout's share."""

from __future__ import annotations

import math

import pytest

from jepa_ray.config import ObjectiveConfig
from jepa_ray.objectives.schedules import ema_momentum, is_dropped, lambda_factor, period
from jepa_ray.streams import stream


def factors(total: int, **knobs: float) -> list[float]:
    objective = ObjectiveConfig(**knobs)  # type: ignore[arg-type]
    return [lambda_factor(objective, step, total) for step in range(total)]


def test_lambda_stays_by_default() -> None:
    assert factors(7) == [1.0] * 7


def test_lambda_by_hand() -> None:
    # Warm-up over round(0.4 * 10) = 4 steps, then from 1 at step 4 to 2 at step 9 in fifths.
    assert factors(10, lambda_warmup=0.4, lambda_end=2) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1.2, 1.4, 1.6, 1.8, 2])
    assert factors(5, lambda_end=0) == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert factors(4, lambda_warmup=0.5) == pytest.approx([0.5, 1, 1, 1])


@pytest.mark.parametrize("total", [1, 2, 3, 50])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("end", [0.0, 0.5, 1.0, 3.0])
def test_lambda_at_its_corners(total: int, warmup: float, end: float) -> None:
    curve = factors(total, lambda_warmup=warmup, lambda_end=end)
    assert curve[-1] == end
    assert all(0 <= value <= max(1, end) for value in curve)
    if total > 1:
        warm = min(round(warmup * total), total - 1)
        assert curve[max(warm - 1, 0)] == 1
        assert curve[:warm] == sorted(curve[:warm]) and 0 not in curve[:warm]  # it rises from zero, and no step of it is idle


@pytest.mark.parametrize("seed", [0, 82])
def test_random_dropout_is_the_stream_as_it_always_was(seed: int) -> None:
    objective = ObjectiveConfig(loss_dropout=0.5)
    dropped = [is_dropped(objective, seed, step) for step in range(400)]
    assert dropped == [bool(stream(seed, "loss dropout", step).random() < 0.5) for step in range(400)]
    assert 150 < sum(dropped) < 250  # five standard deviations, sqrt(400 / 4) = 10, about 200
    assert not any(is_dropped(ObjectiveConfig(), seed, step) for step in range(400))


def test_more_dropout_drops_more_of_the_same_steps() -> None:
    few, many = ({step for step in range(300) if is_dropped(ObjectiveConfig(loss_dropout=share), 3, step)} for share in (0.25, 0.75))
    assert few < many


@pytest.mark.parametrize(("share", "m"), [(0.5, 2), (0.75, 4), (0.8, 5), (0.9, 10), (2 / 3, 3), (0.7, 3)])
def test_periodic_dropout_is_active_on_every_mth_step(share: float, m: int) -> None:
    objective = ObjectiveConfig(loss_dropout=share, loss_dropout_mode="periodic")
    assert period(objective) == m
    for seed in (0, 1):
        assert [step for step in range(3 * m) if not is_dropped(objective, seed, step)] == [0, m, 2 * m]


def momenta(total: int, **knobs: float) -> list[float]:
    objective = ObjectiveConfig(target="ema", **knobs)  # type: ignore[arg-type]
    return [ema_momentum(objective, step, total) for step in range(total)]


def test_momentum_by_hand() -> None:
    assert momenta(4, ema_momentum=0.9) == [0.9] * 4
    # From 0.5 to 1 over five steps: 1 - 0.25 * (1 + cos(0, 45, 90, 135, 180 degrees)).
    half = math.sqrt(0.5)
    assert momenta(5, ema_momentum=0.5, ema_end=1) == pytest.approx([0.5, 1 - (1 + half) / 4, 0.75, 1 - (1 - half) / 4, 1])


@pytest.mark.parametrize(("start", "end"), [(0.9, 1.0), (0.996, 0.5), (0.0, 1.0)])
def test_momentum_at_its_corners(start: float, end: float) -> None:
    curve = momenta(21, ema_momentum=start, ema_end=end)
    assert (curve[0], curve[10], curve[-1]) == pytest.approx((start, (start + end) / 2, end))
    assert curve == sorted(curve, reverse=end < start)
    assert momenta(1, ema_momentum=start, ema_end=end) == [start]
