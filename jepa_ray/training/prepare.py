"""Before the first trial, once per family: splits, the checkpoint to start from, token tables, and what all that amounts to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_ray.config import ModelConfig, SweepConfig
from jepa_ray.data.datasets import load_splits
from jepa_ray.data.example import Example
from jepa_ray.data.views import TokenTable, tokenize_split
from jepa_ray.models.families import get_family
from jepa_ray.models.loading import load_config, load_tokenizer
from jepa_ray.training.base import split_for_base, tiny_base


@dataclass(frozen=True)
class Prepared:
    """What every trial of a family shares; flat arrays inside, so that Ray's object store hands it out without copies."""

    train: TokenTable
    val: TokenTable
    test: TokenTable | None
    """None while searching: the test split is sealed."""
    dataset_sha: str
    checkpoint: str
    """Folder or hub id that weights and tokenizer are read from."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Columns of the trials table known before training: overlap, and examples dropped from any split."""
    report: dict[str, Any] = field(default_factory=dict)
    """Sizes and lengths for the plan: examples, dropped, token lengths per split and sequence."""


def prepare(sweep: SweepConfig, family: str, model: str) -> Prepared:
    """Splits, checkpoint and token tables of one family of a sweep.

    With `model: tiny` the share `data.base_fraction` of the training split makes the base, and the rest is fine-tuned on.

    Raises:
        ValueError: checkpoint not loadable, template not usable, no example left; names the remedy.
    """
    record = get_family(family)
    config = ModelConfig(family=family, model=model, **sweep.base.model.model_dump())
    data = sweep.data
    splits = load_splits(data)
    train: Sequence[Example] = splits.train
    base_half: Sequence[Example] = ()
    if model == "tiny":
        base_half, train = split_for_base(train, data)
        checkpoint = str(tiny_base(record, base_half, data.max_length))
    else:
        checkpoint = record.paper_model if model == "paper" else model
    load_config(checkpoint, config)
    tokenizer = load_tokenizer(checkpoint, config)
    tables = {
        name: tokenize_split(examples, tokenizer, record, data.max_length)
        for name, examples in (("train", train), ("val", splits.val), ("test", splits.test))
        if examples
    }
    return Prepared(
        train=tables["train"],
        val=tables["val"],
        test=tables.get("test"),
        dataset_sha=splits.dataset_sha,
        checkpoint=checkpoint,
        facts={
            **{name: splits.report[name] for name in ("overlap_text", "overlap_target")},
            "dropped_examples": sum(table.dropped for table in tables.values()),
        },
        report={**splits.report, "base_examples": len(base_half), "tokens": {name: _lengths(table) for name, table in tables.items()}},
    )


def _lengths(table: TokenTable) -> dict[str, Any]:
    """Examples, examples dropped, and median, 95th percentile and maximum of each sequence's tokens."""
    out: dict[str, Any] = {"examples": len(table), "dropped": table.dropped}
    for name in ("lm", "text", "code"):
        lengths = getattr(table, name).lengths
        out[name] = {"p50": float(np.median(lengths)), "p95": float(np.percentile(lengths, 95)), "max": int(lengths.max())}
    return out
