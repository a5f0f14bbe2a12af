"""From what trials need to what a GPU must have: memory by part, whether it fits and what to change, hours, GPU-hours.

Hours of training are the computed operations at a stated share of the card's peak (model FLOPs utilisation, MFU): PLANNED_MFU until the
first trial has been measured. Hours of generation: a decode step reads all weights and the cache once, or takes the time to launch
its kernels, whichever is longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from jepa_ray.config import Arm, ResourcesConfig, SweepConfig
from jepa_ray.models.footprint import Training, footprint, margin
from jepa_ray.plan.arms import Demand, Estimate, Pass, StageDemand
from jepa_ray.plan.hardware import Card

PLANNED_MFU = 0.35
"""Share of the peak that training is assumed to reach. Published training runs of dense models on these cards reach 0.3 to 0.5."""
LAUNCHES_PER_LAYER, SECONDS_PER_LAUNCH = 40, 10e-6
"""Kernels of a decode step per layer (measured: 600 in 16 layers), and the time to launch one from Python."""
ADAPTER_RANK = 16
"""Rank of the adapters that a remedy proposes."""


@dataclass(frozen=True)
class Speed:
    """How fast a sweep's trials are."""

    mfu: float = PLANNED_MFU
    evaluation: float = 1.0
    """Seconds of evaluation, relative to this module's estimate."""
    measured: bool = False
    """From a finished trial of the sweep."""


@dataclass(frozen=True)
class Memory:
    """Most bytes on one GPU, by part: those of the largest stage, and of generation if that takes more."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    generation: float
    """Generation: keys and values, weights in bf16, and under FSDP the other workers' weights. Not added to the rest: activations are
    gone by then."""
    peak: float

    @property
    def state(self) -> float:
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class Requirement:
    """What one trial of an arm needs."""

    memory: Memory
    sharding: str
    """ddp or fsdp; of no meaning with one worker."""
    budget: float | None
    """Bytes that a trial may use on the card; None without one."""
    least: float
    """Bytes with a micro-batch of one example."""
    remedies: tuple[str, ...]
    """Changes of the sweep file with which it fits; empty if it does, or none suffices."""
    train_seconds: float | None
    """None for a card whose peak is unknown, and without one."""
    evaluation_seconds: float | None
    test_seconds: float | None

    @property
    def fits(self) -> bool:
        return self.budget is None or self.memory.peak <= self.budget

    @property
    def possible(self) -> bool:
        """Whether the card can run it with some micro-batch size. True without a card."""
        return self.budget is None or self.least <= self.budget

    @property
    def trial_seconds(self) -> float | None:
        """Of a trial of the search."""
        if self.train_seconds is None or self.evaluation_seconds is None:
            return None
        return self.train_seconds + self.evaluation_seconds


def requirements(
    sweep: SweepConfig, estimates: Mapping[str, Estimate], card: Card | None, speed: Speed = Speed()
) -> dict[str, Requirement]:
    """What trials need, by arm. Arms without a `demand` are left out."""
    return {
        name: _requirement(estimate.demand, estimate.train_flops, sweep.placement, card, speed)
        for name, estimate in estimates.items()
        if estimate.demand is not None
    }


def _requirement(demand: Demand, flops: float, resources: ResourcesConfig, card: Card | None, speed: Speed) -> Requirement:
    budget = margin(card.memory) * gpu_share(resources) if card is not None else None
    demand, memory = _placed(demand, resources, budget)
    fits = budget is None or memory.peak <= budget
    seconds = _seconds(demand, flops, resources, card, speed) if card is not None else (None, None, None)
    return Requirement(
        memory=memory,
        sharding=demand.stages[-1].training.sharding,
        budget=budget,
        least=_smallest(demand).peak,
        remedies=() if fits or budget is None else tuple(_remedies(demand, budget)),
        train_seconds=seconds[0],
        evaluation_seconds=seconds[1],
        test_seconds=seconds[2],
    )


def gpu_share(resources: ResourcesConfig) -> float:
    """Share of a GPU that a worker has."""
    return min(1.0, resources.gpus_per_worker) if resources.gpus_per_worker else 1.0


def _placed(demand: Demand, resources: ResourcesConfig, budget: float | None) -> tuple[Demand, Memory]:
    """The demand with `sharding: auto` and automatic sizes decided, and its memory."""
    # The rule of a trial itself (`training/memory.py`): the longest example alone decides, because passes can be made smaller.
    if resources.sharding == "auto" and resources.workers_per_trial > 1 and budget is not None and _smallest(demand).peak > budget:
        demand = _trained(demand, sharding="fsdp")
    memory = memory_of(demand)
    if budget is not None and memory.peak > budget and all(stage.automatic for stage in demand.stages):
        size = _fitting_size(demand, budget)
        demand = _scaled(demand, size / demand.stages[-1].examples) if size is not None else demand
    return demand, memory_of(demand)


def memory_of(demand: Demand) -> Memory:
    """Memory of the stage that takes most, and of generation."""
    parts = [_stage_memory(demand, stage) for stage in demand.stages]
    return max(parts, key=lambda one: one.peak)


def _stage_memory(demand: Demand, stage: StageDemand) -> Memory:
    made, largest = footprint(demand.shape, stage.training), stage.largest
    peak = made.peak(
        largest.tokens,
        largest.labels,
        path_tokens=largest.path_tokens,
        pairs=largest.pairs,
        labels_at_once=stage.labels_at_once,
        accumulates=stage.accumulates,
    )
    evaluation = demand.evaluation
    tokens = evaluation.prompt_tokens + evaluation.answer_tokens
    # A size that follows from the memory takes half of what is free, so it never decides whether a trial fits.
    size = 1 if evaluation.automatic else evaluation.batch_size
    cache = made.others_weights + made.generation_weights + made.cache_per_token * evaluation.batch_size * tokens
    return Memory(
        weights=made.weights + made.average,
        gradients=made.gradients,
        optimizer=made.optimizer,
        activations=made.copies_kept + made.activations(largest.tokens, largest.path_tokens, largest.pairs),
        logits=made.per_label * min(largest.labels, stage.labels_at_once or largest.labels),
        generation=cache,
        peak=max(peak, made.generation_peak(size, tokens)),
    )


def _smallest(demand: Demand) -> Memory:
    """Memory with a micro-batch of one example."""
    stages = tuple(replace(stage, largest=stage.single, accumulates=True) for stage in demand.stages)
    evaluation = replace(demand.evaluation, batch_size=1)
    return memory_of(replace(demand, stages=stages, evaluation=evaluation))


def _trained(demand: Demand, **changes: object) -> Demand:
    stages = tuple(replace(stage, training=replace(stage.training, **changes)) for stage in demand.stages)  # type: ignore[arg-type]
    return replace(demand, stages=stages)


def _remedies(demand: Demand, budget: float) -> Iterator[str]:
    """Changes of the sweep file, each of which is enough."""
    training = demand.stages[-1].training
    changes = [(demand, "")]
    if not training.gradient_checkpointing:
        changes.append((_trained(demand, gradient_checkpointing=True), "base.model.gradient_checkpointing=true"))
    if training.rank is None:
        *first, last = demand.stages  # a first stage trains the whole network
        adapted = replace(last, training=replace(training, rank=ADAPTER_RANK, dropout=0.1))
        changes.append((replace(demand, stages=(*first, adapted)), f"base.lora.r={ADAPTER_RANK}"))
    for workers in (2, 4, 8, 16, 32, 64):
        sharded = _trained(demand, workers=workers, sharding="fsdp")
        if workers >= training.workers and _fitting_size(sharded, budget) is not None:
            changes.append((sharded, f"resources.workers_per_trial={workers} resources.sharding=fsdp"))
            break
    for changed, name in changes:
        size = _fitting_size(changed, budget)
        is_smaller = size is not None and size < changed.stages[-1].examples and not all(stage.automatic for stage in changed.stages)
        smaller = [f"base.optim.micro_batch_size={size}"] if is_smaller else []
        if size is not None and (name or smaller):
            yield " ".join([*([name] if name else []), *smaller])


def _fitting_size(demand: Demand, budget: float) -> int | None:
    """Examples of the largest micro-batch, at most the present one, with which it fits; None if it does not with one example."""
    if _smallest(demand).peak > budget:
        return None
    size = whole = demand.stages[-1].examples
    while size > 1 and memory_of(_scaled(demand, size / whole)).peak > budget:
        size //= 2
    return size


def _scaled(demand: Demand, factor: float) -> Demand:
    """With micro-batches of another size, but not smaller than the longest example."""

    def scaled(stage: StageDemand) -> StageDemand:
        each = (
            max(math.ceil(whole * factor), least)
            for whole, least in zip(vars(stage.largest).values(), vars(stage.single).values(), strict=True)
        )
        return replace(stage, largest=Pass(*each), examples=max(1, int(stage.examples * factor)), accumulates=True)

    return replace(demand, stages=tuple(map(scaled, demand.stages)))


def recomputed(training: Training) -> float:
    """Operations of training relative to those that are counted: gradient checkpointing adds a forward pass, to one forward and two
    backward ones, or to one of each if the weights are frozen."""
    if not training.gradient_checkpointing:
        return 1.0
    return 4 / 3 if training.rank is None else 3 / 2


def _seconds(
    demand: Demand, flops: float, resources: ResourcesConfig, card: Card, speed: Speed
) -> tuple[float | None, float | None, float | None]:
    """(training, validations, test) of a trial."""
    training, share = demand.stages[-1].training, gpu_share(resources)
    peak = card.peak_of(training.precision)
    if peak is None or card.bandwidth is None:
        return None, None, None
    train = recomputed(training) * flops / (resources.workers_per_trial * peak * share * speed.mfu)
    evaluation = demand.evaluation
    made = footprint(demand.shape, training)
    size = evaluation.batch_size
    context = evaluation.prompt_tokens + evaluation.answer_tokens / 2
    reading = ((4 if training.precision == "fp32" else 2) * demand.shape.num_parameters + size * context * made.cache_per_token) / (
        card.bandwidth * share
    )
    launching = len(demand.shape.layers) * LAUNCHES_PER_LAYER * SECONDS_PER_LAUNCH * (1 if training.rank is None else 2.5)
    step = max(reading, launching)
    prefill = 2 * demand.shape.num_parameters * evaluation.prompt_tokens / (peak * share * speed.mfu)

    def scored(prompts: int) -> float:
        mine = math.ceil(prompts / resources.workers_per_trial)
        return speed.evaluation * (math.ceil(mine / size) * evaluation.answer_tokens * step + mine * prefill)

    return train, evaluation.validations * scored(evaluation.prompts), scored(evaluation.test_prompts)


@dataclass(frozen=True)
class Cost:
    """What a whole sweep takes if no trial is stopped early."""

    hours: float
    """If trials run one after the other."""
    gpu_hours: float
    price: float | None


def cost(sweep: SweepConfig, declared: Sequence[Arm], needed: Mapping[str, Requirement]) -> Cost | None:
    """None if the seconds of an arm are unknown."""
    seconds = 0.0
    resources, seeds = sweep.placement, len(sweep.confirm.seeds)
    for arm in declared:
        one = needed.get(arm.name)
        if one is None or one.trial_seconds is None or one.test_seconds is None:
            return None
        seconds += sweep.search.num_trials * one.trial_seconds + seeds * (one.trial_seconds + one.test_seconds)
    gpus = resources.workers_per_trial * (resources.gpus_per_worker or 1.0)
    price = resources.price_per_gpu_hour
    hours = seconds / 3600
    return Cost(hours, hours * gpus, None if price is None else hours * gpus * price)


def refusals(sweep: SweepConfig, card: Card | None, needed: Mapping[str, Requirement]) -> list[str]:
    """Why the sweep cannot run on the card, with the remedy; empty if it can."""
    if card is None:
        return []
    out = []
    if sweep.base.model.precision == "bf16" and not card.has_bf16:
        out.append(f"{card.name} has no bf16, which base.model.precision=bf16 requires; set base.model.precision=fp32, or use another GPU")
    elif sweep.base.model.precision == "auto" and not card.has_bf16:
        out.append(
            f"{card.name} has no bf16, in which trials on a GPU compute by default; set base.model.precision=fp32, or use another GPU"
        )
    for name, one in needed.items():
        if not one.possible and one.budget is not None:
            remedy = f"; it fits with {', or with '.join(one.remedies)}" if one.remedies else "; use a larger GPU or a smaller model"
            out.append(
                f"{name} does not fit on {card.name} with any micro-batch size: weights, gradients and optimizer take "
                f"{one.memory.state / 1e9:.1f} GB, and training or evaluation at least {one.least / 1e9:.1f} GB, of the "
                f"{one.budget / 1e9:.1f} GB that can be used{remedy}"
            )
    return out
