"""The verdict in words: a clause for equal steps, one for equal FLOPs, and what may be believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.protocol.claim_statistics import Verdict
from analysis.protocol.claims import Claim, Evidence
from analysis.protocol.equal_cost import Panel
from analysis.verdict import judge
from tests.analysis.protocol.test_decision import claim, plan


def judged(steps: Claim, cost: Claim | None = None) -> Verdict:
    """The verdict on a claim whose answers at equal FLOPs are those of `cost`."""
    if cost is not None:
        gaps = {seed: cost.ours[seed] - cost.theirs[seed] for seed in cost.ours}
        runs = {seed: (f"a{seed}", f"b{seed}") for seed in cost.ours}
        panel = Panel(at="equal FLOPs", metric="test_accuracy", by_seed=gaps, spent=1e9, how="retrained with the same FLOPs", runs=runs)
        same = [replace(panel, at="equal steps", how="as confirmed")] if cost is steps else []
        steps = replace(steps, panels=[*same, panel], at_flops=cost)
    (verdict,) = judge(Evidence(claims=[steps], declared=plan(controls=int(steps.kind == "control")))).verdicts
    return verdict


def test_undecided_at_equal_steps_hides_no_loss_at_equal_flops() -> None:
    """The case that the first clause alone would hide."""
    found = judged(claim(gain=0.0, step=0.01), claim(gain=-0.1))
    assert found.verdict == "undecided" and found.at_flops is not None and found.at_flops.verdict == "lower"
    assert found.interval is not None and found.at_flops.interval is not None
    assert found.sentence.startswith("undecided: jepa/llama3 against baseline/llama3: at equal steps, ")
    low, high = (f"{100 * end:+.2f}" for end in (found.at_flops.interval.low, found.at_flops.interval.high))
    assert f"; at equal FLOPs, -10.00 points (95 % {low} to {high}), lower (Holm p = " in found.sentence
    assert found.sentence.endswith(". So its scores are lower for the same training cost; in the same number of steps, nothing is settled.")


@pytest.mark.parametrize(
    ("steps", "cost", "verdict", "belief"),
    [
        (0.1, 0.1, "better", "So the method gains in the same number of steps, and its scores are higher for the same training cost too."),
        (0.1, 0.002, "better", "So the method gains in the same number of steps; for the same training cost, no gain is shown."),
        (
            0.1,
            -0.1,
            "undecided",
            "So its scores are higher in the same number of steps, but not in a way that counts as a gain; for the same training cost, its "
            "scores are lower.",
        ),
        (-0.1, -0.1, "worse", "So the method loses in the same number of steps, and its scores are lower for the same training cost too."),
        (-0.1, 0.002, "worse", "So the method loses in the same number of steps; for the same training cost, no loss is shown."),
        (-0.1, 0.1, "worse", "So the method loses in the same number of steps, but for the same training cost its scores are higher."),
    ],
)
def test_what_may_be_believed(steps: float, cost: float, verdict: str, belief: str) -> None:
    found = judged(claim(gain=steps), claim(gain=cost, step=0.02 if abs(cost) < 0.01 else 0.005))
    assert found.verdict == verdict and found.sentence.endswith(belief)


def test_as_tuned_is_not_the_same_number_of_steps() -> None:
    tuned = claim(gain=-0.1)
    tuned.panels = [replace(tuned.panels[0], at="equal steps", how="on validation curves"), *tuned.panels]
    found = judged(tuned)
    assert "as tuned, in different numbers of steps, -10" in found.sentence and found.sentence.endswith("So the method loses as tuned.")


def test_answers_that_do_not_match_the_scores_have_no_interval() -> None:
    found = judged(claim(gain=0.1, doubt="the tables do not belong together"))
    assert "no verdict: the tables do not belong together" in found.sentence and "95 %" not in found.sentence
    cost = claim(gain=0.1, doubt="the tables do not belong together")
    assert judged(claim(gain=0.1), cost).at_flops.verdict == "undecided"  # type: ignore[union-attr]
    assert "points, not tested: the tables do not belong together. So" in judged(claim(gain=0.1), cost).sentence


def test_runs_of_the_same_cost_are_one_comparison() -> None:
    same = claim(gain=0.1)
    found = judged(same, same)
    assert found.at_flops is not None and found.at_flops.same_runs and found.at_flops.p_holm == found.p_holm
    assert "; both arms cost the same, so this is also at equal FLOPs. So the method gains in the same number of steps." in found.sentence


def test_what_cannot_be_tested_at_equal_flops_is_said() -> None:
    assert "; at equal FLOPs, not tested: +10.00 points at " in judged(claim(gain=0.1)).sentence
    assert "; at equal FLOPs, nothing can be tested." in judged(claim(gain=0.1, panels=[])).sentence
    bare = claim(gain=0.1)
    bare.right = None
    found = judged(claim(gain=0.1), bare)
    assert found.at_flops is not None and found.at_flops.verdict == "undecided" and "points, not tested by example." in found.sentence


def test_controls_and_incomplete_claims_have_no_second_clause() -> None:
    control = judged(claim(gain=0.1, kind="control"), claim(gain=0.1))
    assert "at equal FLOPs" not in control.sentence and control.at_flops is None
    part = judged(claim(gain=0.1, seeds=(82, 23, 37, 84)), claim(gain=0.1, seeds=(82, 23, 37, 84)))
    assert "no verdict yet" in part.sentence and "at equal FLOPs" not in part.sentence and "So " not in part.sentence
    assert part.at_flops is not None and part.at_flops.verdict == "undecided"
