"""Distributions: the values that they contain and refuse, and that Optuna draws no others."""

from __future__ import annotations

import itertools
from typing import Any

import optuna
import pytest
from pydantic import ValidationError

from jepa_ray.config.space import Distribution, enumerate_grid


def make(**spec: Any) -> Distribution:
    return Distribution.model_validate(spec)


EVERY_SPELLING = [
    {"float": [0.5, 2]},
    {"float": [1e-4, 1e-2], "log": True},
    {"float": [0, 1], "step": 0.1},
    {"float": [0, 1], "step": 0.3},
    {"int": [0, 4]},
    {"int": [1, 64], "log": True},
    {"int": [1, 8], "step": 3},
    {"choice": [0, 0.5, "cosine", True, None]},
    {"int": [3, 3]},
]


@pytest.mark.parametrize("spec", EVERY_SPELLING, ids=str)
def test_values_that_optuna_draws_are_in_the_distribution(spec: dict[str, Any]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distribution = make(**spec)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [distribution.suggest(study.ask(), "x") for _ in range(60)]
    assert all(distribution.contains(value) for value in drawn)
    assert all(distribution.contains(value) for value in distribution.probes())
    if distribution.float_ is None or distribution.step is not None:
        # Exactly equal: a rounding error would make another configuration with another config_id.
        assert set(drawn) <= set(distribution.grid())


@pytest.mark.parametrize("spec", EVERY_SPELLING, ids=str)
def test_written_out_and_read_back(spec: dict[str, Any]) -> None:
    distribution = make(**spec)
    written = distribution.model_dump(mode="json")
    assert Distribution.model_validate(written) == distribution
    assert set(written) == {*spec, "log"}, "only given keys, and log, are written"


def test_grids_by_hand() -> None:
    assert list(make(float=[0, 1], step=0.1).grid()) == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    assert list(make(float=[0, 1], step=0.3).grid()) == [0, 0.3, 0.6, 0.9]
    assert list(make(int=[1, 8], step=3).grid()) == [1, 4, 7]
    assert list(make(choice=["b", "a"]).grid()) == ["b", "a"]
    with pytest.raises(ValueError, match=r"finitely many values.*\[0, 1\].*step.*choice"):
        make(float=[0, 1]).grid()


def test_conditional_grid_by_hand() -> None:
    """k = 0 has no further knob (1 point). k = 1 and 2 have two dropouts each, of which 0.5 has two lambdas: 1 + 2 x (1 + 2) = 7."""
    space = {
        "k": make(int=[0, 2]),
        "dropout": make(choice=[0, 0.5], when={"k": [1, 2]}),
        "lambda": make(choice=[1, 4], when={"dropout": 0.5}),
    }
    points = list(enumerate_grid(space))
    assert len(points) == 7
    assert len({tuple(point.items()) for point in points}) == 7
    assert points[0] == {"k": 0}
    assert {"k": 2, "dropout": 0.5, "lambda": 4} in points
    assert not any("lambda" in point and point.get("dropout") != 0.5 for point in points)


def test_huge_grids_are_not_held_in_memory() -> None:
    space = {"a": make(int=[1, 10**9]), "b": make(float=[0, 1], step=1e-9)}
    assert len(list(itertools.islice(enumerate_grid(space), 3))) == 3


def test_only_a_range_without_step_is_continuous() -> None:
    assert make(float=[0, 1]).is_continuous() and make(float=[1, 2], log=True).is_continuous()
    for spec in ({"float": [0, 1], "step": 0.5}, {"float": [1, 1]}, {"int": [1, 64], "log": True}, {"choice": [0.5]}):
        assert not make(**spec).is_continuous(), spec


def test_true_is_not_one() -> None:
    assert not make(choice=[0, 1]).contains(True)
    assert not make(int=[0, 1]).contains(True)
    assert make(choice=[True, 1]).choice == (True, 1)


def test_no_range_contains_a_value_that_is_not_a_finite_number() -> None:
    for value in (float("nan"), float("inf"), -float("inf"), 10**400, "1", None):
        assert not make(int=[0, 4]).contains(value) and not make(float=[0, 4]).contains(value), value


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({}, "exactly one of float, int and choice, got none of them"),
        ({"float": [0, 1], "choice": [1]}, "got float and choice"),
        ({"float": [2, 1]}, "low = 2 is above high = 1; swap them"),
        ({"float": [0, 1], "log": True}, "a log range needs low > 0, got low = 0; raise low or drop log"),
        ({"int": [-1, 4], "log": True}, "a log range needs low > 0, got low = -1"),
        ({"float": [1, 2], "log": True, "step": 0.5}, "log and step exclude each other"),
        ({"float": [1, 2], "step": 0}, "step must be above 0, got 0"),
        ({"int": [1, 2], "step": 0.5}, "step of an int range must be whole, got 0.5"),
        ({"choice": []}, "choice is empty"),
        ({"choice": [1, 2, 1]}, "choice contains a value twice: [1, 2, 1]"),
        ({"choice": [1, 2], "log": True}, "choice takes neither log nor step"),
        ({"choice": [[1, 2]]}, "must be a number, text, true or false, got [1, 2]"),
        ({"int": [1]}, "a range is written [low, high], got [1]"),
        ({"int": 3}, "a range is written [low, high], got 3"),
        ({"int": [1, 2.5]}, "must be a whole number, got 2.5"),
        ({"int": [0, 10**400]}, "must be a whole number, got 1000"),
        ({"float": [0, 10**400]}, "must be a finite number, got 1000"),
        ({"float": [0, "many"]}, "must be a finite number, got 'many'"),
        ({"float": [0, float("inf")]}, "must be a finite number, got inf"),
        ({"float": [False, True]}, "must be a finite number, got false"),
    ],
    ids=str,
)
def test_invalid_distributions_are_refused(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        make(**spec)
    assert len(refused.value.errors()) == 1
    assert sentence in str(refused.value)
