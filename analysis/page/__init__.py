"""A report's blocks (`blocks`), as one self-contained HTML page (`render`, with `templates/`) and as Markdown (`as_markdown`)."""

from analysis.page.blocks import Block, Figure, First, Grid, Page, Ruling, Section, Sentences, diff
from analysis.page.markdown import as_markdown
from analysis.page.render import html

__all__ = ["Block", "Figure", "First", "Grid", "Page", "Ruling", "Section", "Sentences", "as_markdown", "diff", "html"]
