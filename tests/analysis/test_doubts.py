"""The tables of doubts show the verdict's numbers, and say so in a sentence if there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import doubts
from analysis.protocol.claim_statistics import Clean, Reason, Verdict
from analysis.protocol.claims import Claim, Leaked, gather
from analysis.verdict import judge
from tests.analysis import sweeps


def claim(**changes: object) -> Claim:
    return Claim("jepa", "baseline", "claim", "nl-rx", "llama3", "tiny", **changes)  # type: ignore[arg-type]


def verdict(**changes: object) -> Verdict:
    made = Verdict("jepa", "baseline", "claim", "nl-rx", "llama3", "tiny", "test_accuracy", [1, 2], 100, 0.03)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_seeds_are_the_verdicts_numbers(tmp_path: Path) -> None:
    for seed, level in zip(sweeps.SEEDS, (0.40, 0.44, 0.42), strict=True):
        sweeps.add(tmp_path, "baseline", "confirm", level, seed=seed, examples=50)
        sweeps.add(tmp_path, "jepa", "confirm", level + 0.02 * (1 + seed % 2), seed=seed, examples=50, objective={"k": 1})
    (tmp_path / "sweep.yaml").write_text(sweeps.SWEEP)
    (ruling,) = judge(gather(tmp_path)).verdicts
    (row,) = doubts.seeds([ruling], 0.01).rows
    assert ruling.difference is not None and row[1] == f"{100 * ruling.difference:+.2f}" and row[3] == "3"
    assert row[4] == ("-" if ruling.seeds_needed is None else str(ruling.seeds_needed))
    assert doubts.seeds([], 0.01).rows == [] and doubts.seeds([verdict(difference=None)], 0.01).rows == []


def test_a_gain_in_stopping_only_can_be_seen() -> None:
    said = verdict(conditions=[Reason("not only stopping", False, "prefix +0.00, contains +0.00")])
    table = doubts.stopping([claim(stopping={"prefix": 0.0, "stopped": 0.04})], [said])
    assert table.header == ["method", "accuracy", "prefix", "stopped", "condition"]
    assert table.rows == [["jepa", "+3.00", "+0.00", "+4.00", "prefix +0.00, contains +0.00"]]
    assert doubts.stopping([claim()], [said]).rows == []


@pytest.mark.parametrize("known", [True, False])
def test_leaked_questions_are_counted_and_the_rest_is_shown(known: bool) -> None:
    clean = Clean(8, 100, 92, difference=0.01 if known else None, p_holm=0.2)
    table = doubts.leakage([claim(leaked=Leaked(8, 100))], [verdict(clean=clean)])
    (row,) = table.rows
    assert row[:2] == ["jepa", "+3.00"] and row[-1] == "8 of 100 (8 %)"
    assert row[2:5] == (["+1.00", "-", "0.2"] if known else ["-", "-", "-"])
    assert doubts.leakage([claim()], [verdict()]).empty.startswith("No test question of 1 comparison")
