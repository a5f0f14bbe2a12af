"""Notes of the plan."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_ray.config import arms
from jepa_ray.plan import Estimate
from jepa_ray.plan.describe import describe, notes
from jepa_ray.plan.load import load_sweep


def notes_on_rates(**keys: Any) -> list[str]:
    sweep = load_sweep({"name": "s", "methods": {"baseline": None}, "search": {"num_trials": 1}, **keys})
    return [note for note in notes(sweep, arms(sweep)) if note.startswith("optim.learning_rate is")]


TINY_RANGE = {"optim.learning_rate": {"float": [1e-3, 2e-2], "log": True}}


@pytest.mark.parametrize(("base", "usual"), [({"lora": {"r": 4}}, "[1e-05, 0.002]"), ({}, "[1e-06, 0.0002]")])
def test_a_space_for_tiny_models_is_noticed_on_a_pretrained_one(base: dict[str, Any], usual: str) -> None:
    (note,) = notes_on_rates(model="paper", base=base, space=TINY_RANGE)
    assert "is up to 0.02, higher than usual" in note and f"'space.optim.learning_rate={{float: {usual}, log: true}}'" in note
    assert notes_on_rates(model="tiny", base=base, space=TINY_RANGE) == []
    assert notes_on_rates(model="paper", base={**base, "model": {"init": "random"}}, space=TINY_RANGE) == []


def test_the_plan_says_which_rate_a_pretrained_model_gets() -> None:
    (note,) = notes_on_rates(model="paper", base={"lora": {"r": 4}})
    assert note.startswith("optim.learning_rate is 0.0002 in every trial")
    usual_space = {"optim.learning_rate": {"float": [1e-5, 1e-3], "log": True}}
    assert notes_on_rates(model="paper", base={"lora": {"r": 4}}, space=usual_space) == []


@pytest.mark.parametrize(("keys", "counted"), [({}, " tokens (shared prefixes once), "), ({"base": {"masked": {}}}, " tokens, ")])
def test_the_plan_says_which_tokens_it_counts(keys: dict[str, Any], counted: str) -> None:
    """Passages of masked encoders share nothing."""
    families = {"families": ["distilbert"], "task": "rotten-tomatoes"} if keys else {}
    sweep = load_sweep({"name": "s", "methods": {"baseline": None}, "search": {"num_trials": 1}, **families, **keys})
    estimates = {arm.name: Estimate(10, 1234.0, 1e6, 1e6) for arm in arms(sweep)}
    assert f"1.23e+03{counted}" in describe(sweep, arms(sweep), estimates)


@pytest.mark.parametrize(
    ("base", "space", "says"),
    [
        (
            {"lora": {"r": 4}},
            {},
            "is 2e-05 in every trial, tiny models and gemma2 alike; LoRA of a pretrained model usually takes 1e-05 to 0.002",
        ),
        (
            {},
            {},
            "is 2e-05 in every trial, tiny models and gemma2 alike; full fine-tuning of a pretrained model usually takes 1e-06 to 0.0002",
        ),
        ({}, TINY_RANGE, "is up to 0.02 in every trial, tiny models and gemma2 alike; full fine-tuning"),
        ({}, {"optim.learning_rate": {"float": [1e-5, 1e-4]}}, None),
        ({"model": {"init": "random"}}, TINY_RANGE, None),
    ],
)
def test_one_rate_for_tiny_and_pretrained_families_is_said(base: dict[str, Any], space: dict[str, Any], says: str | None) -> None:
    """The default of adapters is for sweeps whose models are all pretrained: a tiny one needs another rate."""
    said = notes_on_rates(families=["llama3", "gemma2"], model={"llama3": "tiny", "gemma2": "paper"}, base=base, space=space)
    assert len(said) == (says is not None)
    assert says is None or (says in said[0] and said[0].endswith("give gemma2 a sweep of its own"))
