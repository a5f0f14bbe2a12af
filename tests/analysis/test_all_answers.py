"""Answers at every seed: counted by hand, filtered by what happened, and bounded."""

from __future__ import annotations

from pathlib import Path

from analysis import all_answers, answer_diff
from analysis.inputs.sweep import read
from tests.analysis import sweeps


def marked(parts: list[answer_diff.Span]) -> str:
    return answer_diff.marked(parts)


def test_right_at_how_many_seeds_and_which_answers(tmp_path: Path) -> None:
    """Of the three examples the baseline has the first right at every seed; the method the second, too, but at two seeds of three."""
    for seed, right in zip(sweeps.SEEDS, (2, 1, 2), strict=True):
        sweeps.add(tmp_path, "baseline", "confirm", 0.3, seed=seed)
        sweeps.add(tmp_path, "jepa", "confirm", 0.5, seed=seed, right=right, objective={"k": 1})
    (found,) = all_answers.tables(read(tmp_path), marked)
    rows = {row[0]: dict(zip(found.table.header, row, strict=True)) for row in found.table.rows}
    kinds = dict(zip(rows, found.kinds, strict=True))
    assert kinds == {"e:2": "method gains", "e:3": "always wrong", "e:1": "always right"}
    assert rows["e:2"]["right"] == "0 → 2 of 3" and rows["e:1"]["right"] == "3 → 3 of 3"
    assert rows["e:2"]["question"] == "lines with e:2 & <b>" and rows["e:2"]["reference"] == "(<x>&)+"
    assert rows["e:2"]["baseline"] == "(<x>&)+{+.*}", "the same at every seed: no list of seeds"
    assert rows["e:2"]["method"] == "23: (<x>&)+{+.*}\n37, 82: (<x>&)+"
    assert found.notes == ("Questions by what happens over 3 seeds: method gains 1, always wrong 1, always right 1.",)


def test_many_questions_are_bounded_and_the_rest_is_counted(tmp_path: Path) -> None:
    sweeps.add(tmp_path, "baseline", "confirm", 0.4, seed=82, examples=600)
    sweeps.add(tmp_path, "jepa", "confirm", 0.7, seed=82, examples=600, objective={"k": 1})
    (found,) = all_answers.tables(read(tmp_path), marked)
    counts = {kind: found.kinds.count(kind) for kind in set(found.kinds)}
    assert counts == {"method gains": 60, "always wrong": 40, "always right": 20}
    assert "method gains 180, always wrong 180, always right 240" in found.notes[0]
    assert found.notes[1].startswith("Shown are 120 of 600")
    (small,) = all_answers.tables(read(tmp_path), marked, room=2000)
    assert 3 <= len(small.table.rows) < 60 and set(small.kinds) == set(counts)


def test_a_long_answer_ends_in_an_ellipsis() -> None:
    parts = all_answers._trimmed(answer_diff.spans("a " * 400, "a " * 400 + "b"))
    assert sum(len(part.given) for part in parts) <= all_answers.LONGEST + 2 and parts[-1].given.endswith("…")
    assert all_answers._trimmed(answer_diff.spans("a", "b")) == answer_diff.spans("a", "b")
