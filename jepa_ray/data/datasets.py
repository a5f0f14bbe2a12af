"""Tasks and the three splits of a sweep: which examples train, validate and test, and how they overlap.

A task is one record in DATASETS (see `tasks/task.py`). All trials of a sweep share one
`Splits`. It depends only on DataConfig and the files' contents, not on a trial's seed or the files' paths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jepa_ray.config import OWN_DATA, DataConfig
from jepa_ray.data.clusters import counted as counted_clusters
from jepa_ray.data.example import Example
from jepa_ray.data.sameness import Seen, key, pair
from jepa_ray.data.sources import read_as, resolve
from jepa_ray.data.splits import split_base, split_groups, subset, without
from jepa_ray.data.tasks import gsm8k, hellaswag, nlrx, nlrx_turk, nq_open, paraphrase, reviews, spider, text
from jepa_ray.data.tasks.task import Task

__all__ = ["DATASETS", "Splits", "Task", "load_splits", "split_base", "task_of"]

GENERATED_TRAIN, GENERATED_TEST = 2400, 512
"""Sizes of the generated splits if `num_train` and `num_test` are not given."""


DATASETS: dict[str, Task] = {
    task.name: task
    for task in (
        nlrx.TASK,
        nlrx_turk.TASK,
        gsm8k.TASK,
        spider.TASK,
        nq_open.TASK,
        hellaswag.TASK,
        *reviews.TASKS,
        paraphrase.TASK,
        text.TASK,
    )
}
OWN = text.TASK.name
Fewer = tuple[int, int, int]
"""Of a split that is smaller than asked: (examples asked for, left in the file for it, used)."""
"""The task of own data, whose judge and columns `data` chooses."""


@dataclass(frozen=True)
class Splits:
    """The resolved data of a sweep."""

    train: tuple[Example, ...]
    val: tuple[Example, ...]
    """Whole groups of the training data: shares no text with `train`, and no answer unless the task splits by text."""
    test: tuple[Example, ...]
    """Sealed until confirmation; empty if `train` is a file and no test file is given."""
    dataset_sha: str
    """SHA-256 of the contents of all three splits, in order; independent of the files' names and paths."""
    report: dict[str, Any]
    """Counts for the plan and the tables; see `_report`."""


def load_splits(data: DataConfig) -> Splits:
    """Read or generate the splits that `data` describes. Raises ValueError with one sentence on bad input."""
    task = task_of(data)
    if data.train is None and data.test is not None:
        raise ValueError(f"data.test is the file {data.test}, but data.train is missing: give both, or neither for the built-in generator")
    formats: dict[str, str] = {}
    fewer: dict[str, Fewer] = {}
    train, val, test = _generated(task, data) if data.train is None else _from_files(task, data, data.train, formats, fewer)
    sha = hashlib.sha256("".join(digest(split) for split in (train, val, test)).encode()).hexdigest()
    return Splits(tuple(train), tuple(val), tuple(test), sha, {**_report(data, train, val, test), "formats": formats, "fewer": fewer})


def task_of(data: DataConfig) -> Task:
    """The task of `data`, with the judge that `data.judge` chooses for own data. Everything that depends on a task's judge, chance, token
    cap or split gets the task from here. ValueError for an unknown task, and for keys of own data with another task."""
    if data.task not in DATASETS:
        raise ValueError(f"data.task {data.task!r} is unknown; available: {', '.join(sorted(DATASETS))}")
    if data.task == OWN:
        return text.own(data)
    for name in OWN_DATA:
        if getattr(data, name) is not None:
            raise ValueError(f"data.{name} {text.not_own(name, data.task)}")
    return DATASETS[data.task]


def first_stage(pretrain: DataConfig, splits: Splits, data: DataConfig) -> tuple[tuple[Example, ...], int]:
    """(training data of a first stage, number of examples left out): without those that share a text with the fine-tuning's validation
    or test split, or an answer if the task splits by answer. `data`: of the fine-tuning.
    """
    train = load_splits(pretrain).train
    kept = without(train, [*splits.val, *splits.test], task_of(data).split_by)
    if not kept:
        raise ValueError(
            f"pretrain.data ({pretrain.task}): all {len(train)} examples share a text or an answer with the validation or test split "
            f"of {data.task}; give other data"
        )
    return kept, len(train) - len(kept)


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 of the examples' contents, in order. Ids are left out because they contain file names."""
    sha = hashlib.sha256()
    for example in examples:
        parts = [example.system, example.text, example.code, example.extra, example.views, *([example.history] if example.history else [])]
        sha.update(json.dumps(parts, sort_keys=True).encode() + b"\n")
    return sha.hexdigest()


def _generated(task: Task, data: DataConfig) -> tuple[list[Example], list[Example], list[Example]]:
    # Test first, then validation: a larger training split then leaves the other two unchanged.
    test = task.generate(data.num_test or GENERATED_TEST, data.split_seed, "test", ())
    val = task.generate(data.num_val, data.split_seed, "val", test)
    train = task.generate(data.num_train or GENERATED_TRAIN, data.split_seed, "train", [*test, *val])
    return train, val, test


def _from_files(
    task: Task, data: DataConfig, source: str, formats: dict[str, str], fewer: dict[str, Fewer]
) -> tuple[list[Example], list[Example], list[Example]]:
    """`formats`: gets how each file was read, where the task recognises formats. `fewer`: gets the splits that have fewer examples than
    `data` asks for."""

    def read_split(name: str, source: str) -> list[Example]:
        examples, format_ = read_as(task, resolve(task, source, name))
        formats.update({name: format_} if format_ is not None else {})
        return _with_system(task, examples)

    pool = read_split("train", source)
    test_pool = read_split("test", data.test) if data.test is not None else []
    test = subset(test_pool, data.num_test, data.split_seed, "test subset")
    val, rest = split_groups(pool, data.num_val, data.split_seed, "validation split", task.split_by)
    train = subset(rest, data.num_train, data.split_seed, "train subset")
    shared = "text" if task.split_by == "text" else "text or answer"
    for name, split in (("validation", val), ("training", train)):
        if not split:
            raise ValueError(
                f"the {name} split is empty: of the {len(pool)} examples in {source}, {len(val)} went to validation "
                f"(data.num_val = {data.num_val}, in whole groups of equal {shared}); "
                "change data.num_val, or give a file with more distinct examples"
            )
    sizes = [("train", data.num_train, rest, train), ("val", data.num_val, pool, val)]
    sizes += [("test", data.num_test, test_pool, test)] if data.test is not None else []
    fewer.update({name: (asked, len(left), len(used)) for name, asked, left, used in sizes if asked is not None and len(used) < asked})
    return train, val, test


def _with_system(task: Task, examples: Sequence[Example]) -> list[Example]:
    return [example if example.system else replace(example, system=task.system) for example in examples]


def _report(data: DataConfig, train: Sequence[Example], val: Sequence[Example], test: Sequence[Example]) -> dict[str, Any]:
    """Sizes, repeated pairs, contradictions, unused messages and digest of each split; how many test examples are leaked from train or val,
    that is, the same as one there (`sameness.py`), and how many share their answer."""
    seen = Seen([*train, *val])
    codes = {key(example.code) for split in (train, val) for example in split}
    overlap_text = sum(example in seen for example in test)
    overlap_target = sum(key(example.code) in codes for example in test)
    splits = {"train": train, "val": val, "test": test}
    return {
        "task": data.task,
        "files": {"train": data.train, "test": data.test},
        "sizes": {name: len(split) for name, split in splits.items()},
        "duplicates": {name: len(split) - len(set(map(pair, split))) for name, split in splits.items()},
        "contradictions": {name: contradictions(split) for name, split in splits.items()},
        "unused_messages": {name: sum(example.unused for example in split) for name, split in splits.items()},
        "sha": {name: digest(split) for name, split in splits.items()},
        "test_clusters": counted_clusters(data, (example.extra for example in test)),
        "answers_apart": data.train is not None and task_of(data).split_by == "answer" and overlap_target > 0,
        "overlap_text": overlap_text,
        "overlap_text_share": overlap_text / len(test) if test else 0.0,
        "overlap_target": overlap_target,
        "overlap_target_share": overlap_target / len(test) if test else 0.0,
    }


def contradictions(examples: Sequence[Example]) -> int:
    """Examples whose question has another answer elsewhere in the split: no model can get all of them right."""
    answers: dict[tuple[str, str], set[str]] = {}
    for example in examples:
        question, answer = pair(example)
        answers.setdefault((key(example.system), question), set()).add(answer)
    return sum(len(answers[key(example.system), pair(example)[0]]) > 1 for example in examples)
