"""A page as Markdown, with its figures as PNG files."""

from __future__ import annotations

from dataclasses import replace

from analysis.figures import style
from analysis.page.blocks import CLOSE, OPEN_EXTRA, OPEN_MISSING, OPEN_WRONG, Block, Figure, Page, Ruling, Sentences
from analysis.text_tables import Table, markdown

BRACES = str.maketrans({OPEN_WRONG: "{+", OPEN_EXTRA: "{+", OPEN_MISSING: "{-", CLOSE: "}"})
"""Marks of `blocks.diff` in plain text."""
MOST = 20
"""Answers of a table: GitHub shows no Markdown file of half a megabyte."""


def as_markdown(page: Page) -> tuple[str, dict[str, bytes]]:
    """The page as Markdown, and its PNG files by name."""
    images: dict[str, bytes] = {}
    first = page.first
    parts = [f"# {page.title}", *(["\n".join(f"- {line}" for line in first.warnings)] if first.warnings else []), first.question]
    parts += [f"**{word}** {sentence}" if word else sentence for word, sentence in first.answers]
    parts += _block(first.figure, images) if first.figure is not None else []
    parts.append("\n".join(f"- {name}: {value}" for name, value in first.setup))
    for section in page.sections:
        parts += [f"## {section.title}", section.lead] if section.lead else [f"## {section.title}"]
        for block in section.blocks:
            parts += _block(block, images)
    parts.append(f"Made by `{page.command}`.")
    return "\n\n".join(part for part in parts if part) + "\n", images


def _block(block: Block, images: dict[str, bytes]) -> list[str]:
    if isinstance(block, Sentences):
        return ["\n".join(f"- {line}" for line in block.lines)]
    if isinstance(block, Ruling):
        return [f"**{block.word}** {block.sentence}", *(f"> {note}" for note in block.notes), *_grid(block.reasons)]
    if isinstance(block, Figure):
        parts = [f"### {block.plot.title}"]
        if block.plot.figure is not None:
            images[f"{block.plot.name}.png"] = style.png(block.plot)
            parts.append(f"![{block.plot.title}]({block.plot.name}.png)")
        return [*parts, block.plot.caption, *block.plot.notes, f"`{block.command}`"]
    if not block.code:
        return [*_grid(block.table), *block.notes]
    rows = [[cell.translate(BRACES).replace("\n", " / ") for cell in row] for row in block.table.rows[:MOST]]
    more = [f"The first {MOST} of {len(block.table.rows)} rows; the page shows all."] if len(block.table.rows) > MOST else []
    return [*_grid(replace(block.table, rows=rows)), *more, *block.notes]


def _grid(table: Table) -> list[str]:
    return [f"#{markdown(table)}"] if table.rows else []
