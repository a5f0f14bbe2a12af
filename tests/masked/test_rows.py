"""The passages that a plan shows for masked encoders: those of training, with the tokens that the first step hides."""

from __future__ import annotations

import numpy as np

from jepa_ray.config import SweepConfig, arms
from jepa_ray.masked.prepare import _shape, estimate_masked
from jepa_ray.masked.rows import draw_masked
from jepa_ray.masked.step import draw_hidden
from jepa_ray.plan import trial_config
from jepa_ray.preparation.rows import MARKS

SWEEP = SweepConfig.model_validate(
    {
        "name": "x",
        "families": ["bert", "distilbert"],
        "task": "rotten-tomatoes",
        "methods": {"baseline": None},
        "data": {"num_train": 30, "num_val": 10, "num_test": 10},
        "base": {"masked": {"mask_ratio": 0.3, "mean_span": 1}},
    }
)


def test_hidden_tokens_are_between_the_marks() -> None:
    prepared, _, tokenizer = _shape(SWEEP, "bert", "rotten-tomatoes")
    config = trial_config(SWEEP, arms(SWEEP)[0], {})
    lines = draw_masked("baseline/bert", config, prepared.passages, tokenizer)
    hidden = draw_hidden(prepared.passages, np.arange(3), config, 0)
    assert len(lines) == 4 and [each.split()[0] for each in lines[1:]] == list(prepared.passages.ids[:3])
    for row, (each, mask_T) in enumerate(zip(lines[1:], hidden, strict=True)):
        ids = prepared.passages.tokens[prepared.passages.span(row)]
        parts = [part.split(MARKS[1])[0] for part in each.split(MARKS[0])[1:]]
        assert "".join(parts).replace(" ", "") == tokenizer.decode(ids[mask_T]).replace(" ", "") != ""


def test_the_plan_shows_the_first_family_only() -> None:
    estimates, _ = estimate_masked(SWEEP)
    assert {arm: len(one.rows) for arm, one in estimates.items()} == {"baseline/bert": 4, "baseline/distilbert": 0}
    assert estimates["baseline/bert"].rows[0].endswith("; other families and tasks are not shown")
