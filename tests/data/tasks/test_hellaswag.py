"""HellaSwag: one ending fits, and the letter names it; views are the context and that ending; rows are read or refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from jepa_ray.data.example import Example
from jepa_ray.data.tasks import hellaswag
from jepa_ray.data.tasks.hellaswag import LETTERS, SCENES, STRAYS, TASK, complete, from_row, generate

ROW: dict[str, Any] = {"ctx": "A man sits on a roof. he", "endings": ["sings.", "rips off tiles.", "flies.", "eats."], "label": "1"}


def scenes_of(sentence: str, side: int) -> set[str]:
    """Scenes that a sentence names by a place (side 0) or an object (side 1)."""
    words = f" {sentence.rstrip('.')} "
    return {name for name, sides in SCENES.items() if any(f" {word} " in words for word in sides[side])}


def test_no_place_and_no_object_belongs_to_two_scenes() -> None:
    for side in (0, 1):
        words = [word for sides in SCENES.values() for word in sides[side]]
        assert len(words) == len(set(words)) >= 18
        assert not set(words) & set(STRAYS)


def test_exactly_one_ending_fits_the_context_and_the_letter_names_it() -> None:
    strays = 0
    for example in generate(1000, seed=5):
        context, *lines = example.text.split("\n")
        endings = example.extra["endings"]
        assert lines == [f"{letter}. {ending}" for letter, ending in zip("ABCD", endings, strict=True)]
        assert len({ending.split()[-1] for ending in endings}) == 4
        assert len(context.split()) < 15 and all(3 <= len(ending.split()) <= 6 for ending in endings)
        (scene,) = scenes_of(context, 0)
        fitting = [letter for letter, ending in zip("ABCD", endings, strict=True) if scene in scenes_of(ending, 1)]
        assert fitting == [example.code]
        assert example.views == (context, endings["ABCD".index(example.code)])
        strays += sum(not scenes_of(ending, 1) for ending in endings)
    assert strays / 3000 == pytest.approx(hellaswag.STRAY_SHARE, abs=0.04)


def test_the_stated_share_of_guessing_among_what_fits_some_scene() -> None:
    """Of three wrong endings, k ~ Binomial(3, 1 - share) remain, and a guess is right with probability 1 / (k + 1). Stated: 63 %."""
    stays = 1 - hellaswag.STRAY_SHARE
    assert (1 - (1 - stays) ** 4) / (4 * stays) == pytest.approx(0.63, abs=0.005)


def test_texts_and_ids_are_distinct_and_letters_balanced() -> None:
    examples = generate(2000, seed=5)
    assert len({e.text for e in examples}) == len({e.id for e in examples}) == 2000
    # 500 of each expected; one standard deviation is 19.
    assert all(abs(count - 500) < 90 for count in Counter(e.code for e in examples).values())
    assert {e.code for e in examples} == set(LETTERS)
    assert all(e.extra["options"] == ["A", "B", "C", "D"] and e.code in e.extra["options"] and e.system == TASK.system for e in examples)


def test_the_same_arguments_give_the_same_questions_and_others_give_others() -> None:
    assert generate(50, seed=1) == generate(50, seed=1)
    assert generate(200, seed=1)[:50] == generate(50, seed=1)
    assert generate(50, seed=1) != generate(50, seed=2)
    assert {e.text for e in generate(50, seed=1, split="train")} != {e.text for e in generate(50, seed=1, split="test")}


def test_excluded_texts_do_not_come_back() -> None:
    plain = generate(300, 0, "train")
    second = generate(300, 0, "train", exclude=iter(plain[:150]))
    assert len({e.text for e in second}) == 300
    assert not {e.text for e in second} & {e.text for e in plain[:150]}
    assert {e.text for e in second} & {e.text for e in plain[150:]}, "the streams share no text, so excluding is not tested"


def test_exhausted_forms_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hellaswag, "_draw", lambda rng: ("a", ["b", "c", "d", "e"], int(rng.random() * 4)))
    with pytest.raises(ValueError, match=r"gave 1 of the 50 distinct questions of the val split in 1,000 draws: lower data.num_train"):
        generate(50, 0, "val")


# --- rows of the public release ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [1, "1"])
def test_a_row_of_the_public_release(label: int | str) -> None:
    (example,) = from_row(ROW | {"label": label}, "x.jsonl:1", "x:1")
    assert example.text == "A man sits on a roof. he\nA. sings.\nB. rips off tiles.\nC. flies.\nD. eats."
    assert (example.id, example.system, example.code) == ("x:1", "", "B")
    assert example.views == ("A man sits on a roof. he", "rips off tiles.")
    assert example.extra == {"options": ["A", "B", "C", "D"], "endings": ROW["endings"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ""}, "the label is empty: the public test split has none, so use the validation split"),
        ({"label": -1}, "the label is empty: .* use the validation split"),
        ({"label": None}, "the label is empty: .* use the validation split"),
        ({"label": 4}, "the label is 4; expected the right ending's index, 0 to 3"),
        ({"label": "B"}, "the label is 'B'; expected"),
        ({"label": True}, "the label is True; expected"),
        ({"endings": ["a", "b", "c"]}, "3 endings; expected 4"),
        ({"endings": ["a", "b", "c", ""]}, "expected a list of strings, none of them empty, under endings"),
        ({"endings": 7}, "expected a list of strings"),
        ({"ctx": " "}, "expected a context under ctx"),
        ({"ctx": None}, "expected a context under ctx"),
    ],
)
def test_bad_rows_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^x.jsonl:3: {message}"):
        from_row(ROW | change, "x.jsonl:3", "x:3")


@pytest.mark.parametrize("key", list(ROW))
def test_a_row_without_one_of_its_values_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"^x.jsonl:3: expected a context under ctx, four endings"):
        from_row({name: value for name, value in ROW.items() if name != key}, "x.jsonl:3", "x:3")


# --- rows of the reference's format ------------------------------------------------------------------------------------


def message(content: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: [one]], ids=["a message", "a list of one"])
def test_views_come_from_the_text_and_code_messages(wrap: Any) -> None:
    extra = {"text": wrap(message("A man sits.")), "code": wrap(message("He sings.", "assistant")), "source": "wikihow"}
    example = complete(Example("x:1", "s", "A man sits.\nA. He sings.", "A", extra))
    assert example.views == ("A man sits.", "He sings.")
    assert example.extra == {"source": "wikihow", "options": ["A", "B", "C", "D"]}
    assert (example.id, example.system, example.text, example.code) == ("x:1", "s", "A man sits.\nA. He sings.", "A")


@pytest.mark.parametrize(
    ("code", "change", "refusal"),
    [
        ("E", {}, "the answer is 'E'; expected one of the letters A, B, C, D"),
        ("A. He sings.", {}, "the answer is 'A. He sings.'"),
        ("A", {"text": None}, "the context is missing: expected one message .* under text, next to messages"),
        ("A", {"text": []}, "the context is missing"),
        ("A", {"text": [message("a"), message("b")]}, "the context is missing: expected one message"),
        ("A", {"text": "A man sits."}, "the context is missing"),
        ("A", {"code": message(" ")}, "the right ending is missing"),
        ("A", {"code": message(7)}, "the right ending is missing"),
    ],
)
def test_bad_messages_are_refused(code: str, change: dict[str, Any], refusal: str) -> None:
    extra = {"text": message("A man sits."), "code": message("He sings.", "assistant")} | change
    with pytest.raises(ValueError, match=f"^{refusal}"):
        complete(Example("x:1", "s", "q", code, extra))
