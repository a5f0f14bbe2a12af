"""The built-in problems are reproducible, distinct and solved correctly; the public format and the real test file are read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jepa_ray.data.example import Example
from jepa_ray.data.sources import read
from jepa_ray.data.tasks import gsm8k
from jepa_ray.data.tasks.gsm8k import FORMS, GOLD, NAMES, complete, from_row, generate
from jepa_ray.evaluation.judges import judge_number

ANNOTATION = re.compile(r"(\d+) ([-+*/]) (\d+) = <<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)")


def test_more_than_twenty_thousand_distinct_and_short() -> None:
    examples = generate(21_000, seed=0)
    for values in ([e.id for e in examples], [e.text for e in examples], [e.code for e in examples]):
        assert len(set(values)) == 21_000
    assert max(len(example.text.split()) for example in examples) < 30
    assert all(re.search(r"[{}]", example.text + example.code) is None for example in examples)


def test_every_step_is_right_and_the_last_is_the_answer() -> None:
    examples = generate(4000, seed=3)
    steps = 0
    for example in examples:
        annotations = ANNOTATION.findall(example.code)
        assert len(annotations) == example.code.count("<<") == len(example.code.splitlines()) - 1 >= 1
        for left, operation, right, left_2, operation_2, right_2, inner, outer in annotations:
            assert (left, operation, right, inner) == (left_2, operation_2, right_2, outer)
            a, b, result = int(left), int(right), int(inner)
            # Division is checked by multiplying, so that a remainder would show.
            assert {"+": a + b == result, "-": a - b == result, "*": a * b == result, "/": result * b == a}[operation], example
            assert 2 <= result <= 90  # 9 * 9 + 9
            # Operands are numbers of the problem or results of other steps.
            numbers = re.findall(r"\d+", example.text) + [step[6] for step in annotations]
            assert left in numbers and right in numbers
        assert example.code.endswith(f"\n#### {annotations[-1][-1]}")
        steps += len(annotations)
    assert 1.2 < steps / len(examples) < 1.6


def test_every_form_occurs_and_is_worked_by_hand() -> None:
    texts = "\n".join(f"{e.text} -> {e.code}" for e in generate(3000, seed=0))
    for form in FORMS:
        pattern = re.escape(form.text)
        for slot in re.findall(r"\\\{\w+\\\}", pattern):
            pattern = pattern.replace(slot, r"\w+")
        assert re.search(pattern, texts), form.text
    fill = dict(name="Mia", items="pens", a=20, b=3, c=4, d=5, p=20)
    assert FORMS[8].text.format(**fill) == "Mia has 4 bags with 5 pens in each and 3 pens more. How many pens is that in all?"
    assert FORMS[8].steps[0][:3] == ("c", "*", "d") and FORMS[8].steps[1][:3] == ("x", "+", "b")  # 4 * 5 = 20, 20 + 3 = 23


def test_the_same_arguments_give_the_same_problems_and_others_give_others() -> None:
    assert generate(200, seed=1)[:50] == generate(50, seed=1)
    assert generate(50, seed=1) != generate(50, seed=2)
    assert {e.text for e in generate(50, seed=1, split="train")} != {e.text for e in generate(50, seed=1, split="test")}


def test_excluded_texts_and_solutions_do_not_come_back() -> None:
    plain, first = generate(3000, 0, "train"), generate(3000, 0, "test")
    assert {e.code for e in plain} & {e.code for e in first}, "the streams share no solution, so excluding is not tested"
    second = generate(3000, 0, "train", exclude=first)
    assert not {e.text for e in second} & {e.text for e in first}
    assert not {e.code for e in second} & {e.code for e in first}


def test_exhausted_forms_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsm8k, "NAMES", NAMES[:1])
    monkeypatch.setattr(gsm8k, "ITEMS", ("pens",))
    monkeypatch.setattr(gsm8k, "FORMS", FORMS[4:5])
    with pytest.raises(ValueError, match=r"gave 64 of the 100 distinct problems of the val split in 2,000 draws: lower data.num_train"):
        generate(100, 0, "val")  # 8 * 8 products


@pytest.mark.parametrize(
    "code", ["x\n#### 18", "#### -3", "x\n#### 1,450,000\n", "x\n#### $5", "x\n#### -$.5", "x\n####7", "x\n#### 5 apples"]
)
def test_numbers_that_are_found(code: str) -> None:
    """The judge can compare every number that is accepted here."""
    example = Example("a", "", "t", code)
    assert complete(example) is example
    assert judge_number(code, code, {}).correct


@pytest.mark.parametrize("code", ["18", "x\n### 18", "x\n#### ", "x\n#### eighteen", "so #### 18", "x\n#### -"])
def test_solutions_without_a_number(code: str) -> None:
    with pytest.raises(ValueError, match=r"the solution has no number .*expected a last line such as #### 18, not"):
        complete(Example("a", "", "t", code))


def test_a_public_row() -> None:
    assert from_row({"question": " q? ", "answer": "a\n#### 1"}, "f:1", "f:1") == [Example("f:1", "", "q?", "a\n#### 1")]
    with pytest.raises(ValueError, match=r"^f:1: expected a problem under question and its worked solution under answer"):
        from_row({"question": "q?", "answer": 1}, "f:1", "f:1")


def test_real_gsm8k(shared_data: Path) -> None:
    examples = read(gsm8k.TASK, str(shared_data / "gsm8k_test.jsonl"))
    assert len(examples) == 1319 == len({e.id for e in examples})
    assert {e.system for e in examples} == {gsm8k.SYSTEM}
    assert all(len(GOLD.findall(e.code)) == 1 for e in examples)
    assert examples[0].code.endswith("#### 18")
