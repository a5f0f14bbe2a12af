"""Reading: every kind of source gives the same examples, and every error names the place and the remedy."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from jepa_ray.data import sources
from jepa_ray.data.sources import read, resolve
from jepa_ray.data.tasks import gsm8k, nlrx, nq_open, paraphrase
from jepa_ray.data.tasks.task import Task

Write = Callable[..., Path]
QUESTIONS = [{"question": "2 and 3, are how many?", "answer": 'It is\n"2+3".\n#### 5'}, {"question": "é?", "answer": "#### 1,000"}]
EXPECTED = [("2 and 3, are how many?", 'It is\n"2+3".\n#### 5'), ("é?", "#### 1,000")]


def line(text: Any = "a vowel", code: Any = "[AEIOUaeiou]", system: str | None = "s") -> str:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": code}]
    return json.dumps({"messages": ([] if system is None else [{"role": "system", "content": system}]) + messages})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(*lines: str, name: str = "train.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return make


def refused(source: Path | str, message: str, task: Task = nlrx.TASK) -> str:
    """The error of reading `source`: one line, which `message` matches."""
    with pytest.raises(ValueError, match=message) as error:
        read(task, str(source))
    assert "\n" not in str(error.value)
    return str(error.value)


# --- the reference's format ------------------------------------------------------------------------------------------


def test_ids_are_stem_and_line_and_blank_lines_count_as_lines(write: Write) -> None:
    found = read(nlrx.TASK, str(write(line("a", "b"), "", "   ", line("c\u2028d", "e", system=None))))
    assert [(e.id, e.system, e.text, e.code) for e in found] == [("train:1", "s", "a", "b"), ("train:4", "", "c\u2028d", "e")]


def test_other_keys_of_a_row_are_kept_for_the_judge(write: Write) -> None:
    row = json.loads(line()) | {"db_id": "concert"}
    assert read(nlrx.TASK, str(write(json.dumps(row))))[0].extra == {"db_id": "concert"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"messages": [', r"not JSON \(.* at column \d+\); expected one"),
        ("[" * 200_000, r"JSON that cannot be parsed \(.*recursion"),
        ('{"messages": ' + "9" * 9999 + "}", "JSON that cannot be parsed"),
        ("[1]", "list instead of a row; expected an object"),
        ('{"messages": 1}', 'no list under "messages"; expected {"messages"'),
        ('{"message": []}', r"expected a sentence under src .*\(or a row in the reference's format"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "no assistant message"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "no user message"),
        ('{"messages": [{"role": "tool", "content": "a"}]}', "message 1 has the role 'tool'; expected system, user or assistant"),
        ('{"messages": ["hello"]}', "message 1 is not"),
        (line(code=""), r"message 3 \(assistant\): content is empty"),
        (line(text=" \n"), r"message 2 \(user\): content is empty"),
        (line(code=7), r"message 3 \(assistant\): content is a number; expected a string"),
        (line(code=["a"]), "content is a list; expected a string"),
        (line(code=None), "content is missing or null; expected a string"),
        (line(code="\ud83d"), "half of a surrogate pair"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}', "two user messages"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(write: Write, bad: str, message: str) -> None:
    path = write(line(), "", bad, line())
    assert refused(path, message).startswith(f"{path}:3: ")


def test_errors_of_a_task_name_the_line(write: Write) -> None:
    path = write(line("p", "#### 1"), line("p", "about 2"))
    assert refused(path, "the solution has no number.*not 'about 2'", gsm8k.TASK).startswith(f"{path}:2: ")
    path = write(json.dumps(QUESTIONS[0]), json.dumps({"question": "q?", "answer": "about 2"}))
    assert refused(path, "the solution has no number", gsm8k.TASK).startswith(f"{path}:2: ")


def test_bytes_that_are_not_utf8_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(line().encode() + b"\n" + b'{"messages": "\xe9"}')
    refused(path, r"latin.jsonl:2: not UTF-8")
    for ending in ("jsonl", "json", "csv", "parquet"):
        refused(tmp_path / f"gone.{ending}", rf"gone.{ending}: no such file")
        (tmp_path / f"folder.{ending}").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    refused(tmp_path / "pipe.csv", r"pipe.csv: is a pipe; write its contents to a file")
    refused(tmp_path / "folder.jsonl", r"src.txt: no such file; a folder is read as the parallel lines")
    (tmp_path / "odd.json").write_bytes(b'[{"a": "\xe9"}]')
    refused(tmp_path / "odd.json", "odd.json: not UTF-8")


@pytest.mark.parametrize("name", ["train.txt", "train.pkl", "train", "train.jsonl.gz", "openai/gsm8k"])
def test_an_unknown_ending(name: str) -> None:
    refused(name, r"files with this ending are not supported; expected a .jsonl, .json, .csv, .tsv or .parquet file, a folder .* or hub:")


# --- the public sources' own formats ---------------------------------------------------------------------------------


def write_rows(folder: Path, ending: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"part.{ending}"
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif ending == "json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif ending == "csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize(("ending", "ids"), [("jsonl", [1, 2]), ("json", [1, 2]), ("csv", [4, 5]), ("parquet", [1, 2])])
def test_the_same_rows_in_every_kind_of_file(tmp_path: Path, ending: str, ids: list[int]) -> None:
    """In CSV, the first row ends on line 4: its answer spans three lines after the header."""
    found = read(gsm8k.TASK, str(write_rows(tmp_path, ending, QUESTIONS)))
    assert [(e.text, e.code) for e in found] == EXPECTED
    assert [e.id for e in found] == [f"part:{number}" for number in ids]


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_messages_in_other_files(tmp_path: Path, ending: str) -> None:
    rows = [json.loads(line(f"text {i}", f"code {i}")) | {"db_id": "x"} for i in range(3)]
    found = read(nlrx.TASK, str(write_rows(tmp_path, ending, rows)))
    assert [(e.id, e.text, e.code, e.extra) for e in found] == [
        (f"part:{i + 1}", f"text {i}", f"code {i}", {"db_id": "x"}) for i in range(3)
    ]


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize(
    "bad", [{"question": "q?", "answer": None}, {"question": "q?", "answer": " "}, {"question": None, "answer": "#### 1"}]
)
def test_a_row_without_a_view_is_named(tmp_path: Path, ending: str, bad: dict[str, Any]) -> None:
    path = write_rows(tmp_path, ending, [*QUESTIONS, bad])
    place = f"{path}:3: " if ending == "jsonl" else f"{path}: row 3: "
    assert refused(path, "expected a problem under question", gsm8k.TASK).startswith(place)


def test_other_json(write: Write) -> None:
    refused(write('{"question": "q", "answer": "a"}', name="a.json"), "dict instead of an array; expected one array of rows")
    refused(
        write(line(), line(), name="b.json"), r"not JSON \(Extra data at line 2, column 1\); expected one array .* name the file .jsonl"
    )
    refused(write("[1, 2]", name="c.json"), "c.json: row 1: int instead of a row")


def test_other_csv(write: Write) -> None:
    refused(write("question,answer", "q,#### 1", "q,#### 1,000", name="a.csv"), "a.csv:3: 3 values, but 2 columns; put", gsm8k.TASK)
    refused(write("question,answer", 'q,"#### 1', name="b.csv"), "b.csv:2: not CSV", gsm8k.TASK)
    refused(write("question,question", "q,a", name="c.csv"), "c.csv:1: a column name occurs twice", gsm8k.TASK)
    refused(write("frage,antwort", "q,a", name="d.csv"), "d.csv:2: expected a problem under question", gsm8k.TASK)


def test_a_cell_as_long_as_a_document(tmp_path: Path) -> None:
    """Python's csv module refuses cells of more than 131,072 characters by default."""
    path = tmp_path / "long.csv"
    document = "a word, " * 40_000
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["question", "answer"], [document, "#### 1"]])
    limit = csv.field_size_limit(131_072)
    try:
        (example,) = read(gsm8k.TASK, str(path))
    finally:
        csv.field_size_limit(limit)
    assert example.text == document.strip() or example.text == document


def test_other_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("question,answer", encoding="utf-8")
    refused(tmp_path / "a.parquet", "not a readable Parquet file")
    path = write_rows(tmp_path, "parquet", [json.loads(line()) | {"blob": b"\x00"}])
    refused(path, "row 1: blob is a value of type bytes, which JSON cannot represent; drop it")


def test_parallel_lines(tmp_path: Path) -> None:
    folder = tmp_path / "turk"
    folder.mkdir()
    (folder / "src.txt").write_text("lines with dog\r\nlines with a\u2028vowel\n", encoding="utf-8", newline="")
    refused(folder, r"targ.txt: no such file")
    (folder / "targ.txt").write_text(".*dog.*\n.*[AEIOUaeiou].*\n", encoding="utf-8")
    expected = [("turk:1", "lines with dog", ".*dog.*"), ("turk:2", "lines with a\u2028vowel", ".*[AEIOUaeiou].*")]
    for source in (folder, folder / "src.txt"):
        assert [(e.id, e.text, e.code) for e in read(nlrx.TASK, str(source))] == expected
    (folder / "targ.txt").write_text(".*dog.*\n\n", encoding="utf-8")
    refused(folder, "src.txt has 2 lines and targ.txt 1; they must correspond line by line")
    (folder / "targ.txt").write_text("\n.*dog.*\n", encoding="utf-8")
    assert refused(folder, "expected a sentence under src").startswith(f"{folder / 'src.txt'}:1: ")


def test_an_empty_source(tmp_path: Path, write: Write) -> None:
    (tmp_path / "pair").mkdir()
    for side in ("src", "targ"):
        (tmp_path / "pair" / f"{side}.txt").write_text("\n", encoding="utf-8")
    parquet.write_table(pyarrow.table({"question": pyarrow.array([], pyarrow.string())}), tmp_path / "a.parquet")
    empty = [write(""), write("", name="a.json"), write("[]", name="b.json"), write("", name="a.csv"), write("src,targ", name="b.csv")]
    for path in (*empty, tmp_path / "a.parquet", tmp_path / "pair"):
        assert refused(path, "contains no example; give a source").startswith(str(path))


def test_ids_stay_distinct_if_a_row_gives_several_examples(write: Write) -> None:
    rows = [
        {"text": "a", "paraphrases": ["b", "c", "d"]},
        {"text": "e", "paraphrases": "['f', \"g's\"]"},
        {"sentence1": "h", "sentence2": "i"},
    ]
    found = read(paraphrase.TASK, str(write(*map(json.dumps, rows))))
    assert [(e.id, e.text, e.code) for e in found] == [
        ("train:1.1", "a", "b"),
        ("train:1.2", "b", "c"),
        ("train:1.3", "c", "d"),
        ("train:2.1", "e", "f"),
        ("train:2.2", "f", "g's"),
        ("train:3", "h", "i"),
    ]


# --- the hub ---------------------------------------------------------------------------------------------------------


def stand_in(monkeypatch: pytest.MonkeyPatch, rows: Any, version: str = "4.4.1") -> list[tuple[str, str | None, str]]:
    """A `datasets` library that returns `rows`, or raises them; the returned list records its calls."""
    calls = []

    def load_dataset(path: str, *, name: str | None, split: str) -> Any:
        calls.append((path, name, split))
        if isinstance(rows, Exception):
            raise rows
        return iter(rows)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(__version__=version, load_dataset=load_dataset))  # type: ignore[arg-type]
    return calls


def test_a_split_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, QUESTIONS)
    found = read(gsm8k.TASK, "hub:openai/gsm8k@main:train")
    assert [(e.text, e.code) for e in found] == EXPECTED
    assert [e.id for e in found] == ["gsm8k-train:1", "gsm8k-train:2"]
    stand_in(monkeypatch, [{"question": "q", "answer": ["a", "b"]}])
    assert read(nq_open.TASK, "hub:google-research-datasets/nq_open:validation")[0].code == "a; b"
    assert calls == [("openai/gsm8k", "main", "train")]


def test_bad_hub_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("hub:gsm8k:train", "hub:openai/gsm8k", "hub:openai/gsm8k:train[:10]", "hub:../../x:train", "hub:"):
        refused(source, r"not of the form hub:ORG/NAME\[@CONFIG\]:SPLIT, as in")
    source = "hub:openai/gsm8k@main:train"
    stand_in(monkeypatch, [*QUESTIONS, {"question": "q"}])
    refused(source, rf"^{re.escape(source)} row 3: expected a problem", gsm8k.TASK)
    stand_in(monkeypatch, ConnectionError("Couldn't reach it.\nSecond line."))
    message = refused(source, "without network, download the split elsewhere and give its file", gsm8k.TASK)
    assert message.startswith(f"{source}: cannot be loaded (ConnectionError: Couldn't reach it);")
    stand_in(monkeypatch, [], version="3.6.0")
    refused(source, "needs datasets 4 or newer, but 3.6.0 is installed", gsm8k.TASK)
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(source, "needs the datasets library; pip install datasets, or download the split and give its file", gsm8k.TASK)


def test_the_real_library_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if it is installed. With an empty cache and no network, it soon gives one sentence, not a traceback."""
    pytest.importorskip("datasets", reason="the datasets library is optional")
    monkeypatch.chdir(tmp_path)
    refused("hub:jepa-ray-tests/no-such-data:train", "cannot be loaded .*; check the name, the configuration and the split", gsm8k.TASK)


def test_paper_stands_for_the_public_source() -> None:
    assert resolve(gsm8k.TASK, "paper", "train") == "hub:openai/gsm8k@main:train"
    assert resolve(nq_open.TASK, "paper", "test") == "hub:google-research-datasets/nq_open:validation"
    assert resolve(nlrx.TASK, "file.jsonl", "train") == "file.jsonl"
    with pytest.raises(ValueError, match=r"data.test=paper: the task paraphrase has no public test split on the hub; give a .jsonl"):
        resolve(paraphrase.TASK, "paper", "test")


@pytest.mark.parametrize("task", [gsm8k.TASK, nq_open.TASK, paraphrase.TASK], ids=lambda task: task.name)
def test_hub_ids_have_the_form_that_is_read(task: Task) -> None:
    assert task.hub and isinstance(task.hub, MappingProxyType)
    assert all(sources._HUB.fullmatch(source) for source in task.hub.values())


def test_text_is_composed_regardless_of_its_source(tmp_path: Path) -> None:
    """`e` and a combining accent become one character: a tokenizer that composes could never produce the two."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "who is Beyonce\u0301", "answer": ["Beyonce\u0301", "B"]}))
    (example,) = read(nq_open.TASK, str(path))
    assert example.text.endswith("Beyonc\u00e9") and example.extra["answers"] == ["Beyonc\u00e9", "B"] and "\u0301" not in example.code
