"""Warm starts: the trials taken from earlier sweeps' tables, their order, and that a resumed sweep continues unchanged."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jepa_ray import plan, results
from jepa_ray.config import SweepConfig, arms, columns
from jepa_ray.config.messages import SEARCHABLE, leaves_of
from jepa_ray.config.space import Distribution
from jepa_ray.orchestration.studies import ArmStudy, open_storage
from jepa_ray.plan import describe as planned
from jepa_ray.plan import warm_start
from jepa_ray.plan.load import ConfigError, dump, load_sweep
from jepa_ray.plan.warm_start import Earlier, best, column_of, misfit, nearest, place
from jepa_ray.results import TrialResult
from tests import fake_training as fake
from tests.sweep_files import SOUND, refused_once, writer

SPACE = {"optim.learning_rate": {"float": [0.001, 0.1], "log": True}, "objective.k": {"int": [0, 4]}}


def describe(sweep: SweepConfig, *more: Any, **named: Any) -> str:
    return planned.describe(sweep, arms(sweep), *more, **named)


def earlier(folder: Path, trials: Sequence[tuple[float, int, float, str]], name: str = "old", method: str = "jepa") -> str:
    """The folder of a sweep with these (learning rate, k, score, state) trials."""
    sweep = fake.make_sweep(folder, name=name, families=["gemma2"], methods={method: {}}, space=SPACE)
    arm = arms(sweep)[0]
    for number, (rate, k, score, state) in enumerate(trials):
        config = plan.trial_config(sweep, arm, {"optim.learning_rate": rate, "objective.k": k})
        result = TrialResult(state, None, {"val_accuracy": score})  # type: ignore[arg-type]
        results.write_trial(folder / name, f"{number:016x}", config, arm.name, "search", result)
    return str(folder / name)


def new(folder: Path, *warm_start: str, **changes: Any) -> SweepConfig:
    """A sweep of llama3 that starts from earlier ones."""
    search = {"num_trials": 6, "warm_start": list(warm_start), **changes.pop("search", {})}
    return fake.make_sweep(folder, **{"space": SPACE, "search": search} | changes)


def suggestions(sweep: SweepConfig, folder: Path, count: int, method: str = "jepa") -> list[dict[str, Any]]:
    """The next suggestions of the arm's study in `folder`, each with a reported value."""
    folder.mkdir(exist_ok=True)
    study = ArmStudy(sweep, next(arm for arm in arms(sweep) if arm.method == method), open_storage(folder))
    out = []
    for _ in range(count):
        suggestion = study.ask()
        assert suggestion is not None
        study.tell(suggestion.number, "COMPLETE", float(suggestion.params["optim.learning_rate"]))
        out.append(suggestion.params)
    return out


TRIALS = [
    (0.003, 2, 0.5, "COMPLETE"),
    (0.004, 3, 0.7, "COMPLETE"),
    (0.005, 0, 0.9, "PRUNED"),
    (0.006, 1, 0.6, "COMPLETE"),
    (0.05, 4, 0.1, "COMPLETE"),
]


def test_the_best_complete_trials_come_after_the_defaults(tmp_path: Path) -> None:
    sweep = new(tmp_path, earlier(tmp_path, TRIALS))
    first = suggestions(sweep, tmp_path / "s", 4)
    assert first[0] == plan.defaults(sweep, arms(sweep)[1])
    assert [(p["optim.learning_rate"], p["objective.k"]) for p in first[1:]] == [(0.004, 3), (0.006, 1), (0.003, 2)]
    # The earlier sweep has no baseline, so that arm starts as usual.
    assert suggestions(sweep, tmp_path / "s", 2, "base") == suggestions(new(tmp_path), tmp_path / "without", 2, "base")


def test_a_resumed_sweep_continues_unchanged(tmp_path: Path) -> None:
    """Even if the earlier sweep has changed meanwhile: the study has stored its suggestions."""
    folder = earlier(tmp_path, TRIALS)
    sweep = new(tmp_path, folder)
    straight = suggestions(sweep, tmp_path / "straight", 6)
    first = suggestions(sweep, tmp_path / "resumed", 2)
    (tmp_path / "old" / "trials" / f"{3:016x}.parquet").unlink()
    assert first + suggestions(sweep, tmp_path / "resumed", 4) == straight
    assert len({str(params) for params in straight}) == 6


def test_a_sweep_that_is_extended_by_a_folder_also_tries_its_best(tmp_path: Path) -> None:
    one, two = earlier(tmp_path, TRIALS), earlier(tmp_path, [(0.09, 1, 0.8, "COMPLETE")], "two")
    first = suggestions(new(tmp_path, one), tmp_path / "s", 4)
    after = suggestions(new(tmp_path, one, two), tmp_path / "s", 1)
    assert after == [{"optim.learning_rate": 0.09, "objective.k": 1}] and after[0] not in first


def test_a_warm_start_does_not_change_the_identity_of_trials(tmp_path: Path) -> None:
    warm, cold = new(tmp_path, earlier(tmp_path, TRIALS)), new(tmp_path)
    params = {"optim.learning_rate": 0.004, "objective.k": 3}
    for one, other in zip(arms(warm), arms(cold), strict=True):
        applied = {path: value for path, value in params.items() if path in plan.space(warm, one)}
        assert plan.trial_config(warm, one, applied) == plan.trial_config(cold, other, applied)


def test_ranks_are_averaged_over_arms() -> None:
    """Relative ranks are 1/8, 3/8, 5/8, 7/8 in a (4 trials), 1/4 and 3/4 in b (2 trials). w: (1/8 + 3/4) / 2; x: (3/8 + 1/4) / 2."""
    scores = {"a": {"w": 0.9, "x": 0.8, "y": 0.2, "z": 0.1}, "b": {"x": 40.0, "w": 10.0}}
    trials = [Earlier(arm, {"knob": name}, score) for arm, of_arm in scores.items() for name, score in of_arm.items()]
    assert [params["knob"] for params in best(trials, 9)] == ["x", "w", "y", "z"]
    assert best(trials, 1) == [{"knob": "x"}]
    level = [Earlier("a", {"knob": name}, 0.5) for name in "pqr"]
    assert [params["knob"] for params in best(level, 2)] == ["p", "q"], "of equals, the first"


@pytest.mark.parametrize(
    ("distribution", "value", "expected"),
    [
        ({"float": [1, 4]}, 2.5, 2.5),
        ({"float": [1, 4]}, 9.0, 4.0),
        ({"float": [0, 1], "step": 0.3}, 0.8, 0.9),
        ({"float": [0, 1], "step": 0.3}, 5.0, 0.9),
        ({"int": [0, 4]}, 2.0, 2),
        ({"int": [0, 4]}, 7.0, 4),
        ({"int": [1, 9], "step": 4}, 6.0, 5),
        ({"choice": [0, 0.5, 0.75]}, 0.6, 0.5),
        ({"choice": ["cosine", "l2"]}, "l2", "l2"),
        ({"choice": [None, 2]}, None, None),
        ({"choice": [True, False]}, True, True),
    ],
)
def test_a_value_is_moved_to_the_nearest(distribution: dict[str, Any], value: Any, expected: Any) -> None:
    moved = nearest(Distribution.model_validate(distribution), value)
    assert moved == expected and type(moved) is type(expected)
    assert Distribution.model_validate(distribution).contains(moved)


def test_unknown_words_and_missing_values_have_no_place() -> None:
    space = {
        "objective.distance": Distribution.model_validate({"choice": ["cosine", "l2"]}),
        "objective.loss_dropout": Distribution.model_validate({"choice": [0, 0.5], "when": {"objective.distance": ["l2"]}}),
    }
    values = {"objective.distance": "l2", "objective.loss_dropout": 0.4}
    assert place(values, space) == ({"objective.distance": "l2", "objective.loss_dropout": 0.5}, True)
    assert place(values | {"objective.distance": "cosine"}, space) == ({"objective.distance": "cosine"}, False)
    assert place(values | {"objective.distance": "infonce"}, space) is None
    assert place(values | {"objective.loss_dropout": float("nan")}, space) is None


def test_every_parameter_that_can_be_searched_has_its_column() -> None:
    paths = [f"{part}.{leaf}" for part in SEARCHABLE for leaf in leaves_of(part)]
    assert len(paths) > 40
    assert [path for path in paths if column_of(path) not in results.CONFIG] == []
    sweep = fake.make_sweep(Path("unused"), base={"lora": {}, "optim": {"num_epochs": 3}})
    changed = {
        "optim.learning_rate": 0.5,
        "lora.r": 3,
        "lora.alpha": 7.0,
        "objective.lambda": 5.0,
        "objective.distance": "mse",
        "objective.k": 2,
    }
    row = columns(plan.trial_config(sweep, arms(sweep)[1], changed))
    assert {path: row[column_of(path)] for path in changed} == changed


def test_the_plan_lists_the_earlier_trials_in_use(tmp_path: Path) -> None:
    folder = earlier(tmp_path, TRIALS)
    space = {**SPACE, "objective.k": {"int": [0, 3]}}
    text = describe(new(tmp_path, folder, space=space))
    assert f"jepa: the best 3 of 4 trials of {folder} jepa/gemma2 are tried after the method's own values (1 moved to the nearest" in text
    assert "base: no earlier trials to start from" in text
    assert "  start  " not in describe(new(tmp_path))


def test_smaller_is_better_with_mode_min(tmp_path: Path) -> None:
    start = warm_start.read([earlier(tmp_path, TRIALS)], "jepa", new(tmp_path).space, "val_accuracy", "min")
    assert start.suggestions[0] == {"optim.learning_rate": 0.05, "objective.k": 4}


def test_an_unusable_folder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    sound = writer(tmp_path)(SOUND)
    refused_once(
        sound, f"search.warm_start={tmp_path}/absent", f"search.warm_start (override): the folder {tmp_path}/absent does not exist"
    )
    (tmp_path / "empty").mkdir()
    refused_once(sound, f"search.warm_start={tmp_path}/empty", f"search.warm_start (override): {tmp_path}/empty has no trials table")
    other = earlier(tmp_path, TRIALS, "other", "tube")
    refused_once(
        sound, f"search.warm_start={other}", f"search.warm_start (override): {other} has trials of tube only, none of this sweep's methods"
    )
    unfinished = earlier(tmp_path, [TRIALS[2]], "unfinished")
    refused_once(sound, f"search.warm_start={unfinished}", f"search.warm_start (override): {unfinished} has no COMPLETE search trial yet")
    good = earlier(tmp_path, TRIALS)
    assert misfit(good, ["baseline", "jepa"]) is None
    refused_once(sound, f"search.warm_start=[{good}, {good}]", f"search.warm_start (override): contains {good} twice")
    (tmp_path / "old" / "trials" / "broken.parquet").write_bytes(b"no Parquet")
    refused_once(sound, f"search.warm_start={good}", f"search.warm_start (override): the trials of {good} cannot be read")


def test_a_sweep_resumes_although_the_earlier_one_is_deleted(tmp_path: Path) -> None:
    """Its arms have recorded their first suggestions. A sweep that has not started is refused."""
    sound, folder = writer(tmp_path)(SOUND), earlier(tmp_path, TRIALS)
    overrides = [f"search.warm_start={folder}", "methods.jepa={k: 1}", f"output={tmp_path}", "name=mine"]
    first = load_sweep(sound, overrides)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sweep.yaml").write_text(dump(first))
    shutil.rmtree(folder)
    again = load_sweep(sound, overrides)
    assert again == first
    assert f"  start     {folder} no longer exists; arms that have started keep its suggestions" in describe(again)
    with pytest.raises(ConfigError, match="does not exist"):
        load_sweep(sound, [*overrides, "name=other"])
