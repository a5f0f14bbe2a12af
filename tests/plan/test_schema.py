"""The schema for editors: every key is explained, every closed list is closed, and the shipped file is current."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jepa_ray.config.messages import full_path
from jepa_ray.data.datasets import DATASETS
from jepa_ray.models.families import FAMILIES
from jepa_ray.plan import schema
from jepa_ray.plan.load import load_sweep

SPACES = sorted((Path(__file__).resolve().parents[2] / "search_spaces").rglob("*.yaml"))
SOUND: dict[str, Any] = {"name": "a", "methods": {"base": "none", "jepa": {}}}


def keys(of: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, part in (("SweepConfig", of), *of["$defs"].items()):
        yield from ((f"{name}.{key}", schema_of_key) for key, schema_of_key in part["properties"].items())


def valid(tree: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(schema.json_schema()).is_valid(SOUND | tree))


def test_every_key_is_explained() -> None:
    every = dict(keys(schema.json_schema()))
    assert len(every) > 140
    assert [name for name, key in every.items() if not key.get("description")] == []
    assert every["OptimConfig.learning_rate"]["description"] == "Peak learning rate."
    assert every["PretrainConfig.learning_rate"]["description"] == "Peak learning rate.", "an inherited key"


@pytest.mark.parametrize(
    "typo",
    [
        {"families": ["lama3"]},
        {"families": "lama3"},
        {"model": {"lama3": "tiny"}},
        {"task": "nlrx"},
        {"task": ["nl-rx", "gsm8"]},
        {"task": {"gsm8": {}}},
        {"data": {"task": "gsm8"}},
        {"search": {"metric": "val_acuracy"}},
        {"search": {"algorithm": "tpee"}},
        {"space": {"optim.learning_rte": {"float": [0.1, 1]}}},
        {"space": {"objective.k": {"int": [0, 2], "when": {"objective.lamda": [1]}}}},
    ],
    ids=str,
)
def test_an_editor_marks_a_typo_in_a_closed_list(typo: dict[str, Any]) -> None:
    assert valid({}) and not valid(typo)


@pytest.mark.parametrize(
    "sound",
    [
        {"families": list(FAMILIES), "task": [name for name, task in DATASETS.items() if task.built_in]},
        {"families": "gemma2"},
        {"model": {"llama3": "tiny"}, "task": {"gsm8k": {"num_train": 500}, "nl-rx": {}}},
        {"scheduler": "none", "confirm": "none", "base": {"lora": "none", "optim": {"max_grad_norm": "none"}}},
        {"scheduler": None},
        {"controls": ["zero"], "methods": {"base": "none", "jepa": {}, "own": {"k": 2, "control": "lambda_zero"}}},
        {"controls": ["lambda_zero"], "methods": {"base": "none", "jepa": {}, "own": {"k": 2, "control": "zero"}}},
        {"search": {"train_flops": "none"}},
        {"space": {"lambda": {"choice": [1, 2]}, "learning_rate": {"float": [1e-6, 1]}, "k": {"int": [0, 2], "when": {"lambda": 1}}}},
    ],
    ids=str,
)
def test_a_file_that_loads_is_valid(sound: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(SOUND | sound, sort_keys=False), encoding="utf-8")
    load_sweep(path)
    assert valid(sound)


@pytest.mark.parametrize(
    "sound", [{"families": "bert"}, {"model": {"llama3": "any/hub-id"}}, {"search": {"warm_start": "results/other"}}], ids=str
)
def test_names_that_only_the_whole_file_can_judge_are_valid(sound: dict[str, Any]) -> None:
    assert valid(sound)


def test_short_names_stand_for_the_paths_that_may_be_searched() -> None:
    names = schema.searchable()
    assert len(names) == len(set(names)) and "objective.lambda" in names and "r" in names
    assert {full_path(name) for name in names} == {name for name in names if "." in name}


def test_the_shipped_file_is_current(repository: Path) -> None:
    shipped = (repository / schema.SHIPPED).read_text(encoding="utf-8")
    assert shipped == schema.text(), "run `python -m jepa_ray.plan.schema`"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_search_space_names_the_schema(path: Path, repository: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    name = first.removeprefix("# yaml-language-server: $schema=")
    assert name != first, "the first line names no schema"
    assert (path.parent / name).resolve() == (repository / schema.SHIPPED).resolve()
