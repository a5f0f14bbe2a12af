"""What a sweep asks of analysis: the power of its plan, and the rule of its race."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from analysis import planning
from analysis.protocol.claims import gather
from analysis.stats import sequential
from analysis.verdict import judge
from jepa_ray import plan
from jepa_ray.config import SweepConfig, arms
from jepa_ray.judging import detectable, further, race_rule, verdict, with_more
from jepa_ray.plan.load import dump
from jepa_ray.results import read_looks
from tests import fake_training as fake
from tests.analysis import sweeps

METHODS = {"baseline": "none", "jepa": {}, "l2": {"distance": "l2"}}


def sweep_of(**changes: Any) -> SweepConfig:
    return SweepConfig.model_validate({"name": "x", "methods": METHODS, **changes})


def estimates(sweep: SweepConfig, examples: dict[str, int]) -> dict[str, plan.Estimate]:
    return {arm.name: plan.Estimate(10, 1e3, 1e6, 1e6, examples[arm.task]) for arm in arms(sweep)}


def test_the_plan_says_what_its_own_seeds_and_examples_detect() -> None:
    sweep = sweep_of(controls=["shuffled"], confirm={"seeds": [2, 3, 4, 5], "margin": 0.02, "sd_seed": 0.02, "discordance": 0.2})
    told = detectable(sweep, arms(sweep), estimates(sweep, {"nl-rx": 400}))
    # Two claims: controls are a family of their own.
    assert told == planning.lines(planning.stated(400, 0.02, 0.2), seeds=4, examples=400, claims=2, margin=0.02)
    assert re.search(r"4 seeds x 400 examples \(power 0.8, 2 claims\).*5 seeds.*10 seeds.*20 seeds", told[0])


def test_tasks_with_other_test_sets_have_their_own_lines() -> None:
    sweep = sweep_of(task=["nl-rx", "gsm8k", "spider"])
    told = detectable(sweep, arms(sweep), estimates(sweep, {"nl-rx": 400, "gsm8k": 400, "spider": 90}))
    assert [line.partition(":")[0] for line in told if "can detect" in line] == ["nl-rx, gsm8k", "spider"]


@pytest.mark.parametrize("changes", [{"confirm": {"seeds": []}}, {"methods": {"jepa": {}}}])
def test_nothing_is_promised_where_nothing_is_compared(changes: dict[str, Any]) -> None:
    sweep = sweep_of(**changes)
    assert detectable(sweep, arms(sweep), estimates(sweep, {"nl-rx": 400})) == []


def test_one_seed_cannot_be_tested_and_the_plan_says_how_many_could() -> None:
    sweep = sweep_of(confirm={"seeds": [2], "sd_seed": 0.02, "discordance": 0.2})
    first, second = detectable(sweep, arms(sweep), estimates(sweep, {"nl-rx": 400}))
    assert first.startswith("one seed cannot be tested") and second == "based on " + planning.stated(400, 0.02, 0.2).origin
    # The differences are those that a plan with these seeds states.
    for seeds, points in re.findall(r"(\d+) seeds: ([\d.]+) points", first):
        wanted = planning.lines(planning.stated(400, 0.02, 0.2), seeds=int(seeds), examples=400, claims=2)[0]
        assert wanted.startswith(f"can detect {points} points with {seeds} seeds")
    assert first.count("seeds: ") == 3


def test_a_pilot_that_has_nothing_to_offer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    sweep = sweep_of(confirm={"pilot": str(tmp_path)})
    with pytest.raises(ValueError, match="pilot"):
        detectable(sweep, arms(sweep), estimates(sweep, {"nl-rx": 400}))


def test_the_race_asks_at_the_level_of_all_claims() -> None:
    assert race_rule(sweep_of(), arms(sweep_of())) is None
    sweep = sweep_of(confirm={"seeds": list(range(2, 8)), "race": [3, 6], "margin": 0.02})
    rule = race_rule(sweep, arms(sweep))
    assert rule is not None
    for differences in ([0.05, 0.01, 0.03], [0.0, 0.001, -0.001], [0.3, 0.31, 0.3]):
        found = sequential.decide(differences, 3, (3, 6), 0.02, 0.05 * 2 / 3 / 2)
        assert rule(differences, 3) == (found.go_on, found.reason)
    assert rule([0.05, 0.01, 0.03], 3)[0] and not rule([0.0, 0.001, -0.001], 3)[0]


def test_looks_must_rise_to_all_seeds() -> None:
    for looks in ([3, 4], [5, 3], [1, 5], [3, 3, 5]):
        with pytest.raises(ValueError, match="race must rise"):
            sweep_of(confirm={"seeds": [2, 3, 4, 5, 6], "race": looks})


def confirmed(folder: Path, seeds: Sequence[int], gain: float) -> None:
    """Both arms on these seeds; the method is right on `gain` more of the same 200 examples, give or take some."""
    for place, seed in enumerate(seeds):
        level = 0.5 + 0.02 * (seed % 3 - 1)
        sweeps.add(folder, "baseline", "confirm", level, seed=seed, examples=200)
        sweeps.add(folder, "jepa", "confirm", level + gain + 0.01 * (place % 3 - 1), seed=seed, examples=200)


def test_a_sweep_ends_with_its_verdict(tmp_path: Path) -> None:
    """One sentence with a clause for equal steps and one for equal FLOPs; nothing where nothing was confirmed."""
    sweep = fake.make_sweep(tmp_path, methods={"baseline": "none", "jepa": {}}, confirm={"seeds": [82, 23, 37]})
    folder = tmp_path / "fake"
    confirmed(folder, (82, 23, 37), 0.1)
    (folder / "sweep.yaml").write_text(dump(sweep))
    (sentence,) = verdict(sweep, folder)
    assert "jepa/llama3 against baseline/llama3: at equal steps, +10" in sentence and "at equal FLOPs" in sentence
    assert verdict(fake.make_sweep(tmp_path), folder) == []


def test_a_sweep_that_decides_for_itself(tmp_path: Path) -> None:
    """Each look is recorded with the seeds that follow, which a sweep that was killed finds again; then the plan is those seeds."""
    confirm = {"seeds": [82, 23, 37], "until": "decided", "max_seeds": 9, "margin": 0.02}
    sweep = fake.make_sweep(tmp_path, methods={"baseline": "none", "jepa": {}}, confirm=confirm)
    folder = tmp_path / "fake"
    confirmed(folder, (82, 23, 37), 0.01)
    (folder / "sweep.yaml").write_text(dump(sweep))
    ask = further(sweep, folder)
    assert ask is not None
    seeds, (sentence,) = ask((82, 23, 37))
    assert seeds[:3] == (82, 23, 37) and 3 < len(seeds) <= 9 and sweep.base.seed not in seeds
    assert (
        sentence.startswith("jepa/llama3 against baseline/llama3 is undecided after 3 seeds: ") and f"going on to {len(seeds)}" in sentence
    )
    (look,) = read_looks(folder)
    assert look.planned == seeds and sorted(look.trials.values()) == [23, 23, 37, 37, 82, 82]
    assert further(sweep, folder)((82, 23, 37)) == (seeds, []), "killed here, it runs the same seeds, without another look"  # type: ignore[misc]
    more, (why,) = ask(seeds)
    assert len(read_looks(folder)) == 1 and more == () and "stays undecided: 3 of" in why, "a seed that failed ends it, and is said"
    confirmed(folder, seeds[3:], 0.2)
    (after,) = judge(gather(folder)).verdicts
    assert after.complete and after.history == [3, len(seeds) - 3]
    assert ask(seeds)[0] == () or after.verdict == "undecided"
    assert further(fake.make_sweep(tmp_path), folder) is None


def test_further_seeds_do_not_depend_on_how_many_are_asked_for() -> None:
    few, many = with_more((5, 6), 4, taken=1), with_more((5, 6), 9, taken=1)
    assert many[:4] == few and len(set(many)) == 9 and with_more(many, 3, taken=1) == many
    assert many[2] not in with_more((5, 6), 9, taken=many[2])


@pytest.mark.parametrize(
    ("confirm", "sentence"),
    [
        ({"race": [2, 3], "seeds": [2, 3, 4]}, "cannot be combined with race"),
        ({"max_seeds": 4}, "max_seeds is 4, fewer than the 5 of confirm.seeds"),
        ({"seeds": [2]}, "starts from at least two seeds"),
    ],
)
def test_a_sweep_that_could_not_decide_for_itself(confirm: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sweep_of(confirm={"until": "decided", **confirm})
