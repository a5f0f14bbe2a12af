"""The final table: one line per part, with its result or its error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FAILED = ("failed", "timed out")


def table(records: Sequence[dict[str, Any]]) -> str:
    """Part, state, seconds and result of each, with a count of states below."""
    rows = [("part", "state", "seconds", "result")]
    for record in records:
        words = [record["error"]] if record["error"] else []
        words += [record["headline"]] if record["headline"] else []
        rows.append((record["part"], record["state"], f"{record['seconds']:.1f}", "; ".join(words)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{part:<{widths[0]}}  {state:<{widths[1]}}  {seconds:>{widths[2]}}  {words}".rstrip() for part, state, seconds, words in rows]
    states = [record["state"] for record in records]
    counts = [f"{states.count(state)} {state}" for state in ("ok", *FAILED, "skipped") if state in states]
    total = sum(record["seconds"] for record in records)
    return "\n".join([*lines, f"{', '.join(counts)}; {total:.0f} s in all"])


def any_failed(records: Sequence[dict[str, Any]]) -> bool:
    """Whether the command should exit with code 1."""
    return any(record["state"] in FAILED for record in records)
