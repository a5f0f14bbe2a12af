"""Tasks and files of a sweep file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from jepa_ray.config import OWN_DATA, DataConfig, two_tasks
from jepa_ray.config.messages import Finding, suggestion
from jepa_ray.data.public_sizes import PUBLIC_SIZES
from jepa_ray.plan.checks.tree import at


def judge_in(tree: dict[str, Any], task: str) -> str | None:
    """Name in `evaluation.judges.JUDGES` of a task's judge in this sweep; None if task or judge is unknown."""
    from jepa_ray.data.datasets import DATASETS, OWN
    from jepa_ray.data.tasks.text import JUDGED

    if task != OWN:
        return DATASETS[task].judge if task in DATASETS else None
    judge = at(tree, "task", task, "judge", default=at(tree, "data", "judge", default="exact"))
    return JUDGED[judge].judge if isinstance(judge, str) and judge in JUDGED else None


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
        stage = stage if isinstance(stage, dict) else {}
        yield from _check_files(stage, ["pretrain", "data"], confirmed=False, planning=planning)
        yield from _check_own(at(stage, "task", default=DataConfig().task), {}, [], stage, ["pretrain", "data"])
    data = data if isinstance(data, dict) else {}
    if "task" in data and several and data["task"] not in named[:1]:
        yield ["data", "task"], "contradicts task, which lists several tasks; drop data.task"
        tree["data"] = data = {key: value for key, value in data.items() if key != "task"}
    elif isinstance(data.get("task"), str) and isinstance(task, str) and data["task"] != task:
        yield ["data", "task"], two_tasks(task, data["task"])
        tree["data"] = data = {key: value for key, value in data.items() if key != "task"}
    confirmed = bool(at(tree, "confirm", "seeds", default=True))
    tasks_in_order: list[Any] = list(named) if several else [at(data, "task", default=DataConfig().task) if task is None else task]
    for name in tasks_in_order:
        keys = at(task, str(name)) if isinstance(task, dict) else None
        own, place = (keys, ["task", name]) if isinstance(keys, dict) else ({}, ["data"])
        yield from _check_files({**data, **own}, place, confirmed, planning)
        yield from _check_own(name, own, place, data, ["data"])


def _check_own(task: Any, keys: dict[str, Any], place: list[Any], shared: dict[str, Any], shared_place: list[Any]) -> Iterator[Finding]:
    """Keys of own data: refused for other tasks than `text`. `keys`: those of this task; `shared`: those that hold where it has none."""
    from jepa_ray.data.datasets import DATASETS, OWN
    from jepa_ray.data.tasks.text import NEEDS_DATA, not_own

    data = {**shared, **{key: value for key, value in keys.items() if at(keys, key) is not None}}
    where = {key: place if at(keys, key) is not None else shared_place for key in OWN_DATA}
    given = [key for key in OWN_DATA if at(data, key) is not None]
    if task != OWN:
        yield from (([*where[key], key], not_own(key, task)) for key in given if isinstance(task, str) and task in DATASETS)
        return
    if at(data, "train") is None:
        yield [*(place or shared_place), "train"], f"is missing: {NEEDS_DATA}"
    for key, other in (("text", "code"), ("code", "text")):
        if key in given and other not in given:
            yield [*where[key], key], f"is given without {other}; name both columns, or neither to have the format recognised"
    if at(data, "judge") == "sql" and at(data, "databases") is None:
        yield [*where["judge"], "judge"], "is sql, which runs queries; set databases=FOLDER with <db_id>/<db_id>.sqlite, or another judge"


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
