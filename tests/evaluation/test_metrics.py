"""Judging text: cases by hand, the nesting of the three judgements over random strings, and the means."""

from __future__ import annotations

import random

import pytest

from jepa_ray.evaluation.metrics import Score, judge_text, summarise


@pytest.mark.parametrize(
    ("prediction", "correct", "prefix", "contains"),
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
def test_by_hand(prediction: str, correct: bool, prefix: bool, contains: bool) -> None:
    assert judge_text(prediction, "(a).* ") == Score(correct, prefix, contains, None)


def test_exact_implies_prefix_implies_contains() -> None:
    """Over strings of two letters and a space, short enough that every combination of judgements comes up."""
    rng = random.Random(0)
    seen = set()
    for _ in range(5000):
        prediction, reference = ("".join(rng.choices("ab ", k=rng.randint(0, 6))) for _ in range(2))
        if not reference.strip():
            continue
        score = judge_text(prediction, reference)
        assert score.correct <= score.prefix_correct <= score.contains
        assert judge_text(reference, reference).correct
        seen.add((score.correct, score.prefix_correct, score.contains))
    assert seen == {(False, False, False), (False, False, True), (False, True, True), (True, True, True)}


@pytest.mark.parametrize("reference", ["", " \n"])
def test_an_empty_reference_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="reference is empty"):
        judge_text("anything", reference)


def test_means() -> None:
    def row(correct: bool, prefix: bool, contains: bool, stopped: bool) -> dict[str, bool | str]:
        return {"correct": correct, "prefix_correct": prefix, "contains": contains, "stopped": stopped, "split": "val"}

    rows = [row(True, True, True, True), row(False, True, True, True), row(False, False, True, True), row(False, False, False, False)]
    assert summarise(rows) == {"exact": 0.25, "prefix": 0.5, "contains": 0.75, "stopped": 0.75}
    with pytest.raises(ValueError, match="split is empty"):
        summarise([])
