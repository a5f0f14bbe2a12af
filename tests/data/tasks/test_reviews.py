"""Reviews: balanced, distinct, decided by their words; rows of the public releases are read or refused."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from jepa_ray.data.tasks import reviews
from jepa_ray.data.tasks.reviews import MOODS, ROTTEN_TOMATOES, TASKS, YELP, Kind
from jepa_ray.data.tasks.task import Task

KINDS = {kind.name: kind for kind in (ROTTEN_TOMATOES, YELP)}
EVERY = pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])


def test_both_tasks_are_here() -> None:
    assert [task.name for task in TASKS] == list(KINDS) == ["rotten-tomatoes", "yelp"]
    assert [task.chance for task in TASKS] == [1 / 2, 1 / 5]


@EVERY
def test_texts_and_ids_are_distinct_and_labels_balanced(task: Task) -> None:
    examples = task.generate(2000, 5, "train", ())
    assert len({e.text for e in examples}) == len({e.id for e in examples}) == 2000
    counts = Counter(e.code for e in examples)
    assert counts == dict.fromkeys(KINDS[task.name].labels, 2000 // len(counts))
    assert {e.system for e in examples} == {task.system}
    assert all("{" not in e.text and e.text.endswith(".") and len(e.text) < 200 for e in examples)


@EVERY
def test_the_order_of_labels_has_no_pattern(task: Task) -> None:
    labels = [e.code for e in task.generate(1000, 5, "train", ())]
    after = Counter(itertools.pairwise(labels))
    assert len(after) == len(KINDS[task.name].labels) ** 2


@EVERY
def test_there_are_more_than_twenty_thousand(task: Task) -> None:
    assert len({e.text for e in task.generate(20_001, 0, "train", ())}) == 20_001


@EVERY
def test_the_same_arguments_give_the_same_reviews_and_others_give_others(task: Task) -> None:
    assert task.generate(50, 1, "train", ()) == task.generate(50, 1, "train", ())
    assert task.generate(200, 1, "train", ())[:50] == task.generate(50, 1, "train", ())
    assert task.generate(50, 1, "train", ()) != task.generate(50, 2, "train", ())
    assert {e.text for e in task.generate(50, 1, "train", ())} != {e.text for e in task.generate(50, 1, "test", ())}


@EVERY
def test_excluded_texts_do_not_come_back(task: Task) -> None:
    plain = task.generate(300, 0, "train", ())
    second = task.generate(300, 0, "train", iter(plain[:150]))
    assert len({e.text for e in second}) == 300
    assert not {e.text for e in second} & {e.text for e in plain[:150]}
    assert {e.text for e in second} & {e.text for e in plain[150:]}, "the streams share no text, so excluding is not tested"


@EVERY
def test_exhausted_forms_say_so(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "_review", lambda kind, label, rng: f"{label}")
    with pytest.raises(ValueError, match=rf"the built-in {task.name} forms gave \d of the 50 distinct reviews of the val split in 1,000 "):
        task.generate(50, 0, "val", ())


@EVERY
def test_words_carry_the_label_but_not_quite(task: Task) -> None:
    """Guess the label from the mean mood of the words, inverted by denials: right much more often than by chance, but not always."""
    kind, mood_of = KINDS[task.name], {word: mood for mood, words in MOODS.items() for word in words}
    examples = task.generate(1000, 0, "train", ())
    top = len(kind.labels) - 1
    right = blind = 0
    for example in examples:
        clauses = []
        words = example.text.replace(",", " ").replace(";", " ").replace(".", " ").split()
        for place, word in enumerate(words):
            if word in mood_of:
                denied = any(mark in words[max(place - 4, 0) : place] for mark in ("not", "never", "nobody"))
                clauses.append((mood_of[word], denied))
        assert clauses
        for denials in (True, False):
            moods = [-mood if denied and denials else mood for mood, denied in clauses]
            # With five labels, a mean mood within half a point of 0 is neutral; with two, the sign decides.
            mean = sum(moods) / len(moods)
            guess = int(mean > 0) if top == 1 else min(max(round(mean), -2), 2) + 2
            hit = kind.labels[guess] == example.code
            right, blind = right + (hit and denials), blind + (hit and not denials)
    assert 2 * task.chance < right / 1000 + (0.25 if top == 1 else 0) and right / 1000 < 0.99
    assert blind < right, "denials change nothing"


def test_every_label_has_its_own_moods() -> None:
    for kind in KINDS.values():
        assert len(kind.moods) == len(kind.labels)
        means = [sum(sum(form) / len(form) for form in forms) / len(forms) for forms in kind.moods]
        assert means == sorted(means) and len(set(means)) == len(means)
        assert all(mood in MOODS for forms in kind.moods for form in forms for mood in form)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_rows_of_the_public_release(kind: Kind) -> None:
    task = {task.name: task for task in TASKS}[kind.name]
    for index, label in enumerate(kind.labels):
        for given in (index, str(index)):
            (example,) = task.from_row({"text": " a film\n", "label": given}, "x.csv:2", "x:2")
            assert (example.id, example.system, example.text, example.code) == ("x:2", "", "a film", label)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({"label": 1}, "expected a review under text"),
    "empty text": ({"text": " ", "label": 1}, "expected a review under text"),
    "no label": ({"text": "a"}, "the label is None; expected 0 to"),
    "hidden label": ({"text": "a", "label": -1}, "the label is -1; expected 0 to"),
    "too large": ({"text": "a", "label": 5}, r"the label is 5; expected 0 to \d \(.*negative"),
    "a word": ({"text": "a", "label": "pos"}, "the label is 'pos'; expected 0 to"),
    "a truth value": ({"text": "a", "label": True}, "the label is True; expected 0 to"),
}


@EVERY
@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused(task: Task, name: str) -> None:
    row, message = BAD[name]
    with pytest.raises(ValueError, match=f"^data.csv:7: {message}"):
        task.from_row(row, "data.csv:7", "data:7")
