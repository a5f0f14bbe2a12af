"""Checks of `model`: a name that can be no checkpoint is refused before any library looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jepa_ray.config.messages import Finding


def check_model(model: Any) -> Iterator[Finding]:
    """Findings about `model`, one name or one per family: empty names, files, links that lead nowhere, adapters without their model."""
    from jepa_ray.models.folders import fault_of

    names = model if isinstance(model, dict) else {None: model}
    for family, name in names.items():
        if isinstance(name, str) and name not in ("tiny", "paper") and (fault := fault_of(name)) is not None:
            yield ["model", *([family] if family is not None else [])], fault
