"""Judging an answer against its reference, and averaging. Pure functions of strings.

Source: REFERENCE.md, "Tasks and how an answer is judged" (an answer to NL-RX is correct when the generated text equals the
regex), and its defect 1: exact match alone mixes knowing the answer with knowing when to stop. So three nested judgements
are always reported together,

    exact  =>  prefix  =>  contains

and beside them `stopped`, the share of outputs that ended by themselves rather than at the token cap. A method that raises
`exact` and leaves `contains` as it was has learnt to stop, nothing else.

Imports nothing of the package. SQL execution and other judges are not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NAMES = {"exact": "correct", "prefix": "prefix_correct", "contains": "contains", "stopped": "stopped"}
"""Metric -> the column of the predictions table that it is the mean of."""


@dataclass(frozen=True)
class Score:
    """Judgement of one answer; the fields are columns of the predictions table."""

    correct: bool
    """The task's own criterion. For text: equal to the reference."""
    prefix_correct: bool
    """Starts with the reference."""
    contains: bool
    """The reference occurs somewhere."""
    error: str | None = None
    """Why the answer could not be judged (a query that fails to run, say). Text can always be judged."""


def judge_text(prediction: str, reference: str) -> Score:
    """Compare as strings, whitespace around either ignored (templates differ in what they put after a turn), inside it not.

    Case counts. Raises ValueError for an empty reference: every output would start with it.
    """
    answer, wanted = prediction.strip(), reference.strip()
    if not wanted:
        raise ValueError("the reference is empty: every output would count as starting with it; remove the example")
    return Score(correct=answer == wanted, prefix_correct=answer.startswith(wanted), contains=wanted in answer)


def summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Shares in [0, 1] over rows of the predictions table: exact, prefix, contains, stopped. ValueError on no rows."""
    listed = list(rows)
    if not listed:
        raise ValueError("no predictions to summarise: the evaluated split is empty")
    return {name: sum(bool(row[column]) for row in listed) / len(listed) for name, column in NAMES.items()}
