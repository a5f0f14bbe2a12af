"""From a sweep to its trials: the configuration an assignment stands for, and the plan that is printed before any money is spent.

Imports neither torch nor Ray: a dry run answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jepa_ray.config import Arm, CrossEntropyConfig, ObjectiveConfig, SweepConfig, TrialConfig, canonical, compared
from jepa_ray.config.space import Distribution, enumerate_grid
from jepa_ray.data.datasets import DATASETS


@dataclass(frozen=True)
class Estimate:
    """What one trial of an arm at its defaults amounts to, counted from the tokenised data."""

    train_examples: int
    train_tokens: float
    train_flops: float
    checkpoint_bytes: float
    test_examples: int = 0
    """Of the sealed test split; 0: there is none."""


def space(sweep: SweepConfig, arm: Arm) -> dict[str, Distribution]:
    """What is searched in an arm: all of the space, but nothing of the objective, nor what depends on it, where the arm has none, or where
    it has no effect there (predictor tokens of an in-sequence layout, say)."""
    objective = sweep.methods[arm.method]
    if objective is not None and objective.control in ("monitor", "zero"):
        objective = None  # no knob of a term that trains nothing changes what is selected
    out: dict[str, Distribution] = {}
    for path, distribution in sweep.space.items():
        if path.startswith("objective.") and (objective is None or not _takes(objective, path, distribution)):
            continue
        if all(name in out for name in distribution.when or ()):
            out[path] = distribution
    return out


def _takes(objective: ObjectiveConfig, path: str, distribution: Distribution) -> bool:
    """Whether a knob has an effect on an objective: its least favourable legal values are not all refused."""
    leaf = path.partition(".")[2]
    return any(accepts(objective, leaf, value) for value in distribution.probes())


def accepts(objective: ObjectiveConfig, leaf: str, value: Any) -> bool:
    """Whether an objective can have this value of a knob, which then is no idle one."""
    try:
        changed = ObjectiveConfig.model_validate({**canonical(objective), leaf: value})
    except ValueError:
        return False
    return leaf != "k" or changed.encodes_views


def trial_config(sweep: SweepConfig, arm: Arm, params: Mapping[str, Any]) -> TrialConfig:
    """The resolved configuration of an assignment: the arm's defaults with `params` (paths in YAML's words) put in."""
    tree = method_tree(sweep, arm)
    for path, value in params.items():
        part, _, leaf = path.partition(".")
        tree[part] = {**tree[part], leaf: sweep.space[path].snap(value) if path in sweep.space else value}
    return TrialConfig.model_validate(tree)


def defaults(sweep: SweepConfig, arm: Arm) -> dict[str, Any]:
    """The arm's own values of what is searched, as far as they lie in the space: its first trial."""
    tree = method_tree(sweep, arm)
    out: dict[str, Any] = {}
    for path, distribution in space(sweep, arm).items():
        value = own_value(tree, path)
        if distribution.applies(out) and distribution.contains(value):
            out[path] = value
    return out


def own_value(tree: Mapping[str, Any], path: str) -> Any:
    part, _, leaf = path.partition(".")
    return (tree[part] or {}).get(leaf)


def grid(sweep: SweepConfig, arm: Arm) -> list[dict[str, Any]]:
    """Every distinct assignment of the arm's space. ValueError where a range has no step."""
    return list(enumerate_grid(space(sweep, arm)))


def method_tree(sweep: SweepConfig, arm: Arm) -> dict[str, Any]:
    objective = sweep.methods[arm.method]
    base = canonical(sweep.base)
    cap = sweep.max_new_tokens_of(arm.task) or DATASETS[arm.task].max_new_tokens
    return {
        "model": {**base["model"], "family": arm.family, "model": sweep.model_of(arm.family)},
        "pretrain": canonical(sweep.pretrain) if sweep.pretrain is not None else None,
        "lora": base["lora"],
        "data": canonical(sweep.data_of(arm.task)),
        "objective": canonical(objective) if objective is not None else None,
        "masked": base["masked"],
        "optim": base["optim"] | canonical_without_none(sweep.cross_entropy.get(arm.method)),
        "evaluation": {**base["evaluation"], "max_new_tokens": cap},
        "seed": sweep.base.seed,
    }


def canonical_without_none(record: CrossEntropyConfig | None) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude_none=True) if record is not None else {}


def most_matched(sweep: SweepConfig, declared: Sequence[Arm]) -> int:
    """Runs at equal FLOPs, where every method costs more or less than its baseline; controls have none."""
    if not sweep.confirm.equal_flops or sweep.pretrain is not None or sweep.base.masked is not None:
        return 0
    return len(compared(declared, controls=False)) * len(sweep.confirm.seeds)


def total_trials(sweep: SweepConfig, declared: Sequence[Arm]) -> int:
    """Runs of the whole sweep, search and confirmation."""
    return len(declared) * (sweep.search.num_trials + len(sweep.confirm.seeds))
