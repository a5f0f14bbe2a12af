"""The record that everything below the file format works on: one pair of views of the same thing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """One question (the Text view) and its answer (the Code view)."""

    id: str
    """Unique in its data set, and the same on every machine."""
    system: str
    """Instruction in front of the conversation; empty: none."""
    text: str
    """The user's message: the Text view."""
    code: str
    """The assistant's message, the reference answer: the Code view."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What a task's judge needs beyond these (a database's name, say). Empty for most."""
    views: tuple[str, str] | None = None
    """(Text view, Code view) where they are other than `text` and `code` (HellaSwag: the context, and the right ending)."""
