"""Data whose references no judge could accept, or whose answers are all one label, are refused before anything is trained."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from jepa_ray.config import DataConfig, EvaluationConfig, SweepConfig
from jepa_ray.data.datasets import load_splits
from jepa_ray.data.report import of_task
from jepa_ray.preparation.estimate import estimate
from jepa_ray.preparation.prepare import prepare
from jepa_ray.preparation.references import judged_references

WORDS = ["red", "green", "blue", "grey", "white", "black"]


def data_of(folder: Path, judge: str, train: list[str], test: list[str], **more: Any) -> DataConfig:
    for name, answers in (("train", train), ("test", test)):
        rows = [{"question": f"{name} question {number}", "answer": answer} for number, answer in enumerate(answers)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {name: str(folder / f"{name}.jsonl") for name in ("train", "test")}
    return DataConfig(task="text", judge=judge, num_val=3, **files, **more)


def found(data: DataConfig, **evaluation: Any) -> dict[str, int]:
    return judged_references(data, EvaluationConfig(**evaluation), load_splits(data))


def databases(folder: Path) -> str:
    (folder / "shop").mkdir()
    with sqlite3.connect(folder / "shop" / "shop.sqlite") as connection:
        connection.execute("CREATE TABLE item (name TEXT)")
    return str(folder)


@pytest.mark.parametrize(
    ("judge", "answers", "sentence"),
    [
        (
            "number",
            WORDS,
            r"data.judge=number scores none of the 3 references of the validation split correct.*has no number.*set data.judge",
        ),
        ("regex", ["(a", "b)", "*c", "[", "a|+", "{"], r"none of the 3 references of the validation split is a regular expression of the"),
        (
            "label",
            ["good"] * 6,
            r"^all 12 answers are the same label, 'good', so any model is right that repeats it \(data.judge=label\); give",
        ),
    ],
)
def test_data_with_which_nothing_can_be_measured_are_refused(tmp_path: Path, judge: str, answers: list[str], sentence: str) -> None:
    data = data_of(tmp_path, judge, answers, answers)
    with pytest.raises(ValueError, match=sentence) as caught:
        found(data)
    assert "\n" not in str(caught.value) and "; " in str(caught.value)
    assert found(data, judge="text")["golds_unscored"] == 0, "equality as text can be judged"


def test_queries_that_all_fail_are_refused(tmp_path: Path) -> None:
    queries = [f"For db_id:[shop] {word}" for word in WORDS]
    data = data_of(tmp_path, "sql", WORDS, WORDS, databases=databases(tmp_path))
    for name in ("train", "test"):
        rows = [{"question": query, "answer": "SELECT price FROM item"} for query in queries]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"data.judge=sql scores none of the 3 references .*no such column: price; correct the queries"):
        found(data)


def test_a_test_split_alone_is_enough(tmp_path: Path) -> None:
    """Otherwise the search would run, and only the confirmation fail."""
    data = data_of(tmp_path, "number", [f"{word} 1{place}" for place, word in enumerate(WORDS)], WORDS)
    with pytest.raises(ValueError, match=r"none of the 6 references of the test split correct.*; .*test.*no number: 'red'"):
        found(data)


def test_some_references_that_cannot_be_judged_are_counted(tmp_path: Path) -> None:
    numbers = [f"{word} 1{place}" for place, word in enumerate(WORDS)]
    data = data_of(tmp_path, "number", numbers, [*numbers, "none", "nothing"])
    counts = found(data)
    assert counts == {"golds_unscored": 2, "golds_no_regex": 0, "golds_short": 0}
    assert "2 references of validation and test are rejected" in "\n".join(of_task(load_splits(data).report | counts))
    data = data_of(tmp_path, "regex", ["a.*", "b+", "c|d", "e", "f", "g{2}"], ["a", "(b", "c"])
    counts = found(data)
    assert counts == {"golds_unscored": 0, "golds_no_regex": 1, "golds_short": 0}
    assert "no regular expressions, so compared as text only: 1 references of" in "\n".join(of_task(load_splits(data).report | counts))


def test_usual_data_pass(tmp_path: Path) -> None:
    for judge, answers in (("label", ["good", "bad"] * 3), ("exact", ["same"] * 6), ("contains", WORDS)):
        counts = found(data_of(tmp_path, judge, answers, answers))
        assert (counts["golds_unscored"], counts["golds_no_regex"]) == (0, 0)
        assert (counts["golds_short"] > 0) == (judge == "contains"), "red has three letters"
    assert found(DataConfig(num_train=8, num_val=4, num_test=4)) == {"golds_unscored": 0, "golds_no_regex": 0, "golds_short": 0}


def test_a_plan_and_a_run_refuse_them_before_a_checkpoint_is_read(tmp_path: Path) -> None:
    data = data_of(tmp_path, "label", ["good"] * 6, ["good"] * 6)
    given = data.model_dump(include={"task", "judge", "num_val", "train", "test"})
    tree = {"name": "x", "families": ["llama3"], "model": str(tmp_path / "nowhere"), "methods": {"base": "none"}, "data": given}
    sweep = SweepConfig.model_validate(tree)
    for refuse in (lambda: prepare(sweep, "llama3", "text"), lambda: estimate(sweep)):
        with pytest.raises(ValueError, match="all 12 answers are the same label, 'good'"):
            refuse()
