"""The raw tree of a sweep file, as the checks look at it."""

from __future__ import annotations

from typing import Any

from jepa_ray.config.record import is_none


def at(tree: Any, *path: str, default: Any = None) -> Any:
    """What the raw tree holds at a path; the default where it holds nothing there, or `none`."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return default if is_none(tree) else tree
