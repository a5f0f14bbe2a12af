"""What a plan uses in place of data and checkpoints that this machine does not have: for public ones, whose sizes are known.

Data: the task's generated examples, scaled to the public number of examples. Checkpoint: its shape, and the family's built-in
tokenizer trained on the examples. A plan says so for each. A trial never uses any of this: it fails with the sentence that a plan
prints if a source is not public.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from jepa_ray.config import DataConfig, ModelConfig
from jepa_ray.data.datasets import Splits, load_splits, task_of
from jepa_ray.data.example import Example
from jepa_ray.data.public_sizes import PUBLIC_SIZES, PublicSize
from jepa_ray.data.report import fewer_than_asked
from jepa_ray.data.sources import NotReachable, resolve
from jepa_ray.models.checkpoint_configs import CHECKPOINT_CONFIGS
from jepa_ray.models.families import AUTO, get_family
from jepa_ray.models.loading import check_rows, check_weights, load_config, load_tokenizer
from jepa_ray.models.tiny import VOCAB_SIZE
from jepa_ray.plan.checks.data import is_remote
from jepa_ray.preparation.tiny_base import base_tokenizer

GENERATED = 768
"""Examples generated in place of a data set."""


@dataclass(frozen=True)
class PlannedData:
    """Data of a plan: real, or generated in its place."""

    splits: Splits
    data: DataConfig
    """The configuration that `splits` come from."""
    num_train: int
    num_val: int
    num_test: int
    note: str | None = None
    """Says that the examples are generated, and why; None if they are real."""


def planned_data(data: DataConfig) -> PlannedData:
    """The data of a sweep, or generated examples in place of a public data set. ValueError if the data are neither."""
    sources = [name for name in (data.train, data.test) if name is not None]
    missing = [name for name in sources if name in PUBLIC_SIZES and not is_remote(name) and not Path(name).exists()]
    try:
        if missing:
            raise NotReachable(f"{' and '.join(missing)} do{'es' if len(missing) == 1 else ''} not exist here")
        splits = load_splits(data)
    except NotReachable as error:
        return _generated(data, error)
    return PlannedData(splits, data, len(splits.train), len(splits.val), len(splits.test))


def _generated(data: DataConfig, error: NotReachable) -> PlannedData:
    task = task_of(data)
    assert data.train is not None
    train = PUBLIC_SIZES.get(resolve(task, data.train, "train"))
    test = PUBLIC_SIZES.get(resolve(task, data.test, "test")) if data.test is not None else PublicSize(0)
    if train is None or test is None or not task.built_in:
        raise error
    wanted = {
        "train": (data.num_train, train.examples - data.num_val),
        "test": (data.num_test if data.test is not None else None, test.examples),
    }
    num_train, num_test = (min(left, asked or left) for asked, left in wanted.values())
    fewer = {name: (asked, left, left) for name, (asked, left) in wanted.items() if asked is not None and asked > left}
    changes = {"train": None, "test": None, "databases": None, "num_train": min(num_train, GENERATED), "num_val": 64, "num_test": 64}
    stand_in = data.model_copy(update=changes)
    splits = load_splits(stand_in)
    lengths = "the lengths of generated examples"
    if train.text is not None and train.code is not None:
        splits = replace(splits, train=lengthened(splits.train, train.text, train.code))
        lengths = f"generated examples of the known mean lengths ({train.text:.0f} and {train.code:.0f} characters)"
    note = (
        f"{str(error).partition(': cannot be loaded')[0]}: planned with {lengths} and the known number of examples "
        f"({num_train:,} train, {data.num_val:,} validation, {num_test:,} test); a run needs the data"
    ) + "".join(f"; {sentence}" for sentence in fewer_than_asked(fewer))
    return PlannedData(splits, stand_in, num_train, data.num_val, num_test, note)


def lengthened(examples: Sequence[Example], text: float, code: float) -> tuple[Example, ...]:
    """The examples with mean lengths of Text and Code as given, in characters: each continues with those after it, or is cut."""
    texts, codes = (_stretched([getattr(one, name) for one in examples], mean) for name, mean in (("text", text), ("code", code)))
    return tuple(replace(one, text=longer, code=more) for one, longer, more in zip(examples, texts, codes, strict=True))


def _stretched(parts: Sequence[str], mean: float) -> list[str]:
    factor = mean * len(parts) / sum(map(len, parts))
    out = []
    for start, part in enumerate(parts):
        wanted, taken, number = max(1, round(factor * len(part))), part, start
        while len(taken) < wanted:
            number += 1
            taken += " " + parts[number % len(parts)]
        out.append(taken[:wanted].strip() or part)
    return out


def planned_checkpoint(checkpoint: str, model: ModelConfig, examples: Sequence[Example]) -> tuple[Any, Any, str | None]:
    """(tokenizer, Transformers config, note) of a checkpoint, or its known shape with a stand-in tokenizer, which the note then says.

    ValueError if the checkpoint cannot be read and its shape is unknown, or is not of the family.
    """
    if model.family == AUTO:  # its record is that of the real tokenizer
        return *_here(checkpoint, model), None
    record = get_family(model.family)
    known = CHECKPOINT_CONFIGS.get(checkpoint)
    try:
        tokenizer, shape = _here(checkpoint, model)
    except ValueError:
        if known is None or Path(checkpoint).is_dir() or known["model_type"] != record.model_type:
            raise
        keys = {key: value for key, value in known.items() if key != "model_type"}
        note = (
            f"{checkpoint} is not on this machine: planned with its known shape; tokens counted with a stand-in tokenizer of {VOCAB_SIZE} "
            "tokens, of which the checkpoint's own may need more or fewer; a run needs the checkpoint"
        )
        return base_tokenizer(record, examples), AutoConfig.for_model(record.model_type, **keys), note
    return tokenizer, shape, None


def _here(checkpoint: str, model: ModelConfig) -> tuple[Any, Any]:
    """(tokenizer, Transformers config) of a checkpoint that can be read. ValueError, as in a run, also if a folder's weights cannot."""
    tokenizer = load_tokenizer(checkpoint, model)
    shape = load_config(checkpoint, model)
    check_rows(tokenizer, shape, checkpoint)
    if Path(checkpoint).is_dir():
        check_weights(checkpoint, model)
    return tokenizer, shape
