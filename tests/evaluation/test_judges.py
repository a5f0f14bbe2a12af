"""Judges: cases derived by hand; every task's references pass its judge; docs/tasks.md agrees with the code."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from jepa_ray.config import DataConfig, EvaluationConfig
from jepa_ray.data.datasets import DATASETS
from jepa_ray.data.tasks.text import JUDGED
from jepa_ray.evaluation import tasks_page
from jepa_ray.evaluation.judges import JUDGES, judge_of, labels_of, normalise
from jepa_ray.evaluation.metrics import Score, guessing
from jepa_ray.evaluation.numbers import number_after_mark

CAFE, CAFE_APART = "caf\u00e9", "cafe\u0301"
"""The same word, as files have it and as a model may write it."""


def judge(name: str, prediction: str, reference: str, **extra: object) -> Score:
    return judge_of(name, DataConfig(), EvaluationConfig())(prediction, reference, extra)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so\n#### 1000", 1000),
        ("#### 1,000", 1000),
        ("#### 1000.0", 1000),
        ("#### 1000.", 1000),
        ("#### $1,000", 1000),
        ("#### 1000%", 1000),
        ("#### 1000 dollars", 1000),
        ("####1000", 1000),
        ("#### -10", -10),
        ("#### -$10", -10),
        ("#### $-10", -10),
        ("#### +10", 10),
        ("#### .5", Fraction(1, 2)),
        ("#### 0.1", Fraction(1, 10)),
        ("#### 0.1000000000000000000001", Fraction(10**21 + 1, 10**22)),
        ("#### 18\n#### 19", 18),  # continued with the next problem
        ("#### none\n#### 19", 19),
        ("18", None),
        ("#### eighteen", None),
        ("####\n7 more lines", None),
        ("####", None),
        ("", None),
        (f"#### {'9' * 10_000}", None),
    ],
)
def test_the_number_after_the_mark(text: str, number: Fraction | int | None) -> None:
    assert number_after_mark(text) == number


def test_number() -> None:
    gold = "2*500=<<2*500=1000>>1000\n#### 1,000"
    assert judge("number", gold, gold) == Score(True, True, True, True, paper_correct=True)
    assert judge("number", "I guess\n#### 1,000", gold) == Score(True, False, False, False, paper_correct=True)
    assert judge("number", "I guess\n#### 1000", gold) == Score(True, False, False, False, paper_correct=False)
    # The paper's rule requires the mark in the last line: a text that continues is wrong, whatever its answer.
    assert judge("number", "I guess\n#### 1,000\nQuestion:", gold) == Score(True, False, False, False, paper_correct=False)
    assert judge("number", "I guess\n#### 1001", gold) == Score(False, False, False, False, paper_correct=False)
    assert judge("number", "1,000", gold) == Score(False, False, False, False, paper_correct=False)
    with pytest.raises(ValueError, match="no number after ####"):
        judge("number", "#### 1", "one")


def test_normalisation_of_answers() -> None:
    assert normalise("  The  U.S. and\ta 'Theatre'! ") == ["us", "and", "theatre"]


@pytest.mark.parametrize(
    ("prediction", "correct", "paper"),
    [
        ("Paris", True, True),
        ("paris", True, False),
        ("It is the City of Light, I think", True, False),
        ("London; Paris", True, True),
        ("Parisian", False, False),  # whole words only
        ("city light", False, False),
        ("e", False, True),  # the paper's script looks for the output in the reference
        ("", False, True),
    ],
)
def test_answers(prediction: str, correct: bool, paper: bool) -> None:
    score = judge("answers", prediction, "Paris; The City of Light", answers=["Paris", "The City of Light"])
    assert (score.correct, score.paper_correct) == (correct, paper)


def test_an_answer_of_articles_only_does_not_occur_everywhere() -> None:
    assert judge("answers", "The The", "The The", answers=["The The"]).correct
    assert not judge("answers", "Nothing", "The The", answers=["The The"]).correct


@pytest.mark.parametrize(
    ("prediction", "label", "correct", "paper"),
    [
        (" Good\n", "Good", True, True),
        ("Good film", "Good", True, True),
        ("Good.", "Good", True, True),
        ("Good,but long", "Good", True, True),
        ("Good - really", "Good", True, True),
        ("Not Good", "Good", False, False),
        ("good", "Good", False, False),
        ("", "Good", False, False),
        ("Badly", "Bad", False, True),  # another word
        ("Goodness", "Good", False, True),
        ("Good-ish", "Good", False, True),
        ("10", "1", False, True),  # another number
        ("1.5", "1", False, True),
        ("1.", "1", True, True),
        ("1 star", "1", True, True),
        ("Gut\u00e9", "Gut", False, True),
        ("A+", "A", False, True),  # another grade, or another name
        ("A-", "A", False, True),
        ("A\u2212", "A", False, True),
        ("C++ and Rust", "C", False, True),
        ("C#", "C", False, True),
        ("3+", "3", False, True),
        ("A+", "A+", True, True),
        ("C++.", "C++", True, True),
        ("Good--really", "Good", True, True),  # a dash
        (CAFE_APART, CAFE, True, False),  # the same word
        (CAFE, CAFE_APART, True, False),
        (CAFE_APART, "cafe", False, True),
    ],
)
def test_label(prediction: str, label: str, correct: bool, paper: bool) -> None:
    """Without the label set, as far as the reference tells."""
    score = judge("label", prediction, label)
    assert (score.correct, score.paper_correct) == (correct, paper)


@pytest.mark.parametrize(
    ("labels", "prediction", "answer"),
    [
        (("entailment", "not", "not entailment"), "not entailment", "not entailment"),
        (("entailment", "not", "not entailment"), "not entailment, I think", "not entailment"),
        (("entailment", "not", "not entailment"), "not entailments", "not"),
        (("entailment", "not", "not entailment"), "not so", "not"),
        (("entailment", "not", "not entailment"), "nothing", None),
        (("not", "not sure"), "not sure", "not sure"),
        (("not", "not sure"), "not  sure", "not"),
        (("credit limit", "credit limit change"), "credit limit change", "credit limit change"),
        (("credit limit", "credit limit change"), "credit limit", "credit limit"),
        (("very", "very good"), "very good!", "very good"),
        (("C", "C#", "C++"), "C++", "C++"),
        (("C", "C#", "C++"), "C#", "C#"),
        (("C", "C#", "C++"), "C", "C"),
        (("C", "C#", "C++"), "C+++", None),
        (("A", "A+", "A-"), "A-", "A-"),
        (("n", "n/a"), "n/a", "n/a"),
        (("1", "1:2"), "1:2", "1:2"),
        (("A", "A&B"), "A&B", "A&B"),
        (("caf", CAFE), CAFE_APART, CAFE),
        ((" not ", "not sure\n"), "not sure", "not sure"),
    ],
)
def test_the_longest_label_of_the_set_decides(labels: tuple[str, ...], prediction: str, answer: str | None) -> None:
    """An output has one label at most, whatever the reference is."""
    known = labels_of("label", labels)
    right = [one for one in known if judge_of("label", DataConfig(), EvaluationConfig(), known)(prediction, one, {}).correct]
    assert right == ([answer] if answer is not None else [])


def test_a_reference_that_training_lacks_is_a_label_too() -> None:
    score = judge_of("label", DataConfig(), EvaluationConfig(), ("not", "yes"))
    assert score("not sure", "not sure", {}).correct and score("not sure", "not", {}).correct


def test_always_the_same_label_scores_as_chance_says() -> None:
    labels = ["not"] * 50 + ["not sure"] * 50
    score = judge_of("label", DataConfig(), EvaluationConfig(), labels_of("label", labels))
    assert sum(score("not sure", label, {}).correct for label in labels) / 100 == guessing(labels, labels) == 0.5


def test_only_the_judge_of_labels_has_a_set() -> None:
    assert labels_of("label", ["b", "a ", "b", CAFE_APART]) == ("a", "b", CAFE) and labels_of("text", ["b", "a"]) == ()


@pytest.mark.parametrize("name", ["text", "contains", "regex"])
def test_how_an_accented_character_is_encoded_does_not_decide(name: str) -> None:
    for prediction, reference in ((CAFE_APART, CAFE), (CAFE, CAFE_APART)):
        score = judge(name, prediction, reference)
        assert score.correct and score.exact and score.prefix_correct and score.contains
    assert judge("contains", f"a {CAFE_APART}.", CAFE).correct and not judge("contains", CAFE_APART, "cafe").correct


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [
        ("caf\u00e9", "cafe\u0301"),  # Unicode form
        ("1914\u20131918", "1914-1918"),  # en dash
        ("1914-18", "from 1914 \u2013 18"),
        ("1914-18", "1914--18"),
        ("9-1-1", "9\u20111\u20111"),  # no-break hyphens
        ("AC/DC", "ac / dc"),
        ("Rock and roll/pop", "rock and roll pop"),
        ("twenty-one", "twenty one"),
        ("co-operate", "cooperate"),
        ("O'Brien", "O\u2019Brien"),
        ("\u201cHeroes\u201d", "It is Heroes"),
        ("the Philippines", "Philippines"),
        ("The Beatles", "by Beatles members"),
        ("The Spider-Man", "it was the spider-man"),
        ("The Who", "It was the who, I think"),
        ("The Who", "who"),
        ("the heart", "in heart muscle"),
    ],
)
def test_answers_that_differ_in_nothing_but_their_writing(gold: str, prediction: str) -> None:
    assert judge("answers", prediction, gold, answers=[gold]).correct


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [
        ("The Who", "who knows"),
        ("The Band", "a rock band from Canada"),
        ("1914\u20131918", "1914"),
        ("1914-18", "1914-1918"),
        ("AC/DC", "AC"),
        ("caf\u00e9", "cafeteria"),
    ],
)
def test_answers_that_say_something_else(gold: str, prediction: str) -> None:
    assert not judge("answers", prediction, gold, answers=[gold]).correct


def test_choice() -> None:
    assert judge("choice", "B", "B").correct
    assert not judge("choice", "A", "B").correct


@pytest.mark.parametrize(
    ("prediction", "correct", "equivalent", "undecided"),
    [
        ("(a)&(.)", True, True, False),
        (" (a)&(.)", True, True, False),
        ("a", False, True, False),
        ("(a", False, False, False),
        ("b", False, False, False),
        ("", False, False, False),
        ("(" * 200 + "a" + ")" * 200, False, None, True),
    ],
)
def test_regex(prediction: str, correct: bool, equivalent: bool | None, undecided: bool) -> None:
    """Equivalent answers are reported, but only those equal to the reference are correct."""
    score = judge("regex", prediction, "(a)&(.)")
    assert (score.correct, score.equivalent, score.undecided) == (correct, equivalent, undecided)


def test_text_comparison_on_demand() -> None:
    """`evaluation.judge: text` needs neither databases nor numbers."""
    assert "sql" in JUDGES
    for name in JUDGES:
        score = judge_of(name, DataConfig(), EvaluationConfig(judge="text"))("#### 5", "#### 5.0", {})
        assert score == Score(False, False, False, False)


def test_gsm8k_numbers_are_all_read(shared_data: Path) -> None:
    """The judge reads the number of every real solution, as extracted from its text in another way."""
    lines = (shared_data / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines()
    codes = [json.loads(line)["messages"][2]["content"] for line in lines]
    assert len(codes) > 1000
    for code in codes:
        assert number_after_mark(code) == Fraction(code.split("####")[1].replace(",", "").strip())


def test_references_pass_and_a_wrong_answer_does_not() -> None:
    built_in = {name: task for name, task in DATASETS.items() if task.built_in}
    assert len(built_in) >= 9
    for name, task in built_in.items():
        assert tasks_page.shares(task) == (1.0, 0.0), name
    assert set(tasks_page.LIKE) == set(JUDGED)
    for key, like in tasks_page.LIKE.items():
        assert tasks_page.shares(DATASETS[like], JUDGED[key].judge) == (1.0, 0.0), key


def test_the_page_on_tasks_is_up_to_date(repository: Path) -> None:
    """It must equal the output of `python -m jepa_ray.evaluation.tasks_page > docs/tasks.md`."""
    assert set(tasks_page.ALSO) == set(JUDGES)
    assert (repository / "docs" / "tasks.md").read_text(encoding="utf-8") == tasks_page.page()


@pytest.mark.parametrize("written", ["#### 1/2", "#### 1e3", "#### 3:30", "#### 1.5e2"])
def test_fractions_times_and_powers_are_no_number(written: str) -> None:
    assert number_after_mark(written) is None
