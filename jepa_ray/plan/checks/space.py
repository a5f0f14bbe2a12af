"""Methods and search space of a sweep file: names, values that a parameter cannot take, conditions, and the size of a grid."""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError

from jepa_ray.config import CrossEntropyConfig, ObjectiveConfig, OptimConfig, canonical
from jepa_ray.config.messages import SEARCHABLE, Finding, law, leaves_of, near_to, suggestion
from jepa_ray.config.record import show
from jepa_ray.config.space import Distribution, enumerate_grid
from jepa_ray.plan import accepts
from jepa_ray.plan.checks.tree import at

MAX_GRID = 10_000
"""Maximum number of points of a grid search."""


LONGEST_NAME = 100
"""Characters of a method's name: that of a control made from it, too, stays within the 255 that file systems allow."""


def check_methods(tree: dict[str, Any]) -> Iterator[Finding]:
    methods = tree.get("methods")
    if not isinstance(methods, dict):
        return
    sides = tree.get("cross_entropy")
    for name in sides if isinstance(sides, dict) else {}:
        if name not in methods:
            yield ["cross_entropy", name], f"is not a method; {suggestion(str(name), [str(other) for other in methods])}"
    if "stop_token" in (controls if isinstance(controls := tree.get("controls"), list | tuple) else ()) and not _loss_side(tree, "")[1]:
        yield (
            ["controls"],
            "stop_token has no effect with base.optim.train_end_of_turn = false, since the end of turn is not trained anyway; drop it",
        )
    seen: dict[tuple[ObjectiveConfig | None, tuple[Any, ...]], str] = {}
    for name, spec in methods.items():
        if isinstance(name, str) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            yield (
                ["methods", name],
                "a method's name must begin with a letter or digit and contain only letters, digits, '_', '.' and '-'; rename it",
            )
        if isinstance(name, str) and len(name) > LONGEST_NAME:
            why = "since folders and trackers have it as part of their names; shorten it"
            yield ["methods", name], f"a method's name must have at most {LONGEST_NAME} characters, {why}, got {len(name)}"
        try:
            objective = TypeAdapter(ObjectiveConfig | None).validate_python(None if at(spec) is None else spec)
        except ValidationError:
            continue  # reported when the whole sweep is validated
        key = objective, _loss_side(tree, str(name))
        if key in seen:
            yield ["methods", name], f"is the same as methods.{seen[key]}; change or drop one"
        seen.setdefault(key, name)


def _loss_side(tree: dict[str, Any], method: str) -> tuple[Any, ...]:
    """The tokens of a method's cross-entropy, resolved as in `SweepConfig.loss_side`."""
    usual = [(key, OptimConfig.model_fields[key].default) for key in CrossEntropyConfig.model_fields]
    common = {key: at(tree, "base", "optim", key, default=default) for key, default in usual}
    return tuple(at(tree, "cross_entropy", method, key, default=common[key]) for key in common)


def check_space(tree: dict[str, Any]) -> Iterator[Finding]:
    space, methods = tree.get("space"), tree.get("methods")
    if not isinstance(space, dict):
        return
    valid: dict[str, Distribution] = {}
    for path, spec in space.items():
        part = path.partition(".")[0]
        try:
            distribution = Distribution.model_validate(spec)
        except ValidationError:
            distribution = None  # reported when the whole sweep is validated
        unknown = list(_path_errors(path))
        yield from ((["space", path], sentence) for sentence in unknown)
        if part == "objective" and isinstance(methods, dict) and methods and all(at(method) is None for method in methods.values()):
            yield (
                ["space", path],
                "no method has an objective, so this would search nothing; add a method such as jepa: {distance: cosine}",
            )
        if part == "masked" and not unknown and at(tree, "base", "masked") is None:
            yield ["space", path], "base.masked is not set, so no tokens are hidden; set e.g. base.masked={mask_ratio: 0.3}"
        if part == "lora" and not unknown and at(tree, "base", "lora") is None:
            yield ["space", path], "base.lora is not set, so there are no adapters to search; set e.g. base.lora.r=16"
        if part == "pretrain" and not unknown and at(tree, "pretrain") is None:
            yield ["space", path], "there is no section pretrain, so there is no first stage to search; add one, or drop this"
        yield from _check_when(path, spec, list(space), valid)
        if distribution is not None and not unknown:
            wrong = list(_value_errors(path, distribution))
            yield from ((["space", path], sentence) for sentence in wrong)
            if not wrong:
                valid[path] = distribution
                if part == "objective":
                    yield from ((["space", path], sentence) for sentence in _refused_values(methods, path, distribution))
    if at(tree, "search", "algorithm") == "grid" and len(valid) == len(space):
        infinite = False
        for path, distribution in valid.items():
            try:
                distribution.grid()
            except ValueError as error:
                infinite = True
                yield ["space", path], f"search.algorithm is grid, but {error}"
        if not infinite and sum(1 for _ in itertools.islice(enumerate_grid(valid), MAX_GRID + 1)) > MAX_GRID:
            yield ["search", "algorithm"], f"the grid has more than {MAX_GRID} points; use larger steps, fewer choices, or random search"


def _refused_values(methods: Any, path: str, distribution: Distribution) -> Iterator[str]:
    """Values of a knob that some method cannot take although it can take others. (A method that can take none does not search it.)"""
    leaf = path.partition(".")[2]
    for name, spec in methods.items() if isinstance(methods, dict) else ():
        try:
            objective = TypeAdapter(ObjectiveConfig | None).validate_python(None if at(spec) is None else spec)
        except ValidationError:
            continue
        if objective is None:
            continue
        refused = [value for value in distribution.probes() if not accepts(objective, leaf, value)]
        if refused and len(refused) < len(distribution.probes()):
            yield f"method {name} cannot take {leaf} = {show(refused[0])}; narrow the range, or move that method to another sweep"


def _path_errors(path: str) -> Iterator[str]:
    part, _, leaf = path.partition(".")
    if path.removeprefix("optim.") in CrossEntropyConfig.model_fields:
        remedy = f"set it per method: cross_entropy={{METHOD: {{{path.removeprefix('optim.')}: ...}}}}"
        yield f"decides what a method is compared with, so it cannot be searched; {remedy}"
        return
    if part in SEARCHABLE and leaf in leaves_of(part):
        return
    if path.split(".")[-1] == "seed":
        yield "seeds are replicates and cannot be searched; set base.seed for the search and confirm.seeds for the confirmation"
    elif part in ("data", "model", "evaluation"):
        place = "data" if part == "data" else "model or base.model" if part == "model" else "base.evaluation"
        yield f"{part} must be the same for all trials, or they could not be compared; set it in {place}, or run another sweep"
    else:
        names = [part] if part in SEARCHABLE else [name for name in SEARCHABLE if name != "pretrain"]
        legal = [f"{name}.{field}" for name in names for field in leaves_of(name)]
        leaves = {full.partition(".")[2]: full for full in legal}
        near = leaves.get(near_to(path.split(".")[-1], leaves) or "") or near_to(path, legal)
        yield "unknown parameter; " + (f"did you mean {near!r}?" if near else f"searchable: {', '.join(legal)}")


def _value_errors(path: str, distribution: Distribution) -> Iterator[str]:
    """Values that a distribution can draw although the parameter's type and bounds refuse them."""
    part, _, leaf = path.partition(".")
    kind = leaves_of(part)[leaf]
    if distribution.float_ is not None and int in (kind, *typing.get_args(kind)):
        yield f"takes whole numbers, but a float range also draws others; write int: {show([int(bound) for bound in distribution.bounds])}"
        return
    for value in distribution.probes():
        try:
            stored = canonical(SEARCHABLE[part].model_validate({leaf: value}))[leaf]
            if isinstance(value, str) and stored != value:  # trials are compared by what is stored
                yield f"must be written {show(stored)} here, got {show(value)}"
        except ValidationError as error:
            errors = [item for item in error.errors() if item["loc"]]  # others concern more keys than this one
            if errors:
                yield f"{law(errors[0])}; narrow the range" if distribution.choice is None else law(errors[0])


def _check_when(path: str, spec: Any, order: list[str], valid: dict[str, Distribution]) -> Iterator[Finding]:
    """Check the conditions of a parameter. `valid` contains the valid parameters above it."""
    when = spec.get("when") if isinstance(spec, dict) else None
    above = order[: order.index(path)]
    for name, wanted in when.items() if isinstance(when, dict) else ():
        if name == path:
            yield ["space", path, "when"], "a parameter cannot depend on itself; name one above it"
        elif name in order and name not in above:
            yield ["space", path, "when"], f"{name} is below {path}, but `when` can only refer to parameters above it; move {name} up"
        elif name not in above:
            near = near_to(name, above)
            remedy = f"did you mean {near!r}?" if near else f"`when` refers to parameters above it: {', '.join(above) or 'there are none'}"
            yield ["space", path, "when"], f"{name} is not searched; {remedy}"
        elif name in valid and valid[name].is_continuous():
            yield ["space", path, "when"], f"{name} is continuous, so it almost never takes an exact value; give it a step or choices"
        elif name in valid:
            for value in wanted if isinstance(wanted, list) else [wanted]:
                if not valid[name].contains(value):
                    yield (
                        ["space", path, "when"],
                        f"{name} is never {show(value)}, since it is searched over {valid[name].text()}; change one of the two",
                    )
