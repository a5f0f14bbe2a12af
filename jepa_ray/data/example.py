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
