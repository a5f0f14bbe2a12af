"""The arms of a sweep and what each is compared with. No other module derives them.

An arm is one method on one family and task. A *baseline* has no JEPA term. The baseline of every other method is the first one whose
cross-entropy covers the same tokens (`loss_on`, `train_end_of_turn`). Such a method is a *claim*, or a *control* if its objective sets
`control` or if it leaves the end of turn untrained although the sweep trains it.

Controls are compared with their baseline. So are claims, unless the sweep declares other comparisons (`claims`).

A sweep writes its arms to a table before its first trial (`results.write_arms`); everything that compares arms reads that table.
Imports pydantic and the records of a sweep only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
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
    """Name of the arm without a JEPA term that belongs to this one. None for a baseline, and if no baseline has the same `loss_side`."""
    against: tuple[str, ...] | None = None
    """Names of the arms that this one is claimed to differ from, as the sweep's `claims` say; None if it has no `claims`."""

    @property
    def others(self) -> tuple[str, ...]:
        """The arms that this one is claimed to differ from."""
        if self.against is not None:
            return self.against
        return (self.baseline,) if self.kind == "claim" and self.baseline is not None else ()


@dataclass(frozen=True)
class Comparison:
    """One arm against another: the difference is the first arm's score minus the other's."""

    arm: str
    other: str
    kind: Literal["claim", "control"]


def arms(sweep: SweepConfig) -> list[Arm]:
    """Families x tasks x methods, in the order of the file."""
    several, claimed = len(sweep.tasks) > 1, _claimed(sweep)
    out = []
    for family in sweep.families:
        for task in sweep.tasks:
            names = {method: f"{method}/{family}" + (f"/{task}" if several else "") for method in sweep.methods}
            for method, name in names.items():
                twin = _baseline(sweep, method)
                against = None if claimed is None else tuple(names[other] for other in claimed[method])
                out.append(Arm(method, family, task, name, _kind(sweep, method), None if twin is None else names[twin], against))
    return out


def grown(declared: Sequence[Arm], now: Sequence[Arm]) -> list[Arm]:
    """The declared arms, followed by those that an extension has added.

    Declared arms keep their baseline even if another one is added or moved to the front of the file. Arms that had no baseline may
    receive a new one. Comparisons are added, never dropped.
    """
    new, pairs = {arm.name: arm for arm in now}, [{one.arm, one.other} for one in comparisons(declared)]
    old = []
    for arm in declared:
        later = new.get(arm.name, arm)
        kept = replace(arm, baseline=arm.baseline or later.baseline)
        if arm.against is not None or later.against is not None:
            asked = replace(kept, against=later.against).others
            kept = replace(kept, against=(*arm.others, *(other for other in asked if {arm.name, other} not in pairs)))
        old.append(kept)
    return old + [arm for arm in now if arm.name not in {arm.name for arm in declared}]


def comparisons(arms: Sequence[Arm], *, controls: bool = True) -> list[Comparison]:
    """What is compared with what, in the order of declaration. `controls=False` leaves out controls."""
    out = []
    for arm in arms:
        out += [Comparison(arm.name, other, "claim") for other in arm.others]
        if controls and arm.kind == "control" and arm.baseline is not None and arm.baseline not in arm.others:
            out.append(Comparison(arm.name, arm.baseline, "control"))
    return out


def possible(arms: Sequence[Arm]) -> int:
    """Number of pairs of arms that could be compared: of one family and task."""
    sizes = Counter((arm.family, arm.task) for arm in arms)
    return sum(math.comb(size, 2) for size in sizes.values())


def _claimed(sweep: SweepConfig) -> dict[str, list[str]] | None:
    """Method -> the methods that it is claimed to differ from; None if the sweep leaves that to the rule."""
    if sweep.claims is None:
        return None
    out: dict[str, list[str]] = {method: [] for method in sweep.methods}
    if sweep.claims == "all":
        trained = [method for method in sweep.methods if not _unstopped(sweep, method)]
        ranked = [method for kind in ("baseline", "claim") for method in trained if _kind(sweep, method) == kind]
        for earlier, later in combinations(ranked, 2):
            out[later].append(earlier)
    else:
        for method, other in sweep.claims:
            out[method].append(other)
    return out


def _baseline(sweep: SweepConfig, method: str) -> str | None:
    if sweep.methods[method] is None:
        return None
    side = sweep.loss_side(method)
    return next((name for name, objective in sweep.methods.items() if objective is None and sweep.loss_side(name) == side), None)


def _kind(sweep: SweepConfig, method: str) -> Kind:
    objective = sweep.methods[method]
    if objective is None:
        return "baseline"
    return "control" if _unstopped(sweep, method) or objective.control != "none" else "claim"


def _unstopped(sweep: SweepConfig, method: str) -> bool:
    """Whether a method leaves the end of turn untrained although the sweep trains it."""
    return sweep.base.optim.train_end_of_turn and not sweep.loss_side(method)[1]
