"""`controls: [shuffled, stop_token, ...]`: derives control methods and adds them next to the methods that they control.

Imports pydantic and the JEPA term's record only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from jepa_ray.config.objective import ObjectiveConfig
from jepa_ray.config.record import is_none

CONTROLS = {"lambda_zero": "zero", "monitor": "monitor", "shuffled": "shuffled", "constant_target": "constant_target"}
"""Name under `controls` -> the objective's `control`."""
SUFFIXES = {**{name: f"-{name.replace('_', '-')}" for name in CONTROLS}, "stop_token": "-no-stop"}
"""Name under `controls` -> suffix of the method's name."""
SPELLINGS = {"zero": "lambda_zero"}
"""Other accepted names under `controls` -> the name that is stored."""
NO_STOP = {"train_end_of_turn": False}


def stored_names(controls: Any) -> Any:
    """The list `controls` with every name in the spelling that is stored; anything else unchanged, for validation to refuse."""
    if not isinstance(controls, (list, tuple)):
        return controls
    return [SPELLINGS.get(name, name) if isinstance(name, str) else name for name in controls]


def add_controls(controls: Iterable[Any], methods: Mapping[str, Any], sides: Mapping[str, Any]) -> dict[str, Any]:
    """`methods` and `cross_entropy` of a sweep, extended by the given controls of every method that is not a control itself.

    An equal method of the same name is kept. Unknown names in `controls` are skipped, for the caller's validation to refuse.

    Raises:
        ValueError: the name of a control belongs to a different method, or a method cannot have a control.
    """
    controls = stored_names(controls)
    names = [name for name in controls if isinstance(name, str) and name in SUFFIXES] if isinstance(controls, list) else []
    derived = {f"{method}{suffix}" for method in methods for suffix in SUFFIXES.values()}
    out, out_sides = dict(methods), dict(sides)
    for method, spec in methods.items():
        if method in derived or method in sides:
            continue
        try:
            objective = None if spec is None or is_none(spec) else ObjectiveConfig.model_validate(spec)
        except ValidationError:
            continue  # reported when the method is validated
        if objective is not None and objective.control != "none":
            continue
        for name in names:
            if objective is None and name in CONTROLS:
                continue
            new = f"{method}{SUFFIXES[name]}"
            control: ObjectiveConfig | None = objective
            if objective is not None and name in CONTROLS:
                control = _controlled(objective, method, name)
            if new in methods and not _same(out.get(new), control):
                raise ValueError(f"controls: {name} creates methods.{new}, but another method has that name; rename that method")
            out[new] = control
            if name == "stop_token":
                out_sides[new] = NO_STOP
    return {"methods": out, "cross_entropy": out_sides}


def _controlled(objective: ObjectiveConfig, method: str, name: str) -> ObjectiveConfig:
    try:
        return ObjectiveConfig.model_validate(objective.model_dump(by_alias=True) | {"control": CONTROLS[name]})
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise ValueError(f"controls: {name} is not possible for method {method}: {reason}") from None


def _same(spec: Any, control: ObjectiveConfig | None) -> bool:
    if spec is None or is_none(spec):
        return control is None
    try:
        return ObjectiveConfig.model_validate(spec) == control
    except ValidationError:
        return False
