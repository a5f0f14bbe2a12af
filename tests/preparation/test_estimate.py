"""What a sweep is estimated to cost is counted from the data that its trials will see."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_ray.config import SweepConfig
from jepa_ray.preparation.estimate import estimate


def train_tokens(max_length: int) -> float:
    tree: dict[str, Any] = {
        "name": "x",
        "families": ["llama3"],
        "data": {"num_train": 60, "num_val": 8, "num_test": 8},
        "methods": {"base": "none"},
        "pretrain": {"data": {"task": "paraphrase", "num_train": 60, "num_val": 8, "num_test": 8, "max_length": max_length}},
    }
    estimates, _ = estimate(SweepConfig.model_validate(tree))
    return estimates["base/llama3"].train_tokens


def test_the_first_stage_has_its_own_maximum_length() -> None:
    assert 0 < train_tokens(120) < train_tokens(512)


def test_a_published_checkpoint_that_is_not_here_is_planned_with_its_record() -> None:
    """Under `auto`, too: what would be found in it is in the table. Of any other nothing is known."""
    tree: dict[str, Any] = {
        "name": "x",
        "model": "meta-llama/Llama-3.2-1B-Instruct",
        "data": {"num_train": 40, "num_val": 8, "num_test": 8},
        "methods": {"base": "none"},
    }
    estimates, facts = estimate(SweepConfig.model_validate(tree))
    assert estimates["base/auto"].train_flops > 0
    assert any("is not on this machine: planned with its known shape" in fact for fact in facts)
    with pytest.raises(ValueError, match="auto nl-rx cannot be run: cannot load nobody/no-such-model"):
        estimate(SweepConfig.model_validate(tree | {"model": "nobody/no-such-model"}))
