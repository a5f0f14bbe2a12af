"""`controls: [shuffled, stop_token, ...]` as methods of their own, beside those that they control.

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
"""Name under `controls` -> what is put behind the method's name."""
NO_STOP = {"train_end_of_turn": False}


def add_controls(asked: Iterable[Any], methods: Mapping[str, Any], sides: Mapping[str, Any]) -> dict[str, Any]:
    """`methods` and `cross_entropy` of a sweep with the controls that `asked` names, for every method that is no control itself.

    What is there already under the same name stays, if it is the same. ValueError where it is another, or a method cannot have a control.
    Names that do not exist are left to the caller's own validation.
    """
    asked = [name for name in asked if name in SUFFIXES] if isinstance(asked, (list, tuple)) else []
    made = {f"{method}{suffix}" for method in methods for suffix in SUFFIXES.values()}
    out, out_sides = dict(methods), dict(sides)
    for method, said in methods.items():
        if method in made or method in sides:
            continue
        try:
            objective = None if said is None or is_none(said) else ObjectiveConfig.model_validate(said)
        except ValidationError:
            continue  # said where the method is validated
        if objective is not None and objective.control != "none":
            continue
        for name in asked:
            if objective is None and name in CONTROLS:
                continue
            new = f"{method}{SUFFIXES[name]}"
            control: ObjectiveConfig | None = objective
            if objective is not None and name in CONTROLS:
                control = _controlled(objective, method, name)
            there = out.get(new)
            if new in methods and not _same(there, control):
                raise ValueError(f"controls names {name}, so that methods.{new} is made, but another method has that name; rename that one")
            out[new] = control
            if name == "stop_token":
                out_sides[new] = NO_STOP
    return {"methods": out, "cross_entropy": out_sides}


def _controlled(objective: ObjectiveConfig, method: str, name: str) -> ObjectiveConfig:
    try:
        return ObjectiveConfig.model_validate(objective.model_dump(by_alias=True) | {"control": CONTROLS[name]})
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise ValueError(f"controls names {name}, which method {method} cannot have: {reason}") from None


def _same(there: Any, control: ObjectiveConfig | None) -> bool:
    if there is None or is_none(there):
        return control is None
    try:
        return ObjectiveConfig.model_validate(there) == control
    except ValidationError:
        return False
