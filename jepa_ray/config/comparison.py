"""The arms of a sweep and what each is compared with. No other module derives them.

An arm is one method on one family and task. A *baseline* has no JEPA term. Every other method is compared with the first baseline whose
cross-entropy covers the same tokens (`loss_on`, `train_end_of_turn`). Such a method is a *claim*, or a *control* if its objective sets
`control` or if it leaves the end of turn untrained although the sweep trains it.

A sweep writes its arms to a table before its first trial (`results.write_arms`); everything that compares arms reads that table.
Imports pydantic and the records of a sweep only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jepa_ray.config.sweep import SweepConfig

Kind = Literal["baseline", "claim", "control"]


@dataclass(frozen=True)
class Arm:
    """One method on one family and task, tuned separately and with the same budget as every other arm."""

    method: str
    family: str
    task: str
    name: str
    """`method/family`, followed by `/task` if the sweep has several tasks."""
    kind: Kind = "claim"
    baseline: str | None = None
    """Name of the arm that this one is compared with. None for a baseline, and if no baseline has the same `loss_side`."""


def arms(sweep: SweepConfig) -> list[Arm]:
    """Families x tasks x methods, in the order of the file."""
    several = len(sweep.tasks) > 1
    out = []
    for family in sweep.families:
        for task in sweep.tasks:
            names = {method: f"{method}/{family}" + (f"/{task}" if several else "") for method in sweep.methods}
            for method, name in names.items():
                baseline = _baseline(sweep, method)
                out.append(Arm(method, family, task, name, _kind(sweep, method), None if baseline is None else names[baseline]))
    return out


def grown(declared: Sequence[Arm], now: Sequence[Arm]) -> list[Arm]:
    """The declared arms, followed by those that an extension has added.

    Declared arms keep their baseline even if another one is added or moved to the front of the file. Arms that had no baseline may
    receive a new one.
    """
    new = {arm.name: arm for arm in now}
    old = [replace(arm, baseline=new[arm.name].baseline) if arm.baseline is None and arm.name in new else arm for arm in declared]
    return old + [arm for arm in now if arm.name not in {arm.name for arm in declared}]


def compared(arms: Sequence[Arm], *, controls: bool = True) -> dict[str, str]:
    """Name of each arm that has a baseline -> name of that baseline. `controls=False` leaves out controls."""
    return {arm.name: arm.baseline for arm in arms if arm.baseline is not None and (controls or arm.kind == "claim")}


def _baseline(sweep: SweepConfig, method: str) -> str | None:
    if sweep.methods[method] is None:
        return None
    side = sweep.loss_side(method)
    return next((name for name, objective in sweep.methods.items() if objective is None and sweep.loss_side(name) == side), None)


def _kind(sweep: SweepConfig, method: str) -> Kind:
    objective = sweep.methods[method]
    if objective is None:
        return "baseline"
    unstopped = sweep.base.optim.train_end_of_turn and not sweep.loss_side(method)[1]
    return "control" if unstopped or objective.control != "none" else "claim"
