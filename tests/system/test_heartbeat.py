"""The progress of a trial, from the numbers that training writes into its heartbeat."""

from __future__ import annotations

import pytest

from jepa_ray.system.heartbeat import Heartbeat


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_speed_and_time_left_of_a_trial() -> None:
    clock = Clock()
    heart = Heartbeat(clock)
    heart.start("load")
    assert (heart.beat().phase, heart.beat().seconds_left) == ("load", None)
    heart.plan(steps=10, examples=8)  # two validations of four
    heart.enter("train")
    clock.now = 30.0  # the first step compiles, so it says nothing about the speed
    heart.trained(1, 10, tokens=100, loss=3.0)
    assert (heart.beat().tokens_per_second, heart.beat().seconds_left) == (None, None)
    for step in range(2, 6):
        clock.now += 0.5
        heart.trained(step, 10, tokens=100, loss=3.0 - step)
    beat = heart.beat()
    assert (beat.done, beat.total, beat.loss) == (5, 10, -2.0)
    assert beat.tokens_per_second == pytest.approx(200.0)
    assert beat.seconds_left == pytest.approx(5 * 0.5)  # the time per example is not known yet
    heart.enter("validate", 4)
    clock.now += 8.0
    heart.evaluated(4)
    assert (heart.beat().phase, heart.beat().done, heart.beat().total) == ("validate", 4, 4)
    assert heart.beat().seconds_left == pytest.approx(5 * 0.5 + 4 * 2.0)
    heart.enter("save")
    clock.now += 100.0
    heart.enter("train")  # neither validation nor saving counts as a slow step
    for step in range(6, 11):
        clock.now += 0.5
        heart.trained(step, 10, tokens=100, loss=1.0)
    assert heart.beat().tokens_per_second == pytest.approx(200.0)
    assert heart.beat().seconds_left == pytest.approx(4 * 2.0)
    heart.start("load")
    assert heart.beat().seconds_left is None and heart.beat().loss is None


def test_a_first_stage_does_not_claim_to_know_the_end() -> None:
    clock = Clock()
    heart = Heartbeat(clock)
    heart.enter("first stage")
    for step in (1, 2, 3):
        clock.now += 1.0
        heart.trained(step, 4, tokens=10, loss=1.0)
    assert heart.beat().tokens_per_second == pytest.approx(10.0)
    assert heart.beat().seconds_left is None


def test_a_loss_that_is_not_finite_is_not_shown() -> None:
    heart = Heartbeat(Clock())
    heart.trained(1, 4, tokens=10, loss=float("nan"))
    assert heart.beat().loss is None
