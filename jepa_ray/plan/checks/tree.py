"""Access to the raw tree of a sweep file, for the checks."""

from __future__ import annotations

from typing import Any

from jepa_ray.config.record import is_none


def at(tree: Any, *path: str, default: Any = None) -> Any:
    """Value at a path of the raw tree. The default if there is no value, or `none`."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return default if is_none(tree) else tree
