"""Names, files, and laws between the keys of a sweep file.

They look at the raw tree, so that what they find stands beside errors of other kinds. Imports neither torch nor Ray.
"""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from jepa_ray.config import (
    MASKED_KNOBS,
    MASKED_METRICS,
    VALIDATION_METRICS,
    BaseConfig,
    ConfirmConfig,
    DataConfig,
    ObjectiveConfig,
    OptimConfig,
    SchedulerConfig,
    SearchConfig,
    SweepConfig,
    canonical,
    masked_misfit,
)
from jepa_ray.messages import SEARCHABLE, Finding, law, leaves_of, near_to, suggestion
from jepa_ray.plan import accepts
from jepa_ray.space import Distribution, enumerate_grid, is_none, show

MAX_GRID = 10_000
"""Points of a grid search."""
_METRIC_JUDGES = {"val_equivalent": ("regex",), "val_paper": ("number", "answers", "sql")}
"""Metrics that only some tasks' judges give."""
MIN_GRACE_FLOPS = 1e6
"""Less than one optimizer step of the smallest model: 6 x 0.1M parameters x a few tokens."""


def _at(tree: Any, *path: str, default: Any = None) -> Any:
    """What the raw tree holds at a path; the default where it holds nothing there, or `none`."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return default if is_none(tree) else tree


def check(tree: dict[str, Any], families: Collection[str] | None, tasks: Collection[str] | None) -> Iterator[Finding]:
    """Everything that is wrong with a tree. Drops `data.task` where it contradicts `task`."""
    from jepa_ray.data.datasets import DATASETS
    from jepa_ray.models.encoders import ENCODERS
    from jepa_ray.models.families import FAMILIES

    masked = _at(tree, "base", "masked") is not None
    families = families or (ENCODERS if masked else FAMILIES)
    own = _at(tree, "families", default=[])
    own = [name for name in own if isinstance(name, str)] if isinstance(own, list) else []
    for number, name in enumerate(own):
        if name not in families and name in (FAMILIES if masked else ENCODERS):
            kind, remedy = ("causal model", "drop base.masked") if masked else ("masked encoder", "set e.g. base.masked={mask_ratio: 0.3}")
            yield ["families"], f"{name} is a {kind}; {remedy}, or name families that are: {', '.join(families)}"
        elif name not in families:
            yield ["families"], f"unknown family {name!r}; {suggestion(name, families)}"
        if name in own[:number]:
            yield ["families"], f"names {name} twice; drop one"
    yield from _check_data(tree, tasks or DATASETS)
    yield from _check_methods(tree)
    yield from _check_space(tree)
    yield from _check_masked(tree) if masked else ()
    model = tree.get("model")
    if isinstance(model, dict):
        own = own or list(SweepConfig.model_fields["families"].default)
        for family in own:
            if family not in model:
                yield ["model"], f"gives no model for family {family}; add {family}: tiny (or a hub id, or a path)"
        for family in model:
            if family not in own:
                yield ["model", family], "is not among families; add it there or drop it here"
    seeds, seed = _at(tree, "confirm", "seeds", default=ConfirmConfig().seeds), _at(tree, "base", "seed", default=BaseConfig().seed)
    if isinstance(seeds, (list, tuple)) and seed in seeds:
        place = ["base", "seed"] if _at(tree, "base", "seed") is not None else ["confirm", "seeds"]
        yield (
            place,
            f"base.seed = {seed} is also among confirm.seeds = {show(seeds)}, but confirmation needs fresh seeds; change one of the two",
        )
    if _at(tree, "base", "evaluation", "test") is True:
        yield ["base", "evaluation", "test"], "the test split stays sealed until confirmation; drop this key"
    if _at(tree, "base", "evaluation", "embeddings", default=0) and (masked or not seeds):
        why = "embeddings of masked encoders are not kept" if masked else "embeddings are kept of confirmed trials, and there are none"
        yield ["base", "evaluation", "embeddings"], f"has no effect: {why}; drop it" + ("" if masked else ", or give confirm.seeds")
    yield from _check_scheduler(tree)
    metric, judges = _at(tree, "search", "metric"), _METRIC_JUDGES.get(str(_at(tree, "search", "metric")))
    task = _at(tree, "task", default=_at(tree, "data", "task", default="nl-rx"))
    for name in [task] if isinstance(task, str) else task if isinstance(task, (list, dict)) else ():
        if judges is not None and name in DATASETS and DATASETS[name].judge not in judges:
            yield ["search", "metric"], f"{metric} is not measured on {name}, whose judge has no such rule; use val_accuracy"
    metric, mode = _at(tree, "search", "metric", default=SearchConfig().metric), _at(tree, "search", "mode", default="max")
    measured = MASKED_METRICS if masked else tuple(name for name in VALIDATION_METRICS if name != "val_retrieval")
    if metric in VALIDATION_METRICS and metric not in measured:
        kind = "masked encoders" if masked else "causal models"
        yield ["search", "metric"], f"{metric} is not measured on {kind}; give one of {', '.join(measured)}"
    if mode == "min" and metric in VALIDATION_METRICS:
        place = ["search", "metric" if _at(tree, "search", "mode") is None else "mode"]
        yield (
            place,
            f"{metric} is better when larger, so mode = {mode} would select the worst; change search.mode or search.metric",
        )


def _check_scheduler(tree: dict[str, Any]) -> Iterator[Finding]:
    scheduler = tree.get("scheduler")
    if not isinstance(scheduler, dict):
        return
    usual = canonical(SchedulerConfig())
    idle = [key for key, value in scheduler.items() if key != "name" and value != usual.get(key, value)]
    if scheduler.get("name") == "none":
        for key in idle:
            yield (
                ["scheduler", key],
                "has no effect: scheduler is none, nothing is stopped early; drop it (all: scheduler=none), or set scheduler.name=asha",
            )
    elif scheduler.get("time_attr") == "train_flops":
        grace = scheduler.get("grace_period", usual["grace_period"])
        if isinstance(grace, (int, float)) and grace < MIN_GRACE_FLOPS:
            yield (
                ["scheduler", "grace_period" if "grace_period" in scheduler else "time_attr"],
                f"train_flops counts rungs in FLOPs, so scheduler.grace_period must be given in FLOPs too, but {grace:g} is less than a "
                "single step; give e.g. those of an epoch: what --dry-run with scheduler=none prints for a trial, divided by its epochs",
            )


def _check_data(tree: dict[str, Any], tasks: Collection[str]) -> Iterator[Finding]:
    data, task = tree.get("data"), tree.get("task")
    several = isinstance(task, (dict, list))
    named = [name for name in task if isinstance(name, str)] if isinstance(task, (dict, list)) else [task]
    for place, name in [(["task"], name) for name in named] + [(["data", "task"], _at(tree, "data", "task"))]:
        if isinstance(name, str) and name not in tasks:
            yield place, f"unknown task {name!r}; {suggestion(name, tasks)}"
    for number, name in enumerate(named):
        if name in named[:number]:
            yield ["task"], f"names {name} twice; drop one"
    stage = _at(tree, "pretrain", "data")
    if isinstance(_at(tree, "pretrain"), dict):
        name = _at(tree, "pretrain", "data", "task")
        if isinstance(name, str) and name not in tasks:
            yield ["pretrain", "data", "task"], f"unknown task {name!r}; {suggestion(name, tasks)}"
        yield from _check_files(stage if isinstance(stage, dict) else {}, ["pretrain", "data"], confirmed=False)
    data = data if isinstance(data, dict) else {}
    if "task" in data and several and data["task"] not in named[:1]:
        yield ["data", "task"], "contradicts task, which names several; drop data.task"
        tree["data"] = data = {key: value for key, value in data.items() if key != "task"}
    elif isinstance(data.get("task"), str) and isinstance(task, str) and data["task"] != task:
        yield ["data", "task"], f"is {data['task']!r}, but task is {task!r}; drop data.task"
        tree["data"] = data = {key: value for key, value in data.items() if key != "task"}
    confirmed = bool(_at(tree, "confirm", "seeds", default=True))
    for name in named if several else [""]:
        own = _at(task, str(name)) if isinstance(task, dict) else None
        if isinstance(own, dict):
            yield from _check_files({**data, **own}, ["task", name], confirmed)
        else:
            yield from _check_files(data, ["data"], confirmed)


def _check_files(data: dict[str, Any], place: list[Any], confirmed: bool) -> Iterator[Finding]:
    files = {key: _at(data, key) for key in ("train", "test")}
    for key, name in files.items():
        if isinstance(name, str) and not is_remote(name) and not Path(name).exists():
            yield (
                [*place, key],
                f"there is no file {name} (relative paths start from {Path.cwd()}); name yours with {'.'.join([*place, key])}=FILE",
            )
    folder = _at(data, "databases")
    if isinstance(folder, str) and not Path(folder).is_dir():
        yield [*place, "databases"], f"there is no folder {folder} (relative paths start from {Path.cwd()})"
    local = [name for name in files.values() if isinstance(name, str) and not is_remote(name)]
    if len(local) == 2 and Path(local[0]).resolve() == Path(local[1]).resolve():
        yield [*place, "test"], f"is the training file {local[0]}; the test split must be data that nothing was trained on"
    if files["test"] is not None and files["train"] is None:
        yield [*place, "test"], f"a test file without {place[-1]}.train; name both, or neither for the built-in generator"
    if files["train"] is not None and files["test"] is None and confirmed:
        yield (
            [*place, "test"],
            "is missing, but the confirmation needs a sealed test split; name a file, or set confirm=none",
        )


def _check_masked(tree: dict[str, Any]) -> Iterator[Finding]:
    """What a sweep of masked encoders does not have, or must have."""
    from jepa_ray.data.datasets import DATASETS

    labelled = [name for name, task in DATASETS.items() if task.judge == "label"]
    task = tree.get("task", _at(tree, "data", "task", default=DataConfig().task))
    for name in task if isinstance(task, (dict, list)) else [task]:
        if isinstance(name, str) and name in DATASETS and name not in labelled:
            yield (
                ["task"],
                f"{name} has no labels, but masked encoders are judged by probes for a text's label; name one of {', '.join(labelled)}",
            )
    for place, reason in (
        (["base", "lora"], "adapters are not there for masked encoders, which are trained whole; drop it"),
        (["pretrain"], "a first stage is not there for masked encoders; drop it, and start from its checkpoint with model=FOLDER"),
    ):
        if _at(tree, *place) is not None:
            yield place, reason
    for key in ("loss_on", "train_end_of_turn"):
        usual = OptimConfig.model_fields[key].default
        if _at(tree, "base", "optim", key, default=usual) != usual:
            yield ["base", "optim", key], "has no effect with base.masked, where the loss is over hidden tokens; drop it"
    corpus = _at(tree, "base", "masked", "corpus")
    if isinstance(corpus, str) and not Path(corpus).is_file():
        yield ["base", "masked", "corpus"], f"there is no file {corpus} (relative paths start from {Path.cwd()})"
    methods, space = tree.get("methods"), tree.get("space")
    for name, said in methods.items() if isinstance(methods, dict) else ():
        try:
            objective = None if _at(said) is None else ObjectiveConfig.model_validate(said)
        except ValidationError:
            continue  # said where the whole is validated
        if objective is not None and (misfit := masked_misfit(objective)):
            yield ["methods", name], misfit
    for path in space if isinstance(space, dict) else ():
        part, _, leaf = str(path).partition(".")
        if part == "objective" and leaf in leaves_of(part) and leaf not in MASKED_KNOBS:
            yield ["space", path], f"is not searched with base.masked; searchable of the objective: {', '.join(MASKED_KNOBS)}"


def is_remote(source: str) -> bool:
    """Whether a data source is on the hub, so that its being there shows only when it is read."""
    return source == "paper" or source.startswith("hub:")


def _check_methods(tree: dict[str, Any]) -> Iterator[Finding]:
    methods = tree.get("methods")
    if not isinstance(methods, dict):
        return
    sides = tree.get("cross_entropy")
    for name in sides if isinstance(sides, dict) else {}:
        if name not in methods:
            yield ["cross_entropy", name], f"is no method; {suggestion(str(name), [str(other) for other in methods])}"
    seen: dict[tuple[ObjectiveConfig | None, str], str] = {}
    for name, said in methods.items():
        if isinstance(name, str) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            yield ["methods", name], "a method's name begins with a letter or digit and holds letters, digits, '_', '.', '-' only"
        try:
            objective = TypeAdapter(ObjectiveConfig | None).validate_python(None if _at(said) is None else said)
        except ValidationError:
            continue  # said where the whole is validated
        key = objective, str(_at(sides, str(name), default={}))
        if key in seen:
            yield ["methods", name], f"is the same as methods.{seen[key]}; change or drop one"
        seen.setdefault(key, name)


def _check_space(tree: dict[str, Any]) -> Iterator[Finding]:
    space, methods = tree.get("space"), tree.get("methods")
    if not isinstance(space, dict):
        return
    lawful: dict[str, Distribution] = {}
    for path, said in space.items():
        part = path.partition(".")[0]
        try:
            distribution = Distribution.model_validate(said)
        except ValidationError:
            distribution = None  # said where the whole is validated
        unknown = list(_path_errors(path))
        yield from ((["space", path], sentence) for sentence in unknown)
        if part == "objective" and isinstance(methods, dict) and methods and all(_at(spec) is None for spec in methods.values()):
            yield (
                ["space", path],
                "no method has an objective, so this would search nothing; add one to methods, e.g. jepa: {distance: cosine}",
            )
        if part == "masked" and not unknown and _at(tree, "base", "masked") is None:
            yield ["space", path], "base.masked is not set, so no tokens are hidden; set e.g. base.masked={mask_ratio: 0.3}"
        if part == "lora" and not unknown and _at(tree, "base", "lora") is None:
            yield ["space", path], "base.lora is not set, so there are no adapters to search; set e.g. base.lora.r=16"
        if part == "pretrain" and not unknown and _at(tree, "pretrain") is None:
            yield ["space", path], "there is no pretrain section, so there is no first stage to search; add one, or drop this"
        yield from _check_when(path, said, list(space), lawful)
        if distribution is not None and not unknown:
            wrong = list(_value_errors(path, distribution))
            yield from ((["space", path], sentence) for sentence in wrong)
            if not wrong:
                lawful[path] = distribution
                if part == "objective":
                    yield from ((["space", path], sentence) for sentence in _refused_values(methods, path, distribution))
    if _at(tree, "search", "algorithm") == "grid" and len(lawful) == len(space):
        infinite = False
        for path, distribution in lawful.items():
            try:
                distribution.grid()
            except ValueError as error:
                infinite = True
                yield ["space", path], f"search.algorithm is grid, but {error}"
        if not infinite and sum(1 for _ in itertools.islice(enumerate_grid(lawful), MAX_GRID + 1)) > MAX_GRID:
            yield ["search", "algorithm"], f"the grid has more than {MAX_GRID} points; give larger steps or fewer choices, or use random"


def _refused_values(methods: Any, path: str, distribution: Distribution) -> Iterator[str]:
    """Values of a knob that some method cannot have, though it can have others. (A method that can have none is not searched over it.)"""
    leaf = path.partition(".")[2]
    for name, said in methods.items() if isinstance(methods, dict) else ():
        try:
            objective = TypeAdapter(ObjectiveConfig | None).validate_python(None if _at(said) is None else said)
        except ValidationError:
            continue
        if objective is None:
            continue
        refused = [value for value in distribution.probes() if not accepts(objective, leaf, value)]
        if refused and len(refused) < len(distribution.probes()):
            yield f"method {name} cannot have {leaf} = {show(refused[0])}; narrow the range, or put that method into a sweep of its own"


def _path_errors(path: str) -> Iterator[str]:
    part, _, leaf = path.partition(".")
    if part in SEARCHABLE and leaf in leaves_of(part):
        return
    if path.split(".")[-1] == "seed":
        yield "seeds are replicates, never searched; set base.seed for the search and confirm.seeds for the confirmation"
    elif part in ("data", "model", "evaluation"):
        place = "data" if part == "data" else "model or base.model" if part == "model" else "base.evaluation"
        yield f"{part} is the same for all trials, or they could not be compared; set it in {place}, or run another sweep"
    else:
        names = [part] if part in SEARCHABLE else [name for name in SEARCHABLE if name != "pretrain"]
        legal = [f"{name}.{field}" for name in names for field in leaves_of(name)]
        leaves = {full.partition(".")[2]: full for full in legal}
        near = leaves.get(near_to(path.split(".")[-1], leaves) or "") or near_to(path, legal)
        yield "unknown parameter; " + (f"did you mean {near!r}?" if near else f"searchable: {', '.join(legal)}")


def _value_errors(path: str, distribution: Distribution) -> Iterator[str]:
    """What a distribution can draw but the parameter's own type and bounds refuse."""
    part, _, leaf = path.partition(".")
    kind = leaves_of(part)[leaf]
    if distribution.float_ is not None and int in (kind, *typing.get_args(kind)):
        yield f"takes whole numbers, but a float range draws others too; write int: {show([int(bound) for bound in distribution.bounds])}"
        return
    for value in distribution.probes():
        try:
            SEARCHABLE[part].model_validate({leaf: value})
        except ValidationError as error:
            own = [item for item in error.errors() if item["loc"]]  # laws between keys look at more than this one
            if own:
                yield f"{law(own[0])}; narrow the range" if distribution.choice is None else law(own[0])


def _check_when(path: str, said: Any, order: list[str], lawful: dict[str, Distribution]) -> Iterator[Finding]:
    """`lawful` holds the parameters that stand above."""
    when = said.get("when") if isinstance(said, dict) else None
    above = order[: order.index(path)]
    for name, wanted in when.items() if isinstance(when, dict) else ():
        if name == path:
            yield ["space", path, "when"], "a parameter cannot depend on itself; name one that stands above it"
        elif name in order and name not in above:
            yield ["space", path, "when"], f"{name} stands below {path}, but `when` looks at parameters above it; move {name} up"
        elif name not in above:
            near = near_to(name, above)
            remedy = f"did you mean {near!r}?" if near else f"`when` looks at parameters above it: {', '.join(above) or 'there are none'}"
            yield ["space", path, "when"], f"{name} is not searched; {remedy}"
        elif name in lawful and lawful[name].is_continuous():
            yield ["space", path, "when"], f"{name} is continuous, so it almost never has an exact value; give it a step or choices"
        elif name in lawful:
            for value in wanted if isinstance(wanted, list) else [wanted]:
                if not lawful[name].contains(value):
                    yield (
                        ["space", path, "when"],
                        f"{name} never is {show(value)}: it is searched over {lawful[name].text()}; change one of the two",
                    )
