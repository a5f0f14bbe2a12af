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
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.figures import style
from analysis.figures.style import Plot
from analysis.page.blocks import CLOSE, OPEN_EXTRA, OPEN_MISSING, OPEN_WRONG, Figure, Grid, Page, Ruling, Section, Sentences
from analysis.text_tables import Table

TEMPLATES = Path(__file__).parent / "templates"
MARKS = {OPEN_WRONG: '<span class="wrong">', OPEN_EXTRA: '<span class="extra">', OPEN_MISSING: '<span class="missing">', CLOSE: "</span>"}
KINDS: Mapping[type, str] = {Sentences: "sentences", Ruling: "ruling", Figure: "figure", Grid: "grid"}
LONG = 24
"""A cell with more characters than this may wrap."""


def html(page: Page) -> str:
    """The complete page."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"prose": prose, "marked": marked, "svg": drawing, "columns": columns}
    environment.tests["long"] = lambda text: len(str(text)) > LONG
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


def columns(table: Table) -> list[dict[str, Any]]:
    """For each column whether it is aligned to the right (every cell starts with a digit or sign) and whether its cells may wrap."""
    cells = list(zip(*table.rows, strict=True))
    return [
        {"right": all(cell[:1] in "0123456789+-" for cell in column), "wraps": max(map(len, column)) > LONG, "first": place == 0}
        for place, column in enumerate(cells)
    ]
