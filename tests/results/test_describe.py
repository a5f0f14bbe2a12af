"""Every column of every table is described, and the description says when the column is null."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_ray import results
from jepa_ray.config import LoraConfig, TrialConfig, columns
from jepa_ray.config.record import docstrings
from jepa_ray.results.describe import TABLES, describe

SCHEMAS = {
    "trials": results.TRIALS,
    "metrics": results.METRICS,
    "predictions": results.PREDICTIONS,
    "embeddings": results.EMBEDDINGS,
    "arms": results.ARMS,
}
MODEL = {"model": {"family": "llama3"}}


def test_every_column_is_described_once_with_its_type() -> None:
    described = describe()
    assert [(table, name, kind) for table, name, kind, _ in described] == [
        (table, field.name, str(field.type)) for table, schema in SCHEMAS.items() for field in schema
    ]
    assert len(described) > 200 and list(TABLES) == list(SCHEMAS)
    for table, name, _, text in described:
        assert text.strip() == text and text.endswith(".") and "\n" not in text and "None" not in text, (table, name)


def test_columns_of_the_configuration_are_described_by_its_fields() -> None:
    trials = {name: text for table, name, _, text in describe() if table == "trials"}
    assert trials["lora_r"] == f"{docstrings(LoraConfig)['r']} Null without LoRA."
    assert trials["eval_batch_size"] != trials["batch_size"] != trials["pretrain_batch_size"]
    assert trials["pretrain_batch_size"] == "As `batch_size`, for the first stage. Null without a first stage."


@pytest.mark.parametrize("tree", [{}, {"objective": {}}, {"objective": {"lambda": {"grad_ratio": 0.5}}}, {"lora": {}}])
def test_a_setting_that_can_be_null_says_so(tree: dict[str, Any]) -> None:
    """Not only the settings with a `None` of their own: those of a part that the trial lacks too."""
    trials = {name: text for table, name, _, text in describe() if table == "trials"}
    empty = [name for name, value in columns(TrialConfig.model_validate(MODEL | tree)).items() if value is None]
    assert len(empty) > 20
    assert [name for name in empty if "null" not in trials[name].lower()] == []
