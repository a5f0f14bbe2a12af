"""Results of earlier sweeps as first suggestions of a new one (`search.warm_start`).

For each method, the best configurations of the earlier sweeps' arms of that name are tried right after the method's own values,
regardless of the search algorithm. Only ranks within an arm are compared: accuracies of another family, task or size say nothing here.
`benchmarks/warm_start.py` measures the benefit and compares alternatives.
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
"""Maximum number of suggested configurations."""


@dataclass(frozen=True)
class Earlier:
    """A finished trial of an earlier sweep, mapped into the new space."""

    arm: str
    """`<folder> <arm>`."""
    params: Mapping[str, Any]
    """Path in the space -> value, for the parameters that apply."""
    score: float
    """Value of the new sweep's metric, with its sign set so that larger is better."""
    moved: bool = False
    """Whether a number was outside the space and was moved to the nearest value in it."""


@dataclass(frozen=True)
class WarmStart:
    """The usable trials of earlier sweeps for one method."""

    trials: tuple[Earlier, ...]
    """All usable trials."""
    skipped: int
    """Number of unusable trials: they have a word that the space does not contain, or lack a recorded value."""

    @cached_property
    def suggestions(self) -> list[dict[str, Any]]:
        """The best trials, in the order in which they are tried."""
        return best(self.trials, COUNT)

    def text(self) -> str:
        """One line for the plan."""
        if not self.trials:
            return "no earlier trials to start from" + (f" ({self.skipped} trials do not fit the space)" if self.skipped else "")
        moved = sum(trial.moved for trial in self.trials)
        arms = ", ".join(dict.fromkeys(trial.arm for trial in self.trials))
        summary = f"the best {len(self.suggestions)} of {len(self.trials)} trials of {arms} are tried after the method's own values"
        notes = [f"{moved} moved to the nearest values in the space"] if moved else []
        notes += [f"{self.skipped} did not fit the space"] if self.skipped else []
        return summary + (f" ({'; '.join(notes)})" if notes else "")


def read(folders: Sequence[str | Path], method: str, space: Mapping[str, Distribution], metric: str, mode: str) -> WarmStart:
    """The COMPLETE search trials of `method` in earlier sweeps' tables, mapped into `space`.

    `metric` is a column of the trials table, `mode` is `max` or `min`. Missing folders are skipped: the checks refuse them unless this
    sweep started while they existed, and then its arms have recorded their suggestions. Raises ValueError if tables cannot be read.
    """
    from jepa_ray import results  # imports pandas, so only if there is something to read

    columns = [column_of(path) for path in space]
    usable, skipped = [], 0
    for folder in (folder for folder in folders if Path(folder).is_dir()):
        table = results.read_trials(Path(folder), ["arm", "method", "stage", "state", metric, "trial_id", *dict.fromkeys(columns)])
        rows = table[(table["method"] == method) & (table["stage"] == "search") & (table["state"] == "COMPLETE")]
        for row in rows.sort_values("trial_id").to_dict("records"):
            score = row[metric]
            placed = None if _null(score) else place({path: row[column_of(path)] for path in space}, space)
            if placed is None:
                skipped += 1
            else:
                usable.append(Earlier(f"{folder} {row['arm']}", placed[0], float(score) * (1 if mode == "max" else -1), placed[1]))
    return WarmStart(tuple(usable), skipped)


def began_with(folder: Path) -> list[str]:
    """The `search.warm_start` of the sweep in `folder`. Empty if no sweep has started there, or its file cannot be read."""
    try:
        resolved = yaml.safe_load((folder / "sweep.yaml").read_text(encoding="utf-8"))
        return [str(earlier) for earlier in resolved["search"]["warm_start"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError):
        return []


def misfit(folder: str, methods: Collection[str]) -> str | None:
    """Why a sweep cannot start from `folder`, with the remedy. None if it can."""
    path = Path(folder)
    if not path.is_dir():
        return f"the folder {folder} does not exist; give the folder of an earlier sweep, such as results/lora, or drop it"
    if not (path / "trials").is_dir():
        return f"{folder} has no trials table, so it is not the folder of a sweep; give one such as results/lora, or drop it"
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
        ours = ", ".join(methods)
        return f"{folder} has trials of {', '.join(theirs)} only, none of this sweep's methods {ours}; use the same names, or drop it"
    return None


def best(trials: Sequence[Earlier], count: int) -> list[dict[str, Any]]:
    """The `count` best distinct configurations by their relative rank within an arm, averaged over the arms that have them.

    The relative rank is (rank - 1/2) / trials of the arm, so the best of twenty precedes the best of three. Equal scores share a rank.
    """
    shares: dict[str, list[float]] = {}
    for arm in dict.fromkeys(trial.arm for trial in trials):
        group = [trial for trial in trials if trial.arm == arm]
        for trial in group:
            above, level = sum(other.score > trial.score for other in group), sum(other.score == trial.score for other in group)
            shares.setdefault(_key(trial.params), []).append((above + level / 2) / len(group))
    ranked = sorted(shares, key=lambda key: sum(shares[key]) / len(shares[key]))  # stable: of equals, the first one
    return [json.loads(key) for key in ranked[:count]]


def place(values: Mapping[str, Any], space: Mapping[str, Distribution]) -> tuple[dict[str, Any], bool] | None:
    """The assignment of the space nearest to `values` (path -> recorded value), and whether any value had to be moved.

    None if a value is missing, or is a word that its parameter does not take.
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
    """A contained value in the distribution's own form, the nearest value for a number outside, `_NOWHERE` for anything else."""
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
    """Column of the trials table for a parameter of the space, such as `lora_r` for `lora.r`."""
    part, _, leaf = path.partition(".")
    if part in ("lora", "pretrain"):
        return f"{part}_{leaf}"
    return "objective" if path == "objective.distance" else leaf


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params))


def _null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
