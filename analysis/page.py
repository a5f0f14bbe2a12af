"""Renders a report's blocks as one self-contained HTML page and as Markdown. No script, no network: CSS and SVG are in the page.

Light or dark follows the reader's system. On a narrow screen, wide tables and figures scroll in their own box; the page never does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

from analysis.answer_diff import Span
from analysis.figures import style
from analysis.figures.style import Plot
from analysis.text_tables import Table, markdown


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
    """A plot with the command that prints its table."""

    plot: Plot
    command: str


@dataclass(frozen=True)
class Grid:
    """A table; `folded` behind its title, `code` with cells in a fixed-width font (and marks of `diff`)."""

    table: Table
    folded: bool = False
    code: bool = False
    command: str = ""
    sources: tuple[str, ...] = ()
    """Tables of the results folder that it is computed from."""
    prose: bool = False
    """The last column contains sentences, which may wrap."""


Block = Sentences | Ruling | Figure | Grid


@dataclass(frozen=True)
class Section:
    """A heading, a sentence or two, and the blocks below."""

    title: str
    blocks: list[Block]
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """The whole report. `facts` appear below the title; `data` is the relative path from the page to the results folder."""

    title: str
    facts: list[tuple[str, str]]
    sections: list[Section]
    command: str
    data: str


OPEN_WRONG, OPEN_EXTRA, OPEN_MISSING, CLOSE = "\ue000", "\ue001", "\ue002", "\ue003"
"""Private-use characters that replace tags until the surrounding text is escaped."""
BRACES = str.maketrans({OPEN_WRONG: "{+", OPEN_EXTRA: "{+", OPEN_MISSING: "{-", CLOSE: "}"})
"""Their Markdown equivalents."""


def diff(parts: list[Span]) -> str:
    """An answer with its differences marked, for `Grid(code=True)`."""
    shapes = {"same": "{1}", "wrong": OPEN_MISSING + "{0}" + CLOSE + OPEN_WRONG + "{1}" + CLOSE}
    shapes |= {"extra": OPEN_EXTRA + "{1}" + CLOSE, "missing": OPEN_MISSING + "{0}" + CLOSE}
    return "".join(shapes[part.kind].format(part.expected, part.given) for part in parts).replace("\n", "⏎")


def html(page: Page) -> str:
    """The complete page."""
    light, dark = style.colour_variables()
    css = CSS.replace("/*LIGHT*/", light).replace("/*DARK*/", dark)
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in page.facts)
    contents = "".join(f'<a href="#{_anchor(section.title)}">{escape(section.title)}</a>' for section in page.sections)
    sections = "\n".join(_section(section, page) for section in page.sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(page.title)}</title>
<style>{css}</style>
</head>
<body>
<header><h1>{escape(page.title)}</h1><dl>{facts}</dl><nav>{contents}</nav></header>
<main>
{sections}
</main>
<footer><p>Made by <code>{escape(page.command)}</code>; every number is computed from <a href="{escape(page.data)}">the sweep's
tables</a>.</p></footer>
</body>
</html>
"""


def _anchor(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())


def _section(section: Section, page: Page) -> str:
    lead = f'<p class="lead">{_prose(section.lead)}</p>' if section.lead else ""
    blocks = "\n".join(_block(block, page) for block in section.blocks)
    return f'<section id="{_anchor(section.title)}"><h2>{escape(section.title)}</h2>{lead}\n{blocks}\n</section>'


def _block(block: Block, page: Page) -> str:
    if isinstance(block, Sentences):
        return f'<ul class="{"warning" if block.warning else "notes"}">{_items(block.lines)}</ul>'
    if isinstance(block, Ruling):
        reasons = _folded("Reasons", _grid(block.reasons)) if block.reasons.rows else ""
        notes = f'<ul class="notes">{_items(block.notes)}</ul>' if block.notes else ""
        word = f'<span class="word {escape(block.word)}">{escape(block.word)}</span>'
        return f'<article class="ruling">{word}<p>{_prose(block.sentence)}</p>{notes}{reasons}</article>'
    if isinstance(block, Figure):
        return _figure(block, page)
    table = _grid(block.table, code=block.code, prose=block.prose) + _origin(block.command, block.sources, page)
    return _folded(block.table.title, table) if block.folded else f"<h3>{escape(block.table.title)}</h3>{table}"


def _figure(block: Figure, page: Page) -> str:
    plot = block.plot
    notes = f'<ul class="notes">{_items(plot.notes)}</ul>' if plot.notes else ""
    drawn = f'<div class="scroll drawing" tabindex="0">{style.svg(plot)}</div>' if plot.figure is not None else ""
    drawn = drawn.replace("<svg ", f'<svg aria-label="{escape(plot.title)}" ', 1)
    rows = f"Table ({len(plot.table.rows)} rows)"
    table = _folded(rows, _grid(plot.table)) if plot.table.rows else ""
    head, caption = f"<h3>{escape(plot.title)}</h3>", f"<figcaption>{_prose(plot.caption)}</figcaption>"
    return f'<figure id="{escape(plot.name)}">{head}{drawn}{caption}{notes}{table}{_origin(block.command, plot.sources, page)}</figure>'


def _origin(command: str, sources: Sequence[str], page: Page) -> str:
    links = ", ".join(f'<a href="{escape(page.data)}/{escape(name)}">{escape(name)}</a>' for name in sources)
    parts = [f"<code>{escape(command)}</code>"] if command else []
    parts += [f"data: {links}"] if links else []
    return f'<p class="origin">{" · ".join(parts)}</p>' if parts else ""


def _folded(title: str, inner: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inner}</details>"


def _prose(text: str) -> str:
    """A sentence as HTML; text between backticks is set in a fixed-width font."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _items(lines: Sequence[str]) -> str:
    return "".join(f"<li>{_prose(line)}</li>" for line in lines)


def _grid(table: Table, code: bool = False, prose: bool = False) -> str:
    if not table.rows:
        return f'<p class="empty">{_prose(table.empty)}</p>'
    right = [all(cell[:1] in "0123456789+-" for cell in column) for column in zip(*table.rows, strict=True)]
    sides = [' class="r"' if to_right else "" for to_right in right]
    head = "".join(f"<th{side}>{escape(cell)}</th>" for side, cell in zip(sides, table.header, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{side}>{_cell(cell, code)}</td>" for side, cell in zip(sides, row, strict=True)) + "</tr>"
        for row in table.rows
    )
    kind = "scroll code" if code else "scroll prose" if prose else "scroll"
    return f'<div class="{kind}" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str, code: bool) -> str:
    if not code:
        return _prose(text)
    text = escape(text)
    for mark, tag in ((OPEN_WRONG, '<span class="wrong">'), (OPEN_EXTRA, '<span class="extra">'), (OPEN_MISSING, '<span class="missing">')):
        text = text.replace(mark, tag)
    return f"<code>{text.replace(CLOSE, '</span>')}</code>"


def as_markdown(page: Page) -> tuple[str, dict[str, bytes]]:
    """The page as Markdown, and its PNG files by name."""
    images: dict[str, bytes] = {}
    parts = [f"# {page.title}", "\n".join(f"- {name}: {value}" for name, value in page.facts)]
    for section in page.sections:
        parts += [f"## {section.title}", section.lead] if section.lead else [f"## {section.title}"]
        for block in section.blocks:
            parts += _markdown_block(block, images)
    parts.append(f"Made by `{page.command}`.")
    return "\n\n".join(parts) + "\n", images


def _markdown_block(block: Block, images: dict[str, bytes]) -> list[str]:
    if isinstance(block, Sentences):
        return ["\n".join(f"- {line}" for line in block.lines)]
    if isinstance(block, Ruling):
        return [f"**{block.word}** {block.sentence}", *(f"> {note}" for note in block.notes), *_markdown_grid(block.reasons)]
    if isinstance(block, Figure):
        parts = [f"### {block.plot.title}"]
        if block.plot.figure is not None:
            images[f"{block.plot.name}.png"] = style.png(block.plot)
            parts.append(f"![{block.plot.title}]({block.plot.name}.png)")
        return [*parts, block.plot.caption, *block.plot.notes, f"`{block.command}`"]
    if not block.code:
        return _markdown_grid(block.table)
    rows = [[cell.translate(BRACES) for cell in row] for row in block.table.rows]
    return _markdown_grid(replace(block.table, rows=rows))


def _markdown_grid(table: Table) -> list[str]:
    return [f"#{markdown(table)}"] if table.rows else []


CSS = """
:root { --page: #fcfcfb; --card: #ffffff; --ink: #24292f; --faint: #626a73; --line: #e3e5e8; --link: #0b5f94;
  --good: #00704f; --bad: #a84400; --even: #0b5f94; --open: #5b626a; --warn: #fdf3e0; /*LIGHT*/ }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1b1f24; --ink: #e6e8eb; --faint: #9aa1a9; --line: #30353c;
  --link: #6db6ea; --good: #2fc596; --bad: #f08a3c; --even: #6db6ea; --open: #a3a9b1; --warn: #332a18; /*DARK*/ } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 60rem; padding: 2.5rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 1rem; font-weight: 650; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 3.2rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--line);
  font-weight: 620; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; font-weight: 600; }
a { color: var(--link); text-decoration-thickness: 1px; text-underline-offset: 2px; }
p { margin: .4rem 0; }
.lead, figcaption, .notes, .origin, .empty, footer { color: var(--faint); }
.lead { max-width: 46rem; }
figcaption, .notes, .empty { font-size: .88rem; max-width: 50rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .7rem 1.6rem; margin: 0 0 1.2rem; }
dt { color: var(--faint); font-size: .78rem; }
dd { margin: 0; font-size: .92rem; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .9rem; }
figure { margin: 1.6rem 0 2.4rem; }
.scroll { overflow-x: auto; border-radius: 6px; }
.scroll:focus-visible { outline: 2px solid var(--link); }
.drawing { background: var(--card); border: 1px solid var(--line); padding: .8rem; margin-bottom: .5rem; }
svg { display: block; width: 100%; min-width: 35rem; height: auto; font-family: inherit; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; margin: .3rem 0; }
th { text-align: left; font-weight: 550; color: var(--faint); vertical-align: bottom; border-bottom: 1px solid var(--line); }
th, td { padding: .32rem .9rem .32rem 0; white-space: nowrap; }
td { border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
.r { text-align: right; }
.code td { white-space: normal; min-width: 6.5rem; }
.code code { font-size: .95em; overflow-wrap: anywhere; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .86em; }
details { margin: .4rem 0; }
summary { cursor: pointer; font-size: .88rem; color: var(--link); padding: .2rem 0; }
details .scroll { max-height: 28rem; overflow: auto; }
details thead th { position: sticky; top: 0; background: var(--page); }
ul { padding-left: 1.1rem; margin: .5rem 0; }
.warning { background: var(--warn); border-radius: 6px; padding: .7rem 1rem .7rem 2rem; }
.origin { font-size: .8rem; overflow-wrap: anywhere; }
.ruling { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem; margin: .7rem 0; }
.ruling td:last-child, .prose td:last-child { white-space: normal; min-width: 16rem; }
.word { font-weight: 650; color: var(--open); }
.word.better { color: var(--good); } .word.worse { color: var(--bad); } .word.equivalent { color: var(--even); }
.wrong, .extra { color: var(--bad); text-decoration: underline; text-decoration-thickness: 2px; }
.extra { text-decoration-style: wavy; text-decoration-thickness: 1px; }
.missing { color: var(--faint); text-decoration: line-through; }
footer { margin-top: 4rem; border-top: 1px solid var(--line); font-size: .88rem; }
@media (max-width: 34rem) { body { padding: 1.4rem .9rem 3rem; } h1 { font-size: 1.5rem; } .drawing { padding: .4rem; } }
@media print { details { display: none; } .scroll { overflow: visible; } }
"""
