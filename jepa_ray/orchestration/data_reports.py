"""The data report of each family and task, `data/<family>-<task>.json` in a results folder, and what has changed since the last one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COMPARED = {"sha": "data", "weights_sha": "weights"}
"""Digests in a report -> what they are of."""


def renew(folder: Path, family: str, task: str, report: dict[str, Any]) -> list[str]:
    """Write the report in place of the last one. Returns what has changed since: "data", "weights", both or neither.

    What the last report does not say (one of an earlier version, or a damaged one) counts as unchanged.
    """
    path = folder / "data" / f"{family}-{task}.json"
    path.parent.mkdir(exist_ok=True)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    known = before if isinstance(before, dict) else {}
    return [what for key, what in COMPARED.items() if key in known and key in report and known[key] != report[key]]


def told(name: str, changed: list[str]) -> str:
    """The sentence about a workload of a folder with trials."""
    return (
        f"{name}: the {' and '.join(changed)} have changed since the last run in this folder. Search trials that have ended are kept and "
        "still decide what is confirmed, but nothing else from before counts; --fresh starts over in a new folder"
    )
