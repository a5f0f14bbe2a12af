"""Comparing text: cases by hand, the nesting of the three comparisons over random strings; and the means."""

from __future__ import annotations

import random
from dataclasses import fields
from typing import Any

import pytest

from jepa_ray.evaluation.metrics import NAMES, Score, compare_text, guessing, summarise


@pytest.mark.parametrize(
    ("prediction", "exact", "prefix", "contains"),
    [
        ("(a).*", True, True, True),
        ("  (a).*\n", True, True, True),
        ("(a).*(b)", False, True, True),
        ("(a).* (a).*", False, True, True),
        ("the regex is (a).*", False, False, True),
        ("(A).*", False, False, False),
        ("(a) .*", False, False, False),
        ("(a)", False, False, False),
        ("", False, False, False),
    ],
)
def test_by_hand(prediction: str, exact: bool, prefix: bool, contains: bool) -> None:
    assert compare_text(prediction, "(a).* ") == (exact, prefix, contains)


def test_exact_implies_prefix_implies_contains() -> None:
    """Over strings of two letters and a space, short enough that every combination comes up."""
    rng = random.Random(0)
    seen = set()
    for _ in range(5000):
        prediction, reference = ("".join(rng.choices("ab ", k=rng.randint(0, 6))) for _ in range(2))
        if not reference.strip():
            continue
        exact, prefix, contains = compare_text(prediction, reference)
        assert exact <= prefix <= contains
        assert compare_text(reference, reference) == (True, True, True)
        seen.add((exact, prefix, contains))
    assert seen == {(False, False, False), (False, False, True), (False, True, True), (True, True, True)}


@pytest.mark.parametrize("reference", ["", " \n"])
def test_an_empty_reference_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="reference is empty"):
        compare_text("anything", reference)


def _row(stopped: bool | None = True, **score: Any) -> dict[str, Any]:
    plain = {"correct": False, "exact": False, "prefix_correct": False, "contains": False}
    return {"split": "val", "stopped": stopped, **vars(Score(**(plain | score)))}


def test_means() -> None:
    rows = [
        _row(correct=True, exact=True, prefix_correct=True, contains=True),
        _row(correct=True, prefix_correct=True, contains=True),
        _row(contains=True),
        _row(stopped=False, correct=True),
    ]
    assert summarise(rows) == {"accuracy": 0.75, "exact": 0.25, "prefix": 0.5, "contains": 0.75, "stopped": 0.75, "errors": 0.0}
    with pytest.raises(ValueError, match="split is empty"):
        summarise([])


def test_what_is_not_known_of_a_row_does_not_count() -> None:
    """By hand: two regexes undecided, one equivalent, one not; and one answer that could not be judged."""
    rows = [
        _row(equivalent=None, undecided=True),
        _row(equivalent=None, undecided=True),
        _row(equivalent=True, undecided=False),
        _row(equivalent=False, undecided=False, error="no such table: x"),
    ]
    means = summarise(rows)
    assert (means["equivalent"], means["undecided"], means["errors"]) == (0.25, 0.5, 0.25)


def test_a_metric_that_no_row_has_is_left_out() -> None:
    """An option chosen by its probability has no `stopped`; a task without a rule from the paper has no `paper`."""
    assert set(summarise([_row(stopped=None), _row(stopped=None)])) == {"accuracy", "exact", "prefix", "contains", "errors"}
    assert summarise([_row(paper_correct=True), _row(paper_correct=False)])["paper"] == 0.5


def test_every_metric_has_its_column() -> None:
    assert set(NAMES.values()) | {"error"} == {field.name for field in fields(Score)} | {"stopped"}


def test_guessing_by_hand() -> None:
    assert guessing(["a", "a", "b"], ["a", "b", "b", "b"]) == 0.5, "training's most frequent is right once in four; one of two labels: half"
    assert guessing(["a", "b", "b"], ["a", "b ", "b", "b"]) == 0.75
    twelve = [f"label {i}" for i in range(12)]
    assert guessing(twelve, twelve) == 1 / 12
    assert guessing(["a", "a", "b"], ["c", "a", "d", "e"]) == 0.25 and guessing(["a"], ["c"]) == 0.0
