"""When two examples are about the same: what a model has seen of one, it knows of the other.

Texts are the same if they differ only in white space or in Unicode's compatible forms (`key`). A conversation also is the same as each of
its beginnings that ends with an answer, and as every example with the same last user message, which is the whole Text view, if that message
has the same answer whatever was said before it. "And then?", whose answers differ, depends on the turns before it.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable

from jepa_ray.data.example import Example


def key(text: str) -> str:
    """Equal for texts that differ only in white space (its kind, its amount, at either end) or in Unicode's compatible forms (NFKC)."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).split())


def pair(example: Example) -> tuple[str, str]:
    """Keys of the question, with the earlier turns, and of the answer."""
    return key(example.question), key(example.code)


def texts(example: Example) -> tuple[str, ...]:
    """Keys of the question, with the earlier turns, and of the Text view if it is another text."""
    return tuple(key(text) for text in (example.question, *(example.views or ())[:1]))


def answers(examples: Iterable[Example]) -> dict[str, set[str]]:
    """Key of a user's message -> keys of its answers, whatever was said before it."""
    found: dict[str, set[str]] = {}
    for example in examples:
        found.setdefault(key(example.text), set()).add(key(example.code))
    return found


def beginnings(example: Example) -> list[str]:
    """Digests of the conversation's beginnings that end with an answer, the shortest first; the last is that of the whole conversation."""
    sha, out = hashlib.sha256(), []
    for role, content in (*example.history, ("user", example.text), ("assistant", example.code)):
        sha.update(json.dumps([role, key(content)]).encode())
        if role == "assistant":
            out.append(sha.hexdigest())
    return out


class Seen:
    """What some examples show of others: `example in Seen(train)` tells whether the example is leaked."""

    def __init__(self, examples: Iterable[Example]) -> None:
        listed = [(example, beginnings(example)) for example in examples]
        self._questions = {key(example.question) for example, _ in listed}
        self._answers = answers(example for example, _ in listed)
        self._begun = {digest for _, digests in listed for digest in digests}
        self._whole = {digests[-1] for _, digests in listed}

    def __contains__(self, example: object) -> bool:
        if not isinstance(example, Example):
            return False
        question, answer = pair(example)
        if question in self._questions or self._answers.get(key(example.text)) == {answer}:
            return True
        digests = beginnings(example)
        return digests[-1] in self._begun or not self._whole.isdisjoint(digests)
