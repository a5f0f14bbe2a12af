"""Draws training passages as a masked encoder sees them, for the plan: the tokens that a first step hides are between MARKS."""

from __future__ import annotations

from typing import Any

import numpy as np

from jepa_ray.config import TrialConfig
from jepa_ray.masked.corpus import Passages
from jepa_ray.masked.step import draw_hidden
from jepa_ray.preparation.rows import MARKS, ROWS, printable, shortened, shown


def draw_masked(arm: str, config: TrialConfig, passages: Passages, tokenizer: Any, more: bool = False) -> list[str]:
    """Lines for the first `ROWS` passages, as a trial of this arm masks them. `more`: there are other families and tasks."""
    count = min(ROWS, len(passages))
    begin = f"{count} training passages" if count > 1 else "a training passage"
    lines = [f"rows      {begin} as {arm} sees them ({MARKS[0]} {MARKS[1]}: hidden in the first step, and the labels)"]
    lines[0] += "; other families and tasks are not shown" if more else ""
    for row, hidden in enumerate(draw_hidden(passages, np.arange(count), config, 0)):
        ids = passages.tokens[passages.span(row)]
        lines.append(f"  {printable(passages.ids[row])}   {shortened(shown(ids, np.flatnonzero(hidden).tolist(), tokenizer))}")
    return lines
