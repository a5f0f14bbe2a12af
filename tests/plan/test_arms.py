"""The plan: arms, first trials, counts by hand, and the notes on configurations that are repeated or not searched."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_ray import plan
from jepa_ray.config import Arm, SweepConfig, arms, canonical, config_id
from jepa_ray.data.datasets import DATASETS
from jepa_ray.plan import Estimate
from jepa_ray.plan import describe as planned


def describe(sweep: SweepConfig, *more: Any, **named: Any) -> str:
    return planned.describe(sweep, arms(sweep), *more, **named)


def notes(sweep: SweepConfig) -> list[str]:
    return planned.notes(sweep, arms(sweep))


def make(**changes: Any) -> SweepConfig:
    tree: dict[str, Any] = {
        "name": "planned",
        "families": ["llama3", "gemma2"],
        "methods": {"baseline": "none", "jepa": {"lambda": 2, "k": 1}},
        "space": {
            "optim.learning_rate": {"float": [1e-3, 1e-1], "log": True},
            "objective.lambda": {"float": [0.5, 4], "step": 0.5},
            "objective.k": {"int": [0, 4]},
            "objective.loss_dropout": {"choice": [0.5, 0.75], "when": {"objective.k": [1, 2]}},
        },
        "search": {"num_trials": 7},
        "confirm": {"seeds": [11, 12, 13]},
        "base": {"optim": {"learning_rate": 0.01}},
    }
    return SweepConfig.model_validate(tree | changes)


JEPA = Arm("jepa", "llama3", "nl-rx", "jepa/llama3")
BASELINE = Arm("baseline", "llama3", "nl-rx", "baseline/llama3")


def test_arms_are_families_times_methods() -> None:
    names = ["baseline/llama3", "jepa/llama3", "baseline/gemma2", "jepa/gemma2"]
    assert [arm.name for arm in arms(make())] == names


def test_several_tasks_appear_in_the_names_of_arms_and_have_separate_data() -> None:
    sweep = make(
        families=["llama3"], task={"nl-rx": {"num_train": 50}, "gsm8k": {"max_new_tokens": 9}}, data={"num_train": 90, "num_val": 7}
    )
    assert [arm.name for arm in arms(sweep)] == [
        "baseline/llama3/nl-rx",
        "jepa/llama3/nl-rx",
        "baseline/llama3/gsm8k",
        "jepa/llama3/gsm8k",
    ]
    first, last = (plan.trial_config(sweep, arms(sweep)[i], {}) for i in (0, 3))
    assert (first.data.task, first.data.num_train, first.data.num_val) == ("nl-rx", 50, 7)
    assert (last.data.task, last.data.num_train, last.evaluation.max_new_tokens) == ("gsm8k", 90, 9)
    assert first.evaluation.max_new_tokens == DATASETS["nl-rx"].max_new_tokens  # the task's own value
    assert plan.total_trials(sweep, arms(sweep)) == 4 * (7 + 3)


def test_a_first_stage_is_the_same_for_all_arms_and_can_be_searched() -> None:
    stage = {"data": {"task": "paraphrase"}, "learning_rate": 0.5, "num_epochs": 2}
    space = {"pretrain.learning_rate": {"choice": [0.5, 0.25]}, "optim.learning_rate": {"choice": [0.01, 0.02]}}
    sweep = make(pretrain=stage, space=space)
    assert plan.defaults(sweep, BASELINE) == {"pretrain.learning_rate": 0.5, "optim.learning_rate": 0.01}
    config = plan.trial_config(sweep, BASELINE, {"pretrain.learning_rate": 0.25})
    assert config.pretrain is not None and (config.pretrain.learning_rate, config.pretrain.num_epochs) == (0.25, 2)
    assert config.optim.learning_rate == 0.01
    assert "pretrain  paraphrase from built-in generator; 2 epochs" in describe(sweep)


def test_baseline_searches_nothing_of_the_objective() -> None:
    assert list(plan.space(make(), BASELINE)) == ["optim.learning_rate"]
    assert plan.space(make(), JEPA) == make().space


def test_first_trial_has_the_arms_own_values() -> None:
    sweep = make()
    # loss_dropout is 0, which the space does not contain: it has no default, so the sampler draws it.
    assert plan.defaults(sweep, JEPA) == {"optim.learning_rate": 0.01, "objective.lambda": 2, "objective.k": 1}
    assert plan.defaults(sweep, BASELINE) == {"optim.learning_rate": 0.01}
    for arm in arms(sweep):
        assert plan.trial_config(sweep, arm, plan.defaults(sweep, arm)) == plan.trial_config(sweep, arm, {})
    assert plan.defaults(make(base={"optim": {"learning_rate": 0.5}}), BASELINE) == {}


def test_conditional_default_needs_its_condition() -> None:
    space = {"objective.k": {"int": [0, 2]}, "objective.loss_dropout": {"choice": [0, 0.5], "when": {"objective.k": 2}}}
    assert plan.defaults(make(space=space), JEPA) == {"objective.k": 1}
    assert plan.defaults(make(space=space, methods={"jepa": {"k": 2}}), JEPA) == {"objective.k": 2, "objective.loss_dropout": 0}


def test_assignment_changes_only_the_parameters_it_names() -> None:
    sweep = make(model={"llama3": "tiny", "gemma2": "paper"}, base={"lora": {"r": 8}, "optim": {"num_epochs": 3}, "seed": 5})
    config = plan.trial_config(sweep, JEPA, {"objective.lambda": 1.5, "lora.r": 4, "optim.learning_rate": 0.02})
    untouched = plan.trial_config(sweep, JEPA, {})
    assert config.objective is not None and config.lora is not None
    assert (config.objective.lambda_, config.lora.r, config.optim.learning_rate) == (1.5, 4, 0.02)
    assert (config.objective.k, config.optim.num_epochs, config.seed, config.model.model) == (1, 3, 5, "tiny")
    assert plan.trial_config(sweep, Arm("jepa", "gemma2", "nl-rx", "jepa/gemma2"), {}).model.model == "paper"
    assert plan.trial_config(sweep, BASELINE, {}).objective is None
    assert canonical(untouched)["data"] == canonical(config)["data"] == canonical(sweep.data)


def test_rounding_errors_of_a_stepped_range_make_no_second_configuration() -> None:
    sweep = make(space={"objective.lambda": {"float": [0, 1], "step": 0.1}})
    assert 0.1 * 3 != 0.3
    drawn, written = (plan.trial_config(sweep, JEPA, {"objective.lambda": value}) for value in (0.1 * 3, 0.3))
    assert config_id(drawn, "data") == config_id(written, "data")


def test_grid_by_hand() -> None:
    """k = 0, 3, 4 without dropout and k = 1, 2 with two dropouts each: 7 points, times two learning rates for JEPA."""
    space = {
        "optim.learning_rate": {"choice": [0.01, 0.02]},
        "objective.k": {"int": [0, 4]},
        "objective.loss_dropout": {"choice": [0.5, 0.75], "when": {"objective.k": [1, 2]}},
    }
    sweep = make(space=space)
    points = plan.grid(sweep, JEPA)
    assert len(points) == 14
    assert len({config_id(plan.trial_config(sweep, JEPA, point), "data") for point in points}) == 14
    assert plan.grid(sweep, BASELINE) == [{"optim.learning_rate": 0.01}, {"optim.learning_rate": 0.02}]


def test_description_contains_arms_totals_and_space() -> None:
    text = describe(make())
    for arm in arms(make()):
        assert arm.name in text
    # 4 arms, 7 trials and 3 confirmations each: 4 x (7 + 3) = 40
    assert plan.total_trials(make(), arms(make())) == 40
    assert "4 arms x 7 trials + 4 x 3 confirmations = 40 runs" in text
    assert "seeds 11, 12, 13" in text
    assert "0.001 to 0.1, log" in text
    assert "one of 0.5, 0.75   when objective.k in 1, 2" in text
    one = describe(make(families=["llama3"], methods={"a": "none"}, search={"num_trials": 1}, confirm={"seeds": []}))
    assert "1 arm x 1 trial = 1 run\n" in one


def test_costs_are_added_up_over_all_runs() -> None:
    sweep = make()
    estimates = {arm.name: Estimate(10, 1000, 1e6 * number, 2e6) for number, arm in enumerate(arms(sweep), 1)}
    # (1 + 2 + 3 + 4)e6 FLOPs a trial, 10 runs per arm
    assert "about 1e+08 computed FLOPs of training, an estimate at the methods' defaults" in describe(sweep, estimates)
    assert "2.0 MB" in describe(sweep, estimates)
    assert "data      40 % of test texts are in train" in describe(sweep, facts=["40 % of test texts are in train"])


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"space": {}}, "jepa/gemma2: only 1 distinct configuration for 7 trials; repeats are read from the table, not run again"),
        ({"space": {"objective.k": {"int": [0, 4]}}}, "jepa/llama3: only 5 distinct configurations for 7 trials"),
        ({"space": {"objective.k": {"int": [0, 4]}}, "search": {"num_trials": 7, "algorithm": "grid"}}, "the arm ends early"),
        ({"space": {"objective.k": {"int": [2, 2]}}}, "objective.k has a single value (2): nothing is searched"),
        ({"space": {"objective.lambda": {"float": [0, 4]}}}, "objective.lambda = 0 is the baseline"),
        (
            {"methods": {"jepa": {"lambda": 0}}, "space": {"objective.k": {"int": [0, 9]}}},
            "method jepa: lambda = 0 equals the baseline bit for bit; searching objective.k changes nothing",
        ),
        (
            {"space": {"objective.k": {"int": [0, 4]}, "optim.learning_rate": {"float": [1e-3, 1], "when": {"objective.k": 1}}}},
            "baseline/llama3: optim.learning_rate is never searched, because its `when` refers to objective.k",
        ),
    ],
)
def test_repeated_and_no_op_configurations_are_noted(changes: dict[str, Any], note: str) -> None:
    assert note in describe(make(**changes))
    assert note not in describe(make())


def test_a_sound_plan_has_no_notes() -> None:
    assert notes(make(methods={"baseline": "none", "jepa": {"lambda": 2, "k": 1, "loss_dropout": 0.5}})) == []


def test_a_default_that_is_not_tried_first_is_noted_with_its_value_and_the_range() -> None:
    assert notes(make(families=["llama3"], base={"optim": {"learning_rate": 0.5}})) == [
        "baseline/llama3: its own optim.learning_rate = 0.5 is outside 0.001 to 0.1, log; the first trial draws another value instead",
        "jepa/llama3: its own optim.learning_rate = 0.5 is outside 0.001 to 0.1, log; the first trial draws another value instead",
        "jepa/llama3: its own objective.loss_dropout = 0.0 is outside one of 0.5, 0.75; the first trial draws another value instead",
    ]
    # At k = 3 the dropout is not searched, so the first trial keeps its value.
    assert notes(make(methods={"baseline": "none", "jepa": {"k": 3}})) == []


def test_parameters_that_depend_on_the_objective_are_not_searched_without_one() -> None:
    """Neither are parameters that depend on those."""
    space = {
        "objective.k": {"int": [0, 4]},
        "optim.warmup_ratio": {"choice": [0, 0.1], "when": {"objective.k": 1}},
        "optim.num_epochs": {"int": [1, 4], "when": {"optim.warmup_ratio": 0.1}},
        "optim.learning_rate": {"choice": [0.01, 0.02]},
    }
    assert list(plan.space(make(space=space), BASELINE)) == ["optim.learning_rate"]
    assert list(plan.space(make(space=space), JEPA)) == list(space)


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({"base": {"optim": {"num_epochs": 1}}}, "1 epoch, there is no validation before the end, and scheduler.grace_period is 2"),
        ({"base": {"optim": {"num_epochs": 2}}}, "2 epochs, the last validation before the end is after epoch 1, and"),
        ({"base": {"optim": {"num_epochs": 3}}}, None),
        ({"base": {"optim": {"num_epochs": 1}}, "space": {"optim.num_epochs": {"int": [1, 3]}}}, None),
        ({"base": {"optim": {"num_epochs": 1}}, "space": {"optim.num_epochs": {"choice": [1, 2]}}}, "2 epochs"),
        ({"base": {"optim": {"num_epochs": 8}, "evaluation": {"every": 5}}, "scheduler": {"grace_period": 6}}, "after epoch 5"),
        ({"base": {"optim": {"num_epochs": 8}, "evaluation": {"every": 5}}, "scheduler": {"grace_period": 5}}, None),
        ({"base": {"optim": {"num_epochs": 1}}, "scheduler": {"name": "none"}}, None),
        ({"base": {"optim": {"num_epochs": 1}}, "scheduler": {"time_attr": "train_flops", "grace_period": 1e12}}, None),
        (
            {"base": {"optim": {"num_epochs": 2, "batch_size": 30}}, "scheduler": {"time_attr": "step", "grace_period": 8}},
            "at most 8 optimizer steps, and scheduler.grace_period is 8",
        ),
        ({"base": {"optim": {"num_epochs": 2, "batch_size": 30}}, "scheduler": {"time_attr": "step", "grace_period": 7}}, None),
    ],
    ids=str,
)
def test_early_stopping_without_effect_is_noted(changes: dict[str, Any], idle: str | None) -> None:
    sweep = SweepConfig.model_validate({"name": "x", "methods": {"base": "none", "jepa": {}}, **changes})
    estimate = Estimate(train_examples=100, train_tokens=1e3, train_flops=1e9, checkpoint_bytes=1e3)
    text = describe(sweep, estimates={"base": estimate})
    if idle is None:
        assert "early stopping has no effect" not in text
        assert ("early stopping: ASHA" in text) == (sweep.scheduler.name == "asha")
    else:
        assert "early stopping: none" in text and "ASHA" not in text
        (note,) = [line for line in text.splitlines() if "early stopping has no effect" in line]
        assert idle in note
