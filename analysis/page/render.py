"""A page as HTML: one file without network, whose style, script and drawings are inside. The templates are in `templates/`.

Light or dark follows the reader's system. The script sorts tables, filters answers and opens folds for printing; without it everything
can still be read. A policy in the page allows this script and no other.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.figures import style
from analysis.figures.style import Plot
from analysis.page.blocks import CLOSE, OPEN_EXTRA, OPEN_MISSING, OPEN_WRONG, Figure, Grid, Page, Ruling, Section, Sentences
from analysis.text_tables import Table

TEMPLATES = Path(__file__).parent / "templates"
MARKS = {OPEN_WRONG: '<span class="wrong">', OPEN_EXTRA: '<span class="extra">', OPEN_MISSING: '<span class="missing">', CLOSE: "</span>"}
KINDS: Mapping[type, str] = {Sentences: "sentences", Ruling: "ruling", Figure: "figure", Grid: "grid"}
WRAPS, LONG = 20, 60
"""A column whose longest cell has more characters than this may wrap, or needs room for whole sentences."""


def html(page: Page) -> str:
    """The complete page."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"prose": prose, "marked": marked, "svg": drawing, "columns": columns}
    light, dark = style.colour_variables()
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8").replace("/*LIGHT*/", light).replace("/*DARK*/", dark)
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        page=page, css=Markup(css), script=Markup(script), digest=digest, kind=lambda block: KINDS[type(block)], anchor=anchor
    )


def anchor(section: Section) -> str:
    """The address of a section on its page."""
    return "".join(letter if letter.isalnum() else "-" for letter in (section.name or section.title).lower())


def prose(text: str) -> Markup:
    """A sentence as HTML; text between backticks is set in a fixed-width font."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def marked(text: str) -> Markup:
    """An answer in a fixed-width font, with the marks of `blocks.diff` as spans."""
    escaped = str(escape(text))
    for mark, tag in MARKS.items():
        escaped = escaped.replace(mark, tag)
    return Markup(f"<code>{escaped}</code>")


def drawing(plot: Plot) -> Markup:
    """The figure as SVG, with its title as its name for screen readers."""
    return Markup(style.svg(plot).replace("<svg ", f'<svg aria-label="{escape(plot.title)}" ', 1))


def columns(table: Table) -> list[dict[str, Markup]]:
    """For each column the classes of its cells and of its head.

    `r`: to the right, if every cell starts with a digit or sign; `w`: may wrap; `long`: contains sentences, and needs room.
    """
    out = []
    for column in zip(*table.rows, strict=True):
        longest = max(map(len, column))
        right = ["r"] if all(cell[:1] in "0123456789+-" for cell in column) else []
        wraps = ["w"] * (longest > WRAPS) + ["long"] * (longest > LONG)
        out.append(
            {name: Markup(f' class="{" ".join(words)}"' if words else "") for name, words in (("classes", right + wraps), ("head", right))}
        )
    return out
