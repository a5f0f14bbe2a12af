"""Conversations: which messages are the views, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_ray.data.conversations import SHAREGPT, conversation, turns


def messages(*roles: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]


def test_the_last_answer_and_what_is_before_it() -> None:
    roles = ("system", "user", "assistant", "user", "user", "assistant", "user")
    found = conversation(turns(messages(*roles), "f:1", "messages"), "f:1", "f:1")
    assert (found.system, found.text, found.code) == ("system 0", "user 4", "assistant 5")
    assert found.history == (("user", "user 1"), ("assistant", "assistant 2"), ("user", "user 3"))
    assert found.unused == 1 and conversation(turns(messages(*roles[:-1]), "f:1", "messages"), "f:1", "f:1").unused == 0
    assert found.question == "user: user 1\n\nassistant: assistant 2\n\nuser: user 3\n\nuser 4"


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        ((), "f:1: no assistant message"),
        (("system", "user"), "f:1: no assistant message; the last one is the answer"),
        (("assistant",), "no user message directly before the last assistant message"),
        (("system", "assistant"), "no user message directly before"),
        (("user", "assistant", "assistant"), "no user message directly before"),
        (("user", "system", "assistant"), "a system message that is not the first message"),
        (("system", "system", "user", "assistant"), "a system message that is not the first"),
    ],
)
def test_conversations_without_a_question_and_an_answer(roles: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        conversation(turns(messages(*roles), "f:1", "messages"), "f:1", "f:1")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"role": "user"}, r'f:1: m is an object; expected a list of \{"role": ..., "content": ...\}'),
        (["hello"], r'f:1: m, message 1 is not \{"role"'),
        ([{"role": "tool", "content": "x"}], "message 1 has the role 'tool'; expected system, user, assistant"),
        ([{"role": "user", "content": " "}], r"message 1 \(user\): content is empty"),
        ([{"role": "assistant", "content": None}], "content is missing or null; expected text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], r"part 1 is not .*; only text can be read"),
        ([{"role": "user", "content": ["text"]}], "part 1 is not"),
    ],
)
def test_messages_that_are_none(given: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        turns(given, "f:1", "m")


def test_sharegpt_names() -> None:
    given = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert turns(given, "f:1", "conversations", SHAREGPT) == [("system", "s"), ("user", "q"), ("assistant", "a")]
    with pytest.raises(ValueError, match="message 1 has the role 'function_call'; expected system, human, gpt, user, assistant"):
        turns([{"from": "function_call", "value": "x"}], "f:1", "conversations", SHAREGPT)
