"""A part's input and output. Neither needs torch, so the command that starts the parts stays light.

A part is a function of a Form and a Findings. It notes each figure as soon as it is measured, and the file is rewritten each time. So the
figures measured before a crash or a timeout are kept.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jepa_ray.system import atomic


class Skipped(Exception):
    """The part cannot run here, which is not an error; the message says why."""


@dataclass(frozen=True)
class Form:
    """How a part runs."""

    folder: Path
    """Folder for the results; parts have their own scratch folders below it."""
    device: str = "cpu"
    small: bool = True
    """Tiny models and a few steps; else Llama-3.2-1B's shapes."""
    data: Path | None = None
    """Folder with data sets as JSON lines; None: examples are generated."""
    until: float = math.inf
    """`time.time()` at which the part is stopped."""

    def left(self) -> float:
        """Seconds until the part is stopped."""
        return self.until - time.time()

    def scratch(self, name: str) -> Path:
        """A folder of that name, created if missing."""
        path = self.folder / "scratch" / name
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass
class Findings:
    """Figures of a part, on disk as soon as they are noted."""

    path: Path
    figures: dict[str, Any] = field(default_factory=dict)
    headline: str = ""
    """The part in a few words, for the table."""

    def note(self, figures: Mapping[str, Any], headline: str | None = None) -> None:
        """Add figures (replacing those of the same name), and set the headline if given."""
        self.figures |= figures
        self.headline = self.headline if headline is None else headline
        write(self.path, {"headline": self.headline, "figures": self.figures})


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON, atomically. Numbers that are not finite become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.whole_file(path) as temporary:
        temporary.write_text(json.dumps(_plain(record), indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """The record that was written; empty if the file does not exist."""
    if not path.is_file():
        return {}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
