"""Accuracy of guessing the answers of own data, against constants counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jepa_ray.config import DataConfig
from jepa_ray.training.chance import chance
from jepa_ray.training.prepared import Prepared
from tests import tiny_models as tiny


@pytest.mark.parametrize(
    ("judge", "answers", "asked", "wanted"),
    [
        ("exact", ["yes", "no", "yes "], ["yes", "no", "yes", "yes"], 3 / 4),
        ("exact", ["no", "yes"] * 2, ["yes", "yes", "yes"], 1 / 2),  # a tie: no better than one of the two at random
        ("contains", ["12 or 13", "12", "12 or 13"], ["12", "13", "12 or 13", "14"], 3 / 4),
        ("number", ["1", "2", "1.0", "1"], ["1.00", "2", "= 1", "3"], 1 / 2),
        ("exact", [f"answer {i}" for i in range(10)], ["answer 0"], 0.0),  # 10 of 40 are distinct: too many to be guessed
        ("exact", [f"answer {i}" for i in range(8)], ["answer 0"], 1.0),
    ],
)
def test_chance_of_own_answers_that_are_few(
    judge: Any, answers: list[str], asked: list[str], wanted: float, tiny_checkpoints: dict[str, Path]
) -> None:
    """Whatever the judge: the most frequent training answer is judged against each reference."""
    llama = tiny_checkpoints["llama3"]
    examples = [replace(tiny.EXAMPLES[i], code=answers[i % len(answers)]) for i in range(40)]
    judged = [replace(tiny.EXAMPLES[50 + i], code=answer) for i, answer in enumerate(asked)]
    train, test = tiny.table_of(llama, examples), tiny.table_of(llama, judged, scored=True)
    config = tiny.trial(llama, data=DataConfig(task="text", judge=judge))
    assert chance(config, Prepared(train, test, test, dataset_sha="0" * 64, checkpoint=str(llama)), test) == wanted
