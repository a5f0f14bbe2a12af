"""looks.json: which confirmed trials were known at which look at the results. It only ever grows.

A look is the moment at which a verdict on a finished comparison was printed, or at which a sweep with confirmed trials was changed. How
much of the 5 % error a verdict may spend depends on the looks before it (`analysis/stats/looks.py`), so they are recorded, not guessed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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
    """Id -> seed of the confirmed trials that became known at this look; empty in a folder that did not record its looks."""


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


def record_look(folder: Path, why: str, seeds: Sequence[int], race: Sequence[int], arms: Collection[str] | None = None) -> None:
    """Add a look at the COMPLETE confirmations of these arms (None: of all), unless none of them is new.

    A folder that was changed before it recorded anything goes on without: each of its `sweep-N.yaml` counts as a look, and a record that
    begins now would forget those.
    """
    if not (folder / LOOKS).exists() and any(folder.glob("sweep-*.yaml")):
        return
    before = read_looks(folder)
    known = {trial for look in before for trial in look.trials}
    rows = finished(folder).values()
    confirmed = [row for row in rows if row["stage"] == "confirm" and row["state"] == "COMPLETE" and (arms is None or row["arm"] in arms)]
    new = {str(row["trial_id"]): int(row["seed"]) for row in confirmed if row["trial_id"] not in known}
    if not new:
        return
    look = Look(looked_at=now(), why=why, seeds=tuple(seeds), race=tuple(race), trials=new)
    atomic.write_text(folder / LOOKS, json.dumps({"looks": [asdict(one) for one in (*before, look)]}, indent=2) + "\n")
