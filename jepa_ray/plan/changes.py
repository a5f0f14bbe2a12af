"""The changes between two files of one sweep, and which of them `--extend` can make. Trees in, sentences out; reads no file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

FREE = ("name", "output", "resources", "track", "confirm.keep")
"""Keys that decide where a sweep runs, what it writes and where it is shown, not what it computes. They may change between runs."""
EXTENDABLE = (
    "search.num_trials",
    "search.algorithm",
    "search.seed",
    "search.train_flops",
    "search.warm_start",
    "space",
    "scheduler",
    "confirm",
    "methods",
    "cross_entropy",
    "controls",
    "claims",
    "families",
    "model",
)
"""Keys that `--extend` may change. Those in GROWING may only grow."""
GROWING = ("methods", "cross_entropy", "families", "model")
LISTS = ("families", "controls")
"""Keys whose value is a list of names."""
ABSENT = "no such method"
Keys = tuple[str, ...]
"""Path of a value in a sweep file."""
ADDED: Mapping[Keys, Any] = MappingProxyType(
    {
        ("base", "model", "attention"): "auto",
        ("base", "model", "compile"): "auto",
        ("confirm", "until"): "planned",
        ("confirm", "max_seeds"): 40,
    }
)
"""Keys that files of earlier versions lack, and their defaults, where these are not null. They leave the sweep as it was."""
FORMER: Mapping[Keys, Any] = MappingProxyType({("base", "evaluation", "batch_size"): 64})
"""Keys whose default is null today, and the value that earlier versions wrote for it. Both are one configuration (`config_id`)."""


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[Keys, Any, Any]]:
    """(path, before, after) of every leaf that differs, except for FREE keys."""
    before, after = _leaves(by_family(old)), _leaves(by_family(new))
    before, after = (
        {key: None if key in FORMER and value == FORMER[key] else value for key, value in one.items()} for one in (before, after)
    )
    pairs = [(key, before.get(key, _missing(key)), after.get(key, _missing(key))) for key in {**before, **after} if not _is_free(key)]
    return [(key, was, now) for key, was, now in pairs if was != now]


def _is_free(key: Keys) -> bool:
    return key[0] in FREE or ".".join(key) in FREE


def _missing(key: Keys) -> Any:
    """The value of a key that a file lacks: the default that a later version has added, which is null except for ADDED. For methods it is
    ABSENT, because null is a baseline."""
    return ABSENT if key[0] == "methods" else ADDED.get(key)


def by_family(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with one model per family, so that `model: tiny` may grow into a mapping."""
    return tree if isinstance(tree["model"], dict) else {**tree, "model": dict.fromkeys(tree["families"], tree["model"])}


def _leaves(tree: Any, path: Keys = ()) -> dict[Keys, Any]:
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {key: value for name, branch in tree.items() for key, value in _leaves(branch, (*path, name)).items()}


def told(old: dict[str, Any], new: dict[str, Any], path: Keys, before: Any, after: Any) -> str:
    """One line for a change. `old`, `new`: the methods. An added or dropped method is one change, regardless of its keys."""
    if path[0] == "methods" and (path[1] in old) != (path[1] in new):
        return f"methods.{path[1]} is {'added' if path[1] in new else 'dropped'}"
    return f"{'.'.join(path)}: {before!r} -> {after!r}"


def refusal(old: dict[str, Any], methods: dict[str, Any], path: Keys, before: Any, after: Any) -> str | None:
    """Why `--extend` cannot make this change. None if it can. `methods`: those of the new file."""
    key, top, name = ".".join(path), path[0], path[1] if len(path) > 1 else ""
    if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in EXTENDABLE):
        return f"{key}: {before!r} -> {after!r} would change what the existing trials have measured"
    if key == "scheduler.time_attr" and "step" in (before, after):
        return f"{key}: {before!r} -> {after!r} would mix epochs and steps in the curves of one study"
    if top in LISTS:
        gone = sorted(set(before or ()) - set(after or ()))
        return f"{top}: {', '.join(gone)} would be dropped" if gone else None
    if top == "methods" and name not in methods:
        return f"methods.{name} would be dropped"
    if top in GROWING and name in old["methods" if top == "cross_entropy" else top]:
        return f"{key}: {before!r} -> {after!r} would mix two things under one name; give the new one its own name"
    return None
