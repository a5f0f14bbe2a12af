"""What is said of one answer, and averages over answers. Pure functions; imports nothing of the package.

The reference implementation never trains the end of turn, so that a task's own criterion mixes knowing the answer with knowing when to
stop. So three nested comparisons of the text are always reported beside it,
    exact  =>  prefix  =>  contains
with `stopped`, the share of outputs that ended by themselves rather than at the token cap. A method that raises `exact` and
leaves `contains` as it was has learnt to stop, nothing else.
"""

from __future__ import annotations

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
"""Metric -> the column of the predictions table that it is the mean of. A metric is absent where no row has a value."""


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
    """The reference occurs somewhere."""
    error: str | None = None
    """Why the answer could not be judged (a query that fails to run, say); it is then not correct."""
    paper_correct: bool | None = None
    """By the rule of the paper's own evaluation script, where that differs from `correct`; None where it does not."""
    equivalent: bool | None = None
    """Regexes only: both describe the same language. None: undecided, or no regex task."""
    undecided: bool | None = None
    """Regexes only: whether equivalence could not be decided."""


def compare_text(prediction: str, reference: str) -> tuple[bool, bool, bool]:
    """(exact, prefix, contains): as strings, whitespace around either ignored (templates differ in what they put after a turn),
    inside it not. Case counts. Raises ValueError for an empty reference: every output would start with it.
    """
    answer, wanted = prediction.strip(), reference.strip()
    if not wanted:
        raise ValueError("the reference is empty: every output would count as starting with it; remove the example")
    return answer == wanted, answer.startswith(wanted), wanted in answer


def guessing(train: Sequence[str], judged: Sequence[str]) -> float:
    """Accuracy on `judged` that a label task's answers give away without the question: the most frequent label of training always, or, if
    that is better, each label of training equally often (ties: the label that training has first)."""
    counts, labels = Counter(label.strip() for label in train), [label.strip() for label in judged]
    most = max(counts, key=lambda label: counts[label])
    return max(sum(label in counts for label in labels) / len(counts), labels.count(most)) / len(labels)


def without_leaked(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | int]:
    """`accuracy_clean` over the rows that are not `leaked`, and their number, `clean_examples`; of none, the number alone."""
    clean = [bool(row["correct"]) for row in rows if not row["leaked"]]
    return {"clean_examples": len(clean)} | ({"accuracy_clean": sum(clean) / len(clean)} if clean else {})


def summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Shares in [0, 1] over all rows of the predictions table, by metric, and `errors`, the share that could not be judged.

    A row without a value counts as not having the property (so the true `equivalent` lies between `equivalent` and `equivalent` +
    `undecided`); a metric of which no row has a value is left out. ValueError on no rows.
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
