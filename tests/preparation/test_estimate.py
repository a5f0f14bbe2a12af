"""What a sweep is estimated to cost is counted from the data that its trials will see."""

from __future__ import annotations

from typing import Any

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
