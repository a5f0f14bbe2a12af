"""The sweep file as it lies in a results folder: a tree of plain values, without the defaults and checks of `jepa_ray.plan`.

`preregistration.declared` reads from the same file what a verdict depends on, and reports if it cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def plan(folder: Path) -> Mapping[str, Any]:
    """The content of sweep.yaml; empty if it is missing or unreadable."""
    try:
        tree = yaml.safe_load((folder / "sweep.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return tree if isinstance(tree, dict) else {}


def section(tree: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The mapping at this path; empty if there is none."""
    for name in path:
        inner = tree.get(name)
        tree = inner if isinstance(inner, dict) else {}
    return tree
