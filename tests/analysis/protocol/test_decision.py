"""Verdicts on claims built in memory: the declared family, lost seeds, races, controls, and both tests corrected."""

from __future__ import annotations

from dataclasses import replace
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
from analysis.stats.looks import Stage
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
    # A plan spends two thirds of the error; the rest is for seeds that may be added.
    assert alone.p_claim == pytest.approx(1.5 * max(alone.p, alone.interval.p)) and alone.p_holm == alone.p_claim
    assert verdict.p_holm == pytest.approx(5 * alone.p_holm) and verdict.family_size == 5
    assert "over 5 claims" in text_of(verdict, "significant")
    _, family = rule([claim()], "test_accuracy", 0.01, plan(claims=5, controls=2))
    assert family == {"claims": 5, "claims tested": 1, "controls": 2, "controls tested": 0}


def test_examples_that_one_arm_finds_easier_do_not_pass_as_seeds() -> None:
    """Eight of 400 examples are won at every seed, give or take one: p over seeds is tiny, over seeds x examples it is not."""
    (verdict,) = ruled(claim(gain=0.0075, step=0.0025), declared=plan(claims=10))
    assert verdict.p is not None and verdict.p_holm is not None and verdict.interval is not None and verdict.interval.p is not None
    assert 10 * verdict.p < 0.05 < verdict.p_holm == pytest.approx(15 * verdict.interval.p)
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
    assert report.verdicts[0].sentence.startswith("undecided: jepa/llama3 against baseline/llama3: at equal steps, +10")
    assert "no verdict yet: 4 of 5 planned seeds" in report.verdicts[0].sentence


def test_a_race_is_decided_by_its_overall_p() -> None:
    looks = (3, 5, 10)
    seeds = tuple(range(10))
    (verdict,) = ruled(claim(seeds=seeds[:5]), declared=plan(seeds=seeds, looks=looks))
    assert verdict.verdict == "better" and (verdict.look, verdict.looks) == (2, [3, 5, 10])
    assert verdict.p is not None and verdict.interval is not None and verdict.interval.p is not None
    larger, level = max(verdict.p, verdict.interval.p), sequential.spending(looks, 0.05 * 2 / 3)[1]
    assert verdict.p_claim is not None and (verdict.p_claim < 0.05) == (larger < level) and verdict.p_claim > larger
    assert verdict.interval.confidence == pytest.approx(1 - level)
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


def test_seeds_that_were_added_after_a_look_count_as_such() -> None:
    """The same ten seeds: planned from the start, or five of them added after the verdict on the others."""
    seeds = tuple(range(10))
    whole = claim(gain=0.02, step=0.02, seeds=seeds)
    (planned,) = ruled(whole, declared=plan(seeds=seeds))
    (added,) = ruled(replace(whole, history=(Stage(5), Stage(5, 2))), declared=plan(seeds=seeds))
    assert (planned.history, added.history) == ([10], [5, 5])
    assert planned.level == pytest.approx(1 / 30) and added.level < 0.016
    assert planned.p_claim is not None and added.p_claim is not None and added.p_claim > planned.p_claim
    assert planned.interval is not None and added.interval is not None
    assert added.interval.high - added.interval.low > planned.interval.high - planned.interval.low
    assert "(the 5 + 5 seeds weighted by stage)" in text_of(added, "significant")
    # A method that was added after a look spends what that look may spend: a ninth of the first one's.
    (late,) = ruled(replace(whole, history=(Stage(10, 3),)), declared=plan(seeds=seeds))
    assert late.level == pytest.approx(planned.level / 9)


def test_the_advice_holds_at_the_next_look() -> None:
    """As many more seeds as advised, with the same spread and a true gain of the margin, are found with power 0.8, not less."""
    report = judge(Evidence(claims=[claim(gain=0.0, step=0.01)], declared=plan()))
    (verdict,) = report.verdicts
    assert verdict.seeds_needed is not None and verdict.seeds_needed > 5
    assert f"{verdict.seeds_needed - 5} more seeds would detect 1 point" in verdict.sentence


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
    # Two earlier versions had other seeds than the one after them; only the last of those with the same seeds is a look.
    assert [(look.seeds, look.race) for look in declaration.looked] == [((82, 23, 37), (2, 3))]
    assert [declaration.number("any", seed) for seed in SEEDS] == [1, 1, 1, 2, 2]
    assert (declaration.race_at(1), declaration.race_at(2)) == ((2, 3), (3, 5))
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
