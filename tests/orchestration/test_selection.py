"""What runs after the search: the seeds of a race, and pairs at equal FLOPs. (Selection itself: test_run.py.)"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa_ray import plan, results
from jepa_ray.config import SweepConfig, TrialConfig, arms, config_id
from jepa_ray.orchestration.jobs import confirmation
from jepa_ray.orchestration.selection import confirmations, matched, race
from jepa_ray.results import TrialResult
from tests import fake_training as fake

SEEDS = (5, 6, 7, 8)


def identify(arm: str, config: TrialConfig) -> str:
    return config_id(config, fake.SHA)


def sweep_of(folder: Path, **changes: Any) -> SweepConfig:
    methods = {"base": "none", "jepa": {}, "l2": {"distance": "l2"}, "shuffled": {"control": "shuffled"}}
    sweep = fake.make_sweep(folder, **{"methods": methods, "confirm": {"seeds": SEEDS, "race": [2, 3, 4]}, **changes})
    results.declare_arms(folder, sweep)
    return sweep


def chosen(sweep: SweepConfig) -> dict[str, TrialConfig]:
    return {arm.name: plan.trial_config(sweep, arm, {}) for arm in arms(sweep)}


def write(folder: Path, config: TrialConfig, arm: str, score: float | None, flops: float, state: str = "COMPLETE") -> None:
    summary = {"test_accuracy": score, "train_flops": flops, "train_flops_unpacked": flops}
    results.write_trial(folder, identify(arm, config), config, arm, "confirm", TrialResult(state, None, summary))  # type: ignore[arg-type]


def test_a_race_asks_about_each_comparison_and_ends_what_is_decided(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    selection, scores = chosen(sweep), {"base": 0.5, "jepa": 0.6, "l2": 0.5, "shuffled": 0.4}
    for arm, config in confirmations(selection, selection, SEEDS[:2]):
        write(tmp_path, confirmation(config, config.seed), arm, scores[arm.partition("/")[0]] + config.seed / 100, 1e9)
    asked: list[tuple[list[float], int]] = []

    def decide(differences: Sequence[float], look: int) -> tuple[bool, str]:
        asked.append(([round(difference, 6) for difference in differences], look))
        return abs(differences[0]) > 0.05, "there is no difference"

    going, sentences = race(sweep, tmp_path, selection, list(selection), 2, identify=identify, decide=decide)
    assert asked == [([0.1, 0.1], 2), ([0.0, 0.0], 2), ([-0.1, -0.1], 2)]
    assert going == ["base/llama3", "jepa/llama3", "shuffled/llama3"], "a baseline continues as long as one of its comparisons does"
    assert sentences == ["l2/llama3 against base/llama3 ends after 2 of 4 seeds: there is no difference"]
    # Arms that have ended are not decided again; if no comparison continues, neither does the baseline.
    assert race(sweep, tmp_path, selection, going, 3, identify=identify, decide=lambda *_: (False, "enough"))[0] == []


def test_a_race_leaves_arms_alone_that_are_compared_with_nothing(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, methods={"jepa": {}, "l2": {"distance": "l2"}})
    selection = chosen(sweep)
    assert race(sweep, tmp_path, selection, list(selection), 2, identify=identify, decide=lambda *_: (False, ""))[0] == list(selection)


def test_a_seed_that_failed_is_no_difference(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, methods={"base": "none", "jepa": {}})
    selection = chosen(sweep)
    for arm, config in confirmations(selection, selection, SEEDS[:2]):
        write(tmp_path, config, arm, 0.5, 1e9, "FAILED" if arm.startswith("jepa") and config.seed == 6 else "COMPLETE")
    seen: list[int] = []
    race(
        sweep,
        tmp_path,
        selection,
        list(selection),
        2,
        identify=identify,
        decide=lambda differences, _: (seen.append(len(differences)) is None, ""),
    )
    assert seen == [1]


def test_the_more_expensive_of_each_pair_gets_the_flops_of_the_cheaper(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    selection = chosen(sweep)
    flops = {"base": 1.0e9, "jepa": 1.7e9, "l2": 1.01e9, "shuffled": 1.7e9}
    for arm, config in confirmations(selection, selection, SEEDS):
        method = arm.partition("/")[0]
        # One seed of jepa is cheaper than the baseline; another failed.
        spent = 0.8e9 if (method, config.seed) == ("jepa", 7) else flops[method] + config.seed
        write(tmp_path, config, arm, 0.5, spent, "FAILED" if (method, config.seed) == ("jepa", 8) else "COMPLETE")
    pairs, sentences = matched(sweep, tmp_path, selection, identify)
    assert sentences == []
    assert [(arm, config.seed, config.optim.max_train_flops) for arm, config in pairs] == [
        ("jepa/llama3", 5, 1e9 + 5),
        ("jepa/llama3", 6, 1e9 + 6),
        ("base/llama3", 7, 0.8e9),
    ], "l2 costs the same within 2 %, shuffled is a control, and seed 8 has no pair"
    for arm, config in pairs:
        free = config.model_copy(update={"optim": config.optim.model_copy(update={"max_train_flops": None})})
        assert free == confirmation(selection[arm], config.seed) and config.evaluation.test


def test_the_budget_is_in_flops_that_do_not_depend_on_micro_batches(tmp_path: Path) -> None:
    """By computed FLOPs, jepa is the cheaper one here; by FLOPs without packing, it is the more expensive one."""
    sweep = sweep_of(tmp_path, methods={"base": "none", "jepa": {}})
    selection = chosen(sweep)
    for arm, config in confirmations(selection, selection, SEEDS[:1]):
        computed, unpacked = (2e9, 3e9) if arm.startswith("base") else (1e9, 5e9)
        summary: dict[str, Any] = {"test_accuracy": 0.5, "train_flops": computed, "train_flops_unpacked": unpacked}
        results.write_trial(tmp_path, identify(arm, config), config, arm, "confirm", TrialResult("COMPLETE", summary=summary))
    pairs, sentences = matched(sweep, tmp_path, selection, identify)
    assert sentences == []
    assert [(arm, config.optim.max_train_flops) for arm, config in pairs] == [("jepa/llama3", 3e9)]


def test_nothing_is_matched_with_a_first_stage(tmp_path: Path) -> None:
    stage = {"data": {"task": "paraphrase"}}
    sweep = sweep_of(tmp_path, methods={"base": "none", "jepa": {}}, pretrain=stage)
    selection = chosen(sweep)
    for number, (arm, config) in enumerate(confirmations(selection, selection, SEEDS)):
        write(tmp_path, config, arm, 0.5, 1e9 * (1 + number % 2))
    assert matched(sweep, tmp_path, selection, identify) == ([], [])


def test_trials_without_the_count_of_budgets_are_not_matched(tmp_path: Path) -> None:
    """Rows of earlier versions: by computed FLOPs, jepa would be the more expensive one, but budgets have another unit."""
    sweep = sweep_of(tmp_path, methods={"base": "none", "jepa": {}})
    selection = chosen(sweep)
    for arm, config in confirmations(selection, selection, SEEDS[:3]):
        flops = 1e9 if arm.startswith("base") else 2e9
        lacks = config.seed == 5 or (config.seed == 6 and arm.startswith("jepa"))
        summary: dict[str, Any] = {"test_accuracy": 0.5, "train_flops": flops} | ({} if lacks else {"train_flops_unpacked": flops})
        results.write_trial(tmp_path, identify(arm, config), config, arm, "confirm", TrialResult("COMPLETE", summary=summary))
    pairs, sentences = matched(sweep, tmp_path, selection, identify)
    assert [(arm, config.seed) for arm, config in pairs] == [("jepa/llama3", 7)]
    (sentence,) = sentences
    assert sentence.startswith("jepa/llama3 against base/llama3: not matched at equal FLOPs on seeds 5, 6, as not both trials have")


def test_a_race_uses_the_metric_of_the_verdict_not_of_the_search(tmp_path: Path) -> None:
    methods = {"base": "none", "jepa": {}}
    sweep = sweep_of(tmp_path, methods=methods, search={"num_trials": 1, "metric": "val_prefix"})
    selection = chosen(sweep)
    for arm, config in confirmations(selection, selection, SEEDS[:2]):
        scores: dict[str, Any] = {"test_accuracy": 0.6 if arm.startswith("jepa") else 0.5, "test_prefix": 0.9}
        results.write_trial(tmp_path, identify(arm, config), config, arm, "confirm", TrialResult("COMPLETE", summary=scores))
    asked: list[float] = []
    race(
        sweep,
        tmp_path,
        selection,
        list(selection),
        2,
        identify=identify,
        decide=lambda differences, _: (bool(asked.extend(differences)), ""),
    )
    assert asked == [0.6 - 0.5] * 2
