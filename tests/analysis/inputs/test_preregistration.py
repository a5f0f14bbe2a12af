"""What a sweep declared cannot be cut, swapped or chosen in the light of its results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.inputs.preregistration import Declared, declared
from analysis.protocol.claims import gather
from analysis.verdict import judge
from jepa_ray.config import Arm, Comparison
from jepa_ray.results import Look, record_look
from tests.analysis.sweeps import add, select

DEFAULT = [Comparison("jepa/llama3", "baseline/llama3", "claim")]


def ran(folder: Path, seeds: tuple[int, ...]) -> None:
    for place, seed in enumerate(seeds):
        add(folder, "baseline", "confirm", 0.5 + 0.02 * (place % 3), seed=seed, examples=200)
        add(folder, "jepa", "confirm", 0.7 + 0.03 * (place % 2), seed=seed, examples=200)


def test_a_plan_cut_to_what_has_run_is_not_complete(tmp_path: Path) -> None:
    """Otherwise whoever stops at the first significant result, and cuts the plan to it, would be right by the rule."""
    ran(tmp_path, (1, 2, 3))
    (tmp_path / "sweep-1.yaml").write_text("confirm: {seeds: [1, 2, 3, 4, 5, 6]}")
    record_look(tmp_path, "change", (1, 2, 3, 4, 5, 6), (), DEFAULT)
    (tmp_path / "sweep.yaml").write_text("confirm: {seeds: [1, 2, 3]}")
    plan = declared(tmp_path)
    assert set(plan.seeds) == {1, 2, 3, 4, 5, 6} and plan.missing([1, 2, 3]) == [4, 5, 6]
    assert any("seeds 4, 5, 6 left confirm.seeds after results were known" in note for note in plan.notes)
    (found,) = judge(gather(tmp_path)).verdicts
    assert found.verdict == "undecided" and "missing: seeds 4, 5, 6" in found.sentence


def test_a_seed_that_failed_in_both_arms_stays_in_the_plan(tmp_path: Path) -> None:
    ran(tmp_path, (1, 2, 3))
    for method in ("baseline", "jepa"):
        add(tmp_path, method, "confirm", 0.5, seed=4, state="FAILED")
    record_look(tmp_path, "change", (1, 2, 3, 4), (), DEFAULT)
    (tmp_path / "sweep.yaml").write_text("confirm: {seeds: [1, 2, 3]}")
    (found,) = judge(gather(tmp_path)).verdicts
    assert not found.complete and found.verdict == "undecided"


def test_a_comparator_that_was_chosen_by_its_result_makes_the_claim_late() -> None:
    """A new method against the worst of the known arms; against its own baseline, nobody chose."""
    known = [
        Arm(name, "llama3", "nl-rx", name, "baseline" if name == "base" else "claim", None if name == "base" else "base")
        for name in ("base", "a", "b")
    ]
    look = Look(
        looked_at="now", why="verdict", seeds=(1,), race=(), trials={"t1": 1, "t2": 1, "t3": 1}, claims=(("a", "base"), ("b", "base"))
    )
    arm_of = {"t1": "base", "t2": "a", "t3": "b"}
    new = Arm("new", "llama3", "nl-rx", "new", "claim", "base")
    plan = Declared(arms=(*known, new), looked=(look,))
    assert not plan.chosen_late(arm_of) and plan.claims == 3
    chosen = replace(plan, arms=(*known, replace(new, against=("b",))))
    assert chosen.chosen_late(arm_of) and replace(chosen, late=True).claims == 6
    late = replace(plan, arms=(*known[:2], replace(known[2], against=("base", "a"))))
    assert late.chosen_late(arm_of)


def test_returning_to_an_earlier_selection_is_a_choice_among_results(tmp_path: Path) -> None:
    """Confirmed as X, then as Y, then as X again: the verdict on X is a third look at all of its seeds."""
    found = {}
    for name, k in (("x", 1), ("y", 2)):
        found[name] = add(tmp_path, "jepa", "search", 0.5, objective={"k": k})
    found["b"] = add(tmp_path, "baseline", "search", 0.5)
    (tmp_path / "sweep.yaml").write_text("confirm: {seeds: [1, 2, 3]}")
    levels = []
    for place, (name, k) in enumerate((("x", 1), ("y", 2), ("x", 1))):
        for seed in (1, 2, 3) if place < 2 else ():
            if place == 0:
                add(tmp_path, "baseline", "confirm", 0.5 + 0.02 * (seed % 2), seed=seed, examples=200)
            add(tmp_path, "jepa", "confirm", 0.5 + 0.03 * seed, seed=seed, examples=200, objective={"k": k})
        select(tmp_path, f"selection{'' if not place else f'-{place + 1}'}.json", jepa=found[name], baseline=found["b"])
        (verdict,) = judge(gather(tmp_path)).verdicts
        levels.append(verdict.level)
        record_look(tmp_path, "verdict", (1, 2, 3), (), DEFAULT)
    assert levels == pytest.approx([0.05 * 2 / 3, 0.05 * 2 / 9, 0.05 * 2 / 27])


def test_another_metric_or_margin_is_exploratory(tmp_path: Path) -> None:
    ran(tmp_path, (1, 2, 3))
    (tmp_path / "sweep.yaml").write_text("confirm: {seeds: [1, 2, 3], margin: 0.02}")
    assert not any("Exploratory" in note for note in judge(gather(tmp_path)).notes)
    assert any("declared a margin of 2 points, and this is one of 1 point" in note for note in judge(gather(tmp_path), margin=0.01).notes)
    other = judge(gather(tmp_path, "val_accuracy"), "val_accuracy")
    assert any("judged by test_accuracy, and this is val_accuracy; the search selected by validation" in note for note in other.notes)
