"""Trackers of a sweep file: whether their packages are installed. None of them is imported."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from jepa_ray.config.messages import Finding
from jepa_ray.plan.checks.tree import at

PACKAGES = {"tensorboard": ("tensorboardX",), "mlflow": ("mlflow",), "wandb": ("wandb",)}
"""Key of `track`, which is also the name of the extra -> the modules that it needs."""


def check_track(tree: dict[str, Any]) -> Iterator[Finding]:
    for key, modules in PACKAGES.items():
        missing = [module for module in modules if find_spec(module) is None]
        if missing and at(tree, "track", key) not in (None, False, "none"):
            yield ["track", key], f"the package {missing[0]} is not installed; pip install 'jepa-ray[{key}]', or drop this key"
