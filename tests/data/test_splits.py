"""Groups of examples: what differs only in form and what belongs to one conversation stays on one side of every split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jepa_ray.config import DataConfig
from jepa_ray.data.datasets import Splits, load_splits
from jepa_ray.data.example import Example
from jepa_ray.data.splits import groups, split_groups, without
from tests.data.test_datasets import pairs
from tests.data.test_sameness import talk


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def asked(*questions: str) -> list[dict[str, Any]]:
    return [{"question": question, "answer": f"a{number % 3}"} for number, question in enumerate(questions)]


def conversation(*contents: str) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[number % 2], "content": content} for number, content in enumerate(contents)]}


def own(train: str, test: str | None = None, **data: Any) -> Splits:
    return load_splits(DataConfig(task="text", train=train, test=test, **data))


def ids(found: list[list[Example]]) -> list[list[str]]:
    return [[example.id for example in group] for group in found]


@pytest.mark.parametrize(
    ("by", "drawn"),
    [("answer", [9, 11, 13, 15, 29, 30, 31, 35, 37]), ("text", [2, 9, 15, 18, 19, 30, 31, 32, 37])],
)
def test_rows_that_differ_in_more_are_drawn_as_by_earlier_versions(by: Any, drawn: list[int]) -> None:
    """Drawn by the version that compared raw strings."""
    part, _ = split_groups(pairs(40, 30, 30, 5), 9, 3, "validation split", by)
    assert [int(example.id[2:]) for example in part] == drawn


def test_white_space_does_not_separate_rows_of_one_file(tmp_path: Path) -> None:
    rows = asked(*(f"Q{number // 2} is what?{' ' * (number % 2)}" for number in range(80)))
    splits = own(write(tmp_path / "train.jsonl", rows), num_val=8)
    assert len(splits.val) == 8 and not {one.text.strip() for one in splits.train} & {one.text.strip() for one in splits.val}
    answers = [Example("0", "", "q", "a b"), Example("1", "", "r", "a\u00a0 b"), Example("2", "", "s", "ab")]
    assert ids(groups(answers)) == [["0", "1"], ["2"]] and ids(groups(answers, "text")) == [["0"], ["1"], ["2"]]


def test_a_test_file_without_a_trailing_space_is_leaked(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", asked(*(f"Q{number} is what? " for number in range(40))))
    test = write(tmp_path / "test.jsonl", asked(*(f"Q{number} is what?" for number in range(30, 50))))
    report = own(train, test, num_val=8).report
    assert (report["overlap_text"], report["overlap_target"]) == (10, 20)


def test_repeats_and_contradictions_in_another_form_are_counted(tmp_path: Path) -> None:
    same = [{"question": "which one", "answer": "a"}, {"question": "which  one", "answer": "a\n"}]
    other = [{"question": "what", "answer": "a"}, {"question": "what ", "answer": "b"}, {"question": "what", "answer": "b "}]
    rows = [*asked(*(f"Q{number}" for number in range(10))), *same, *other]
    report = own(write(tmp_path / "train.jsonl", rows), num_val=1, split_seed=1).report
    assert report["duplicates"]["train"] == 2 and report["contradictions"]["train"] == 3


def test_what_is_held_out_in_another_form_is_left_out_of_a_first_stage() -> None:
    held = [Example("0", "", "q one", "a"), talk("r", "b", "s", "c", name="1")]
    first = [Example("2", "", "q one ", "x"), talk("r", "b", name="3"), Example("4", "", "t", "a\n"), Example("5", "", "u", "y")]
    assert [example.id for example in without(first, held, "text")] == ["4", "5"]
    assert [example.id for example in without(first, held, "answer")] == ["5"]
    viewed = Example("6", "", "v", "z", views=("context ", "z"))
    assert not without([viewed], [Example("7", "", "w", "z", views=("context", "z"))], "text")


def test_a_conversation_and_its_beginnings_are_one_group() -> None:
    rows = [
        talk("q", "a", name="0"),
        talk("p", "z", name="1"),
        talk("q", "a", "r", "b", "s", "c", name="2"),
        talk("q", "a", "t", "d", name="3"),
    ]
    assert ids(groups(rows, "text")) == [["0", "2", "3"], ["1"]]
    # Without the row that both begin with, the same first turn is not enough.
    assert ids(groups(rows[1:], "text")) == [["1"], ["2"], ["3"]]
    # The order of the rows does not matter.
    assert ids(groups(rows[::-1], "text")) == [["3", "2", "0"], ["1"]]


def test_conversations_with_the_same_views_are_one_group() -> None:
    """Not if the message has other answers after other turns: then it does not say what is asked."""
    rows = [
        talk("hi", "hello", "Q", "A", name="0"),
        talk("hey", "hello", "Q ", "A", name="1"),
        talk("Q", "A", name="2"),
        talk("R", "A", name="3"),
    ]
    assert ids(groups(rows, "text")) == [["0", "1", "2"], ["3"]]
    assert ids(groups([*rows, talk("ho", "hello", "Q", "B", name="4")], "text")) == [[str(number)] for number in range(5)]


def test_no_validation_pair_stands_in_a_training_conversation(tmp_path: Path) -> None:
    turns = [[f"c{number} {side}{turn}" for turn in range(3) for side in "qa"] for number in range(30)]
    rows = [conversation(*contents[:length]) for contents in turns for length in (2, 4, 6)]
    splits = own(write(tmp_path / "train.jsonl", rows), num_val=12)
    assert len(splits.val) == 12
    trained = {content for example in splits.train for content in (example.text, example.code, *(text for _, text in example.history))}
    assert not trained & {content for example in splits.val for content in (example.text, example.code)}


@pytest.mark.parametrize(("trained", "tested"), [(6, 4), (4, 6)])
def test_a_test_conversation_that_begins_or_goes_on_one_in_training_is_leaked(trained: int, tested: int, tmp_path: Path) -> None:
    turns = [[f"c{number} {side}{turn}" for turn in range(3) for side in "qa"] for number in range(20)]
    train = write(tmp_path / "train.jsonl", [conversation(*contents[:trained]) for contents in turns[:15]])
    test = write(tmp_path / "test.jsonl", [conversation(*contents[:tested]) for contents in turns[5:]])
    assert own(train, test, num_val=5).report["overlap_text"] == 10
