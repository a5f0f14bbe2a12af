"""The verdict: small sweeps written by the real writer, with answers of a known effect, and a sentence for everything that is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import verdict
from analysis.inputs.sweep import read
from analysis.protocol.claim_statistics import Verdict
from analysis.protocol.claims import gather, split_of
from analysis.summary import summarise
from analysis.summary_tables import tables
from analysis.verdict import Report, judge, render
from jepa_ray import results
from jepa_ray.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    TrialConfig,
    comparisons,
    config_id,
)
from jepa_ray.results import TrialResult
from tests.analysis import sweeps

SEEDS = (82, 23, 37, 84, 4)
EXAMPLES = 400
FLAGS = ("correct", "exact", "prefix_correct", "contains")


class Sweep:
    """Confirmation trials with threshold answers: example i of a trial is right if its hardness is below the trial's score."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "sweep.yaml").write_text(
            f"methods: {{}}\nfamilies: []\ntask: []\nconfirm: {{seeds: {list(SEEDS)}}}\n"
        )  # declares no claims
        self.hardness = np.random.default_rng(0).permutation((np.arange(EXAMPLES) + 0.5) / EXAMPLES)

    def arm(self, method: str, scores: dict[int, float], **kept: Any) -> None:
        for seed, score in scores.items():
            self.trial(method, seed, score, **kept)

    def trial(
        self,
        method: str,
        seed: int,
        score: float,
        *,
        stage: str = "confirm",
        state: str = "COMPLETE",
        task: str = "nl-rx",
        family: str = "llama3",
        control: str = "none",
        train_end_of_turn: bool = True,
        flops: float = 1e9,
        curve: dict[float, float] | None = None,
        contains: float | None = None,
        predictions: bool = True,
        examples: range = range(EXAMPLES),
        k: int = 1,
        learning_rate: float = 1e-3,
        leaked: range | None = None,
        **kept: Any,
    ) -> None:
        config = TrialConfig(
            model=ModelConfig(family=family, model="tiny"),
            data=DataConfig(task=task, num_val=9),
            objective=None if method.startswith("baseline") else ObjectiveConfig(k=k, control=control),  # type: ignore[arg-type]
            optim=OptimConfig(train_end_of_turn=train_end_of_turn, learning_rate=learning_rate),
            evaluation=EvaluationConfig(test=stage == "confirm"),
            seed=seed,
        )
        right = self.hardness < score
        inside = self.hardness < (score if contains is None else contains)
        summary: dict[str, Any] = {"train_flops": flops, "dataset_sha": "d", "started_at": "2026-01-01"}
        if state == "COMPLETE":
            summary |= {f"test_{name}": float(right.mean()) for name in ("accuracy", "exact")}
            summary |= {f"test_{name}": float(inside.mean()) for name in ("prefix", "contains")} | {"test_stopped": 1.0}
        rows = [
            {"split": "test", "example_id": f"t:{i}", **{flag: bool((inside if flag in FLAGS[2:] else right)[i]) for flag in FLAGS}}
            for i in examples
        ]
        if leaked is not None:
            rows = [row | {"leaked": place in leaked} for place, row in zip(examples, rows, strict=True)]
            summary |= {"overlap_text": len(leaked), "test_examples": EXAMPLES, "test_clean_examples": EXAMPLES - len(leaked)}
            summary |= {"test_accuracy_clean": float(np.delete(right, leaked).mean())} if len(leaked) < EXAMPLES else {}
        points = {flops: score} if curve is None else curve
        metrics = [
            {"step": i, "epoch": float(i), "split": "val", "name": "val_accuracy", "value": y, "train_flops": x}
            for i, (x, y) in enumerate(points.items(), 1)
        ]
        result = TrialResult(state, "boom" if state == "FAILED" else None, summary | kept, metrics, rows if predictions else [])  # type: ignore[arg-type]
        results.write_trial(self.folder, config_id(config, method), config, f"{method}/{family}", stage, result)  # type: ignore[arg-type]
        sweeps.declare(self.folder, method, family, task, "claim" if control == "none" and train_end_of_turn else "control")

    def report(self, metric: str = "test_accuracy", margin: float = 0.01) -> Report:
        return judge(gather(self.folder, metric), metric, margin)

    def only(self, **options: Any) -> Verdict:
        (result,) = self.report(**options).verdicts
        return result


def around(mean: float, step: float = 0.01) -> dict[int, float]:
    """Five seeds at mean + (-2 .. 2) steps."""
    return {seed: mean + step * i for seed, i in zip(SEEDS, (-2, 1, 0, 2, -1), strict=True)}


def shifted(scores: dict[int, float], by: float, jitter: float = 0.0025) -> dict[int, float]:
    """Another arm at the same seeds: higher by `by`, give or take one example of 400."""
    return {seed: score + by + jitter * sign for (seed, score), sign in zip(scores.items(), (1, -1, 0, 1, -1), strict=True)}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path / "lora")


def holds(result: Verdict) -> dict[str, bool | None]:
    return {reason.name: reason.holds for reason in result.reasons}


def test_better_meets_every_condition(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), 0.1))
    result = sweep.only()
    assert result.verdict == "better" and result.difference == pytest.approx(0.1, abs=0.002)
    assert (result.seeds, result.examples) == (sorted(SEEDS), EXAMPLES)
    assert result.sentence.startswith("better: jepa/llama3 against baseline/llama3: at equal steps, +10.0")
    assert [value for value in holds(result).values()][:5] == [True] * 5
    assert result.interval is not None and result.interval.low > 0 and result.bootstrap is not None
    # A plan spends two thirds of the 5 %, and the rest is kept for seeds that may be added.
    assert (
        result.p is not None
        and result.p_holm == pytest.approx(1.5 * result.p)
        and result.p_one_tailed == pytest.approx(result.p / 2)
        and result.p_sign_flip == pytest.approx(2 / 32)
    )
    assert set(result.mcnemar) == set(SEEDS) and result.mcnemar[82].n == pytest.approx(41, abs=1)


def test_a_test_set_that_is_in_training_is_reported_and_better_must_hold_without_it(sweep: Sweep) -> None:
    """A third of the questions were trained on. The gain is spread over all questions, so it holds on the others."""
    for method, scores in (("baseline", around(0.5)), ("jepa", shifted(around(0.5), 0.1))):
        sweep.arm(method, scores, leaked=range(133))
    result = sweep.only()
    clean = result.clean
    assert clean is not None and (clean.leaked, clean.of, clean.examples) == (133, EXAMPLES, EXAMPLES - 133)
    by_hand = [np.mean((sweep.hardness < s)[133:]) for scores in (shifted(around(0.5), 0.1), around(0.5)) for s in scores.values()]
    assert clean.difference == pytest.approx(np.mean(by_hand[:5]) - np.mean(by_hand[5:]))
    assert result.verdict == "better" and holds(result)["without leaked examples"] is True
    assert "; 33.2 % of the test questions are also in training or validation; the verdict also holds without them." in result.sentence
    assert result.notes[0].startswith(
        "133 of 400 test questions (33.2 %) are also in training or validation; on the other 267, the scores are "
    )
    summary = summarise(read(sweep.folder, curves=()))
    lines = {line["arm"]: line["test_accuracy_clean"]["mean"] for line in summary.confirmation}
    assert lines["jepa/llama3"] - lines["baseline/llama3"] == pytest.approx(clean.difference)
    assert "test accuracy clean" in tables(summary)[2].header


def test_a_gain_on_leaked_questions_only_is_not_better(sweep: Sweep) -> None:
    """Memorisation: both arms are alike on the questions that were not trained on."""
    gain = [i for i in range(EXAMPLES) if 0.5 <= sweep.hardness[i] < 0.6]
    order = [*gain, *(i for i in range(EXAMPLES) if i not in set(gain))]
    sweep.hardness = sweep.hardness[order]  # the questions that make the difference come first and are leaked
    for method, scores in (("baseline", around(0.5, 0)), ("jepa", shifted(around(0.5, 0), 0.08))):
        sweep.arm(method, scores, leaked=range(len(gain)))
    result = sweep.only()
    assert result.p_holm is not None and result.p_holm < 0.05 and result.verdict == "undecided"
    assert holds(result)["without leaked examples"] is False and "'without leaked examples' fails" in result.sentence
    assert result.clean is not None and result.clean.difference == 0


@pytest.mark.parametrize(("leaked", "verdict"), [(range(0), "better"), (range(20), "better"), (range(EXAMPLES), "undecided")])
def test_leaked_questions_at_the_ends(leaked: range, verdict: str, sweep: Sweep) -> None:
    """No leak is not mentioned, 5 % is mentioned but requires nothing more, and a complete leak leaves nothing to decide on."""
    for method, scores in (("baseline", around(0.5)), ("jepa", shifted(around(0.5), 0.1))):
        sweep.arm(method, scores, leaked=leaked)
    result = sweep.only()
    assert result.verdict == verdict and (result.clean is None) == (len(leaked) == 0)
    assert ("without leaked examples" in holds(result)) == (len(leaked) == EXAMPLES)
    assert any("are also in training" in note for note in result.notes) == bool(leaked)
    if len(leaked) == EXAMPLES:
        assert "(100 %) are also in training or validation, which leaves none" in result.notes[0]
        assert "100 % of the test questions are also in training" in result.sentence


def test_leaked_questions_that_one_arm_alone_marks_count(sweep: Sweep) -> None:
    """The method's rows come from a version that did not record leaks; both were confirmed on the same data."""
    gain = [i for i in range(EXAMPLES) if 0.5 <= sweep.hardness[i] < 0.6]
    sweep.hardness = sweep.hardness[[*gain, *(i for i in range(EXAMPLES) if i not in set(gain))]]
    sweep.arm("baseline", around(0.5, 0), leaked=range(len(gain)))
    sweep.arm("jepa", shifted(around(0.5, 0), 0.08))
    result = sweep.only()
    assert result.verdict == "undecided" and holds(result)["without leaked examples"] is False


def test_more_marks_than_the_count_are_used_and_sizes_may_be_unknown(sweep: Sweep) -> None:
    for method, scores in (("baseline", around(0.5)), ("jepa", shifted(around(0.5), 0.1))):
        sweep.arm(method, scores, leaked=range(100), **{"test_examples": None, "overlap_text": 10})
    clean = sweep.only().clean
    assert clean is not None and (clean.leaked, clean.of, clean.examples) == (100, EXAMPLES, EXAMPLES - 100)


def test_a_score_of_zero_without_leaked_questions_is_shown(sweep: Sweep) -> None:
    """The most damning case: every right answer was trained on."""
    sweep.hardness = (np.arange(EXAMPLES) + 0.5) / EXAMPLES
    for method in ("baseline", "jepa"):
        sweep.arm(method, around(0.2), leaked=range(200))
    table = tables(summarise(read(sweep.folder, curves=())))[2]
    at = table.header.index("test accuracy clean")
    assert {row[at] for row in table.rows} == {"0.00 ± 0.00"}


def test_a_folder_that_does_not_mark_its_leaked_questions(sweep: Sweep) -> None:
    for method, scores in (("baseline", around(0.5)), ("jepa", shifted(around(0.5), 0.1))):
        sweep.arm(method, scores, overlap_text=40, test_examples=EXAMPLES)
    result = sweep.only()
    assert result.verdict == "undecided" and holds(result)["without leaked examples"] is None
    assert "but the predictions do not mark them all" in result.notes[0]


@pytest.mark.parametrize(
    ("score", "chance", "law"),
    [(0.0, None, "Floor: both arms have a test_accuracy of 0 %"), (1.0, None, "Ceiling"), (0.25, 0.5, "at most 50.0%"), (0.25, 0.1, None)],
)
def test_a_floor_and_a_ceiling_are_reported(sweep: Sweep, score: float, chance: float | None, law: str | None) -> None:
    for method in ("baseline", "jepa"):
        sweep.arm(method, dict.fromkeys(SEEDS, score), chance=chance)
    (claim,) = gather(sweep.folder).claims
    notes = [note for note in claim.notes if note.startswith(("Floor", "Ceiling"))]
    assert len(notes) == (law is not None) and all(law in note for note in notes if law)
    result = sweep.only(margin=0.05)  # wide enough to be equivalent, if there were room for a difference
    assert result.verdict == ("equivalent" if law is None else "undecided")
    assert ("no verdict: " in result.sentence) == (law is not None)


def test_worse_and_equivalent(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), -0.1))
    assert sweep.only().verdict == "worse"
    result = sweep.only(margin=0.2)
    assert result.verdict == "equivalent" and "within 20 points of each other" in result.sentence and result.p_equivalence is not None
    assert result.p_holm is not None and result.p_holm < 0.05  # a sure difference that does not matter


def test_undecided_says_how_many_seeds(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5, 0.005))
    sweep.arm("jepa", dict(zip(SEEDS, (0.5, 0.52, 0.49, 0.5, 0.515), strict=True)))
    result = sweep.only(margin=0.012)
    assert result.verdict == "undecided" and result.p is not None and result.p > 0.05
    assert result.detectable[5] > result.detectable[10] > result.detectable[20]
    assert result.seeds_needed is not None
    more = result.seeds_needed - 5
    assert ("although" in result.sentence) if more <= 0 else (f"{more} more seed" in result.sentence)
    tiny = sweep.only(margin=0.0001)
    assert tiny.seeds_needed is None and "the test set is too small" in tiny.sentence


def test_holm_runs_over_all_claims_of_the_folder_and_controls_are_apart(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    for i in range(3):
        sweep.arm(f"jepa{i}", shifted(around(0.5), 0.02 * i, 0.005), k=i)
    sweep.arm("shuffled", shifted(around(0.5), 0.1), control="shuffled")
    report = sweep.report()
    assert report.family == {"claims": 3, "claims tested": 3, "controls": 1, "controls tested": 1}
    claims = [result for result in report.verdicts if result.kind == "claim"]
    raw = sorted(result.p for result in claims if result.p is not None)
    smallest = min(claims, key=lambda result: result.p or 1)
    assert smallest.p_holm == pytest.approx(3 * 1.5 * raw[0])
    (control,) = (result for result in report.verdicts if result.kind == "control")
    assert control.p is not None and control.p_holm == pytest.approx(1.5 * control.p) and "control, better" in render("x", report)


def test_a_claim_that_cannot_be_tested_still_counts(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), 0.1))
    sweep.trial("other", 82, 0.6, k=2)
    report = sweep.report()
    assert report.family["claims"] == 2 and report.family["claims tested"] == 1
    good, single = sorted(report.verdicts, key=lambda result: result.method)
    assert good.p is not None and good.p_holm == pytest.approx(2 * 1.5 * good.p)
    assert "cannot be tested: 1 seed says nothing about the spread" in single.sentence
    assert any("Confirmed in one of the two arms only, so left out: seeds 4, 23, 37, 84." in note for note in single.notes)


def test_a_gain_of_stopping_only_is_not_better(sweep: Sweep) -> None:
    """The public replication: a gain of 18 points in exact answers, and of 0.1 in answers that contain the target."""
    sweep.arm("baseline", around(0.5), contains=0.84)
    sweep.arm("jepa", shifted(around(0.5), 0.18), contains=0.845)
    result = sweep.only()
    assert result.verdict == "undecided" and holds(result)["not only stopping"] is False
    assert "significant" in result.sentence and "only a gain in stopping: prefix" in result.sentence


def test_a_judge_of_its_own_is_not_held_to_the_text(sweep: Sweep) -> None:
    """Answers that are right but differ from the reference (a number after a solution): none starts with it, and the gain is real."""
    sweep.arm("baseline", around(0.5), contains=0.0)
    sweep.arm("jepa", shifted(around(0.5), 0.1), contains=0.0)
    result = sweep.only()
    assert result.verdict == "better" and "prefix +10" in next(r.text for r in result.reasons if r.name == "not only stopping")


def test_equal_flops_is_read_off_the_curves(sweep: Sweep) -> None:
    """The method costs twice as much: at the baseline's 1e9 FLOPs its curve is halfway from 0.3 to 0.7, hence 0.5 against 0.55."""
    sweep.arm("baseline", around(0.5), curve={5e8: 0.4, 1e9: 0.55})
    sweep.arm("jepa", shifted(around(0.5), 0.1), flops=2e9, curve={5e8: 0.3, 1.5e9: 0.7, 2e9: 0.7})
    result = sweep.only()
    reason = next(reason for reason in result.reasons if reason.name == "equal FLOPs")
    assert reason.holds is False and reason.text.startswith("-5.00 points at 1.000e+09") and "5 of 5 seeds" in reason.text
    assert result.verdict == "undecided" and "'equal FLOPs' fails" in result.sentence


def test_equal_flops_that_cannot_be_determined(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), 0.1), flops=2e9)
    result = sweep.only()
    assert holds(result)["equal FLOPs"] is None and "'equal FLOPs' cannot be determined" in result.sentence
    assert "base.evaluation.every" in next(reason.text for reason in result.reasons if reason.name == "equal FLOPs")


def test_the_twin_has_the_same_loss_side(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("baseline-no-stop", around(0.3), train_end_of_turn=False)
    sweep.arm("jepa", shifted(around(0.5), 0.1))
    sweep.arm("jepa-no-stop", shifted(around(0.3), 0.1), train_end_of_turn=False)
    assert {result.kind for result in sweep.report().verdicts if result.method == "jepa-no-stop/llama3"} == {"control"}
    assert {result.method: result.baseline for result in sweep.report().verdicts} == {
        "jepa/llama3": "baseline/llama3",
        "jepa-no-stop/llama3": "baseline-no-stop/llama3",
    }


def test_arms_without_a_twin(sweep: Sweep) -> None:
    sweep.arm("jepa", around(0.5))
    sweep.arm("baseline", around(0.5), family="gemma2")
    report = sweep.report()
    (alone,) = report.verdicts
    assert alone.baseline is None and "jepa/llama3 has no baseline to compare with. No baseline" in alone.sentence
    assert "baseline/gemma2: no method is compared with this baseline." in report.notes
    assert (report.family["claims"], report.family["claims tested"]) == (0, 0)


def test_a_constant_metric(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", around(0.5))
    result = sweep.only()
    assert result.sentence == (
        "equivalent: jepa/llama3 against baseline/llama3: at equal steps, no difference in test_accuracy over 5 seeds x 400 examples; both "
        "are right on exactly the same examples at these seeds, which would be rare if they differed by 1 point (Holm p = 0.0269); both "
        "arms cost the same, so this is also at equal FLOPs. So the method changes nothing that matters."
    )
    assert result.p is None and result.p_equivalence == pytest.approx(1.5 * 0.99**400)
    assert result.conditions[0].text == "no t-test: both arms score exactly the same at all 5 seeds, so there is nothing to test"
    assert any("exactly the same examples (5 seeds x 400 examples)" in note for note in result.notes)
    assert any("agree on all 400 examples" in note for note in result.notes)


def test_scores_that_are_equal_although_answers_differ(sweep: Sweep) -> None:
    """Half of the answers are right in either arm, at every seed, but other halves: nothing to test over seeds, and no equivalence."""
    sweep.arm("baseline", dict.fromkeys(SEEDS, 0.5))
    sweep.hardness = 1 - sweep.hardness
    sweep.arm("jepa", dict.fromkeys(SEEDS, 0.5))
    result = sweep.only()
    assert result.sentence == (
        "undecided: jepa/llama3 against baseline/llama3: at equal steps, no difference in test_accuracy (95 % -10.69 to +10.69) over 5 "
        "seeds x 400 examples; cannot be tested: both arms score exactly the same at all 5 seeds, so there is nothing to test."
    )
    assert result.equivalent is None and "e-" not in result.sentence


def test_differences_that_cancel_out_are_no_difference(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", {seed: score + by for (seed, score), by in zip(around(0.5).items(), (0.01, -0.01, 0.02, -0.02, 0), strict=True)})
    result = sweep.only()
    assert result.p_holm == 1 and result.interval is not None
    between = f"(95 % {100 * result.interval.low:+.2f} to {100 * result.interval.high:+.2f})"
    assert result.sentence.startswith(
        "undecided: jepa/llama3 against baseline/llama3: at equal steps, no difference in test_accuracy "
        f"{between} over 5 seeds x 400 examples, not significant; "
    )
    assert result.sentence.endswith("so this is also at equal FLOPs. So nothing is shown, in either direction.")


def test_a_control_without_gradient_that_was_tuned_to_other_values(sweep: Sweep) -> None:
    """It should equal its baseline; if it does not, a note says why."""
    sweep.arm("baseline", around(0.5), learning_rate=2e-3)
    sweep.arm("jepa-zero", around(0.52), control="zero")
    sweep.arm("jepa-shuffled", around(0.52), control="shuffled")
    zero, shuffled = (result for name in ("jepa-zero", "jepa-shuffled") for result in sweep.report().verdicts if name in result.method)
    assert any(
        "tuned to different values: learning_rate 0.001 against 0.002. Control zero sends no gradient" in note for note in zero.notes
    )
    assert not any("tuned to different values" in note for note in shuffled.notes)


def test_nan_failed_and_other_data(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    scores = shifted(around(0.5), 0.1)
    for seed in SEEDS:
        broken: dict[str, Any] = {"test_accuracy": float("nan")} if seed == 23 else {}
        sweep.trial("jepa", seed, scores[seed], state="FAILED" if seed == 4 else "COMPLETE", **broken)
    report = sweep.report()
    (result,) = report.verdicts
    assert result.seeds == [37, 82, 84]
    assert "test_accuracy is missing or NaN, so left out: seed 23." in result.notes
    assert "jepa/llama3: confirmation seed 4 is FAILED and is ignored: boom." in report.notes
    counts = {line["arm"]: (line["confirm"], line["complete"], line["used"]) for line in report.counts}
    assert counts == {"baseline/llama3": (5, 5, 5), "jepa/llama3": (5, 4, 4)}
    sweep.arm("jepa", around(0.5), task="nl-rx-turk", dataset_sha="x")
    sweep.arm("baseline", around(0.5), task="nl-rx-turk")
    other = next(result for result in sweep.report().verdicts if result.task == "nl-rx-turk")
    assert "confirmed on different data" in other.sentence and other.difference is None


def test_missing_and_mismatched_predictions(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), 0.1), predictions=False)
    sweep.arm("part", shifted(around(0.5), 0.1), examples=range(100), k=2)
    none, part = sorted(sweep.report().verdicts, key=lambda result: result.method)
    assert (
        none.examples is None
        and "5 of 10 confirmation trials have no test predictions, so answers cannot be compared by example." in none.notes
    )
    assert none.verdict == "undecided" and "'interval above 0' cannot be determined" in none.sentence
    assert part.examples == 100 and "no verdict: 100 of 400 examples have a judged answer in all 10 trials" in part.sentence


def test_answers_that_do_not_match_the_scores(sweep: Sweep) -> None:
    """Equal answers with scores 4 points apart are not equality; the tables do not belong together, so there is no verdict."""
    for method, score in (("baseline", 0.5), ("jepa", 0.54)):
        for seed in SEEDS:
            sweep.trial(method, seed, 0.5, test_accuracy=score + 0.001 * (seed % 5))
    result = sweep.only()
    assert result.difference == pytest.approx(0.04) and result.verdict == "undecided" and not result.identical
    assert "no verdict: test_accuracy in the trials table is not the mean of the predictions" in result.sentence


def test_seeds_that_the_plan_does_not_name_are_ignored(sweep: Sweep) -> None:
    """Undecided on five seeds, then five others: pooling them would be a test whose number of seeds grows until it is significant."""
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), 0.1))
    for method, score in (("baseline", 0.5), ("jepa", 0.9)):
        sweep.trial(method, 7, score)
    (sweep.folder / "sweep-1.yaml").write_text("confirm: {seeds: [7, 8]}")
    report = sweep.report()
    assert report.verdicts[0].seeds == sorted(SEEDS) and report.verdicts[0].difference == pytest.approx(0.1, abs=0.002)
    assert "jepa/llama3: ignored, as not (or no longer) in confirm.seeds: seed 7." in report.notes
    # Seeds 7 and 8 were planned before, so these five are a second look: what the first may have spent is gone.
    assert report.verdicts[0].level == pytest.approx(0.05 * 2 / 9)
    assert [(line["complete"], line["used"]) for line in report.counts] == [(6, 5), (6, 5)]
    (sweep.folder / "sweep.yaml").unlink()
    result = sweep.only()
    assert result.verdict == "undecided" and "no verdict: sweep.yaml is missing" in result.sentence


def test_seeds_that_were_added_after_a_verdict(sweep: Sweep) -> None:
    """The sweep recorded the verdict on two seeds: the other three are the second look, wherever they stand in the list."""
    scores, better = around(0.5), shifted(around(0.5), 0.02)
    for seed in (37, 84):
        sweep.trial("baseline", seed, scores[seed])
        sweep.trial("jepa", seed, better[seed])
    results.record_look(sweep.folder, "verdict", (37, 84), (), comparisons(results.read_arms(sweep.folder)))
    for seed in (82, 23, 4):
        sweep.trial("baseline", seed, scores[seed])
        sweep.trial("jepa", seed, better[seed])
    before = sweep.only()
    assert before.history == [2, 3] and before.seeds == [37, 84, 4, 23, 82] and before.p_claim is not None
    results.record_look(sweep.folder, "verdict", SEEDS, (), comparisons(results.read_arms(sweep.folder)))
    assert sweep.only() == before, "the verdict that was just printed is not a further look"
    sweep.trial("late", 82, 0.9)
    (late,) = (verdict for verdict in sweep.report().verdicts if verdict.method == "late/llama3")
    assert late.level == pytest.approx(0.05 * 2 / 27), "a method that was added after two looks"


def test_seeds_that_had_results_cannot_leave(sweep: Sweep) -> None:
    for method, gain in (("baseline", 0.0), ("jepa", 0.02)):
        sweep.arm(method, {seed: score + gain for seed, score in around(0.5).items()})
    results.record_look(sweep.folder, "verdict", SEEDS, (), comparisons(results.read_arms(sweep.folder)))
    path = sweep.folder / "sweep.yaml"
    path.write_text(path.read_text().replace("82, 23, 37", "5, 6, 7"))
    report = sweep.report()
    assert any("seeds 23, 37, 82 left confirm.seeds after results were known" in note for note in report.notes)
    assert report.verdicts[0].verdict == "undecided" and sorted(report.verdicts[0].seeds) == sorted(SEEDS)


def test_a_seed_without_a_matched_run_leaves_equal_flops_undetermined(sweep: Sweep) -> None:
    """It may have diverged at equal FLOPs, which the other seeds would not show."""
    sweep.arm("baseline", around(0.5), curve={5e8: 0.3, 1e9: 0.5})
    scores = shifted(around(0.5), 0.1)
    for seed in SEEDS:
        sweep.trial("jepa", seed, scores[seed], flops=2e9, curve={5e8: 0.4, 2e9: 0.8} if seed != 4 else {1.5e9: 0.5, 2e9: 0.8})
    result = sweep.only()
    assert result.verdict == "undecided" and holds(result)["equal FLOPs"] is None
    assert any("as 1 of 5 seeds are missing" in reason.text for reason in result.reasons)


def test_half_written_tables(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), 0.1))
    victim = next((sweep.folder / "predictions").glob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:100])
    report = sweep.report()
    assert any("1 of 10 files in predictions/ cannot be read and are left out" in note for note in report.notes)
    assert report.verdicts[0].p is not None and report.verdicts[0].examples is None
    victim = next((sweep.folder / "trials").glob("*.parquet"))
    victim.write_bytes(b"PAR1")
    notes = sweep.report().notes
    assert any("1 of 10 files in trials/ cannot be read and are left out" in note for note in notes)
    assert any("Confirmed in one of the two arms only" in note for claim in gather(sweep.folder).claims for note in claim.notes)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1 and more of it PAR1", None], ids=["empty", "cut", "garbage", "folder"])
@pytest.mark.parametrize("place", ["trials/*", "metrics/*", "predictions/*", "arms"])
def test_commands_refuse_damaged_tables_and_write_nothing(
    place: str, damage: bytes | None, sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    """They name the file, and the command that sets it aside."""
    from analysis import panels, paper, planning, summary

    sweep.arm("baseline", around(0.5), curve={1e9: 0.5})
    sweep.arm("jepa", shifted(around(0.5), 0.1), curve={1e9: 0.5})
    results.write_arms(sweep.folder, [])
    victim = sorted(sweep.folder.glob(f"{place}.parquet"))[0]
    victim.unlink()
    if damage is None:
        victim.mkdir()
    else:
        victim.write_bytes(damage)
    before = sorted(sweep.folder.rglob("*"))
    for main, arguments in ((verdict.main, []), (summary.main, []), (panels.main, []), (planning.main, []), (paper.main, ["T3"])):
        with pytest.raises(SystemExit) as end:
            main([*arguments, str(sweep.folder)])
        assert end.value.code == 2
        message = " ".join(capsys.readouterr().err.split())
        assert f"{victim} cannot be read" in message and f"`python -m jepa_ray.sweep {sweep.folder}/sweep.yaml` sets aside" in message
    assert sorted(sweep.folder.rglob("*")) == before


def test_a_sweep_still_running(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.trial("jepa", 82, 0.6)
    plan = "methods: {baseline: null, jepa: {}}\nfamilies: [llama3]\ntask: nl-rx\nconfirm: {seeds: [82, 23, 37, 84, 4]}\n"
    (sweep.folder / "sweep.yaml").write_text(plan)
    notes = sweep.report().notes
    assert any(note.startswith("6 of 10 planned confirmation trials have ended: the sweep is still running") for note in notes)
    assert "jepa/llama3: no trial yet for confirmation seeds 4, 23, 37, 84." in notes
    (sweep.folder / "sweep.yaml").write_text("methods: [")
    assert any("sweep.yaml cannot be read" in note for note in sweep.report().notes)


def test_a_race_that_is_over_is_not_still_running(sweep: Sweep) -> None:
    """Both arms ended at the first look, after three of five seeds; one more seed in one of them is on the way to the second."""
    plan = "methods: {baseline: null, jepa: {}}\nfamilies: [llama3]\ntask: nl-rx\nconfirm: {seeds: [82, 23, 37, 84, 4], race: [3, 5]}\n"
    base = {seed: score for seed, score in around(0.5).items() if seed in SEEDS[:3]}
    sweep.arm("baseline", base)
    sweep.arm("jepa", {seed: score + 0.1 for seed, score in shifted(base | around(0.5), 0.0).items() if seed in SEEDS[:3]})
    (sweep.folder / "sweep.yaml").write_text(plan)
    report = sweep.report()
    assert not any("still running" in note for note in report.notes) and "(raced, stopped at look 1 of 2)" in report.verdicts[0].sentence
    sweep.trial("baseline", 84, 0.5)
    assert any(note.startswith("7 of 8 planned confirmation trials have ended") for note in sweep.report().notes)


def test_the_configuration_confirmed_last_counts(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), -0.2), k=3)
    sweep.arm("jepa", shifted(around(0.5), 0.1), started_at="2026-01-02")
    report = sweep.report()
    assert report.verdicts[0].verdict == "better"
    assert any("5 of 10 confirmation trials are from another configuration" in note for note in report.notes)


def test_four_tasks_are_summed_up(sweep: Sweep) -> None:
    for i, task in enumerate(("nl-rx", "nl-rx-turk", "gsm8k", "yelp")):
        base = around(0.3 + 0.1 * i)
        sweep.arm("baseline", base, task=task)
        sweep.arm("jepa", shifted(base, 0.1, 0.0), task=task)
    report = sweep.report()
    (line,) = report.across_tasks
    assert len(line["tasks"]) == 4 and line["aggregate"]["pairs"] == 20
    assert line["aggregate"]["difference"]["estimate"] == pytest.approx(0.1, abs=0.003)
    assert "over 4 tasks and 20 pairs of runs: IQM" in render("x", report)


def test_command_line(sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), -0.1))
    assert verdict.main([str(sweep.folder)]) == 0
    printed = capsys.readouterr().out
    for words in (
        "worse: jepa/llama3",
        "Holm over 1 claim (1 tested)",
        "5 seeds x 400 examples",
        "Trials by arm",
        "n = 5",
    ):
        assert words in printed
    assert verdict.main([str(sweep.folder), "--json", "--metric", "test_contains", "--margin", "0.02"]) == 0
    parsed = json.loads(capsys.readouterr().out)[str(sweep.folder)]
    assert (parsed["metric"], parsed["margin"], parsed["verdicts"][0]["verdict"]) == ("test_contains", 0.02, "worse")
    for arguments in ([str(tmp_path / "gone")], [str(sweep.folder), "--metric", "test_ce"], [str(sweep.folder), "--margin", "0"], []):
        with pytest.raises(SystemExit) as stop:
            verdict.main(arguments)
        assert stop.value.code == 2


def test_an_empty_sweep_is_an_answer(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep.folder / "trials").mkdir(parents=True)
    assert verdict.main([str(sweep.folder)]) == 0
    assert "No trial has finished yet" in capsys.readouterr().out
    sweep.trial("jepa", 1, 0.5, stage="search")
    assert "jepa/llama3: no COMPLETE confirmation trial, so no claim." in sweep.report().absent


def test_arms_without_results_are_in_the_verdict(sweep: Sweep) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), 0.1))
    for k in (1, 2):
        sweep.trial("l2", 1, 0.5, stage="search", state="FAILED", k=k)
    sweeps.declare(sweep.folder, "mse")
    report = sweep.report()
    assert report.absent == ["l2/llama3: all 2 trials FAILED, so no claim.", "mse/llama3: not run, so no claim."]
    assert all(sentence in render("x", report) for sentence in report.absent)
    assert [(line["arm"], line["search"], line["used"]) for line in report.counts][-1] == ("mse/llama3", 0, 0)
    assert report.family["claims"] == 3


def test_a_folder_whose_arms_are_not_known_says_so_and_why(sweep: Sweep) -> None:
    """A folder of an earlier version, whose sweep.yaml has a key that no longer exists."""
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), 0.1))
    (sweep.folder / "arms.parquet").unlink()
    plan = {"name": "old", "methods": {"baseline": None, "jepa": {}}, "confirm": {"seeds": list(SEEDS), "sedes": 3}}
    (sweep.folder / "sweep.yaml").write_text(json.dumps(plan))
    report = sweep.report()
    shown = render("x", report)
    assert "No claim: the arms are unknown." in shown and "no method was confirmed" not in shown
    assert "confirm.sedes: unknown key; did you mean" in shown and "correct sweep.yaml there" in shown
    assert shown.count("confirm.sedes") == 1
    assert "No differences, as it is unknown which arms are compared." in summarise(read(sweep.folder, curves=())).notes
    del plan["confirm"]["sedes"]  # type: ignore[attr-defined]
    (sweep.folder / "sweep.yaml").write_text(json.dumps(plan))
    assert sweep.only().verdict == "better"


@pytest.mark.parametrize(("by", "margin", "verdict"), [(0.1, 0.01, "better"), (-0.1, 0.01, "worse"), (0.0, 0.05, "equivalent")])
def test_the_sentence_says_on_which_questions_a_verdict_rests(by: float, margin: float, verdict: str, sweep: Sweep) -> None:
    for method, scores in (("baseline", around(0.5)), ("jepa", shifted(around(0.5), by))):
        sweep.arm(method, scores, leaked=range(133))
    result = sweep.only(margin=margin)
    rests = "the verdict also holds without them" if verdict == "better" else "the verdict includes them"
    assert result.verdict == verdict
    assert f"; 33.2 % of the test questions are also in training or validation; {rests}. So the method " in result.sentence


def test_fewer_marks_than_were_counted_leave_better_undetermined(sweep: Sweep) -> None:
    """Thirty more questions are in training, among those that seem clean."""
    for method, scores in (("baseline", around(0.5)), ("jepa", shifted(around(0.5), 0.1))):
        sweep.arm(method, scores, leaked=range(10), overlap_text=40)
    result = sweep.only()
    assert result.verdict == "undecided" and holds(result)["without leaked examples"] is None


def test_a_leaked_question_that_was_too_long_has_no_mark_and_hides_no_other(sweep: Sweep) -> None:
    for method, scores in (("baseline", around(0.5)), ("jepa", shifted(around(0.5), 0.1))):
        sweep.arm(method, scores, leaked=range(133), overlap_text=135, dropped_examples=2)
    assert sweep.only().verdict == "better"


@pytest.mark.parametrize("damage", ["overwritten", "another table", "no row"])
def test_files_whose_ends_are_whole_are_read_to_their_end(damage: str, sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.arm("baseline", around(0.5))
    sweep.arm("jepa", shifted(around(0.5), 0.1))
    victim = sorted((sweep.folder / "trials").glob("*.parquet"))[0]
    raw = victim.read_bytes()
    if damage == "overwritten":
        victim.write_bytes(raw[:4] + b"\xff" * (len(raw) // 8) + raw[4 + len(raw) // 8 :])
    else:
        (pd.DataFrame({"trial_id": [[1]]}) if damage == "another table" else pd.read_parquet(victim).head(0)).to_parquet(victim)
    with pytest.raises(SystemExit) as end:
        verdict.main([str(sweep.folder)])
    assert end.value.code == 2 and f"{victim} cannot be read" in " ".join(capsys.readouterr().err.split())


def test_metrics_that_have_answers_behind_them() -> None:
    assert split_of("val_prefix") == ("val", "prefix_correct")
    with pytest.raises(ValueError, match=r"mean over answers.*test_accuracy.*not 'test_stopped'"):
        split_of("test_stopped")
