"""Scores of one answer, and averages over answers. Pure functions; imports nothing from the package.

The reference implementation never trains the end of turn, so a task's own criterion mixes knowing the answer with knowing when to
stop. Three nested comparisons of the text are therefore always reported as well,
    exact  =>  prefix  =>  contains
together with `stopped`, the share of outputs that ended before the token cap. A method that raises `exact` and leaves `contains`
unchanged has only learnt to stop.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMES = {
    "accuracy": "correct",
    "exact": "exact",
    "prefix": "prefix_correct",
    "contains": "contains",
    "stopped": "stopped",
    "paper": "paper_correct",
    "equivalent": "equivalent",
    "undecided": "undecided",
}
"""Metric -> the column of the predictions table whose mean it is. A metric is absent if no row has a value."""


@dataclass(frozen=True)
class Score:
    """Judgement of one answer; the fields are columns of the predictions table."""

    correct: bool
    """The task's own criterion."""
    exact: bool
    """Equal to the reference as text."""
    prefix_correct: bool
    """Starts with the reference."""
    contains: bool
    """Contains the reference."""
    error: str | None = None
    """Why the answer could not be judged (a query that fails to run, for example); such an answer is not correct."""
    paper_correct: bool | None = None
    """By the rule of the paper's own evaluation script, if that differs from `correct`; otherwise None."""
    equivalent: bool | None = None
    """Regexes only: both describe the same language. None: undecided, or not a regex task."""
    undecided: bool | None = None
    """Regexes only: whether equivalence could not be decided."""


def plain(text: str) -> str:
    """A text as judges compare it: without whitespace around it, and with one form for every accented character (Unicode's NFC)."""
    return unicodedata.normalize("NFC", text).strip()


def compare_text(prediction: str, reference: str) -> tuple[bool, bool, bool]:
    """(exact, prefix, contains) as case-sensitive strings. Whitespace is ignored around either text (templates differ in what they
    put after a turn), but not inside it; so is how an accented character is encoded. Raises ValueError for an empty reference: every
    output would start with it.
    """
    answer, wanted = plain(prediction), plain(reference)
    if not wanted:
        raise ValueError("the reference is empty: every output would count as starting with it; remove the example")
    return answer == wanted, answer.startswith(wanted), wanted in answer


def guessing(train: Sequence[str], judged: Sequence[str]) -> float:
    """Accuracy on `judged` that a label task allows without reading the question: always answering the most frequent training label
    (ties: the label that comes first in training), or, if that is better, each training label equally often."""
    counts, labels = Counter(label.strip() for label in train), [label.strip() for label in judged]
    most = max(counts, key=lambda label: counts[label])
    return max(sum(label in counts for label in labels) / len(counts), labels.count(most)) / len(labels)


def without_leaked(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | int]:
    """`accuracy_clean` over the rows that are not `leaked`, and their number `clean_examples`; only the number if it is 0."""
    clean = [bool(row["correct"]) for row in rows if not row["leaked"]]
    return {"clean_examples": len(clean)} | ({"accuracy_clean": sum(clean) / len(clean)} if clean else {})


def summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Shares in [0, 1] over all rows of the predictions table, by metric, and `errors`, the share that could not be judged.

    A row without a value counts as not having the property, so the true `equivalent` is between `equivalent` and `equivalent` +
    `undecided`. A metric for which no row has a value is left out. ValueError if there are no rows.
    """
    listed = list(rows)
    if not listed:
        raise ValueError("no predictions to summarise: the evaluated split is empty")
    out = {
        name: sum(bool(row[column]) for row in listed) / len(listed)
        for name, column in NAMES.items()
        if any(row[column] is not None for row in listed)
    }
    return out | {"errors": sum(row["error"] is not None for row in listed) / len(listed)}
