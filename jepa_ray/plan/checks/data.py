"""Tasks and files of a sweep file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from jepa_ray.config import two_tasks
from jepa_ray.config.messages import Finding, suggestion
from jepa_ray.data.public_sizes import PUBLIC_SIZES
from jepa_ray.plan.checks.tree import at


def check_data(tree: dict[str, Any], tasks: Collection[str], planning: bool = False) -> Iterator[Finding]:
    """`planning`: files of public data sets may be missing."""
    data, task = tree.get("data"), tree.get("task")
    several = isinstance(task, (dict, list))
    named = [name for name in task if isinstance(name, str)] if isinstance(task, (dict, list)) else [task]
    for place, name in [(["task"], name) for name in named] + [(["data", "task"], at(tree, "data", "task"))]:
        if isinstance(name, str) and name not in tasks:
            yield place, f"unknown task {name!r}; {suggestion(name, tasks)}"
    for number, name in enumerate(named):
        if name in named[:number]:
            yield ["task"], f"contains {name} twice; drop one"
    stage = at(tree, "pretrain", "data")
    if isinstance(at(tree, "pretrain"), dict):
        name = at(tree, "pretrain", "data", "task")
        if isinstance(name, str) and name not in tasks:
            yield ["pretrain", "data", "task"], f"unknown task {name!r}; {suggestion(name, tasks)}"
        yield from _check_files(stage if isinstance(stage, dict) else {}, ["pretrain", "data"], confirmed=False, planning=planning)
    data = data if isinstance(data, dict) else {}
    if "task" in data and several and data["task"] not in named[:1]:
        yield ["data", "task"], "contradicts task, which lists several tasks; drop data.task"
        tree["data"] = data = {key: value for key, value in data.items() if key != "task"}
    elif isinstance(data.get("task"), str) and isinstance(task, str) and data["task"] != task:
        yield ["data", "task"], two_tasks(task, data["task"])
        tree["data"] = data = {key: value for key, value in data.items() if key != "task"}
    confirmed = bool(at(tree, "confirm", "seeds", default=True))
    for name in named if several else [""]:
        keys = at(task, str(name)) if isinstance(task, dict) else None
        if isinstance(keys, dict):
            yield from _check_files({**data, **keys}, ["task", name], confirmed, planning)
        else:
            yield from _check_files(data, ["data"], confirmed, planning)


def _check_files(data: dict[str, Any], place: list[Any], confirmed: bool, planning: bool) -> Iterator[Finding]:
    files = {key: at(data, key) for key in ("train", "test")}
    planned = [name for name in files.values() if isinstance(name, str) and name in PUBLIC_SIZES] if planning else []
    for key, name in files.items():
        if isinstance(name, str) and not is_remote(name) and not Path(name).exists() and name not in planned:
            yield (
                [*place, key],
                f"the file {name} does not exist (relative paths start from {Path.cwd()}); give yours with {'.'.join([*place, key])}=FILE",
            )
    folder = at(data, "databases")
    if isinstance(folder, str) and not Path(folder).is_dir() and all(Path(name).exists() for name in planned):
        yield [*place, "databases"], f"the folder {folder} does not exist (relative paths start from {Path.cwd()}); give another one"
    local = [name for name in files.values() if isinstance(name, str) and not is_remote(name)]
    if len(local) == 2 and Path(local[0]).resolve() == Path(local[1]).resolve():
        yield [*place, "test"], f"is the training file {local[0]}; the test split must be data that is not trained on; give another file"
    if files["test"] is not None and files["train"] is None:
        yield [*place, "test"], f"is given without {place[-1]}.train; give both, or neither for the built-in generator"
    if files["train"] is not None and files["test"] is None and confirmed:
        yield (
            [*place, "test"],
            "is missing, but the confirmation needs a sealed test split; give a file, or set confirm=none",
        )


def is_remote(source: str) -> bool:
    """Whether a data source is on the hub, so that its existence is known only when it is read."""
    return source == "paper" or source.startswith("hub:")
