"""`controls:` adds the same control methods each time the file is read."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_ray import plan
from jepa_ray.config import ObjectiveConfig, SweepConfig, TrialConfig, arms, canonical, comparisons, config_id

METHODS: dict[str, Any] = {"baseline": "none", "jepa": {"lambda": 2, "k": 1}}


def sweep_of(controls: list[str], methods: dict[str, Any] = METHODS, **more: Any) -> SweepConfig:
    return SweepConfig.model_validate({"name": "x", "methods": methods, "controls": controls, **more})


def test_each_control_is_a_method_next_to_the_one_it_controls() -> None:
    sweep = sweep_of(["lambda_zero", "monitor", "shuffled", "stop_token"])
    assert list(sweep.methods) == [
        *("baseline", "jepa", "baseline-no-stop"),
        *("jepa-lambda-zero", "jepa-monitor", "jepa-shuffled", "jepa-no-stop"),
    ]
    assert {name: objective.control for name, objective in sweep.methods.items() if objective is not None} == {
        "jepa": "none",
        "jepa-lambda-zero": "zero",
        "jepa-monitor": "monitor",
        "jepa-shuffled": "shuffled",
        "jepa-no-stop": "none",
    }
    shuffled, jepa = sweep.methods["jepa-shuffled"], sweep.methods["jepa"]
    assert shuffled is not None and jepa is not None and shuffled.model_copy(update={"control": "none"}) == jepa
    assert set(sweep.cross_entropy) == {"baseline-no-stop", "jepa-no-stop"}
    assert {arm.method: (arm.kind, arm.baseline) for arm in arms(sweep)} == {
        "baseline": ("baseline", None),
        "jepa": ("claim", "baseline/llama3"),
        "jepa-lambda-zero": ("control", "baseline/llama3"),
        "jepa-monitor": ("control", "baseline/llama3"),
        "jepa-shuffled": ("control", "baseline/llama3"),
        "baseline-no-stop": ("baseline", None),
        "jepa-no-stop": ("control", "baseline-no-stop/llama3"),
    }


def test_a_resolved_sweep_reads_back_as_itself() -> None:
    sweep = sweep_of(["shuffled", "stop_token"])
    assert SweepConfig.model_validate(canonical(sweep)) == sweep


def test_both_spellings_of_a_zero_weight_mean_the_same() -> None:
    """`lambda_zero` under `controls` and `zero` in an objective are stored, so that config ids do not change."""
    assert sweep_of(["zero", "shuffled"]) == sweep_of(["lambda_zero", "shuffled"])
    assert canonical(sweep_of(["zero"]))["controls"] == ["lambda_zero"] and "jepa-lambda-zero" in sweep_of(["zero"]).methods
    objective = ObjectiveConfig.model_validate({"control": "lambda_zero"})
    assert objective == ObjectiveConfig.model_validate({"control": "zero"}) and canonical(objective)["control"] == "zero"
    ids = {
        config_id(TrialConfig.model_validate({"model": {"family": "llama3"}, "objective": {"control": control}}), "data")
        for control in ("zero", "lambda_zero")
    }
    assert len(ids) == 1
    with pytest.raises(ValueError, match="lambda_zero"):
        sweep_of(["zeros"])


def test_a_control_gets_no_controls() -> None:
    sweep = sweep_of(["shuffled", "monitor"], {**METHODS, "own": {"control": "constant_target"}})
    assert {name for name in sweep.methods if name.startswith("own")} == {"own"}


@pytest.mark.parametrize(
    ("controls", "methods", "wanted"),
    [
        (["shuffled"], {**METHODS, "jepa-shuffled": {"k": 3}}, "another method has that name; rename"),
        (
            ["shuffled"],
            {"baseline": "none", "tube": {"layout": "tube"}},
            "not possible for method tube: layout tube pairs states of one sequence",
        ),
        (["monitor"], {"baseline": "none", "jepa": {"lambda": {"grad_ratio": 0.5}}}, "not possible for method jepa"),
        (["shufled"], METHODS, "shuffled"),
    ],
)
def test_refused(controls: list[str], methods: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        sweep_of(controls, methods)


def test_knobs_of_a_term_without_effect_are_not_searched() -> None:
    sweep = sweep_of(
        ["lambda_zero", "monitor", "shuffled"],
        space={"optim.learning_rate": {"choice": [1e-3, 2e-3]}, "objective.lambda": {"choice": [1, 2]}},
    )
    searched = {arm.method: list(plan.space(sweep, arm)) for arm in arms(sweep)}
    only_rate, both = ["optim.learning_rate"], ["optim.learning_rate", "objective.lambda"]
    assert searched == {
        "baseline": only_rate,
        "jepa": both,
        "jepa-lambda-zero": only_rate,
        "jepa-monitor": only_rate,
        "jepa-shuffled": both,
    }


def test_twins_and_claims() -> None:
    sweep = sweep_of(["shuffled", "stop_token"], families=["llama3", "gemma2"])
    pairs = [(one.arm, one.other) for one in comparisons(arms(sweep))]
    assert ("jepa-no-stop/gemma2", "baseline-no-stop/gemma2") in pairs
    claims = [(one.arm, one.other) for one in comparisons(arms(sweep), controls=False)]
    assert claims == [(f"jepa/{family}", f"baseline/{family}") for family in ("llama3", "gemma2")]
