"""Text with aligned columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(rows: Sequence[tuple[str, ...]], right: Collection[int] = ()) -> list[str]:
    """Lines of text with aligned columns; `right`: columns that are aligned to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def cell(column: int, text: str) -> str:
        return text.rjust(widths[column]) if column in right else text.ljust(widths[column])

    return ["   ".join(cell(column, text) for column, text in enumerate(row)).rstrip() for row in rows]
