"""Own data: the judge decides the task, answers of labels are measured, and SQL finds its database."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, get_args

import pytest

from jepa_ray.config import DataConfig, EvaluationConfig, ModelConfig, OwnJudge, TrialConfig, config_id
from jepa_ray.data.clusters import cluster_of
from jepa_ray.data.datasets import DATASETS, first_stage, load_splits, task_of
from jepa_ray.data.report import of_task
from jepa_ray.data.sources import read
from jepa_ray.data.tasks.text import JUDGED
from jepa_ray.evaluation.judges import JUDGES, judge_of


def file_of(folder: Path, rows: list[dict[str, Any]], name: str = "train.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def own(**keys: Any) -> DataConfig:
    return DataConfig.model_validate({"task": "text", "train": "unused"} | keys)


def test_every_judge_of_own_data_exists() -> None:
    assert set(JUDGED) == set(get_args(OwnJudge)) and len(JUDGED) == 6
    assert {judged.judge for judged in JUDGED.values()} <= set(JUDGES)
    assert task_of(own()).judge == task_of(own(judge="exact")).judge == "text"


@pytest.mark.parametrize(
    ("name", "reference", "right", "wrong"),
    [
        ("exact", "two words", " two words\n", "two words."),
        ("contains", "words", "two words.", "Words"),
        ("number", "18", "2 boxes of 9 are $18.00 in all.", "18 eggs and 9 more"),
        ("number", "so 9 + 9 = 18", "9 eggs\n#### 18\n20 more", "18\n#### 9"),
        ("label", "good", "good. I like it", "goodness"),
        ("regex", "[ab]+", "[ab]+", "[ba]+"),
    ],
)
def test_what_each_judge_calls_correct(name: OwnJudge, reference: str, right: str, wrong: str) -> None:
    data = own(judge=name)
    judge = judge_of(task_of(data).judge, data, EvaluationConfig())
    assert judge(right, reference, {}).correct and not judge(wrong, reference, {}).correct
    assert judge(reference, reference, {}).correct


def test_a_reference_without_a_number_is_an_error_of_its_row() -> None:
    data = own(judge="number")
    score = judge_of(task_of(data).judge, data, EvaluationConfig())("18", "eighteen", {})
    assert not score.correct and score.error == "the reference has no number: 'eighteen'"


def test_validation_shares_no_text_but_may_share_answers(tmp_path: Path) -> None:
    rows = [{"prompt": f"text {i % 30}", "completion": ["yes", "no"][i % 2]} for i in range(60)]
    splits = load_splits(own(train=file_of(tmp_path, rows), judge="label", num_val=10))
    assert (len(splits.train), len(splits.val)) == (50, 10)
    assert not {one.text for one in splits.train} & {one.text for one in splits.val}
    assert {one.code for one in splits.val} <= {one.code for one in splits.train} == {"yes", "no"}


def test_conversations_with_the_same_last_message_are_different_questions(tmp_path: Path) -> None:
    """What "and then?" asks depends on the turns before it: after different ones it may be in two splits, after the same ones not."""

    def row(first: str) -> dict[str, Any]:
        contents = [("user", first), ("assistant", "well"), ("user", "and then?"), ("assistant", f"after {first}")]
        return {"messages": [{"role": role, "content": content} for role, content in contents]}

    train = file_of(tmp_path, [row(f"story {i}") for i in range(12)])
    test = file_of(tmp_path, [row("story 3"), row("another")], "test.jsonl")
    splits = load_splits(own(train=train, test=test, num_val=4))
    assert (len(splits.train), len(splits.val)) == (8, 4)
    assert splits.report["overlap_text"] == 1 and splits.report["contradictions"]["train"] == 0
    stage = file_of(tmp_path, [row("story 3"), row("another"), *(row(f"new {i}") for i in range(6))], "stage.jsonl")
    kept, left_out = first_stage(own(train=stage, num_val=1), splits, own(train=train))
    assert len(kept) + left_out == 7 and left_out >= 1 and all(one.history[0][1].startswith("new") for one in kept)


def test_chance_of_labels_is_measured_and_other_answers_have_none() -> None:
    assert task_of(own(judge="label")).has_labels and DATASETS["rotten-tomatoes"].has_labels and DATASETS["hellaswag"].has_labels
    assert not any(task_of(own(judge=name)).has_labels for name in JUDGED if name != "label") and not DATASETS["nl-rx"].has_labels


def test_own_data_need_a_file_and_other_tasks_refuse_their_keys() -> None:
    with pytest.raises(ValueError, match=r"text is your own data and has no built-in generator; give data.train=FILE"):
        load_splits(DataConfig(task="text"))
    for key, value in (("judge", "label"), ("text", "a"), ("code", "a"), ("system", "a")):
        with pytest.raises(ValueError, match=rf"data.{key} is for task: text only, not for gsm8k, .*; drop it, or set task=text"):
            task_of(DataConfig.model_validate({"task": "gsm8k", key: value}))
    with pytest.raises(ValueError, match=r"data.train=paper: the task text has no public train split"):
        load_splits(own(train="paper"))


def test_a_query_finds_its_database(tmp_path: Path) -> None:
    data = own(judge="sql")
    rows = [
        {"prompt": "How many?", "completion": "SELECT count(*) FROM singer", "db_id": "music"},
        {"prompt": "For db_id:[music]\n\nHow many?", "completion": "SELECT count(*) FROM singer"},
    ]
    examples = read(task_of(data), file_of(tmp_path, rows))
    assert [one.extra for one in examples] == [{"db_id": "music"}, {"db_id": "music"}] and examples[0].text == "How many?"
    released = {"db_id": "music", "question": "How many?", "query": "SELECT 1", "query_toks": []}
    (example,) = read(task_of(data), file_of(tmp_path, [released]))
    assert (example.text, example.code, example.extra) == ("For db_id:[music]\n\nHow many?", "SELECT 1", {"db_id": "music"})
    with pytest.raises(ValueError, match=r"train.jsonl:1: the row has no column db_id, so the user's message must be For db_id:\[NAME\]"):
        read(task_of(data), file_of(tmp_path, [{"prompt": "How many?", "completion": "SELECT 1"}]))
    (tmp_path / "databases" / "music").mkdir(parents=True)
    with sqlite3.connect(tmp_path / "databases" / "music" / "music.sqlite") as database:
        database.executescript("CREATE TABLE singer (name TEXT); INSERT INTO singer VALUES ('Ann'), ('Bob');")
    database.close()
    found = data.model_copy(update={"databases": str(tmp_path / "databases")})
    judge = judge_of(task_of(found).judge, found, EvaluationConfig())
    assert judge("select count(name) from singer", examples[0].code, examples[0].extra).correct
    assert not judge("SELECT 3", examples[1].code, examples[1].extra).correct
    with pytest.raises(ValueError, match=r"data.databases is not given"):
        judge_of(task_of(data).judge, data, EvaluationConfig())


def test_only_what_decides_results_is_in_the_identity() -> None:
    def identity(**keys: Any) -> str:
        return config_id(TrialConfig(model=ModelConfig(family="llama3"), data=own(**keys)), "data")

    plain = identity()
    assert identity(judge="exact") == plain
    changed = [identity(judge="label"), identity(text="a", code="b"), identity(text="a", code="c"), identity(system="s")]
    assert len({plain, *changed}) == 5


def test_a_column_groups_examples_of_one_source(tmp_path: Path) -> None:
    rows = [{"prompt": f"text {i}", "completion": f"answer {i}", "page": i // 3} for i in range(30)]
    data = own(train=file_of(tmp_path, rows[:21]), test=file_of(tmp_path, rows[21:], "test.jsonl"), cluster="page", num_val=6)
    splits = load_splits(data)
    assert [cluster_of(data, example.extra) for example in splits.test] == ["7"] * 3 + ["8"] * 3 + ["9"] * 3
    assert splits.report["test_clusters"] == 3
    assert any("3 clusters" in sentence and "fewer than 6" in sentence for sentence in of_task(splits.report))
    assert "not used" not in splits.report["formats"]["test"] and "page" in splits.report["formats"]["test"]
    plain = load_splits(own(train=data.train, test=data.test, num_val=6))
    assert plain.report["test_clusters"] == 0 and not any("clusters" in sentence for sentence in of_task(plain.report))


@pytest.mark.parametrize(("row", "message"), [({}, "data.cluster is 'page', but the columns are"), ({"page": ""}, "page is empty")])
def test_rows_without_a_source_are_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    rows = [{"prompt": f"text {i}", "completion": f"answer {i}"} | row for i in range(9)]
    with pytest.raises(ValueError, match=f"train.jsonl:1: {message}"):
        load_splits(own(train=file_of(tmp_path, rows), cluster="page", num_val=2))
    with pytest.raises(ValueError, match=r"data.cluster is for task: text only, not for spider"):
        task_of(DataConfig(task="spider", cluster="page"))


def test_queries_are_grouped_by_their_database_unless_another_column_is_named() -> None:
    extra = {"db_id": "shop"}
    assert cluster_of(own(judge="sql"), extra) == cluster_of(DataConfig(task="spider", train="x"), extra) == "shop"
    assert cluster_of(own(judge="sql", cluster="page"), extra | {"cluster": "4"}) == "4"
    assert cluster_of(DataConfig(task="spider"), extra) is None, "the generator's databases are all there are"


def test_a_source_is_part_of_an_identity_only_if_it_is_named() -> None:
    def identity(**keys: Any) -> str:
        return config_id(TrialConfig(model=ModelConfig(family="llama3"), data=own(**keys)), "")

    assert identity() == identity(cluster=None) != identity(cluster="page")
