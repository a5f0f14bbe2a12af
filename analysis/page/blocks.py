"""What a page consists of: sentences, verdicts, figures and tables, in sections below a first screen. Nothing is rendered here."""

from __future__ import annotations

from dataclasses import dataclass, field

from analysis.answer_diff import Span
from analysis.figures.style import Plot
from analysis.text_tables import Table


@dataclass(frozen=True)
class Sentences:
    """A list of sentences; `warning` if they qualify everything else on the page."""

    lines: tuple[str, ...]
    warning: bool = False


@dataclass(frozen=True)
class Ruling:
    """One verdict: a word, its sentence, and the conditions behind it as a table."""

    word: str
    sentence: str
    reasons: Table
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A plot with the command that prints its table; `narrow` is the same figure drawn for a phone."""

    plot: Plot
    command: str
    narrow: Plot | None = None


@dataclass(frozen=True)
class Grid:
    """A table; `folded` behind its title, `code` with cells in a fixed-width font (and marks of `diff`)."""

    table: Table
    folded: bool = False
    code: bool = False
    command: str = ""
    sources: tuple[str, ...] = ()
    """Tables of the results folder that it is computed from."""
    kinds: tuple[str, ...] = ()
    """A word for each row, by which the reader can filter; empty: no filter."""
    notes: tuple[str, ...] = ()


Block = Sentences | Ruling | Figure | Grid


@dataclass(frozen=True)
class Section:
    """A heading, a sentence or two, and the blocks below. `name` is its address on the page and its entry in the contents."""

    title: str
    blocks: list[Block]
    lead: str = ""
    name: str = ""


@dataclass(frozen=True)
class First:
    """The first screen: the question, the answer, the picture, and what was run."""

    question: str
    answers: tuple[tuple[str, str], ...] = ()
    """Pairs of a verdict's word (or an empty string) and a sentence."""
    figure: Figure | None = None
    setup: tuple[tuple[str, str], ...] = ()
    """Pairs of a name and a line."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """The whole report. `data` is the relative path from the page to the results folder."""

    title: str
    first: First
    sections: list[Section]
    command: str
    data: str
    notes: tuple[str, ...] = field(default=())
    """Sentences at the very end."""


OPEN_WRONG, OPEN_EXTRA, OPEN_MISSING, CLOSE = "\ue000", "\ue001", "\ue002", "\ue003"
"""Private-use characters that replace tags until the surrounding text is escaped."""


def diff(parts: list[Span]) -> str:
    """An answer with its differences marked, for `Grid(code=True)`."""
    shapes = {"same": "{1}", "wrong": OPEN_MISSING + "{0}" + CLOSE + OPEN_WRONG + "{1}" + CLOSE}
    shapes |= {"extra": OPEN_EXTRA + "{1}" + CLOSE, "missing": OPEN_MISSING + "{0}" + CLOSE}
    return "".join(shapes[part.kind].format(part.expected, part.given) for part in parts).replace("\n", "⏎")
