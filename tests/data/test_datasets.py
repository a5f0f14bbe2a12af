"""Loading and splitting: nothing leaks, the same input gives the same splits, and every empty split is explained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa_ray.config import DataConfig, EvaluationConfig
from jepa_ray.data.datasets import DATASETS, Splits, digest, load_splits, split_base
from jepa_ray.data.example import Example
from jepa_ray.data.report import of_task
from jepa_ray.data.splits import groups, split_groups, subset
from jepa_ray.evaluation.judges import judge_of

Write = Callable[..., Path]


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


def distinct(count: int, start: int = 0) -> list[str]:
    return [line(f"text {i}", f"code {i}") for i in range(start, start + count)]


def pairs(count: int, texts: int, codes: int, seed: int) -> list[Example]:
    """Random examples in which texts and codes repeat, so that groups of many shapes appear."""
    rng = np.random.default_rng(seed)
    return [Example(f"f:{i}", "", f"text {rng.integers(texts)}", f"code {rng.integers(codes)}") for i in range(count)]


def assert_no_leak(left: list[Example] | tuple[Example, ...], right: list[Example] | tuple[Example, ...], by: str = "answer") -> None:
    assert left and right
    assert not {e.text for e in left} & {e.text for e in right}
    assert by == "text" or not {e.code for e in left} & {e.code for e in right}


# --- splitting -------------------------------------------------------------------------------------------------------


def test_groups_are_connected_through_texts_and_codes() -> None:
    made = [Example(str(i), "", *pair) for i, pair in enumerate([("a", "x"), ("b", "x"), ("c", "z"), ("b", "y"), ("d", "y"), ("x", "a")])]
    assert [[e.id for e in group] for group in groups(made)] == [
        ["0", "1", "3", "4", "5"],
        ["2"],
    ]  # the answer of the last is the text of the first
    assert [[e.id for e in group] for group in groups(made, "text")] == [["0"], ["1", "3"], ["2"], ["4"], ["5"]]


@pytest.mark.parametrize("seed", range(20))
def test_no_text_and_no_code_is_on_both_sides(seed: int) -> None:
    examples = pairs(200, 150, 150, seed)
    part, rest = split_groups(examples, 60, seed, "x")
    assert_no_leak(part, rest)
    assert sorted([*part, *rest], key=lambda e: int(e.id[2:])) == examples
    sizes = sorted(len(group) for group in groups(examples))
    assert max(sizes) > 2, "no group with several examples: nothing is tested"
    # Smaller than requested only if no remaining group fits.
    assert len(part) <= 60 and (len(part) == 60 or min(len(group) for group in groups(rest)) > 60 - len(part))


def test_the_split_depends_on_its_seed_and_nothing_else() -> None:
    examples = pairs(100, 300, 300, 0)
    assert split_groups(examples, 20, 1, "x") == split_groups(examples, 20, 1, "x")
    assert split_groups(examples, 20, 1, "x") != split_groups(examples, 20, 2, "x")
    assert split_groups(examples, 20, 1, "x") != split_groups(examples, 20, 1, "y")


def test_a_smaller_subset_is_part_of_a_larger_one() -> None:
    examples = pairs(50, 50, 50, 0)
    small, large = subset(examples, 10, 3, "x"), subset(examples, 30, 3, "x")
    assert len(small) == 10 and {e.id for e in small} < {e.id for e in large}
    assert subset(examples, None, 3, "x") == subset(examples, 50, 3, "x") == examples


def test_base_half_shares_nothing_with_the_rest() -> None:
    examples = tuple(pairs(400, 1000, 600, 1))
    base, finetune = split_base(examples, 0.25, 0)
    assert_no_leak(base, finetune)
    assert len(base) == 100 and len(finetune) == 300
    with pytest.raises(ValueError, match=r"leaves 0 to pre-train the tiny base and 3 to fine-tune.*data.num_train"):
        split_base(tuple(pairs(3, 1, 1, 0)), 0.5, 0)


def test_digests_without_earlier_turns_are_those_of_earlier_versions() -> None:
    """Recomputed here from the five fields that examples had before conversations could have several turns."""
    plain = Example("f:1", "s", "t", "c", {"db_id": "x"}, ("a", "b"))
    wanted = hashlib.sha256(json.dumps(["s", "t", "c", {"db_id": "x"}, ["a", "b"]], sort_keys=True).encode() + b"\n").hexdigest()
    assert digest([plain]) == wanted
    turns = (("user", "u"), ("assistant", "a"))
    assert len({wanted, digest([replace(plain, history=turns)]), digest([replace(plain, history=turns[:1])])}) == 3


# --- the three splits of a sweep -------------------------------------------------------------------------------------


def parts(splits: Splits) -> list[tuple[Example, ...]]:
    return [splits.train, splits.val, splits.test]


BUILT_IN = sorted(name for name, task in DATASETS.items() if task.built_in)


@pytest.mark.parametrize("task", BUILT_IN)
def test_every_task_generates_disjoint_splits_that_its_judge_accepts(task: str) -> None:
    splits = load_splits(DataConfig(task=task, num_train=300, num_val=60, num_test=80))
    assert [len(split) for split in parts(splits)] == [300, 60, 80]
    for left, right in ((0, 1), (0, 2), (1, 2)):
        assert_no_leak(parts(splits)[left], parts(splits)[right], DATASETS[task].split_by)
    everything = [example for split in parts(splits) for example in split]
    assert len({example.id for example in everything}) == len(everything)
    judge = judge_of(DATASETS[task].judge, DataConfig(task=task), EvaluationConfig())
    for example in everything:
        score = judge(example.code, example.code, example.extra)
        assert example.text.strip() and example.system and score.correct and score.exact and score.error is None
        assert not judge("@", example.code, example.extra).correct
    assert splits.report["overlap_text"] == 0
    assert DATASETS[task].split_by == "text" or splits.report["overlap_target"] == 0


@pytest.mark.parametrize("task", BUILT_IN)
def test_chance_is_what_the_best_constant_answer_reaches(task: str) -> None:
    """For labels and letters. If answers are many, 0 is stated, and the best constant answer is almost never correct."""
    splits = load_splits(DataConfig(task=task, num_train=600, num_val=200, num_test=200))
    codes = [example.code for split in parts(splits) for example in split]
    share = max(codes.count(code) for code in set(codes)) / len(codes)
    chance = DATASETS[task].chance
    assert share == pytest.approx(chance, abs=0.05) if chance else share < 0.05


def test_generated_sizes_default_and_the_test_split_stays_when_training_grows() -> None:
    default, small = load_splits(DataConfig(num_val=100)), load_splits(DataConfig(num_val=100, num_train=50))
    assert [len(split) for split in parts(default)] == [2400, 100, 512]
    assert small.test == default.test and small.val == default.val
    assert small.train == default.train[:50]
    assert small.dataset_sha != default.dataset_sha
    assert load_splits(DataConfig(num_val=100, num_train=50)).dataset_sha == small.dataset_sha
    assert load_splits(DataConfig(num_val=100, num_train=50, split_seed=1)).dataset_sha != small.dataset_sha


def test_file_splits_follow_contents_and_not_the_path(tmp_path: Path) -> None:
    shas = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        train, test = tmp_path / folder / f"{folder}-train.jsonl", tmp_path / folder / f"{folder}-test.jsonl"
        train.write_text("\n".join(distinct(100)), encoding="utf-8")
        test.write_text("\n".join(distinct(10, 95)), encoding="utf-8")
        splits = load_splits(DataConfig(train=str(train), test=str(test), num_val=20, num_train=30))
        assert [len(split) for split in parts(splits)] == [30, 20, 10]
        assert_no_leak(splits.train, splits.val)
        shas.append(splits.dataset_sha)
    assert shas[0] == shas[1]
    changed = load_splits(DataConfig(train=str(train), test=str(test), num_val=20, num_train=31)).dataset_sha
    assert changed != shas[0]


def test_overlap_and_duplicates_are_counted(write: Write) -> None:
    """Test shares one pair, one text only and one answer only with train: 2 of 4 texts, 2 of 4 answers."""
    train = write(*distinct(30), line("text 3", "code 3"))
    test = write(line("text 3", "code 3"), line("text 4", "new"), line("new", "code 5"), line("other", "other"), name="test.jsonl")
    report = load_splits(DataConfig(train=str(train), test=str(test), num_val=5)).report
    assert (report["overlap_text"], report["overlap_text_share"]) == (2, 0.5)
    assert (report["overlap_target"], report["overlap_target_share"]) == (2, 0.5)
    assert sum(report["duplicates"].values()) == 1
    assert report["sizes"] == {"train": 26, "val": 5, "test": 4}
    assert report["files"] == {"train": str(train), "test": str(test)}


def test_contradicting_answers_are_counted_and_reported(write: Write) -> None:
    """One question has three answers, another two. A repeated pair is not a contradiction, nor is another instruction."""
    twice = [line("which", answer) for answer in ("a", "b", "c")] + [line("what", answer) for answer in ("a", "d")]
    train = write(*distinct(30), *twice, line("text 3", "code 3"), line("which", "z", system="another instruction"))
    report = load_splits(DataConfig(train=str(train), num_val=1, split_seed=1)).report
    assert report["contradictions"] == {"train": 5, "val": 0, "test": 0} and report["duplicates"]["train"] == 1
    share = 5 / report["sizes"]["train"]
    assert any(f"another answer elsewhere in the same split: 5 of train ({share:.1%})" in sentence for sentence in of_task(report))
    clean = load_splits(DataConfig(train=str(write(*distinct(30))), num_val=1)).report
    assert not any("another answer" in sentence for sentence in of_task(clean))


def test_a_split_smaller_than_asked_is_said_once(write: Write) -> None:
    train, test = write(*distinct(30)), write(*distinct(5, 40), name="test.jsonl")
    asked = DataConfig(train=str(train), test=str(test), num_val=10, num_train=21, num_test=512)
    report = load_splits(asked).report
    assert report["sizes"] == {"train": 20, "val": 10, "test": 5}
    said = [sentence for sentence in of_task(report) if "data.num_" in sentence]
    assert said == [
        "data.num_train is 21, the data have 20 left: 20 are used",
        "data.num_test is 512, the data have 5 left: 5 are used",
    ]
    enough = asked.model_copy(update={"num_train": 20, "num_test": 5})
    for quiet in (enough, enough.model_copy(update={"num_train": None, "num_test": None}), DataConfig(num_val=10, num_test=8)):
        assert not any("data.num_" in sentence for sentence in of_task(load_splits(quiet).report))
    # Groups of three equal answers stay whole, so that 10 validation examples cannot be filled.
    grouped = write(*(line(f"text {number}", f"code {number // 3}") for number in range(30)), name="grouped.jsonl")
    few = load_splits(DataConfig(train=str(grouped), num_val=10)).report
    assert few["fewer"] == {"val": (10, 30, 9)} and "no more whole groups of equal examples fit" in " ".join(of_task(few))


def test_rows_without_a_system_message_get_that_of_the_task(write: Write) -> None:
    path = write(*distinct(3), line("x", "y", system=None))
    splits = load_splits(DataConfig(train=str(path), num_val=1))
    assert {e.system for e in (*splits.train, *splits.val)} == {"s", DATASETS["nl-rx"].system}
    assert splits.test == ()


def test_empty_splits_name_the_number_to_change(write: Write) -> None:
    with pytest.raises(ValueError, match=r"the training split is empty: of the 4 examples in .* 4 went to validation \(data.num_val = 9"):
        load_splits(DataConfig(train=str(write(*distinct(4))), num_val=9))
    # All have the same answer: a single group, which does not fit into a validation split of 2.
    same = [line(f"text {i}", "code") for i in range(4)]
    with pytest.raises(ValueError, match=r"the validation split is empty: .* 0 went to validation \(data.num_val = 2"):
        load_splits(DataConfig(train=str(write(*same)), num_val=2))
    with pytest.raises(ValueError, match=r"train.jsonl: contains no example"):
        load_splits(DataConfig(train=str(write(""))))
    with pytest.raises(ValueError, match=r"t.jsonl: contains no example"):
        load_splits(DataConfig(train=str(write(*distinct(9))), test=str(write("", name="t.jsonl")), num_val=2))


def test_unknown_task_and_a_test_file_alone() -> None:
    with pytest.raises(ValueError, match=r"data.task 'nlrx' is unknown; available: gsm8k, .*nl-rx"):
        load_splits(DataConfig(task="nlrx"))
    with pytest.raises(ValueError, match=r"data.train is missing"):
        load_splits(DataConfig(test="somewhere.jsonl"))


def test_real_nl_rx_synth(shared_data: Path) -> None:
    """8,000 + 2,000 pairs; about 2 % of the test texts occur in the training file."""
    config = DataConfig(train=str(shared_data / "synth_train.jsonl"), test=str(shared_data / "synth_test.jsonl"), num_val=256)
    splits = load_splits(config)
    assert [len(split) for split in parts(splits)] == [7744, 256, 2000]
    assert_no_leak(splits.train, splits.val)
    assert splits.report["overlap_text_share"] == pytest.approx(0.02, abs=0.005)
    assert splits.report["overlap_target_share"] >= splits.report["overlap_text_share"]
