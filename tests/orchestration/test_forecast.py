"""The remaining time of a sweep includes every stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_ray.orchestration.forecast import later_trials, seconds_left
from tests import fake_training as fake


def test_the_stages_after_the_search_count(tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path, confirm={"seeds": [5, 6, 7], "equal_flops": True})
    # Two arms on three seeds, plus one run per seed at equal FLOPs for the only pair (base, jepa).
    assert later_trials(sweep, "search", total=8, look=0) == 2 * 3 + 3
    assert later_trials(sweep, "confirm", total=6, look=0) == 3
    assert later_trials(sweep, "matched", total=3, look=0) == 0
    alone = fake.make_sweep(tmp_path, confirm={"seeds": [5, 6, 7], "equal_flops": False})
    assert later_trials(alone, "search", total=8, look=0) == 6


def test_later_looks_of_a_race_count_with_the_arms_that_are_left(tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path, confirm={"seeds": list(range(5, 15)), "race": [4, 8, 10], "equal_flops": False})
    assert later_trials(sweep, "confirm", total=2 * 4, look=0) == 2 * 6
    assert later_trials(sweep, "confirm", total=1 * 8, look=1) == 1 * 2
    assert later_trials(sweep, "confirm", total=1 * 10, look=2) == 0


def test_seconds_left() -> None:
    assert seconds_left(4, [], [], 2) is None
    assert seconds_left(4, [(5.0, None)], [], 2) is None
    assert seconds_left(4, [], [10.0, 20.0], 2) == pytest.approx(4 * 15 / 2)
    # A running trial counts with its own report, else with the rest of the usual 15 s.
    assert seconds_left(4, [(5.0, None), (1.0, 40.0)], [10.0, 20.0], 2) == pytest.approx((10 + 40 + 60) / 2)
    assert seconds_left(0, [(500.0, None)], [10.0, 20.0], 2) == 0
    # The remaining time is at least that of the longest trial.
    assert seconds_left(0, [(1.0, 40.0)], [10.0], 8) == pytest.approx(40)
    # Before any trial has ended, the usual duration comes from the running ones.
    assert seconds_left(2, [(5.0, 15.0)], [], 1) == pytest.approx(15 + 2 * 20)
