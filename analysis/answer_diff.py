"""Token-by-token differences between an answer and its reference: wrong, extra, missing (the paper's Tables 1 and 11). No own imports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["same", "wrong", "extra", "missing"]
TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True)
class Span:
    """A stretch of an answer: `expected` is the text of the reference, `given` that of the prediction. Either may be empty."""

    kind: Kind
    expected: str
    given: str


def spans(reference: str, prediction: str) -> list[Span]:
    """The answer from left to right. Joining all `expected` gives the reference, joining all `given` the prediction.

    A token is a word, a run of white space or one other character. In spans("[a-z]", "[a-Z]") the "Z" is wrong.
    """
    if reference == prediction:
        return [Span("same", reference, prediction)] if reference else []
    ours, theirs = TOKEN.findall(reference), TOKEN.findall(prediction)
    names: dict[str, Kind] = {"equal": "same", "replace": "wrong", "insert": "extra", "delete": "missing"}
    return [
        Span(names[tag], "".join(ours[i:j]), "".join(theirs[k:m]))
        for tag, i, j, k, m in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    ]


def counts(parts: list[Span]) -> dict[str, int]:
    """Numbers of wrong, extra and missing tokens. If three tokens replace two, two are wrong and one is extra."""
    totals = {"wrong": 0, "extra": 0, "missing": 0}
    for part in parts:
        if part.kind != "same":
            ours, theirs = len(TOKEN.findall(part.expected)), len(TOKEN.findall(part.given))
            totals["wrong"] += min(ours, theirs)
            totals["extra"] += max(0, theirs - ours)
            totals["missing"] += max(0, ours - theirs)
    return totals


def marked(parts: list[Span]) -> str:
    """The spans as plain text: {expected→given} wrong, {+given} extra, {-expected} missing."""
    shapes = {"same": "{1}", "wrong": "{{{0}→{1}}}", "extra": "{{+{1}}}", "missing": "{{-{0}}}"}
    return "".join(shapes[part.kind].format(part.expected, part.given) for part in parts)
