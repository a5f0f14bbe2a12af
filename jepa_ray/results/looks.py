"""looks.json: which confirmed trials were known, and what was claimed of them, at which look at the results. It only ever grows.

A look is the moment at which a verdict on a finished comparison was printed, or at which a sweep with confirmed trials was changed. How
much of the 5 % error a verdict may spend depends on the looks before it (`analysis/stats/looks.py`), so they are recorded, not guessed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from jepa_ray.config import Arm, Comparison
from jepa_ray.results.arms import read_arms
from jepa_ray.results.provenance import now
from jepa_ray.results.tables import finished
from jepa_ray.system import atomic

LOOKS = "looks.json"


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the results of a sweep."""

    looked_at: str
    """UTC, ISO 8601."""
    why: str
    """verdict: one was printed; change: the sweep was changed after trials had been confirmed."""
    seeds: tuple[int, ...]
    """`confirm.seeds` at that time."""
    race: tuple[int, ...]
    """`confirm.race` at that time; empty without a race."""
    trials: dict[str, int]
    """Id -> seed of the confirmed trials that became known at this look."""
    planned: tuple[int, ...] = ()
    """Seeds that were planned when the results were seen and its verdict asked for more (`confirm.until`), these included."""
    claims: tuple[tuple[str, str], ...] | None = None
    """The two arms of each comparison that was declared at that time. None: those of every arm with its baseline (earlier versions)."""

    @property
    def guessed(self) -> bool:
        """Whether the folder did not record this look, so that it stands for all trials on its seeds."""
        return not self.trials and self.claims is None

    def declared(self, arms: Sequence[Arm]) -> set[tuple[str, str]]:
        """The two arms of each comparison that was declared at that time."""
        if self.claims is not None:
            return set(self.claims)
        return {(arm.name, arm.baseline) for arm in arms if arm.baseline is not None}


def read_looks(folder: Path) -> list[Look]:
    """The looks of the sweep in `folder`, in order; none without the file. Raises ValueError if it cannot be read."""
    path = folder / LOOKS
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["looks"]
        return [
            Look(
                looked_at=str(row["looked_at"]),
                why=str(row["why"]),
                seeds=tuple(map(int, row["seeds"])),
                race=tuple(map(int, row["race"])),
                trials={str(trial): int(seed) for trial, seed in row["trials"].items()},
                planned=tuple(map(int, row.get("planned") or ())),
                claims=None if row.get("claims") is None else tuple((str(arm), str(other)) for arm, other in row["claims"]),
            )
            for row in rows
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}), so it is unknown how often the results were looked at; restore it from a "
            "backup, or remove it: then every earlier version of the sweep file (sweep-N.yaml) counts as a look"
        ) from error


def looks_of(folder: Path) -> list[Look]:
    """The looks of the sweep in `folder`: recorded, or guessed without a record. Raises ValueError if the record cannot be read."""
    return read_looks(folder) if (folder / LOOKS).exists() else guessed_looks(folder)


def guessed_looks(folder: Path, *, now_too: bool = True) -> list[Look]:
    """The looks of a folder that did not record them: one for each version of its sweep file that had other seeds than the next.

    `now_too`: whether the last `sweep-N.yaml` counts as well if sweep.yaml has other seeds.
    """
    plans: list[Mapping[str, Any]] = []
    versions = sorted(folder.glob("sweep-*.yaml"), key=lambda path: (len(path.name), path.name))
    for path in (*versions, *([folder / "sweep.yaml"] if now_too else [])):
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            tree = None
        if path.name != "sweep.yaml" and not isinstance(tree, dict):
            continue
        confirm = tree.get("confirm") if isinstance(tree, dict) else None
        plans.append(confirm if isinstance(confirm, dict) else {})
    out: list[Look] = []
    for plan, following in pairwise(plans):
        seeds = _numbers(plan.get("seeds"))
        if seeds and set(seeds) != set(_numbers(following.get("seeds"))):
            out.append(Look(looked_at="unknown", why="change", seeds=seeds, race=_numbers(plan.get("race")), trials={}))
    return out


def _numbers(values: Any) -> tuple[int, ...]:
    return tuple(value for value in values if isinstance(value, int)) if isinstance(values, (list, tuple)) else ()


def planned_seeds(seeds: Sequence[int], looks: Sequence[Look]) -> tuple[int, ...]:
    """The seeds of `confirm.seeds`, followed by those that looks have added."""
    return tuple(dict.fromkeys([*seeds, *(seed for look in looks for seed in look.planned)]))


def record_look(
    folder: Path,
    why: str,
    seeds: Sequence[int],
    race: Sequence[int],
    claims: Sequence[Comparison],
    arms: Collection[str] | None = None,
    *,
    planned: Sequence[int] = (),
) -> None:
    """Add a look at the COMPLETE confirmations of these arms (None: of all), unless neither a trial nor a claim about known trials is new.

    `seeds`, `race` and `claims` are what was declared when the results were seen, `planned` the seeds that run next by themselves (without
    new trials they are added to the last look). The record of a folder that did not keep one begins with its guessed looks.
    """
    begun = (folder / LOOKS).exists()
    before = read_looks(folder) if begun else guessed_looks(folder, now_too=why != "change")
    known = {trial for look in before for trial in look.trials}
    rows = finished(folder).values()
    confirmed = [row for row in rows if row["stage"] == "confirm" and row["state"] == "COMPLETE" and (arms is None or row["arm"] in arms)]
    new = {str(row["trial_id"]): int(row["seed"]) for row in confirmed if row["trial_id"] not in known}
    here, pairs = {row["arm"] for row in confirmed}, tuple((claim.arm, claim.other) for claim in claims)
    late = bool(before) and any({*pair} <= here for pair in set(pairs) - before[-1].declared(read_arms(folder)))
    if new or late:
        before.append(
            Look(looked_at=now(), why=why, seeds=tuple(seeds), race=tuple(race), trials=new, planned=tuple(planned), claims=pairs)
        )
    elif before and set(planned) - set(planned_seeds(seeds, before)):
        before[-1] = replace(before[-1], planned=tuple(planned))
    elif begun or why != "change":
        return  # before a first change, the record begins even if nothing was known: else that change would later count as a look
    atomic.write_text(folder / LOOKS, json.dumps({"looks": [asdict(one) for one in before]}, indent=2) + "\n")
