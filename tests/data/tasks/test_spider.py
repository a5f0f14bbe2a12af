"""Spider: rows in both formats, and the generated questions with their databases."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jepa_ray.data.example import Example
from jepa_ray.data.tasks import spider_sample
from jepa_ray.data.tasks.spider import DATABASES, TASK, complete, from_row, generate
from jepa_ray.data.tasks.spider_sample import SCHEMA
from jepa_ray.streams import stream


@cache
def connection(db_id: str) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.executescript(DATABASES[db_id])
    return database


def run(example: Example) -> list[tuple[Any, ...]]:
    return connection(example.extra["db_id"]).execute(example.code).fetchall()


def test_the_databases_are_small_distinct_and_consistent() -> None:
    assert 3 <= len(DATABASES) <= 5
    for db_id, tables in SCHEMA.items():
        db = connection(db_id)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == [], db_id
        assert 2 <= len(tables) <= 3
        for table in tables.values():
            rows = db.execute(f"SELECT * FROM {table.name} ORDER BY id").fetchall()
            assert 8 <= len(rows) <= 20, table.name
            assert rows == [tuple(row.values()) for row in table.rows], "the script differs from the rows that the templates draw from"
            for column in table.columns:
                assert len({type(row[column]) for row in table.rows}) == 1, (table.name, column)
                assert all("'" not in str(row[column]) for row in table.rows)


def test_a_script_by_hand() -> None:
    """The table of singers in the music database, written by hand."""
    lines = DATABASES["music"].splitlines()
    assert lines[0] == "CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, country TEXT, age INTEGER, fame INTEGER);"
    assert lines[1] == "INSERT INTO singer VALUES (1, 'Ann', 'Spain', 24, 7);"
    assert "singer_id INTEGER, FOREIGN KEY (singer_id) REFERENCES singer (id));" in DATABASES["music"]


def test_over_ten_thousand_distinct_pairs_in_a_moment() -> None:
    """0.5 s on a busy core; the limit is loose, so that only a change in complexity (quadratic in n) fails."""
    start = time.process_time()
    examples = generate(12_000, 0)
    assert time.process_time() - start < 10
    assert len({e.text for e in examples}) == len({e.code for e in examples}) == len({e.id for e in examples}) == 12_000


def test_queries_run_return_rows_and_are_distinguishable() -> None:
    examples = generate(2400, 0)
    results = [run(example) for example in examples]
    empty = sum(not rows or all(value is None for row in rows for value in row) for rows in results)
    assert empty <= 0.02 * len(examples)
    groups = Counter((example.extra["db_id"], tuple(rows)) for example, rows in zip(examples, results, strict=True))
    # Guessing the most common result of each database is right less often than this.
    assert max(groups.values()) < 0.03 * len(examples)
    assert len(groups) > 0.5 * len(examples)


def test_all_kinds_of_query_occur() -> None:
    codes = [example.code for example in generate(2400, 3)]
    parts = (
        "count(*)",
        "avg(",
        "sum(",
        "max(",
        "min(",
        "DISTINCT",
        "JOIN",
        "GROUP BY",
        "ORDER BY",
        "LIMIT",
        "OR",
        "AND",
        "NOT IN",
        "LIKE",
        "!=",
    )
    for part in parts:
        assert 10 < sum(f" {part}" in code for code in codes) < 2000, part
    assert any("(SELECT avg(" in code for code in codes)


def test_the_english_determines_the_query() -> None:
    dice = spider_sample._Dice(stream(0, "test"))
    for tables in SCHEMA.values():
        readings: dict[str, str] = {}
        repeats = 0
        for _ in range(8000):
            text, code = spider_sample._question(tables, dice)
            repeats += text in readings
            assert readings.setdefault(text, code) == code, text
        assert repeats > 500


def test_a_question_by_hand() -> None:
    """The meaning of the words, checked against the rows of the schema in plain Python."""
    examples = {e.text.partition("\n\n")[2].partition(" ")[2].rstrip(".?"): e for e in generate(12_000, 0)}
    singers = SCHEMA["music"]["singer"].rows
    countries = run(examples["the country of singers with fame under average"])
    mean = sum(float(row["fame"]) for row in singers) / len(singers)
    assert countries == [(row["country"],) for row in singers if float(row["fame"]) < mean]
    childless = {row["id"] for row in SCHEMA["shop"]["item"].rows} - {row["item_id"] for row in SCHEMA["shop"]["sale"].rows}
    stocks = run(examples["the stock of items without sales"])
    assert childless and stocks == [(row["stock"],) for row in SCHEMA["shop"]["item"].rows if row["id"] in childless]


def test_the_same_arguments_give_the_same_pairs_and_others_give_others() -> None:
    assert generate(50, 1) == generate(50, 1)
    assert generate(200, 1)[:50] == generate(50, 1)
    assert generate(50, 1) != generate(50, 2)
    assert {e.text for e in generate(50, 1, "train")} != {e.text for e in generate(50, 1, "test")}


def test_excluded_texts_and_queries_do_not_come_back() -> None:
    plain, first = generate(800, 0, "train"), generate(800, 0, "test")
    assert {e.code for e in plain} & {e.code for e in first}, "the streams share no query, so excluding is not tested"
    second = generate(800, 0, "train", exclude=first)
    assert len(second) == 800
    assert not {e.text for e in second} & {e.text for e in first}
    assert not {e.code for e in second} & {e.code for e in first}


def test_exhausted_templates_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spider_sample, "_question", lambda tables, dice: ("Show.", f"SELECT {int(dice.chance(0.5))}"))
    with pytest.raises(ValueError, match=r"gave \d of the 100 distinct pairs of the val split in 2,000 draws: lower data.num_train"):
        generate(100, 0, "val")


def test_generated_examples_are_complete() -> None:
    for example in generate(200, 0):
        assert complete(example) == example
        assert example.system == TASK.system == "Convert natural language to SQL."


def test_a_row_of_the_public_release() -> None:
    row = {"db_id": "concert_singer", "question": "How many singers do we have?", "query": "SELECT count(*) FROM singer", "sql": {}}
    (example,) = from_row(row, "train_spider.json, row 1", "train_spider:1")
    assert example.text == "For db_id:[concert_singer]\n\nHow many singers do we have?"
    assert (example.id, example.code, example.extra) == ("train_spider:1", "SELECT count(*) FROM singer", {"db_id": "concert_singer"})
    assert complete(example) == example


@pytest.mark.parametrize("broken", [{"db_id": None}, {"query": "  "}, {"question": 3}])
def test_a_row_that_is_not_spiders(broken: dict[str, Any]) -> None:
    row = {"db_id": "a", "question": "b", "query": "SELECT 1"} | broken
    with pytest.raises(ValueError, match=r"^f\.json, row 2: expected a database's name under db_id"):
        from_row(row, "f.json, row 2", "f:2")


@pytest.mark.parametrize(
    "text", ["How many?", "For db_id:[]\n\nHow many?", "For db_id:[a]", "For db_id: a\n\nHow many?", "see For db_id:[a] b"]
)
def test_a_message_without_a_database(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be For db_id:\[NAME\] followed by a question"):
        complete(Example("x:1", "", text, "SELECT 1"))


@pytest.mark.parametrize(("name", "rows", "databases"), [("spider_train", 6587, 160), ("spider_test", 1447, 159)])
def test_every_row_of_the_reference_goes_through(shared_data: Path, name: str, rows: int, databases: int) -> None:
    """The counts come from the files: lines, and distinct names in brackets."""
    examples = []
    with open(shared_data / f"{name}.jsonl") as file:
        for number, line in enumerate(file):
            system, user, assistant = (message["content"] for message in json.loads(line)["messages"])
            examples.append(complete(Example(f"{name}:{number}", system, user, assistant)))
            assert user.startswith(f"For db_id:[{examples[-1].extra['db_id']}]\n\n")
    assert len(examples) == rows
    assert len({example.extra["db_id"] for example in examples}) == databases
    assert {example.system for example in examples} == {TASK.system}
