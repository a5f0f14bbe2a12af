"""Records: identity, strictness, and the columns that the results contract promises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from jepa_ray.config import (
    OWN_DATA,
    MaskedConfig,
    ResourcesConfig,
    SchedulerConfig,
    SweepConfig,
    TrialConfig,
    canonical,
    columns,
    config_id,
)

FULL: dict[str, Any] = {
    "model": {"family": "llama3", "model": "tiny"},
    "lora": {"r": 8, "alpha": 16.0},
    "objective": {"distance": "l2", "lambda": 2, "k": 3},
    "data": {"train": "a.jsonl", "test": "b.jsonl", "num_train": 10, "num_test": 5},
    "optim": {"micro_batch_size": 4, "max_train_flops": 1e9},
    "evaluation": {"batch_size": 32, "max_new_tokens": 7},
    "pretrain": {"data": {"task": "paraphrase", "train": "c.jsonl", "num_train": 9, "num_test": 6}, "seed": 3},
}


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


def other(path: tuple[str, ...], value: Any) -> Any:
    """A different legal value of a leaf."""
    named = {
        "layout": "reverse",
        "readout": "mean",
        "target": "stop_target",
        "predictor": "linear",
        "control": "shuffled",
        "loss_dropout_mode": "periodic",
        "lambda_effective": 0.5,
        "ema_end": 1.0,
        "predictor_width": 7,
        "init": "random",
        "precision": "bf16",
        "packing": "flat",
        "attention": "flex",
        "compile": "false",
        "micro_batch_size": 2,
        "tokens_per_forward": 4096,
        "distance": "mse",
        "schedule": "cosine",
        "loss_on": "all",
        "judge": "text",
        "objective_in": "both",
    }
    if path[-1] in named:
        return named[path[-1]]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.25
    return f"{value}x"


def replaced(tree: Any, path: tuple[str, ...], value: Any) -> Any:
    return value if not path else {**tree, path[0]: replaced(tree[path[0]], path[1:], value)}


def reordered(tree: Any) -> Any:
    return {key: reordered(tree[key]) for key in reversed(tree)} if isinstance(tree, dict) else tree


def test_config_id_changes_with_every_leaf_and_with_nothing_else() -> None:
    tree = canonical(TrialConfig.model_validate(FULL))
    original = config_id(TrialConfig.model_validate(tree), "data")
    assert config_id(TrialConfig.model_validate(reordered(tree)), "data") == original
    # A whole number in place of a real number is the same value.
    assert config_id(TrialConfig.model_validate(replaced(tree, ("objective", "lambda"), 2)), "data") == original
    assert tree["objective"]["lambda"] == 2.0
    ids = {original, config_id(TrialConfig.model_validate(tree), "other data")}
    paths = [path for path, _ in leaves(tree) if path != ("masked",)]  # that section requires other objectives
    assert len(paths) > 35, "the tree is incomplete"
    idle = 0  # knobs that are refused because they have no effect on this objective
    for path, value in leaves(tree):
        if path not in paths:
            continue
        try:
            changed = TrialConfig.model_validate(replaced(tree, path, other(path, value)))
        except ValidationError as error:
            words = ("no effect", "one follows", "skips no step", "both set the size of a forward pass")
            assert path[0] in ("objective", "optim") and any(word in str(error) for word in words), error
            idle += 1
            continue
        ids.add(config_id(changed, "data"))
    assert len(ids) == 2 + len(paths) - idle and idle < 12


def test_validations_within_an_epoch_are_no_part_of_an_identity() -> None:
    """Trees without them, and so all identities of sweeps and trials, are those of versions that did not know them."""
    plain = TrialConfig.model_validate(FULL)
    rungs = plain.model_copy(update={"evaluation": plain.evaluation.model_copy(update={"at_steps": (50, 150)})})
    assert "at_steps" not in canonical(plain)["evaluation"] and canonical(rungs)["evaluation"]["at_steps"] == [50, 150]
    assert TrialConfig.model_validate(canonical(rungs)) == rungs != plain
    assert config_id(rungs, "data") == config_id(plain, "data")
    assert columns(rungs)["eval_at_steps"] == "50;150"


def test_rungs_in_steps() -> None:
    def at_steps(**changes: Any) -> tuple[int, ...]:
        return SchedulerConfig(**{"time_attr": "step", "grace_period": 50, **changes}).at_steps

    assert at_steps() == (50, 150, 450, 1350, 4050, 12150, 36450, 109350, 328050, 984150)
    assert at_steps(reduction_factor=1.5, grace_period=3)[:5] == (3, 5, 7, 11, 16), "the first step at or after a rung"
    assert at_steps(time_attr="epoch") == at_steps(name="none") == at_steps(grace_period=2e6) == ()


def test_every_leaf_is_a_column() -> None:
    config = TrialConfig.model_validate(FULL)
    row, values = columns(config), [value for _, value in leaves(canonical(config))]
    # Other columns: the second form of lambda, and the leaves of absent sections.
    own = {f"{prefix}data_{name}" for prefix in ("", "pretrain_") for name in OWN_DATA}
    others = {"lambda_grad_ratio", "eval_at_steps", *own, *MaskedConfig.model_fields}
    assert all(row.pop(name) is None for name in others)
    values.remove(None)  # the section itself
    assert len(row) == len(values), "two leaves share a column"
    assert sorted(map(json.dumps, row.values())) == sorted(map(json.dumps, values))
    assert row["lambda"] == 2 and row["lora_r"] == 8 and row["objective"] == "l2"


def test_baseline_has_the_columns_of_an_objective() -> None:
    baseline = TrialConfig.model_validate({"model": {"family": "llama3"}})
    row = columns(baseline)
    assert set(row) == set(columns(TrialConfig.model_validate(FULL)))
    assert (row["objective"], row["lambda"], row["k"], row["loss_dropout"], row["lora_r"]) == ("none", 0, 0, 0, None)


def test_records_are_frozen() -> None:
    config = TrialConfig.model_validate(FULL)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("seed",), True, "must be a whole number, got true"),
        (("seed",), "3", "must be a whole number, got '3'"),
        (("optim", "num_epochs"), 1.5, "must be a whole number, got 1.5"),
        (("optim", "learning_rate"), "fast", "must be a finite number, got 'fast'"),
        (("optim", "learning_rate"), float("nan"), "must be a finite number, got nan"),
        (("optim", "train_end_of_turn"), 1, "must be true or false, got 1"),
        (("model", "family"), 3, "must be text, got 3"),
    ],
)
def test_values_of_another_type_are_refused(path: tuple[str, ...], value: Any, sentence: str) -> None:
    tree = canonical(TrialConfig.model_validate(FULL))
    with pytest.raises(ValidationError) as refused:
        TrialConfig.model_validate(replaced(tree, path, value))
    assert sentence in str(refused.value)


def test_none_is_null_where_null_is_legal() -> None:
    config = TrialConfig.model_validate(FULL | {"lora": "none", "optim": {"max_grad_norm": "None"}})
    assert config.lora is None and config.optim.max_grad_norm is None
    with pytest.raises(ValidationError, match="must be a whole number, got 'none'"):
        TrialConfig.model_validate(FULL | {"seed": "none"})


def test_task_is_one_key_in_two_places() -> None:
    for given in ({"task": "spider"}, {"data": {"task": "spider"}}, {"task": "spider", "data": {"task": "spider"}}):
        sweep = SweepConfig.model_validate({"name": "a", "methods": {"baseline": "none"}, **given})
        assert sweep.tasks == ("spider",) and sweep.data.task == "spider" and canonical(sweep)["task"] == "spider"
    with pytest.raises(ValidationError, match=r"data.task is 'spider', but task is 'gsm8k'; drop data.task"):
        SweepConfig.model_validate({"name": "a", "methods": {"baseline": "none"}, "task": "gsm8k", "data": {"task": "spider"}})


def test_seeds_of_search_and_confirmation_differ() -> None:
    with pytest.raises(ValidationError, match=r"base.seed = 82.*fresh seeds"):
        SweepConfig.model_validate({"name": "a", "methods": {"baseline": "none"}, "base": {"seed": 82}})


@pytest.mark.parametrize(
    ("resources", "sentence"),
    [
        ({"gpus_per_worker": 0.5, "workers_per_trial": 2}, "two workers of a trial cannot share a GPU"),
        ({"gpus_per_worker": 1.5}, "a fraction of one GPU, or whole GPUs; give 1 or 2"),
        ({"sharding": "fsdp"}, "no effect with one worker per trial.*set workers_per_trial to at least 2, or drop sharding"),
    ],
)
def test_impossible_resources_are_refused(resources: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        ResourcesConfig.model_validate(resources)
    good = ({"gpus_per_worker": 0.5}, {"gpus_per_worker": 1, "workers_per_trial": 2}, {"gpus_per_worker": 0, "workers_per_trial": 2})
    for possible in (*good, {"sharding": "ddp"}, {"sharding": "fsdp", "workers_per_trial": 2}):
        ResourcesConfig.model_validate(possible)


def test_tiny_models_use_a_gpu_only_if_one_is_requested() -> None:
    def gpus(**changes: Any) -> float | None:
        return SweepConfig.model_validate({"name": "x", "methods": {"base": None}, **changes}).placement.gpus_per_worker

    assert gpus() == 0 and gpus(model={"llama3": "tiny"}) == 0
    assert gpus(model="paper") is None
    assert gpus(families=["llama3", "gemma2"], model={"llama3": "tiny", "gemma2": "paper"}) is None
    assert gpus(resources={"gpus_per_worker": 0.5}) == 0.5


def test_identities_of_earlier_versions_stay() -> None:
    """Sweeps that an earlier version began go on: keys that were added since count only where they are set."""
    tree = {"model": {"family": "llama3"}, "pretrain": {"data": {"task": "spider"}}, "objective": {"k": 1}, "lora": {"r": 4}}
    assert config_id(TrialConfig.model_validate(tree), "data") == "674d777eb462e72d"
