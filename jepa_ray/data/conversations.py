"""Conversations of any number of turns: the last assistant message is the Code view, the user message before it the Text view.

All messages before those two are the example's history, which the prompt contains. Messages after the last answer are counted, not used.
A content is a string, or a list of parts `{"type": "text", "text": ...}`, which are joined. Every error begins with the row's place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jepa_ray.data.example import Example
from jepa_ray.data.jsonl import kind

Turn = tuple[str, str]
"""(system, user or assistant; content)"""


@dataclass(frozen=True)
class Spelling:
    """How a format writes a message."""

    role: str
    content: str
    roles: Mapping[str, str]
    """Its name of a role -> the role."""


MESSAGES = Spelling("role", "content", {"system": "system", "user": "user", "assistant": "assistant"})
SHAREGPT = Spelling("from", "value", {"system": "system", "human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant"})


def turns(messages: Any, where: str, key: str, spelling: Spelling = MESSAGES) -> list[Turn]:
    """The messages under `key` of a row. ValueError for other roles, and for content that is empty or not text."""
    if not isinstance(messages, list):
        shape = f'{{"{spelling.role}": ..., "{spelling.content}": ...}}'
        raise ValueError(f"{where}: {key} is {kind(messages)}; expected a list of {shape}")
    return [_turn(message, f"{where}: {key}, message {number}", spelling) for number, message in enumerate(messages, start=1)]


def _turn(message: Any, where: str, spelling: Spelling) -> Turn:
    if not isinstance(message, dict) or not isinstance(message.get(spelling.role), str):
        raise ValueError(f'{where} is not {{"{spelling.role}": ..., "{spelling.content}": ...}}')
    name = message[spelling.role]
    if name not in spelling.roles:
        raise ValueError(f"{where} has the role {name!r}; expected {', '.join(spelling.roles)}")
    content, role = message.get(spelling.content), spelling.roles[name]
    if isinstance(content, list):
        content = "".join(_part(part, f"{where} ({name}), part {number}") for number, part in enumerate(content, start=1))
    if not isinstance(content, str):
        raise ValueError(f"{where} ({name}): {spelling.content} is {kind(content)}; expected text")
    if role != "system" and not content.strip():
        raise ValueError(f"{where} ({name}): {spelling.content} is empty; drop the message or the row")
    return role, content


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise ValueError(f'{where} is not {{"type": "text", "text": ...}}; only text can be read')
    return str(part["text"])


def conversation(messages: Sequence[Turn], where: str, name: str) -> Example:
    """The example of a conversation. ValueError if it has no answer to a user message, or a system message that is not the first."""
    answers = [number for number, (role, _) in enumerate(messages) if role == "assistant"]
    if not answers:
        raise ValueError(f"{where}: no assistant message; the last one is the answer (the Code view)")
    before = messages[: answers[-1]]
    system = before[0][1].strip() if before and before[0][0] == "system" else ""
    before = before[1:] if before and before[0][0] == "system" else before
    if any(role == "system" for role, _ in before):
        raise ValueError(f"{where}: a system message that is not the first message; put it first, or drop the row")
    if not before or before[-1][0] != "user":
        raise ValueError(f"{where}: no user message directly before the last assistant message; that message is the Text view")
    last = answers[-1]
    return Example(name, system, before[-1][1], messages[last][1], history=tuple(before[:-1]), unused=len(messages) - last - 1)
