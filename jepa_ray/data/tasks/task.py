"""The record that describes a task. Everything specific to one is in its record, or is a function of its own module in this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from jepa_ray.data.example import Example

Row = dict[str, Any]
Generate = Callable[[int, int, str, Iterable[Example]], list[Example]]
FromRow = Callable[[Row, str, str], list[Example]]


def _unchanged(example: Example) -> Example:
    return example


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything that is specific to one task."""

    name: str
    """Its key in DATASETS and in YAML."""
    views: str
    """What the two views are, in words: "English -> regex"."""
    system: str
    """System prompt of the generated examples, and of rows without one."""
    generate: Generate
    """(n, seed, split, exclude) -> complete examples. None repeats a text of another or of `exclude`, nor a code if `split_by` is
    "answer"."""
    from_row: FromRow
    """(row of the public source, its place, its id) -> examples; ValueError, beginning with the place, on a row in another format."""
    detect: Callable[[Row, str], tuple[FromRow, str]] | None = None
    """(first row of a source, its place) -> the function that reads all of its rows in place of `from_row`, and the format in words;
    ValueError if the format is unknown. None: rows are messages or those of the public source."""
    complete: Callable[[Example], Example] = _unchanged
    """Fills `extra` and `views` of an example from `{"messages": ...}` with what the judge needs; ValueError if it cannot."""
    judge: str
    """Name in `evaluation.judges.JUDGES`."""
    judged: str
    """When an answer counts as correct, in words."""
    max_new_tokens: int
    """Token cap of a generated answer if the sweep sets none."""
    chance: float = 0.0
    """Accuracy of guessing without looking at the question, on the built-in data; 0 if answers are not labels, or not known."""
    built_in: bool = True
    """Whether `generate` makes examples. False: data come from files only, and `generate` says so in a ValueError."""
    split_by: Literal["answer", "text"] = "answer"
    """answer: validation shares neither a text nor an answer with training. text: no text (the answers are labels or few)."""
    hub: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """`train` and `test` -> the source that `paper` refers to, as `hub:ORG/NAME[@CONFIG]:SPLIT`. Empty: not on the hub."""

    @property
    def has_labels(self) -> bool:
        """Whether answers are labels or options, so that guessing is sometimes correct."""
        return self.chance > 0 or self.judge == "label"
