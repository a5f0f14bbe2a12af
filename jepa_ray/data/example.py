"""The record that everything beyond the file formats works on: one pair of views of the same content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """One question (the Text view) and its answer (the Code view)."""

    id: str
    """Unique in its data set and the same on every machine."""
    system: str
    """Instruction at the start of the conversation; empty: none."""
    text: str
    """The user's message: the Text view."""
    code: str
    """The assistant's message, the reference answer: the Code view."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further data for the task's judge, such as a database's name. Empty for most tasks."""
    views: tuple[str, str] | None = None
    """(Text view, Code view) if they differ from `text` and `code` (HellaSwag: the context and the correct ending)."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier turns of a conversation, each (`user` or `assistant`, content), between the system message and `text`. Part of the prompt,
    of neither view, and without labels."""
    unused: int = 0
    """Messages after the answer, which nothing reads."""

    @property
    def question(self) -> str:
        """What is asked: the user's message, with the earlier turns if there are any. Two splits must not have the same."""
        return "\n\n".join([*(f"{role}: {content}" for role, content in self.history), self.text]) if self.history else self.text
