"""The record that describes a task. Everything peculiar to one is data of its record, or a function of its own module beside this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from jepa_ray.data.example import Example

Row = dict[str, Any]
Generate = Callable[[int, int, str, Iterable[Example]], list[Example]]


def _as_it_is(example: Example) -> Example:
    return example


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is particular to one task."""

    name: str
    """Its key in DATASETS and in YAML."""
    views: str
    """What the two views are, in words: "English -> regex"."""
    system: str
    """System prompt of the generated examples, and of rows that carry none."""
    generate: Generate
    """(n, seed, split, exclude) -> complete examples. None repeats a text, or where `split_by` is "answer" a code, of another or of
    `exclude`."""
    from_row: Callable[[Row, str, str], list[Example]]
    """(row of the public source, where it stands, its id) -> examples; ValueError, beginning with `where`, on a row of another format."""
    complete: Callable[[Example], Example] = _as_it_is
    """Puts into `extra` and `views` of an example read from `{"messages": ...}` what the judge needs; ValueError where it cannot."""
    judge: str
    """Name in `evaluation.judges.JUDGES`."""
    judged: str
    """When an answer counts as correct, in words."""
    max_new_tokens: int
    """Token cap of a generated answer where the sweep gives none."""
    chance: float = 0.0
    """Accuracy of guessing without looking at the question."""
    split_by: Literal["answer", "text"] = "answer"
    """answer: validation shares neither a text nor an answer with training. text: no text (the answers are labels, or few)."""
    hub: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """`train` and `test` -> what `data.train: paper` stands for, as `hub:ORG/NAME[@CONFIG]:SPLIT`. Empty: not on the hub."""
