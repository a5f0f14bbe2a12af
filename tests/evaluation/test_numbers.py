"""The number after `####`: every form in which models write the same number, never a part of another one, in linear time."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest

from jepa_ray.evaluation.numbers import READ, answer_number, last_number, loose_number_after_mark, number_after_mark


@pytest.mark.parametrize(
    "written",
    [
        "**18**",
        "*18*",
        "__18__",
        "`18`",
        r"\boxed{18}",
        r"$\boxed{18}$",
        r"\(18\)",
        r"\$18",
        "x = 18",
        "x=18",
        "Answer: 18",
        "**Answer:** 18",
        "The final answer: **18**",
        "US$18",
        "Rs. 18",
        "Rs 18",
        "USD 18",
        "\u20ac18",
        "\u20b918",
        "\n18",
        "\n\n**18**\n",
        "Answer:\n18.",
        "(18)",
        "18.",
        "18%",
        "18 eggs",
        "18-year-old",
        "18/day",
        "18, which is 2 x 9",
        "18 because 9 + 9 = 18 and 2 = 2",
        "5 + 13 = 18",
        "$6 x 3 = $18",
        "36 / 2 = 18 eggs",
        "18.0",
        "018",
        " \t 18",
        "18\nQuestion 2: 5 / 6",
        "18 = 18",
    ],
)
def test_eighteen(written: str) -> None:
    assert number_after_mark(f"9 + 9\n#### {written}") == 18


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("1 000", 1000),
        ("1\u00a0000", 1000),
        ("1\u202f000 km", 1000),
        ("12,34,567", 1234567),
        ("1{,}000", 1000),
        (r"1\,000", 1000),
        ("1 000.5", Fraction(2001, 2)),
        ("\u221218", -18),
        ("-$18", -18),
        ("$-18", -18),
        ("\u2212$18", -18),
        ("- 18", -18),
        ("18 - 20 = -2", -2),
        (r"\boxed{-2}", -2),
    ],
)
def test_other_forms(written: str, number: int | Fraction) -> None:
    assert number_after_mark(f"#### {written}") == number


@pytest.mark.parametrize(
    "written",
    [
        "5 / 6",
        "5/6",
        "3 1/2",
        "20-30",
        "20 - 30",
        "20\u201330",
        "20 to 30",
        "1,5",
        "1,50",
        "10,00",
        "1,000,50",
        "3:30",
        "1e3",
        "10^2",
        "2 * 9",
        "2*9",
        "2**9",
        "2 x 9",
        "2 \u00d7 9",
        "1.5.2",
        "Step 2: go on",
        "no idea",
        "\n18 apples are left, I think",
        "Answer:\n7 more lines",
    ],
)
def test_a_part_of_a_number_or_expression_is_none(written: str) -> None:
    assert number_after_mark(f"#### {written}") is None
    assert number_after_mark(f"#### {written}\n#### 18") == 18, "the next mark with a number counts"


def test_answers_of_a_data_set_are_read_however_their_commas_stand() -> None:
    assert loose_number_after_mark("#### 10,00") == 1000 and number_after_mark("#### 10,00") is None
    assert loose_number_after_mark("#### 1,000") == 1000 and loose_number_after_mark("none") is None


def test_a_number_that_reading_cuts_off_is_none() -> None:
    for blanks in range(READ - 8, READ + 2):
        assert number_after_mark(f"####{'*' * blanks}123456") in (None, 123456)


@pytest.mark.parametrize(
    "hostile",
    [
        "####" + " " * 200_000,
        "####" + " \t" * 100_000 + "x",
        "#" * 200_000,
        "#### " * 40_000,
        "####" + "a " * 100_000,
        "####\n" * 40_000,
        "#### " + "1," * 100_000,
        "#### " + "1 000 " * 40_000,
        "#### " + "x: " * 60_000,
        "####" + "- " * 100_000,
    ],
    ids=range(10),
)
def test_time_is_linear(hostile: str) -> None:
    """With a backtracking regular expression, 4,000 blanks after the mark never finished; 200,000 characters take about 0.1 s."""
    started = time.perf_counter()
    number_after_mark(hostile)
    loose_number_after_mark(hostile)
    assert time.perf_counter() - started < 5


def test_the_answers_of_gsm8k(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = [row["messages"][-1]["content"] for row in rows]
    assert len(answers) == 1319
    for answer in answers:
        assert number_after_mark(answer) == Fraction(answer.rpartition("####")[2].strip().replace(",", ""))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18),
        ("2 boxes of 9 make 18 eggs.", 18),
        ("9 + 9 = 18", 18),
        ("so **18**", 18),
        (r"\boxed{1{,}800}", 1800),
        ("It costs $1,000.50 in all", Fraction(2001, 2)),
        ("-18", -18),
        ("from -3 to minus: \u22125", -5),
        ("-$5", -5),
        ("$-5", -5),
        ("the answer is .5.", Fraction(1, 2)),
        ("1, 2, 3", 3),
        ("first 18,\n\nthen 19.", 19),
        ("1 000 000 people", 1_000_000),
        ("5%", 5),
        ("12 with GPT-4", 12),  # digits of a name
        ("12 of type B7", 12),
        ("12 in v1.5", 12),
        ("18 or 5/6", None),  # the last one is a fraction
        ("20-30", None),
        ("at 3:30", None),
        ("10^2", None),
        ("1,5", None),
        ("1.2.3", None),
        ("5 + 13", None),
        ("3 1/2", None),
        ("eighteen", None),
        ("", None),
        ("9" * 300, None),
    ],
)
def test_the_last_number(text: str, number: Fraction | int | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        # LaTeX and Unicode: a fraction, root or power is no number, nor is what touches one
        (r"\frac{1}{2}", None),
        (r"The answer is $\frac{3}{4}$.", None),
        (r"\boxed{\dfrac{\sqrt{3}}{2}}", None),
        (r"\frac12", None),
        (r"3\frac{1}{2}", None),
        (r"\frac{36}{2} = 18", 18),
        (r"2\sqrt{3}", None),
        (r"2 \sqrt 3", None),
        (r"\sqrt{3}/2", None),
        (r"\sqrt{3}2", None),
        ("2\u221a3", None),
        ("x^2", None),
        ("x^{2}", None),
        ("10^{18}", None),
        ("2^n", None),
        ("(1 + 2)^2", None),
        ("10\u00b2", None),
        ("10\u207b\u00b3", None),
        ("1.5 \u00d7 10\u2075", None),
        ("3\u00bd", None),
        ("18 or \u00bd", None),
        ("1\u20442", None),
        (r"2\pi", None),
        (r"\pi/4", None),
        ("(a + b)/2", None),
        ("x / 2", None),
        ("9 eggs w/ 2 yolks", 2),  # with
        (r"2 \times 9", None),
        (r"2 \times 9 = 18", 18),
        ("10^2 = 100", 100),
        (r"90^\circ", 90),
        ("12 m^2", 12),  # of a unit
        ("12 m\u00b2", 12),
        (r"12 \text{ cm}^{2}", 12),
        ("x_{2}", None),  # of a name
        ("x_{2} = 5", 5),
        ("1{,}800", 1800),
        # an en dash as a minus
        ("\u20133", -3),
        ("x = \u20133", -3),
        ("(\u20133)", -3),
        ("\u2013$3", -3),
        ("$\u20133", -3),
        ("\u22123", -3),
        ("the answer \u2013 3", 3),  # between words
        ("pages 3\u20135", None),  # between digits: a range
        ("3 \u2013 5", None),
    ],
)
def test_expressions_and_dashes_of_own_data(text: str, number: Fraction | int | None) -> None:
    """By the last number only: GSM8K's rule is published, and stays as it is."""
    assert last_number(text) == answer_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9 eggs\n#### 18\n20 more", 18),
        ("9 eggs, 20 more", 20),
        ("9 eggs\n#### **18**.\n20 more", 18),
        ("9 eggs\n#### \\boxed{\u201318}\n20 more", -18),
        ("9 eggs\n#### Answer: $18.00\n20 more", 18),
        ("9 eggs\n####18 ", 18),
        ("#### Solution\nThe result is 18.", 18),  # a heading
        ("#### 1. Understand the problem\nthe answer is 42", 42),
        ("#### Step 1\n9 + 9\n#### Step 2\nSo 18", 18),
        ("#### 1\n9 + 9\n#### 2. Add\nSo 18", 18),
        ("#### 9\n#### 18\n20 more", 18),  # the last mark
        ("#### 18 eggs\n20 more", 20),  # not alone
        ("#### 5 + 13 = 18", 18),
        ("#### 5/6", None),
        ("#### \\frac{1}{2}\n", None),
        ("#### 2\\sqrt{3}", None),
        ("#### 10\u00b2", None),
        ("9 eggs\n#### none", 9),
        ("####\n18\n20 more", 20),
        ("#### 18 ####", 18),
        ("####", None),
    ],
)
def test_a_mark_counts_only_with_a_number_alone_on_its_line(text: str, number: int | None) -> None:
    assert answer_number(text) == number


@pytest.mark.parametrize(
    "part", [" ", "1", "1 ", "1,", "1-", "-", "$", "1 1/", "1.", "a1", "1e", "1, ", "/ ", "/ 1", "####", "\u20131", "\u00bd", "1\u00bd"]
)
def test_the_last_number_takes_linear_time(part: str) -> None:
    started = time.perf_counter()
    answer_number(part * 40_000)
    assert time.perf_counter() - started < 2
