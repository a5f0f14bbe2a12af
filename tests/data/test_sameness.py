"""Texts and conversations that count as the same, against pairs written by hand."""

from __future__ import annotations

import pytest

from jepa_ray.data.example import Example
from jepa_ray.data.sameness import Seen, beginnings, key


def talk(*contents: str, name: str = "x") -> Example:
    """A conversation in which user and assistant take turns; the last two messages are question and answer."""
    roles = ["user", "assistant"] * len(contents)
    history = tuple(zip(roles, contents[:-2], strict=False))
    return Example(name, "", contents[-2], contents[-1], history=history)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a b", "a b "),
        ("a b", "\ta  b\r\n"),
        ("a b", "a\u00a0b"),
        ("a b", "a\u2003b"),
        ("a b", "a\nb"),
        ("caf\u00e9", "cafe\u0301"),
        ("x2", "x\u00b2"),
        ("\uff11 of \ufb01ve", "1 of five"),
    ],
)
def test_white_space_and_form_do_not_tell_texts_apart(one: str, other: str) -> None:
    assert one != other and key(one) == key(other)


@pytest.mark.parametrize(("one", "other"), [("a b", "ab"), ("a", "A"), ("a", "a."), ("", "a"), ("\u00e9", "e")])
def test_everything_else_does(one: str, other: str) -> None:
    assert key(one) != key(other)


def test_beginnings_end_with_an_answer() -> None:
    whole = beginnings(talk("q", "a", "r", "b", "s", "c"))
    assert len(whole) == 3
    assert whole[:2] == beginnings(talk("q ", "a", " r", "b\n")) and whole[:1] == beginnings(Example("y", "another system", "q", "a"))
    assert not set(whole) & set(beginnings(talk("q", "a2", "r", "b")))
    # Where one message ends and the next begins is part of the digest.
    assert beginnings(talk("q", "a", "r", "b"))[-1] != beginnings(talk("q a", "", "r", "b"))[-1]


@pytest.mark.parametrize(
    ("seen", "asked", "leaked"),
    [
        (talk("q", "a"), talk("q", "b"), True),  # same Text
        (talk("q", "a"), talk("q ", "b"), True),
        (talk("q", "a"), talk("p", "a"), False),
        (talk("q", "a", "r", "b"), talk("q", "a"), True),  # its beginning
        (talk("q", "a"), talk("q", "a", "r", "b"), True),  # its continuation
        (talk("q", "a", "r", "b"), talk("q", "other", "s", "c"), False),  # only the first question
        (talk("q", "a", "r", "b"), talk("q", "a", "s", "c"), False),  # the same start, but neither is the start of the other
        (talk("q", "a", "r", "b"), talk("p", "z", " r", "b"), True),  # both views
        (talk("q", "a", "r", "b"), talk("r", "b"), True),
        (talk("q", "a", "r", "b"), talk("p", "z", "r", "c"), False),  # what r asks depends on the turns before it
        (talk("q", "a", "r", "b"), talk("r", "c"), False),
        (talk("q", "a", "r", "b"), talk("p", "a", "s", "b"), False),
    ],
)
def test_what_is_leaked(seen: Example, asked: Example, leaked: bool) -> None:
    assert (asked in Seen([talk("other", "x"), seen])) == leaked == (seen in Seen([asked]))
    assert asked not in Seen([])


def test_a_last_message_with_several_answers_depends_on_the_turns_before_it() -> None:
    asked = talk("p", "z", "yes or no?", "yes")
    assert asked in Seen([talk("q", "a", "yes or no?", "yes"), talk("r", "a", "yes or no?", "yes ")])
    assert asked not in Seen([talk("q", "a", "yes or no?", "yes"), talk("r", "a", "yes or no?", "no")])
