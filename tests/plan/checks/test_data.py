"""Keys of own data in a sweep file: each mistake is one sentence at its key; the snippet in the documentation loads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jepa_ray.config import arms
from jepa_ray.plan.describe import describe
from jepa_ray.plan.load import ConfigError, load_sweep
from jepa_ray.preparation.estimate import estimate


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    rows = [{"prompt": f"q {i}", "completion": "yes" if i % 3 else "no"} for i in range(40)]
    for name, part in (("train", rows), ("test", rows[30:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    return {"task": "text", "train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")}


def loaded(data: dict[str, Any], **keys: Any) -> Any:
    return load_sweep({"name": "x", "methods": {"baseline": None}, "data": data, **keys})


def errors(data: dict[str, Any], **keys: Any) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        loaded(data, **keys)
    return refused.value.messages


def test_own_data_load_in_each_place(own: dict[str, Any]) -> None:
    files = {key: own[key] for key in ("train", "test")}
    assert loaded({**own, "judge": "label"}).data_of("text").judge == "label"
    several = loaded({}, task={"text": {**files, "judge": "number", "text": "prompt", "code": "completion", "system": "s"}, "gsm8k": {}})
    data = several.data_of("text")
    assert (data.judge, data.text, data.code, data.system) == ("number", "prompt", "completion", "s")
    assert several.data_of("gsm8k").judge is None
    assert loaded({**files, "judge": "contains"}, task="text").data_of("text").judge == "contains"
    stage = loaded({}, pretrain={"data": {**own, "judge": "label"}}).pretrain
    assert stage is not None and stage.data.judge == "label"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"train": None, "test": None},
            "data.train: is missing: the task text is your own data and has no built-in generator; give data.train",
        ),
        ({"judge": "fuzzy"}, "data.judge: must be 'exact', 'contains', 'number', 'label', 'regex' or 'sql', got 'fuzzy'"),
        ({"judge": ["label"]}, "data.judge: must be 'exact'"),
        ({"judge": "sql"}, "data.judge: is sql, which runs queries; set databases=FOLDER"),
        ({"text": "prompt"}, "data.text: is given without code; name both columns"),
        ({"code": "prompt"}, "data.code: is given without text; name both columns"),
        ({"text": 3, "code": "a"}, "data.text: must be text, got 3"),
        ({"txt": "prompt"}, "data.txt: unknown key; did you mean 'text'?"),
    ],
)
def test_mistakes_in_own_data(own: dict[str, Any], change: dict[str, Any], sentence: str) -> None:
    assert any(message.startswith(sentence) for message in errors({**own, **change}))


@pytest.mark.parametrize("key", ["judge", "text", "code", "system"])
def test_other_tasks_refuse_the_keys_of_own_data(key: str) -> None:
    value = "label" if key == "judge" else "a"
    (message,) = errors({"task": "gsm8k", key: value})
    assert re.fullmatch(rf"data.{key}: is for task: text only, not for gsm8k, .*; drop it, or set task=text", message)
    (message,) = errors({}, task={"gsm8k": {key: value}})
    assert message.startswith(f"task.gsm8k.{key}: is for task: text only")
    (message,) = errors({}, pretrain={"data": {"task": "gsm8k", key: value}})
    assert message.startswith(f"pretrain.data.{key}: is for task: text only")


def test_several_tasks_and_a_shared_judge(own: dict[str, Any]) -> None:
    files = {key: own[key] for key in ("train", "test")}
    (message,) = errors({"judge": "label"}, task={"text": files, "gsm8k": {}})
    assert message.startswith("data.judge: is for task: text only, not for gsm8k")
    (message,) = errors({}, task=["text", "gsm8k"])
    assert message.startswith("data.train: is missing: the task text is your own data")


def test_metrics_and_masked_encoders_follow_the_judge(own: dict[str, Any]) -> None:
    assert loaded({**own, "judge": "regex"}, search={"metric": "val_equivalent"}).search.metric == "val_equivalent"
    (message,) = errors({**own, "judge": "number"}, search={"metric": "val_paper"})
    assert "val_paper is not measured on text, whose judge does not define it" in message
    masked = {"families": ["bert"], "base": {"masked": {"mask_ratio": 0.3}}}
    assert loaded({**own, "judge": "label"}, **masked).base.masked is not None
    assert any("text has no labels" in message for message in errors(own, **masked))


def test_the_snippet_of_the_documentation_plans(own: dict[str, Any], tmp_path: Path, repository: Path) -> None:
    page = (repository / "docs" / "sweep-file.md").read_text(encoding="utf-8")
    section = page[page.index("## Your own data") :]
    block = re.search(r"^    name: .*\n(?:    .*\n)+", section, re.MULTILINE)
    assert block is not None
    snippet = yaml.safe_load(block.group())
    assert (
        snippet["task"] == "text"
        and snippet["data"]["judge"] == "label"
        and set(snippet["data"]) >= {"train", "test", "text", "code", "system"}
    )
    files = {"train": tmp_path / "reviews.csv", "test": tmp_path / "reviews-test.csv"}
    for number, path in enumerate(files.values()):
        lines = [f"film {number}.{i} was good,{'good' if i % 2 else 'bad'}" for i in range(300)]
        path.write_text("\n".join(["review,mood", *lines]) + "\n", encoding="utf-8")
    sweep = load_sweep(snippet | {"data": snippet["data"] | {key: str(path) for key, path in files.items()}})
    estimates, facts = estimate(sweep)
    assert set(estimates) == {f"{method}/llama3" for method in snippet["methods"]}
    assert f"text from {files['train']} (judge label)" in describe(sweep, arms(sweep), estimates, facts)
    assert "text: read as columns: review -> mood; system message: the text 'Is this review good or bad?'" in facts
