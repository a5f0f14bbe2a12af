"""Rules between the keys of a sweep that its record and the checks of a file both apply: stated once, in one sentence each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jepa_ray.config.record import is_none, show


def used_seed(seed: int, seeds: Sequence[int]) -> str:
    """Error sentence for a confirmation that reuses the seed of the search."""
    return f"base.seed = {seed} is also among confirm.seeds = {show(seeds)}, but the confirmation needs fresh seeds; change one of the two"


def auto_without_checkpoint(model: str) -> str:
    """Error sentence for family `auto` with a model that is no checkpoint of the user's."""
    return f"auto is found from a checkpoint, but model is {model}; set model to a hub id or a folder, or name a family such as llama3"


def default_families(tree: Mapping[str, Any]) -> tuple[str, ...]:
    """The families of a sweep whose file, as keys and values, names none: found from the checkpoint if `model` is one."""
    model, base = tree.get("model", "tiny"), tree.get("base")
    masked = base.get("masked") if isinstance(base, Mapping) else getattr(base, "masked", None)
    found = isinstance(model, str) and model not in ("tiny", "paper") and is_none(masked)
    return ("auto",) if found else ("llama3",)


def two_tasks(task: str, data_task: str) -> str:
    """Error sentence for a `data.task` that differs from `task`."""
    return f"is {data_task!r}, but task is {task!r}; drop data.task"


def checked_claims(value: Any) -> Any:
    """`all`, or pairs of names, as they are; else ValueError with an example."""
    pairs = isinstance(value, (list, tuple)) and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in value)
    if value is None or value == "all" or (pairs and all(isinstance(name, str) for pair in value for name in pair)):
        return value
    raise ValueError(f"must be `all`, or pairs of methods such as [[infonce, jepa], [jepa, baseline]], got {show(value)}")


def claim_fault(claims: Sequence[tuple[str, str]] | str | None, methods: Collection[str]) -> str | None:
    """Error sentence for claims that no methods of the sweep can settle; None if there is nothing wrong."""
    pairs = [] if claims is None or isinstance(claims, str) else list(claims)
    for place, (method, other) in enumerate(pairs):
        for name in (method, other):
            if name not in methods:
                return f"claims: {show(name)} is not a method of this sweep; its methods are {', '.join(methods)}"
        if method == other:
            return f"claims: {show(method)} is compared with itself; name two methods"
        if {method, other} in [set(pair) for pair in pairs[:place]]:
            return f"claims: {show(method)} and {show(other)} are compared twice; drop one of the two pairs"
    return None
