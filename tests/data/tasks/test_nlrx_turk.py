"""Rewording can be undone, so it keeps the meaning; it changes the text, never the regex."""

from __future__ import annotations

import re

import pytest

from jepa_ray.data.example import Example
from jepa_ray.data.tasks import nlrx, nlrx_turk
from jepa_ray.data.tasks.nlrx_turk import TASK, generate, reword
from jepa_ray.streams import stream


def longest_first(words: list[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


VERBS = {wording: verb for verb, sides in nlrx_turk.VERBS.items() for side in sides for wording in side}
PHRASES = {wording: phrase for phrase, wordings in nlrx_turk.PHRASES.items() for wording in wordings}
LEAD = re.compile(f"(?:{longest_first(list(nlrx_turk.OPENINGS))})(?:{longest_first([*nlrx_turk.PLURAL, *nlrx_turk.SINGULAR])}) ")
TURNED = [re.compile(form.format(earlier="(?P<earlier>.+)", later="(?P<later>.+)")) for form in nlrx_turk.TURNED]
COUNTED = re.compile("|".join(form.format(r"(\d)") for form in nlrx_turk.COUNTED))


def undo(text: str) -> str:
    """The synthetic sentence behind a reworded one, by the inverted tables."""
    lead = LEAD.match(text)
    assert lead, text
    rest = text[lead.end() :]
    for form in TURNED:
        if match := form.fullmatch(rest):
            return f"lines with {undo_phrases(match['earlier'])} before {undo_phrases(match['later'])}"
    verb = re.match(f"({longest_first(list(VERBS))}) ", rest)
    assert verb, text
    return f"lines {VERBS[verb[1]]} {undo_phrases(rest[verb.end() :])}"


def undo_phrases(part: str) -> str:
    part = COUNTED.sub(lambda match: f", {next(filter(None, match.groups()))} or more times", part)
    return re.sub(longest_first(list(PHRASES)), lambda match: PHRASES[match[0]], part)


def test_no_wording_has_two_meanings() -> None:
    for table in (nlrx_turk.PHRASES, {verb: plural for verb, (plural, _) in nlrx_turk.VERBS.items()}):
        wordings = [wording for alternatives in table.values() for wording in alternatives]
        assert len(wordings) == len(set(wordings)) > 20


def test_rewording_can_be_undone() -> None:
    rng = stream(0, "test")
    changed = 0
    for example in nlrx.generate(3000, seed=3):
        text = reword(example.text, rng)
        assert undo(text) == example.text, text
        changed += text != example.text
    assert changed > 2900


def test_every_table_is_used() -> None:
    rng = stream(1, "test")
    # The rarest form is one sentence in a thousand, so each is reworded several times.
    texts = " | ".join(reword(example.text, rng) for example in nlrx.generate(4000, seed=1) for _ in range(12))
    for wordings in [*nlrx_turk.PHRASES.values(), *(wordings for sides in nlrx_turk.VERBS.values() for wordings in sides)]:
        assert all(wording in texts for wording in wordings), wordings
    assert all(opening in texts for opening in nlrx_turk.OPENINGS)
    assert all(f"{noun} " in texts for noun in (*nlrx_turk.PLURAL, *nlrx_turk.SINGULAR))
    assert all(form.search(texts) for form in TURNED)


def test_reading_by_hand() -> None:
    assert undo("find any string where the word 'dog' comes after a digit") == "lines with a number before the string 'dog'"
    assert undo("items which don't have a small letter at least 3 times") == "lines not having a lower-case letter, 3 or more times"


def test_the_regexes_are_those_of_nl_rx_and_the_sentences_are_not() -> None:
    test, plain_test = generate(300, 4, "test"), nlrx.generate(300, 4, "test")
    train, plain_train = generate(300, 4, "train", test), nlrx.generate(300, 4, "train", plain_test)
    assert [e.code for e in (*test, *train)] == [e.code for e in (*plain_test, *plain_train)]
    assert all(ours.text != plain.text for ours, plain in zip((*test, *train), (*plain_test, *plain_train), strict=True))


def test_pairs_are_distinct_and_excluded_ones_do_not_come_back() -> None:
    first = generate(800, 0, "test")
    second = generate(800, 0, "train", iter(first))
    both = [*first, *second]
    assert len({e.text for e in both}) == len({e.code for e in both}) == len({e.id for e in both}) == 1600
    assert {e.system for e in both} == {TASK.system}


def test_a_wording_in_use_is_not_used_again() -> None:
    """The same sentences with other regexes: only the texts are taken."""
    first = generate(200, 0)
    taken = [Example("x", "", e.text, "none") for e in first]
    again = generate(200, 0, exclude=taken)
    assert [e.code for e in again] == [e.code for e in first]
    assert not {e.text for e in again} & {e.text for e in first}


def test_the_same_arguments_give_the_same_pairs_and_others_give_others() -> None:
    assert generate(50, seed=1) == generate(50, seed=1)
    assert generate(200, seed=1)[:50] == generate(50, seed=1)
    assert generate(50, seed=1) != generate(50, seed=2)
    assert {e.text for e in generate(50, seed=1, split="train")} != {e.text for e in generate(50, seed=1, split="test")}


def test_an_exhausted_grammar_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(nlrx._RULES, "line", nlrx._RULES["pair"])
        with pytest.raises(ValueError, match=r"of the 500 distinct pairs of the val split in .* draws: lower data.num_train"):
            generate(500, 0, "val")
    monkeypatch.setattr(nlrx_turk, "reword", lambda text, rng: "always the same")
    with pytest.raises(ValueError, match=r"found no wording of .lines .* in 50 draws that is not in use: lower data.num_train"):
        generate(2, 0)


def test_rows_are_those_of_nl_rx() -> None:
    (example,) = TASK.from_row({"src": "items with a digit\n", "targ": ".*[0-9].*\n"}, "src.txt:1", "src:1")
    assert (example.id, example.system, example.text, example.code) == ("src:1", "", "items with a digit", ".*[0-9].*")
    with pytest.raises(ValueError, match=r"^src.txt:2: expected a sentence"):
        TASK.from_row({"src": "items with a digit", "targ": " "}, "src.txt:2", "src:2")
