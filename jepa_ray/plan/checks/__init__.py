"""Checks of names, of files, and of rules between the keys of a sweep file.

They read the raw tree, so that their errors are reported together with those of other kinds. Imports neither torch nor Ray.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from jepa_ray.config import BaseConfig, ConfirmConfig, SweepConfig, auto_without_checkpoint, default_families, used_seed
from jepa_ray.config.messages import Finding, suggestion
from jepa_ray.plan.checks.data import check_data
from jepa_ray.plan.checks.masked import check_masked
from jepa_ray.plan.checks.model import check_model
from jepa_ray.plan.checks.search import check_scheduler, check_search
from jepa_ray.plan.checks.space import check_methods, check_space
from jepa_ray.plan.checks.track import check_track
from jepa_ray.plan.checks.tree import at


def check(
    tree: dict[str, Any], families: Collection[str] | None, tasks: Collection[str] | None, planning: bool = False
) -> Iterator[Finding]:
    """Every error in a tree. Drops `data.task` if it contradicts `task`. `planning`: files of public data sets may be missing."""
    from jepa_ray.data.datasets import DATASETS
    from jepa_ray.models.encoders import ENCODERS
    from jepa_ray.models.families import AUTO, FAMILIES

    masked = at(tree, "base", "masked") is not None
    families = families or (ENCODERS if masked else [*FAMILIES, AUTO])
    named = at(tree, "families", default=[])
    named = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    for number, name in enumerate(named):
        if name not in families and name in ([*FAMILIES, AUTO] if masked else ENCODERS):
            kind, remedy = ("causal model", "drop base.masked") if masked else ("masked encoder", "set e.g. base.masked={mask_ratio: 0.3}")
            yield ["families"], f"{name} is a {kind}; {remedy}, or choose families from {', '.join(families)}"
        elif name not in families:
            yield ["families"], f"unknown family {name!r}; {suggestion(name, families)}"
        if name in named[:number]:
            yield ["families"], f"contains {name} twice; drop one"
    model = tree.get("model", SweepConfig.model_fields["model"].default)
    source = model.get(AUTO) if isinstance(model, dict) else model
    if AUTO in named and source in ("tiny", "paper"):
        yield ["families"], auto_without_checkpoint(source)
    yield from check_model(model)
    yield from check_data(tree, tasks or DATASETS, planning)
    yield from check_methods(tree)
    yield from check_space(tree)
    yield from check_masked(tree) if masked else ()
    if isinstance(model, dict):
        named = named or list(default_families(tree))
        for family in named:
            if family not in model:
                yield ["model"], f"has no model for family {family}; add {family}: tiny (or a hub id, or a path)"
        for family in model:
            if family not in named:
                yield ["model", family], "is not in families; add it there or drop it here"
    seeds, seed = at(tree, "confirm", "seeds", default=ConfirmConfig().seeds), at(tree, "base", "seed", default=BaseConfig().seed)
    if isinstance(seeds, (list, tuple)) and seed in seeds:
        place = ["base", "seed"] if at(tree, "base", "seed") is not None else ["confirm", "seeds"]
        yield place, used_seed(seed, seeds)
    if at(tree, "base", "model", "compile") in (True, "true") and at(tree, "resources", "sharding") == "fsdp":
        yield ["base", "model", "compile"], "is not supported with resources.sharding=fsdp, whose shards run eagerly; drop one"
    if at(tree, "base", "evaluation", "test") is True:
        yield ["base", "evaluation", "test"], "the test split stays sealed until confirmation; drop this key"
    if at(tree, "base", "evaluation", "at_steps", default=()):
        yield ["base", "evaluation", "at_steps"], "follows from scheduler.time_attr: step and grace_period; set these, and drop this key"
    if at(tree, "base", "evaluation", "embeddings", default=0) and not seeds and not masked:
        why = "has no effect, since embeddings are kept only for confirmed trials and there are none; drop it, or give confirm.seeds"
        yield ["base", "evaluation", "embeddings"], why
    yield from check_scheduler(tree)
    yield from check_search(tree, masked)
    yield from check_track(tree)


__all__ = ["check"]
