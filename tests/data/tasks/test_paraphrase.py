"""The built-in wordings are reproducible and state nothing twice; the public formats are read or refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from jepa_ray.data.example import Example
from jepa_ray.data.tasks import paraphrase
from jepa_ray.data.tasks.paraphrase import PEOPLE, PLACES, THINGS, TIMES, VERBS, WORDINGS, _wordings, from_row, generate


def test_no_sentence_occurs_twice_on_either_side() -> None:
    examples = generate(10_000, seed=0)
    sentences = [sentence for e in examples for sentence in (e.text, e.code)]
    assert len(set(sentences)) == 20_000 and len({e.id for e in examples}) == 10_000
    assert max(len(sentence.split()) for sentence in sentences) < 20
    assert all(re.fullmatch(r"[A-Z][a-z ,]+\.", sentence) for sentence in sentences)


def test_wordings_by_hand() -> None:
    """Synonyms alternate: the even wordings say "hid", the odd ones "concealed"."""
    assert _wordings("king", ("hid", "concealed"), "a ring", "at noon", "by the road") == [
        "The king hid a ring by the road at noon.",
        "At noon, the king concealed a ring by the road.",
        "A ring was hidden by the king by the road at noon.",
        "It was the king who concealed a ring at noon by the road.",
        "By the road, a ring was hidden at noon by the king.",
        "What the king concealed at noon by the road was a ring.",
    ]


def test_the_code_follows_from_the_text() -> None:
    """Each sentence has one reading, and a pair is two neighbours in the fixed order. Every wording except the last begins a pair."""
    pairs = {(e.text, e.code) for e in generate(3000, seed=2)}
    firsts = dict.fromkeys(range(len(WORDINGS) - 1), 0)
    for person in PEOPLE:
        for verbs in VERBS:
            for thing in THINGS:
                for time in TIMES[:2]:
                    for place in PLACES[:2]:
                        sentences = _wordings(person, verbs, thing, time, place)
                        for first in firsts:
                            firsts[first] += (sentences[first], sentences[first + 1]) in pairs
    assert min(firsts.values()) > 5
    assert len({e.text for e in generate(3000, seed=2)}) == 3000


def test_the_same_arguments_give_the_same_pairs_and_others_give_others() -> None:
    assert generate(200, seed=1)[:50] == generate(50, seed=1)
    assert generate(50, seed=1) != generate(50, seed=2)
    assert {e.text for e in generate(50, seed=1, split="train")} != {e.text for e in generate(50, seed=1, split="test")}


def test_a_statement_of_another_split_does_not_come_back_in_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 possible statements, 3 go to one split, so 5 are left for the other, in any wording."""
    for name, choices in (
        ("PEOPLE", ("king", "queen")),
        ("VERBS", VERBS[:2]),
        ("THINGS", THINGS[:2]),
        ("TIMES", TIMES[:1]),
        ("PLACES", PLACES[:1]),
    ):
        monkeypatch.setattr(paraphrase, name, choices)
    test = generate(3, 0, "test")
    train = generate(5, 0, "train", exclude=test)
    assert len({e.text for e in [*test, *train]}) == 8
    with pytest.raises(
        ValueError, match=r"gave 5 of the 6 distinct pairs of the paraphrase train split in 120 draws: lower data.num_train"
    ):
        generate(6, 0, "train", exclude=test)


@pytest.mark.parametrize("paraphrases", [["b", " c"], "['b', 'c']", '["b", "c"]'])
def test_a_chain_gives_a_pair_for_each_two_neighbours(paraphrases: Any) -> None:
    found = from_row({"text": "a", "paraphrases": paraphrases, "category": "x"}, "f:1", "f:1")
    assert found == [Example("f:1.1", "", "a", "b"), Example("f:1.2", "", "b", "c")]


@pytest.mark.parametrize(("label", "count"), [(1, 1), ("1", 1), (0, 0), ("0", 0), (-1, 0)])
def test_pairs_that_are_labelled_as_different_are_left_out(label: Any, count: int) -> None:
    assert len(from_row({"sentence1": "a", "sentence2": "b", "label": label}, "f:1", "f:1")) == count
    assert from_row({"sentence1": "a", "sentence2": "b"}, "f:1", "f:1") == [Example("f:1", "", "a", "b")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, "expected a sentence under text and a list under paraphrases"),
        ({"text": " ", "paraphrases": ["b"]}, "expected a sentence under text"),
        ({"text": "a", "paraphrases": []}, "expected a list of strings, none of them empty, under paraphrases"),
        ({"text": "a", "paraphrases": "open('x')"}, "expected a list of strings"),
        ({"sentence1": "a"}, "expected a sentence under sentence1 and its paraphrase under sentence2"),
        ({"sentence1": "a", "sentence2": ""}, "expected a sentence under sentence1"),
    ],
)
def test_rows_that_are_neither(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^f:1: {message}"):
        from_row(row, "f:1", "f:1")
