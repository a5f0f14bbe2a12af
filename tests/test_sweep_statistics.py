"""What a sweep asks of analysis: the power of its plan, and the rule of its race."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from analysis import planning
from analysis.stats import sequential
from jepa_ray import plan
from jepa_ray.config import SweepConfig, arms
from jepa_ray.plan.load import dump
from jepa_ray.sweep import detectable, race_rule, verdict
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


def test_a_sweep_ends_with_its_verdict(tmp_path: Path) -> None:
    """Sentences of the claims and what came out at equal FLOPs; nothing where nothing was confirmed."""
    sweep = fake.make_sweep(tmp_path, methods={"baseline": "none", "jepa": {}}, confirm={"seeds": [82, 23, 37]})
    folder = tmp_path / "fake"
    for seed, level in ((82, 0.5), (23, 0.52), (37, 0.49)):
        sweeps.add(folder, "baseline", "confirm", level, seed=seed, examples=200)
        sweeps.add(folder, "jepa", "confirm", level + 0.1 + seed / 10000, seed=seed, examples=200)
    (folder / "sweep.yaml").write_text(dump(sweep))
    sentence, flops = verdict(sweep, folder)
    assert "jepa/llama3 against baseline/llama3: +10" in sentence and flops.startswith("    equal FLOPs: ")
    assert verdict(fake.make_sweep(tmp_path), folder) == []
