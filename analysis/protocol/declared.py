"""What a sweep declared before it ran: its claims, its seeds, the looks of a race. Read from `sweep.yaml`.

A family of claims, and the seeds that a verdict is about, are what was declared, not what has finished so far: counting what is there
would let a sweep that is half done, or that lost a run, be tested by an easier rule.
May import: confirmed, yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from analysis.protocol.confirmed import listed, planned


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One sweep's declaration."""

    claims: int
    """Methods with a JEPA term and a baseline twin, times tasks, times families; controls are counted apart."""
    controls: int
    seeds: tuple[int, ...]
    """In the order in which they are run."""
    looks: tuple[int, ...]
    """Numbers of seeds after which a race looks, the last is all; empty: no race."""
    changes: tuple[str, ...] = ()
    """Sentences: seeds or looks that earlier versions of the sweep asked for (`sweep-N.yaml`), where they are others than now."""

    def missing(self, seeds: Sequence[int]) -> list[int]:
        """Seeds that these lack: of all that are planned, or in a race of those up to the look that they are on the way to."""
        due = next((look for look in self.looks if look >= len(seeds)), len(self.seeds))
        return [seed for seed in self.seeds[:due] if seed not in set(seeds)]


def declared(folder: Path) -> Declared | None:
    """The declaration of the sweep in `folder`; None where sweep.yaml is missing or is none."""
    try:
        sweep = planned(folder)
        confirm = sweep["confirm"] or {}
        seeds = tuple(int(seed) for seed in confirm.get("seeds") or ())
        tasks = 1 if isinstance(sweep["task"], str) else len(sweep["task"])
        kinds = _kinds(sweep["methods"], sweep.get("cross_entropy") or {}, (sweep.get("base") or {}).get("optim") or {})
        arms = tasks * len(sweep["families"])
        return Declared(
            claims=arms * kinds.count("claim"),
            controls=arms * kinds.count("control"),
            seeds=seeds,
            looks=tuple(int(look) for look in confirm.get("race") or ()),
            changes=_changes(folder, confirm),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        return None  # `confirmed.progress` says so


def _kinds(methods: Mapping[str, Any], sides: Mapping[str, Any], optim: Mapping[str, Any]) -> list[str]:
    """claim or control, for every method that has a baseline with the same loss side."""

    def side(method: str) -> tuple[Any, ...]:
        own = sides.get(method) or {}
        common = {"loss_on": optim.get("loss_on", "answer"), "train_end_of_turn": optim.get("train_end_of_turn", True)}
        return tuple(common[key] if own.get(key) is None else own[key] for key in common)

    baselines = [method for method, objective in methods.items() if objective in (None, "none")]
    # A method that does not train the end of turn is a control where others do.
    trained = any(side(method)[1] for method in methods)
    return [
        "control" if (objective or {}).get("control", "none") != "none" or (trained and not side(method)[1]) else "claim"
        for method, objective in methods.items()
        if method not in baselines
        for baseline in baselines
        if side(baseline) == side(method)
    ]


def _changes(folder: Path, now: Mapping[str, Any]) -> tuple[str, ...]:
    found: dict[str, list[str]] = {"seeds": [], "race": []}
    for path in sorted(folder.glob("sweep-*.yaml"), key=lambda path: (len(path.name), path.name)):
        earlier = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("confirm")
        if not isinstance(earlier, dict) or not earlier.get("seeds"):
            continue  # it confirmed nothing
        for name, told in found.items():
            once = earlier.get(name) or []
            if set(once) != set(now.get(name) or []):
                told.append(listed(once) or "none")
    return tuple(
        f"confirm.{name} was once {'; '.join(dict.fromkeys(told))} and is now {listed(now.get(name) or []) or 'none'}."
        for name, told in found.items()
        if told
    )
