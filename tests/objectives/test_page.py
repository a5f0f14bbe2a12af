"""OBJECTIVES.md names every objective and knob, and every combination that it lists as refused is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import ValidationError

from jepa_ray.config import ObjectiveConfig, OptimConfig

PAGE = (Path(__file__).resolve().parents[2] / "OBJECTIVES.md").read_text()
AXES = ("layout", "distance", "target", "predictor", "readout", "control", "loss_dropout_mode")
COMBINATION = re.compile(r"^\| `(\{.*\})` \| .+ \|$", re.MULTILINE)


def named(word: str, page: str = PAGE) -> bool:
    """Whether the page contains the word as code, or as the key of a setting in code."""
    return re.search(rf"`{re.escape(word)}(`|:)", page) is not None


def values(axis: str) -> tuple[str, ...]:
    return get_args(ObjectiveConfig.model_fields[axis].annotation)


@pytest.mark.parametrize("axis", AXES)
def test_every_value_of_an_axis_is_described(axis: str) -> None:
    assert len(values(axis)) >= 2 and named(axis)
    assert [value for value in values(axis) if not named(value)] == []


def test_every_knob_is_described() -> None:
    knobs = [field.alias or name for name, field in ObjectiveConfig.model_fields.items()]
    assert len(knobs) > 20 and set(AXES) < set(knobs)
    assert [knob for knob in (*knobs, "loss_on", "train_end_of_turn") if not named(knob)] == []
    assert [value for value in get_args(OptimConfig.model_fields["loss_on"].annotation) if not named(value)] == []


def test_a_missing_name_is_noticed() -> None:
    assert named("tube") and not named("tube", PAGE.replace("`tube`", "").replace("`tube:", ""))
    assert not named("tub")


def test_what_the_page_says_is_refused_is_refused() -> None:
    combinations = [yaml.safe_load(text) for text in COMBINATION.findall(PAGE)]
    assert len(combinations) > 10
    for combination in combinations:
        with pytest.raises(ValidationError):
            ObjectiveConfig.model_validate(combination)
        combination.popitem()
        ObjectiveConfig.model_validate(combination)


def test_what_the_page_says_is_allowed_is_allowed() -> None:
    allowed = [yaml.safe_load(text) for text in re.findall(r"`(\{.*?\})`", PAGE.partition("Not refused,")[2])]
    assert len(allowed) >= 3
    for combination in allowed:
        ObjectiveConfig.model_validate(combination)
