"""From a sweep to its trials: the search space of each arm, and the configuration that belongs to an assignment of it.

Imports neither torch nor Ray, so that a dry run is fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jepa_ray.config import Arm, CrossEntropyConfig, ObjectiveConfig, SweepConfig, TrialConfig, canonical, comparisons
from jepa_ray.config.space import Distribution, enumerate_grid
from jepa_ray.data.datasets import task_of
from jepa_ray.models.footprint import Training
from jepa_ray.models.shapes import Shape


@dataclass(frozen=True)
class Pass:
    """A forward and backward pass on one worker."""

    tokens: int
    path_tokens: int
    """With shared prefixes counted once per path."""
    labels: int
    pairs: int = 0
    """Query-key pairs that attention covers, of all paths."""


@dataclass(frozen=True)
class StageDemand:
    """What a training stage needs memory for, on one worker."""

    training: Training
    largest: Pass
    """The largest of the micro-batches that were looked at."""
    examples: int
    """Examples of a micro-batch."""
    single: Pass
    """The longest example alone: the smallest possible micro-batch."""
    accumulates: bool
    """Whether a step has several micro-batches."""
    labels_at_once: int | None = None
    """Labels whose logits exist at the same time; None: all of a micro-batch."""
    automatic: bool = False
    """Whether the size of a micro-batch follows from the memory."""


@dataclass(frozen=True)
class EvaluationDemand:
    """One validation, or the final test: prompts of equal length and answers as long as the references' longest."""

    prompts: int
    test_prompts: int
    """Of the sealed test split, for confirmed trials."""
    validations: int
    """In one trial."""
    prompt_tokens: float
    answer_tokens: int
    """0: answers are options, which a forward pass scores."""
    batch_size: int
    automatic: bool = False
    """Whether fewer prompts are decoded together if memory is short."""


@dataclass(frozen=True)
class Demand:
    """What decides a trial's memory and time on a GPU."""

    shape: Shape
    stages: tuple[StageDemand, ...]
    """In order of execution."""
    evaluation: EvaluationDemand


@dataclass(frozen=True)
class Estimate:
    """Size and cost of one trial of an arm at its defaults, counted from the tokenised data."""

    train_examples: int
    train_tokens: float
    train_flops: float
    checkpoint_bytes: float
    test_examples: int = 0
    """Examples of the sealed test split; 0 if there is none."""
    demand: Demand | None = None
    """None if the memory of the model's architecture cannot be computed (masked encoders)."""
    rows: tuple[str, ...] = ()
    """Lines that show some training examples as the model sees them; empty for all arms but one."""


def space(sweep: SweepConfig, arm: Arm) -> dict[str, Distribution]:
    """The part of the space that an arm searches. Excludes parameters of the objective that the arm lacks or in which they have no effect
    (predictor tokens of an in-sequence layout, for example), and parameters whose `when` depends on these."""
    objective = sweep.methods[arm.method]
    if objective is not None and objective.control in ("monitor", "zero"):
        objective = None  # no knob of a term that trains nothing affects the selection
    out: dict[str, Distribution] = {}
    for path, distribution in sweep.space.items():
        if path.startswith("objective.") and (objective is None or not _takes(objective, path, distribution)):
            continue
        if all(name in out for name in distribution.when or ()):
            out[path] = distribution
    return out


def _takes(objective: ObjectiveConfig, path: str, distribution: Distribution) -> bool:
    """Whether a knob has an effect on an objective: at least one of its probes is accepted."""
    leaf = path.partition(".")[2]
    return any(accepts(objective, leaf, value) for value in distribution.probes())


def accepts(objective: ObjectiveConfig, leaf: str, value: Any) -> bool:
    """Whether an objective accepts this value of a knob and the knob has an effect on it."""
    try:
        changed = ObjectiveConfig.model_validate({**canonical(objective), leaf: value})
    except ValueError:
        return False
    return leaf != "k" or changed.encodes_views


def trial_config(sweep: SweepConfig, arm: Arm, params: Mapping[str, Any]) -> TrialConfig:
    """The resolved configuration of an assignment: the arm's defaults, replaced by `params` (path as in YAML -> value)."""
    tree = method_tree(sweep, arm)
    for path, value in params.items():
        part, _, leaf = path.partition(".")
        tree[part] = {**tree[part], leaf: sweep.space[path].snap(value) if path in sweep.space else value}
    return TrialConfig.model_validate(tree)


def defaults(sweep: SweepConfig, arm: Arm) -> dict[str, Any]:
    """The arm's own values of its searched parameters, as far as the space contains them: its first trial."""
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
    """Every distinct assignment of the arm's space. Raises ValueError if a range has no step."""
    return list(enumerate_grid(space(sweep, arm)))


def method_tree(sweep: SweepConfig, arm: Arm) -> dict[str, Any]:
    objective = sweep.methods[arm.method]
    base, data = canonical(sweep.base), sweep.data_of(arm.task)
    cap = sweep.max_new_tokens_of(arm.task) or task_of(data).max_new_tokens
    return {
        "model": {**base["model"], "family": arm.family, "model": sweep.model_of(arm.family)},
        "pretrain": canonical(sweep.pretrain) if sweep.pretrain is not None else None,
        "lora": base["lora"],
        "data": canonical(data),
        "objective": canonical(objective) if objective is not None else None,
        "masked": base["masked"],
        "optim": base["optim"] | canonical_without_none(sweep.cross_entropy.get(arm.method)),
        "evaluation": {**base["evaluation"], "max_new_tokens": cap},
        "seed": sweep.base.seed,
    }


def canonical_without_none(record: CrossEntropyConfig | None) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude_none=True) if record is not None else {}


def most_matched(sweep: SweepConfig, declared: Sequence[Arm]) -> int:
    """Number of runs at equal FLOPs if the two arms of every claim differ in cost. Controls have no such runs."""
    if not sweep.confirm.equal_flops or sweep.pretrain is not None or sweep.base.masked is not None:
        return 0
    return len(comparisons(declared, controls=False)) * len(sweep.confirm.seeds)


def total_trials(sweep: SweepConfig, declared: Sequence[Arm]) -> int:
    """Number of runs of the whole sweep, in search and confirmation."""
    return len(declared) * (sweep.search.num_trials + len(sweep.confirm.seeds))
