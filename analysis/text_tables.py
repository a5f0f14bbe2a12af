"""Small tables of strings, as aligned text and as Markdown, and how numbers are written in them. No own imports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

COMPUTED, UNPACKED = "train_flops", "train_flops_unpacked"
FLOPS = {COMPUTED: "computed FLOPs", UNPACKED: "unpacked FLOPs"}
"""Names of the two counts of training FLOPs: as computed, and with every sequence and view counted separately."""


@dataclass(frozen=True)
class Table:
    """A table whose cells are strings; `empty` is printed if there are no rows."""

    title: str
    header: list[str]
    rows: list[list[str]]
    empty: str


def text(table: Table) -> str:
    """The table with aligned columns: to the right if every cell starts with a digit or sign, else to the left."""
    if not table.rows:
        return f"{table.title}\n{table.empty}"
    columns = list(zip(table.header, *table.rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell[:1] in "0123456789+-" for cell in column[1:]) for column in columns]
    pads = [str.rjust if to_right else str.ljust for to_right in right]
    lines = [
        "  ".join(pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)).rstrip()
        for row in [table.header, *table.rows]
    ]
    return "\n".join([table.title, lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown, under a heading."""
    if not table.rows:
        return f"## {table.title}\n\n{table.empty}"
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [table.header, *table.rows]]
    return "\n".join([f"## {table.title}", "", lines[0], "|" + " --- |" * len(table.header), *lines[1:]])


def flops(number: float | None) -> str:
    """A count of FLOPs with four significant digits, `1.234e+12`; a dash for None."""
    return "-" if number is None else f"{number:.3e}"


def cost_column(*rows: pd.DataFrame) -> str:
    """The column of FLOPs to compare trials by: unpacked (independent of packing, micro-batches, workers) if all of them have it."""
    unpacked = pd.concat([part[UNPACKED] for part in rows]) if all(UNPACKED in part for part in rows) else pd.Series([np.nan])
    return UNPACKED if np.isfinite(unpacked.to_numpy(dtype=float)).all() else COMPUTED


def counted(number: int, noun: str) -> str:
    """A number and its noun: `1 seed`, `5 seeds`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def named(noun: str, values: Sequence[Any]) -> str:
    """A noun and its values: `seed 23`, `seeds 4, 23`."""
    return f"{noun}{'s' * (len(values) != 1)} {', '.join(map(str, values))}"


def sized(share: float) -> str:
    """A share in percentage points: `1 point`, `2.5 points`."""
    return f"{100 * share:g} point{'' if abs(share - 0.01) < 1e-12 else 's'}"


def points(share: float) -> str:
    """A difference in points, with its sign and two decimals; 0 is `+0.00`."""
    return f"{round(100 * share, 2) + 0.0:+.2f}"


def percent(moments: Mapping[str, Any], *, sign: bool = False) -> str:
    """`mean ± sd` of a share in percent, two decimals; without sd at n = 1, a dash if there is no mean."""
    if moments["mean"] is None:
        return "-"
    mean = points(moments["mean"]) if sign else f"{100 * moments['mean']:.2f}"
    return mean if moments["sd"] is None else f"{mean} ± {100 * moments['sd']:.2f}"


def significant(value: Any) -> str:
    """A cell: numbers with four significant digits, a dash for None."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
