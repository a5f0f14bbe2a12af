"""What earlier sweeps found, as first suggestions of a new one (`search.warm_start`).

For each method the best configurations of the earlier sweeps' arms of that name are tried right after the method's own values, whatever
algorithm goes on from there. Only ranks within an arm are compared: accuracies of another family, task or size mean nothing here.
`benchmarks/warm_start.py` measures what that is worth, and what else was tried.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from jepa_ray.config.space import Distribution

COUNT = 3
"""Configurations that are suggested at most."""


@dataclass(frozen=True)
class Earlier:
    """A finished trial of an earlier sweep, put into the new space."""

    arm: str
    """`<folder> <arm>`."""
    params: Mapping[str, Any]
    """Path in the space -> value, as far as the parameter applies."""
    score: float
    """By the new sweep's metric; larger is better."""
    moved: bool = False
    """Whether a number lay outside the space and was moved to the nearest value in it."""


@dataclass(frozen=True)
class WarmStart:
    """What earlier sweeps have to say about one method."""

    trials: tuple[Earlier, ...]
    """All that can be used."""
    skipped: int
    """Trials that cannot: a word that the space does not hold, or a value that the earlier sweep has not recorded."""

    @cached_property
    def suggestions(self) -> list[dict[str, Any]]:
        """The best of them, first to be tried first."""
        return best(self.trials, COUNT)

    def text(self) -> str:
        """One line for the plan."""
        if not self.trials:
            return "nothing to begin with" + (f" ({self.skipped} trials do not fit the space)" if self.skipped else "")
        moved = sum(trial.moved for trial in self.trials)
        arms = ", ".join(dict.fromkeys(trial.arm for trial in self.trials))
        said = f"the best {len(self.suggestions)} of {len(self.trials)} trials of {arms} are tried after the method's own values"
        notes = [f"{moved} moved to the nearest values in the space"] if moved else []
        notes += [f"{self.skipped} did not fit it"] if self.skipped else []
        return said + (f" ({'; '.join(notes)})" if notes else "")


def read(folders: Sequence[str | Path], method: str, space: Mapping[str, Distribution], metric: str, mode: str) -> WarmStart:
    """The COMPLETE search trials of `method` in earlier sweeps' tables, put into `space`.

    `metric` is a column of the trials table, `mode` `max` or `min`. A folder that is gone says nothing: only a sweep that began while it
    was there gets here (see `misfit`), and each of its arms has recorded its suggestions. Raises ValueError where tables can't be read.
    """
    from jepa_ray import results  # pandas: not before there is something to read

    columns = [column_of(path) for path in space]
    found, skipped = [], 0
    for folder in (folder for folder in folders if Path(folder).is_dir()):
        table = results.read_trials(Path(folder), ["arm", "method", "stage", "state", metric, "trial_id", *dict.fromkeys(columns)])
        rows = table[(table["method"] == method) & (table["stage"] == "search") & (table["state"] == "COMPLETE")]
        for row in rows.sort_values("trial_id").to_dict("records"):
            score = row[metric]
            placed = None if _null(score) else place({path: row[column_of(path)] for path in space}, space)
            if placed is None:
                skipped += 1
            else:
                found.append(Earlier(f"{folder} {row['arm']}", placed[0], float(score) * (1 if mode == "max" else -1), placed[1]))
    return WarmStart(tuple(found), skipped)


def began_with(own: Path) -> list[str]:
    """The `search.warm_start` of the sweep that has begun in the folder `own`; empty where none has, or its file can't be read."""
    try:
        resolved = yaml.safe_load((own / "sweep.yaml").read_text(encoding="utf-8"))
        return [str(folder) for folder in resolved["search"]["warm_start"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError):
        return []


def misfit(folder: str, methods: Collection[str]) -> str | None:
    """Why a sweep cannot start from `folder`, with the remedy; None where it can."""
    path = Path(folder)
    if not path.is_dir():
        return f"there is no folder {folder}; give the folder of an earlier sweep, such as results/lora, or drop it"
    if not (path / "trials").is_dir():
        return f"{folder} has no trials table, so it is no sweep's folder; give one such as results/lora, or drop it"
    from jepa_ray import results

    try:
        table = results.read_trials(path, ["method", "stage", "state"])
    except (OSError, ValueError) as error:
        return f"the trials of {folder} cannot be read ({str(error).splitlines()[0]}); give another folder, or drop it"
    done = table[(table["stage"] == "search") & (table["state"] == "COMPLETE")]
    if done.empty:
        return f"{folder} has no COMPLETE search trial yet; wait for it, or drop it"
    theirs = sorted(set(done["method"]))
    if not set(theirs) & set(methods):
        own = ", ".join(methods)
        return f"{folder} has trials of {', '.join(theirs)} only, none of this sweep's methods {own}; name them alike, or drop it"
    return None


def best(trials: Sequence[Earlier], count: int) -> list[dict[str, Any]]:
    """The `count` best distinct configurations by their relative rank within their arm, averaged over the arms that have them.

    A relative rank is (rank - 1/2) / trials of the arm, so that the best of twenty comes before the best of three; equals share theirs.
    """
    shares: dict[str, list[float]] = {}
    for arm in dict.fromkeys(trial.arm for trial in trials):
        own = [trial for trial in trials if trial.arm == arm]
        for trial in own:
            above, level = sum(other.score > trial.score for other in own), sum(other.score == trial.score for other in own)
            shares.setdefault(_key(trial.params), []).append((above + level / 2) / len(own))
    ranked = sorted(shares, key=lambda key: sum(shares[key]) / len(shares[key]))  # stable: the first found of equals
    return [json.loads(key) for key in ranked[:count]]


def place(values: Mapping[str, Any], space: Mapping[str, Distribution]) -> tuple[dict[str, Any], bool] | None:
    """An assignment of the space that is nearest to `values` (path -> recorded value), and whether anything had to be moved.

    None where a value is missing, or is a word that its parameter does not have.
    """
    params: dict[str, Any] = {}
    moved = False
    for path, distribution in space.items():
        if not distribution.applies(params):
            continue
        value = None if _null(values[path]) else values[path]
        inside = nearest(distribution, value)
        if inside is _NOWHERE:
            return None
        moved |= not distribution.contains(value)
        params[path] = inside
    return params, moved


_NOWHERE: Any = object()


def nearest(distribution: Distribution, value: Any) -> Any:
    """The distribution's own form of a value it contains; of a number outside, the nearest it has; `_NOWHERE` for anything else."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if distribution.choice is not None:
        for option in distribution.choice:
            if option == value and isinstance(option, bool) == isinstance(value, bool):
                return option
        numbers = [option for option in distribution.choice if isinstance(option, (int, float)) and not isinstance(option, bool)]
        return min(numbers, key=lambda option: abs(option - value)) if number and numbers else _NOWHERE
    if not number:
        return _NOWHERE
    low, high = distribution.bounds
    value = min(max(value, low), high)
    step = distribution.step or (1 if distribution.int_ is not None else None)
    if step is not None:
        value = min(low + round((value - low) / step) * step, float(distribution.probes()[-1]))
    return int(value) if distribution.int_ is not None else distribution.snap(float(value))


def column_of(path: str) -> str:
    """Column of the trials table that holds a parameter of the space, such as `lora_r` of `lora.r`."""
    part, _, leaf = path.partition(".")
    if part in ("lora", "pretrain"):
        return f"{part}_{leaf}"
    return "objective" if path == "objective.distance" else leaf


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params))


def _null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
