"""Verdicts on claims built in memory: the declared family, lost seeds, races, controls, and both tests corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.inputs.preregistration import Declared, declared
from analysis.protocol.claim_statistics import Verdict
from analysis.protocol.claims import Claim, Evidence
from analysis.protocol.decision import rule
from analysis.protocol.equal_cost import Panel
from analysis.stats import sequential
from analysis.verdict import judge
from jepa_ray.config import Arm, Kind

SEEDS = (82, 23, 37, 84, 4)


def claim(method: str = "jepa", gain: float = 0.1, seeds: tuple[int, ...] = SEEDS, step: float = 0.005, **kept: Any) -> Claim:
    """A method whose gain is the same at all seeds up to `step`, on 400 examples: it is right on examples that the baseline gets wrong."""
    N = 400
    hardness_N = (np.arange(N) + 0.5) / N
    shifts = [step * (-1, 1, 0, 1, -1)[i % 5] for i in range(len(seeds))]
    theirs_SN = np.array([hardness_N < 0.5 for _ in seeds])
    ours_SN = np.array([hardness_N < 0.5 + gain + shift for shift in shifts])
    order = np.argsort(seeds)
    ours, theirs = ({seeds[i]: float(right_SN[i].mean()) for i in order} for right_SN in (ours_SN, theirs_SN))
    mean = float(ours_SN.mean() - theirs_SN.mean())
    made = Claim(
        f"{method}/llama3", kept.pop("baseline", "baseline/llama3"), kept.pop("kind", "claim"), "nl-rx", "llama3", "tiny", ours, theirs
    )
    made.right = ours_SN[order], theirs_SN[order]
    made.stopping = {"prefix": mean, "contains": mean}
    made.panels = [Panel(at="equal FLOPs", metric="test_accuracy", by_seed=dict.fromkeys(seeds, mean), spent=1e9, how="matched")]
    for name, value in kept.items():
        setattr(made, name, value)
    return made


def plan(claims: int = 1, controls: int = 0, seeds: tuple[int, ...] = SEEDS, looks: tuple[int, ...] = (), **kept: Any) -> Declared:
    kinds: list[Kind] = ["claim"] * claims + ["control"] * controls
    arms = [Arm(f"{kind}{place}", "llama3", "nl-rx", f"{kind}{place}/llama3", kind, "baseline/llama3") for place, kind in enumerate(kinds)]
    return Declared(arms=tuple(arms), seeds=seeds, looks=looks, **kept)


def ruled(*claims: Claim, declared: Declared | None = None, margin: float = 0.01) -> list[Verdict]:
    return rule(claims, "test_accuracy", margin, declared or plan())[0]


def holds(verdict: Verdict) -> dict[str, bool | None]:
    return {reason.name: reason.holds for reason in verdict.conditions}


def text_of(verdict: Verdict, name: str) -> str:
    return next(reason.text for reason in verdict.conditions if reason.name == name)


def test_the_larger_p_is_corrected_over_the_declared_family() -> None:
    """Nothing else has been run, and sweep.yaml declares four more claims: they count as p = 1, so Holm multiplies by five."""
    (alone,), (verdict,) = ruled(claim()), ruled(claim(), declared=plan(claims=5))
    assert alone.p is not None and alone.interval is not None and alone.interval.p is not None
    assert alone.p_claim == max(alone.p, alone.interval.p) == alone.p_holm
    assert verdict.p_holm == pytest.approx(5 * alone.p_holm) and verdict.family_size == 5
    assert "over 5 claims" in text_of(verdict, "significant")
    _, family = rule([claim()], "test_accuracy", 0.01, plan(claims=5, controls=2))
    assert family == {"claims": 5, "claims tested": 1, "controls": 2, "controls tested": 0}


def test_examples_that_one_arm_finds_easier_do_not_pass_as_seeds() -> None:
    """Eight of 400 examples are won at every seed, give or take one: p over seeds is tiny, over seeds x examples it is not."""
    (verdict,) = ruled(claim(gain=0.0075, step=0.0025), declared=plan(claims=10))
    assert verdict.p is not None and verdict.p_holm is not None and verdict.interval is not None and verdict.interval.p is not None
    assert 10 * verdict.p < 0.05 < verdict.p_holm == pytest.approx(10 * verdict.interval.p)
    report = judge(Evidence(claims=[claim(gain=0.0075, step=0.0025)], declared=plan(claims=2)))
    assert "significant over seeds but not over seeds x examples" in report.verdicts[0].sentence


def test_a_lost_seed_withholds_every_verdict() -> None:
    for gain, word in ((0.1, "better"), (-0.1, "worse"), (0.0, "equivalent")):
        (whole,) = ruled(claim(gain=gain), declared=plan(), margin=0.05)
        assert whole.verdict == word
        (verdict,) = ruled(claim(gain=gain, seeds=SEEDS[:4]), declared=plan(), margin=0.05)
        assert verdict.verdict == "undecided" and holds(verdict)["all planned seeds"] is False
        assert "4 of 5 planned seeds are in both arms; missing: seed 4 (not run yet, failed" in text_of(verdict, "all planned seeds")
    report = judge(Evidence(claims=[claim(seeds=SEEDS[:4])], declared=plan()))
    assert report.verdicts[0].sentence.startswith("undecided: jepa/llama3 against baseline/llama3: +10")
    assert "no verdict yet: 4 of 5 planned seeds" in report.verdicts[0].sentence


def test_a_race_is_decided_by_its_overall_p() -> None:
    looks = (3, 5, 10)
    seeds = tuple(range(10))
    (verdict,) = ruled(claim(seeds=seeds[:5]), declared=plan(seeds=seeds, looks=looks))
    assert verdict.verdict == "better" and (verdict.look, verdict.looks) == (2, [3, 5, 10])
    assert verdict.p is not None and verdict.interval is not None and verdict.interval.p is not None
    assert verdict.p_claim == sequential.overall(max(verdict.p, verdict.interval.p), 5, looks) > max(verdict.p, verdict.interval.p)
    assert verdict.interval.confidence == pytest.approx(1 - sequential.spending(looks)[1])
    assert "5 of 5 planned seeds are in both arms; raced, stopped at look 2 of 3" in text_of(verdict, "all planned seeds")
    report = judge(Evidence(claims=[claim(seeds=seeds[:5])], declared=plan(seeds=seeds, looks=looks)))
    assert "(raced, stopped at look 2 of 3)" in report.verdicts[0].sentence
    # No gain at all: the race ends because the upper bound is below the margin, and the sentence does not advise more seeds.
    report = judge(Evidence(claims=[claim(gain=0.0, seeds=seeds[:5])], declared=plan(seeds=seeds, looks=looks)))
    assert "stopped as hopeless: the one-sided 95 % upper bound over seeds is +0.48 points" in report.verdicts[0].sentence
    (between,) = ruled(claim(seeds=seeds[:4]), declared=plan(seeds=seeds, looks=looks))
    assert between.verdict == "undecided" and "4 of 5 planned seeds" in text_of(between, "all planned seeds")
    (full,) = ruled(claim(seeds=seeds), declared=plan(seeds=seeds, looks=looks))
    assert "raced, completed at look 3 of 3" in text_of(full, "all planned seeds")


def test_an_early_look_needs_more_than_a_late_one() -> None:
    """The same three differences suffice as the whole plan, but not at the first of two looks."""
    three = claim(seeds=SEEDS[:3])
    (alone,), (early,) = ruled(three, declared=plan(seeds=SEEDS[:3])), ruled(three, declared=plan(looks=(3, 5)))
    assert alone.verdict == "better" and early.p_holm is not None and alone.p_holm is not None and early.p_holm > alone.p_holm


def test_the_gain_without_a_trained_end_of_turn_is_reported_next_to_it() -> None:
    """The whole gain is stopping: 18 points if stopping is not trained, none if it is."""
    fixed = claim(gain=0.0)
    defect = claim("jepa-no-stop", gain=0.18, kind="control", baseline="baseline-no-stop/llama3")
    first, second = ruled(fixed, defect)
    assert "without a trained end of turn +18" in text_of(first, "not only stopping")
    assert second.kind == "control" and second.verdict == "undecided" and holds(second)["not only stopping"] is False
    assert "with a trained end of turn +0.00 points (n = 5 seeds)" in text_of(second, "not only stopping")
    first, second = ruled(claim(gain=0.1), claim("jepa-no-stop", gain=0.18, kind="control"))
    assert first.verdict == second.verdict == "better"


def test_added_seeds_are_reported() -> None:
    grown = plan(changes=("confirm.seeds was once 1, 2, 3 and is now 82, 23, 37, 84, 4.",))
    (note,) = judge(Evidence(claims=[claim()], declared=grown)).notes
    assert note.startswith("confirm.seeds was once 1, 2, 3 and is now 82, 23, 37, 84, 4.") and "confirm.race" in note


def test_the_margin_is_the_sweep_s_own() -> None:
    assert judge(Evidence(claims=[claim(gain=0.03)], declared=plan(margin=0.02))).verdicts[0].verdict == "better"
    assert judge(Evidence(claims=[claim(gain=0.03)], declared=plan(margin=0.2))).verdicts[0].verdict == "equivalent"
    assert judge(Evidence(claims=[claim(gain=0.03)], declared=plan(margin=0.2)), margin=0.02).verdicts[0].verdict == "better"


def test_what_sweep_yaml_declares(tmp_path: Path) -> None:
    """Two families and two tasks: one claim and two controls on each; no baseline has the loss side of `alone`.

    If no method trains the end of turn, leaving it out is not a control, and both methods have the first baseline: two claims, one control.
    """
    text = """
name: s
methods: {baseline: null, jepa: {control: none}, jepa-shuffled: {control: shuffled}, baseline-no-stop: null, jepa-no-stop: {}, alone: {}}
cross_entropy:
  baseline-no-stop: {train_end_of_turn: false}
  jepa-no-stop: {loss_on: null, train_end_of_turn: false}
  alone: {loss_on: all}
families: [llama3, gemma2]
task: [nl-rx, gsm8k]
base: {optim: {loss_on: answer, train_end_of_turn: true}}
confirm: {seeds: [82, 23, 37, 84, 4], race: [3, 5]}
"""
    (tmp_path / "sweep.yaml").write_text(text)
    (tmp_path / "sweep-1.yaml").write_text("confirm: {seeds: [82, 23, 37]}")
    (tmp_path / "sweep-2.yaml").write_text("confirm: {seeds: [82, 23, 37], race: [2, 3]}")
    (tmp_path / "sweep-3.yaml").write_text("confirm: none")
    declaration = declared(tmp_path)
    assert (declaration.claims, declaration.controls, declaration.seeds, declaration.looks, declaration.notes) == (4, 8, SEEDS, (3, 5), ())
    assert declaration.changes == (
        "confirm.seeds was once 82, 23, 37 and is now 82, 23, 37, 84, 4.",
        "confirm.race was once none; 2, 3 and is now 3, 5.",
    )
    (tmp_path / "sweep.yaml").write_text(text.replace("train_end_of_turn: true", "train_end_of_turn: false"))
    unstopped = declared(tmp_path)
    assert (unstopped.claims, unstopped.controls) == (8, 4)
    assert {arm.baseline for arm in unstopped.arms if arm.method == "jepa-no-stop"} == {
        f"baseline/{family}/{task}" for family in ("llama3", "gemma2") for task in ("nl-rx", "gsm8k")
    }
    for broken in ("methods: [", "methods: {}", "- 1"):
        (tmp_path / "sweep.yaml").write_text(broken)
        assert not declared(tmp_path).arms and "not known which arms are compared" in declared(tmp_path).notes[-1], broken
    assert "sweep.yaml is missing" in declared(tmp_path / "nothing").notes[0]
