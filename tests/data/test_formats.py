"""Formats of own data: every one gives the same examples from every kind of file, and every error is one sentence with its place."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from jepa_ray.config import DataConfig
from jepa_ray.data.datasets import load_splits, task_of
from jepa_ray.data.example import Example
from jepa_ray.data.formats import FORMATS
from jepa_ray.data.report import of_task
from jepa_ray.data.sources import read, read_as

Row = dict[str, Any]
HI, YES = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}
ASK, TELL = {"role": "user", "content": "ask"}, {"role": "assistant", "content": "tell"}
BE = {"role": "system", "content": "be brief"}
TURNS = (("user", "hi"), ("assistant", "yes?"))


def own(**keys: Any) -> DataConfig:
    return DataConfig.model_validate({"task": "text", "train": "unused"} | keys)


def written(folder: Path, rows: list[Row], ending: str = "jsonl") -> Path:
    path = folder / f"part.{ending}"
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif ending == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif ending == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ending == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def read_one(folder: Path, row: Row, **keys: Any) -> tuple[Example, str]:
    examples, said = read_as(task_of(own(**keys)), str(written(folder, [row])))
    assert len(examples) == 1 and said is not None
    return examples[0], said


def refused(folder: Path, rows: list[Row], **keys: Any) -> str:
    """The one sentence that refuses these rows, without the path of the file."""
    path = written(folder, rows)
    with pytest.raises(ValueError, match=r"\w") as error:
        read(task_of(own(**keys)), str(path))
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path), "FILE")


SAME: list[tuple[str, Row, tuple[Any, ...]]] = [
    ("messages", {"messages": [ASK, TELL]}, ("", (), "ask", "tell")),
    ("messages", {"messages": [BE, ASK, TELL]}, ("be brief", (), "ask", "tell")),
    ("messages", {"messages": [BE, HI, YES, ASK, TELL]}, ("be brief", TURNS, "ask", "tell")),
    ("messages", {"messages": [HI, YES, ASK, TELL, HI]}, ("", TURNS, "ask", "tell")),  # what follows the answer is not used
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "as"}, {"type": "text", "text": "k"}]}, TELL]},
        ("", (), "ask", "tell"),
    ),
    (
        "ShareGPT",
        {
            "conversations": [
                {"from": who, "value": what} for who, what in (("human", "hi"), ("gpt", "yes?"), ("human", "ask"), ("gpt", "tell"))
            ]
        },
        ("", TURNS, "ask", "tell"),
    ),
    (
        "ShareGPT",
        {"system": "be brief", "conversations": [{"from": "human", "value": "ask"}, {"from": "gpt", "value": "tell"}]},
        ("be brief", (), "ask", "tell"),
    ),
    ("Alpaca", {"instruction": "ask", "input": "", "output": "tell"}, ("", (), "ask", "tell")),
    ("Alpaca", {"instruction": "ask", "input": "this", "output": "tell"}, ("", (), "ask\n\nthis", "tell")),
    ("Alpaca", {"instruction": "ask", "output": "tell", "system": "be brief"}, ("be brief", (), "ask", "tell")),
    ("prompt/completion", {"prompt": "ask", "completion": " tell"}, ("", (), "ask", " tell")),
    ("prompt/completion", {"prompt": [BE, HI, YES, ASK], "completion": [TELL]}, ("be brief", TURNS, "ask", "tell")),
    ("prompt/completion", {"prompt": [ASK], "completion": "tell"}, ("", (), "ask", "tell")),
    ("question/answer", {"question": "ask", "answer": "tell"}, ("", (), "ask", "tell")),
    ("question/answer", {"question": "ask", "answer": 42}, ("", (), "ask", "42")),
]


@pytest.mark.parametrize(("name", "row", "wanted"), SAME)
def test_a_row_of_each_format(tmp_path: Path, name: str, row: Row, wanted: tuple[Any, ...]) -> None:
    example, said = read_one(tmp_path, row)
    assert (example.system, example.history, example.text, example.code) == wanted and example.extra == {}
    assert said.startswith(f"{name}: ")


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_the_same_examples_from_every_kind_of_file(tmp_path: Path, ending: str) -> None:
    rows = [{"instruction": 'say\n"a,\tb"', "input": "", "output": "é"}, {"instruction": "two", "input": "x", "output": "2"}]
    found = read(task_of(own()), str(written(tmp_path, rows, ending)))
    assert [(one.text, one.code) for one in found] == [('say\n"a,\tb"', "é"), ("two\n\nx", "2")]


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_conversations_in_other_files(tmp_path: Path, ending: str) -> None:
    (found,) = read(task_of(own()), str(written(tmp_path, [{"messages": [BE, HI, YES, ASK, TELL]}], ending)))
    assert (found.system, found.history, found.text, found.code) == ("be brief", TURNS, "ask", "tell")


@pytest.mark.parametrize(("ending", "label"), [("csv", "1"), ("jsonl", 1), ("parquet", 1)])
def test_named_columns_and_what_the_plan_says(tmp_path: Path, ending: str, label: Any) -> None:
    path = written(tmp_path, [{"id": "7", "review": "fine", "stars": label, "how": "Rate it."}], ending)
    ((example,), said) = read_as(task_of(own(text="review", code="stars", system="how")), str(path))
    assert (example.system, example.text, example.code) == ("Rate it.", "fine", "1")
    assert said == "columns: review -> stars; system message: column how; not used: id"
    ((example,), said) = read_as(task_of(own(text="review", code="stars", system="Say the stars.")), str(path))
    assert example.system == "Say the stars." and "the text 'Say the stars.'" in said and "not used: id, how" in said


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_booleans_are_the_same_text_from_every_kind_of_file(tmp_path: Path, ending: str) -> None:
    """As pandas writes them: a file of another kind is no other data."""
    rows = [{"question": f"q{number}", "answer": truth} for number, truth in enumerate((True, False))]
    assert [one.code for one in read(task_of(own()), str(written(tmp_path, rows, ending)))] == ["True", "False"]


def test_a_system_message_of_the_conversation_counts_before_data_system(tmp_path: Path) -> None:
    assert read_one(tmp_path, {"messages": [BE, ASK, TELL]}, system="other words")[0].system == "be brief"
    assert read_one(tmp_path, {"messages": [ASK, TELL]}, system="other words")[0].system == "other words"
    assert read_one(tmp_path, {"prompt": "a", "completion": "b", "system": "row's"}, system="other words")[0].system == "other words"


def test_parallel_lines(tmp_path: Path) -> None:
    for side, text in (("src", "ask\nhi\n"), ("targ", "tell\nyes?\n")):
        (tmp_path / f"{side}.txt").write_text(text, encoding="utf-8")
    examples, said = read_as(task_of(own()), str(tmp_path))
    assert [(one.text, one.code) for one in examples] == [("ask", "tell"), ("hi", "yes?")] and said == "parallel lines: src -> targ"


def test_the_plan_says_how_each_file_was_read(tmp_path: Path) -> None:
    train = written(tmp_path, [{"question": f"q{i}", "answer": "a"} for i in range(9)])
    (tmp_path / "test").mkdir()
    test = written(tmp_path / "test", [{"prompt": "p", "completion": "a"}])
    data = own(train=str(train), test=str(test), num_val=3)
    assert of_task(load_splits(data).report)[:2] == [
        "train: read as question/answer: question -> answer",
        "test: read as prompt/completion: prompt -> completion",
    ]
    both = data.model_copy(update={"test": str(train)})
    assert of_task(load_splits(both).report)[0] == "read as question/answer: question -> answer"


def test_messages_after_the_last_answer_are_counted(tmp_path: Path) -> None:
    rows = [{"messages": [{**ASK, "content": f"q{i}"}, TELL, *[HI] * (i % 3)]} for i in range(9)]
    splits = load_splits(own(train=str(written(tmp_path, rows)), num_val=2))
    unused = splits.report["unused_messages"]
    assert sum(unused.values()) == 9 and unused["test"] == 0 and unused["train"] == sum(one.unused for one in splits.train)
    (told,) = [sentence for sentence in of_task(splits.report) if "after the last answer" in sentence]
    assert (
        told.startswith("messages after the last answer of their conversation, which are not used: ")
        and f"{unused['train']} of train" in told
    )
    plain = load_splits(own(train=str(written(tmp_path, [{"messages": row["messages"][:2]} for row in rows])), num_val=2))
    assert plain.dataset_sha == splits.dataset_sha and not any("after the last" in sentence for sentence in of_task(plain.report))


QA = {"question": "q", "answer": "a"}
BAD: list[tuple[list[Row], dict[str, Any], str]] = [
    ([{"ask": "q", "tell": "a"}], {}, "FILE:1: the columns ask, tell are none of the known formats: messages (messages), ShareGPT"),
    ([{"ask": "q", "tell": "a"}], {}, "give data.text=COLUMN and data.code=COLUMN"),
    ([{"instruction": "i"}], {}, "FILE:1: the columns instruction are none of the known formats"),  # a missing key
    (
        [{**QA, "prompt": "p", "completion": "c"}],
        {},
        "FILE:1: the row can be read as prompt/completion (prompt -> completion) and as question",
    ),
    ([{**QA, "messages": [ASK, TELL]}], {}, "; remove the columns that are not meant"),
    ([QA, {"question": "q"}], {}, "FILE:2: no answer, which the first row has; the columns here are question"),
    ([QA, {"question": "q", "answer": " "}], {}, "FILE:2: answer is empty; both views need at least one character"),
    ([QA, {"question": ["q"], "answer": "a"}], {}, "FILE:2: question is a list; expected text"),
    ([QA, {"question": "q", "answer": None}], {}, "FILE:2: answer is missing or null; expected text"),
    ([QA, {"question": "q", "answer": "\ud83d"}], {}, "FILE:2: half of a surrogate pair"),
    ([{"messages": [{"role": "user", "content": "\ud83d"}, YES, ASK, TELL]}], {}, "FILE:1: half of a surrogate pair"),
    ([QA], {"text": "frage", "code": "answer"}, "FILE:1: data.text is 'frage', but the columns are question, answer"),
    (
        [QA],
        {"text": "question", "code": "anser"},
        "FILE:1: data.code is 'anser', but the columns are question, answer; did you mean 'answer'?",
    ),
    (
        [{**QA, "prompt_text": "p"}],
        {"system": "promt_text"},
        "data.system is 'promt_text', but the columns are question, answer, prompt_text; did",
    ),
    (
        [QA],
        {"system": "how"},
        "data.system is 'how', but the columns are question, answer; name one of them, or write a message of several words",
    ),
    ([QA], {"text": "answer", "code": "answer"}, "data.text and data.code are both 'answer'"),
    ([QA], {"text": "question"}, "data.text is given without data.code; give both, or neither"),
    ([QA], {"code": "answer"}, "data.code is given without data.text"),
    (
        [{"messages": [ASK, TELL], "a": "x", "b": "y"}],
        {"text": "a", "code": "b"},
        "FILE:1: data.text and data.code name columns, but the rows contain conversations under messages; drop data.text",
    ),
    ([{"prompt": [ASK, TELL], "completion": [ASK]}], {}, "FILE:1: completion has no assistant message"),
    ([{"messages": "hello"}], {}, 'FILE:1: messages is a value of type str; expected a list of {"role"'),
    ([], {}, "FILE: contains no example"),
    ([{"a\nb": "x", **{f"c{i}": "y" for i in range(30)}}], {}, "the columns 'a\\nb', c0, c1, c2,"),
    ([{"a\nb": "x", **{f"c{i}": "y" for i in range(30)}}], {}, "c17, c18, and 11 more are none of the known formats"),
]


@pytest.mark.parametrize(("rows", "keys", "sentence"), BAD)
def test_bad_rows_are_named_in_one_sentence(tmp_path: Path, rows: list[Row], keys: dict[str, Any], sentence: str) -> None:
    assert sentence in refused(tmp_path, rows, **keys)


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_places_in_other_files(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path, [QA, {"question": "q", "answer": ""}], ending)
    place = f"{path}:3" if ending == "csv" else f"{path}: row 2"
    with pytest.raises(ValueError, match="answer is empty") as error:
        read(task_of(own()), str(path))
    assert str(error.value).startswith(f"{place}: ")


def test_the_examples_of_the_documentation_are_read_as_it_says(tmp_path: Path, repository: Path) -> None:
    page = (repository / "docs" / "sweep-file.md").read_text(encoding="utf-8")
    section = page[page.index("## Your own data") : page.index("## Your data, your model")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")][2:]
    assert {name for name, _, _ in table} == {*(one.name for one in FORMATS), "columns"}
    rows = {name: json.loads(row.split("`")[1]) for name, row, _ in table if name != "parallel lines"}
    for name, row in rows.items():
        keys = {"text": "sum", "code": "result"} if name == "columns" else {}
        example, said = read_one(tmp_path, row, **keys)
        assert said.startswith(f"{name}: ") and example.code == "5"
        assert example.text == ("Add.\n\n2 + 3" if name == "Alpaca" else "2 + 3?")
