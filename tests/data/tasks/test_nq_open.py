"""The invented world has the same facts in every split, asked in different words; the public format is read or refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from jepa_ray.data.example import Example
from jepa_ray.data.tasks import nq_open
from jepa_ray.data.tasks.nq_open import OPENINGS, RELATIONS, TOWNS, complete, from_row, generate, world


def test_more_than_ten_thousand_distinct_and_short() -> None:
    examples = generate(10_500, seed=0)
    assert len({e.id for e in examples}) == len({e.text for e in examples}) == 10_500
    assert max(len(e.text.split()) for e in examples) < 20
    assert all("{" not in e.text and e.system for e in examples)


def test_answers_match_the_references_of_the_judge() -> None:
    examples = generate(3000, seed=0)
    assert all(e.code == "; ".join(e.extra["answers"]) and len(set(e.extra["answers"])) == len(e.extra["answers"]) for e in examples)
    several = sum(len(e.extra["answers"]) == 2 for e in examples) / len(examples)
    assert 0.05 < several < 0.3  # 0.3 in half of the relations
    for relation in RELATIONS.values():
        # No accepted answer is part of another, or "an answer occurs in the output" would be true of a wrong one.
        assert not [(a, b) for a in relation.answers for b in relation.answers if a != b and a in b]
        assert len(set(relation.questions)) == len(relation.questions) and all(q.count("{}") == 1 for q in relation.questions)
    assert len(set(TOWNS)) == len(TOWNS) and len(set(OPENINGS)) == len(OPENINGS)


def test_facts_are_the_same_in_every_split_and_asked_in_other_words() -> None:
    test = generate(500, 0, "test")
    train = generate(2400, 0, "train", exclude=test)
    assert not {e.text for e in train} & {e.text for e in test}

    def fact(example: Example) -> tuple[str, str]:
        (town,) = [word for word in example.text.split() if word in TOWNS]
        core = example.text.replace(town, "{}")
        (name,) = [name for name, r in RELATIONS.items() if any(core == opening + q for opening in OPENINGS for q in r.questions)]
        return town, name

    facts = world(0)
    for example in [*train, *test]:
        assert tuple(example.extra["answers"]) == facts[fact(example)]
    seen = {fact(e) for e in train}
    assert sum(fact(e) in seen for e in test) > 0.98 * len(test)


def test_a_world_of_the_seed() -> None:
    assert generate(200, seed=1)[:50] == generate(50, seed=1)
    assert world(1) == world(1) != world(2)
    plain, test = generate(500, 1, "train"), generate(500, 1, "test")
    assert {e.text for e in plain} != {e.text for e in test}
    assert {e.text for e in plain} & {e.text for e in test}, "the splits share no text, so excluding is not tested"


def test_every_process_draws_the_same() -> None:
    """Python's hash() differs between processes, and so does the order of sets."""
    code = "; ".join(
        f"from jepa_ray.data.tasks import {name}; print({name}.generate(40, 7, 'val', {name}.generate(40, 7, 'test')))"
        for name in ("gsm8k", "nq_open", "paraphrase")
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1 and outputs != {""}


def test_an_exhausted_world_says_so() -> None:
    total = len(TOWNS) * len(OPENINGS) * sum(len(relation.questions) for relation in RELATIONS.values())
    test = generate(500, 0, "test")
    rest = generate(total - 500, 0, "train", exclude=test)
    assert len({e.text for e in [*rest, *test]}) == total > 10_000
    with pytest.raises(
        ValueError, match=r"has 10,588 of its 11,088 questions left for the 10,589 of the train split: lower data.num_train"
    ):
        generate(total - 499, 0, "train", exclude=test)


def test_gold_answers_of_a_file() -> None:
    assert complete(Example("a", "", "q", "one; two")).extra == {"answers": ["one", "two"]}
    assert complete(Example("a", "", "q", "one;two; ")).extra == {"answers": ["one;two"]}
    named = complete(Example("a", "", "q", "x; y", {"answers": ["x; y"], "id": 3}))
    assert named.extra == {"answers": ["x; y"], "id": 3}
    with pytest.raises(ValueError, match="no answer in ' ; '; expected one or more"):
        complete(Example("a", "", "q", " ; "))
    with pytest.raises(ValueError, match="expected a list of strings"):
        complete(Example("a", "", "q", "x", {"answers": []}))


@pytest.mark.parametrize("answer", [["one", " it's two"], "['one', \"it's two\"]", '["one", "it\'s two"]'])
def test_a_public_row(answer: Any) -> None:
    (example,) = from_row({"question": "who", "answer": answer}, "f:1", "f:1")
    assert example == Example("f:1", "", "who", "one; it's two", {"answers": ["one", "it's two"]})


@pytest.mark.parametrize(
    "answer", [[], None, 3, [3], ["a", " "], "one", "['one' 'two']", "[", "[one]", "{'a': 1}", "__import__('os').getcwd()", "[" * 5000]
)
def test_a_public_row_without_answers(answer: Any) -> None:
    with pytest.raises(ValueError, match=r"^f:1: expected a list of strings, none of them empty, under answer"):
        from_row({"question": "who", "answer": answer}, "f:1", "f:1")
    with pytest.raises(ValueError, match=r"^f:1: expected a question under question"):
        from_row({"question": "", "answer": ["a"]}, "f:1", "f:1")
    with pytest.raises(ValueError, match=r"^f:1: expected a question under question"):
        from_row({"question": "who"}, "f:1", "f:1")


def test_the_task_splits_by_text() -> None:
    assert nq_open.TASK.split_by == "text"
