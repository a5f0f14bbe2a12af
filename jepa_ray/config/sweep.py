"""What a sweep is: arms, space, search, confirmation, resources. Records are frozen and refuse unknown keys.

Imports pydantic, `space`, and the records of a trial, of its confirmation and of its resources only.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from jepa_ray.config.confirm import ConfirmConfig
from jepa_ray.config.controls import add_controls, stored_names
from jepa_ray.config.laws import auto_without_checkpoint, checked_claims, claim_fault, default_families, two_tasks, used_seed
from jepa_ray.config.objective import ObjectiveConfig
from jepa_ray.config.rates import with_adapter_rate
from jepa_ray.config.record import Record, show
from jepa_ray.config.resources import ResourcesConfig
from jepa_ray.config.space import Distribution
from jepa_ray.config.task_data import TaskData
from jepa_ray.config.track import TrackConfig
from jepa_ray.config.trial import (
    DataConfig,
    EvaluationConfig,
    LoraConfig,
    MaskedConfig,
    NetworkConfig,
    OptimConfig,
    PretrainConfig,
    canonical,
)

VALIDATION_METRICS = tuple(
    f"val_{name}" for name in ("accuracy", "exact", "prefix", "contains", "stopped", "paper", "equivalent", "retrieval")
)
"""Columns by which a search may select."""

MASKED_METRICS = ("val_accuracy", "val_retrieval")
"""The ones of masked encoders: accuracy of a linear probe, and share of nearest neighbours with the same label."""

NUM_RUNGS = 20
"""Rungs at grace_period * reduction_factor ** 0, 1, ...: more than any trial reaches, so the last rung need not be known."""
MOST_STEPS = 10**6
"""More optimizer steps than a trial has; later rungs need no validation."""


class BaseConfig(Record):
    """Defaults of every arm of a sweep: a TrialConfig without the parts that the arm itself fixes."""

    model: NetworkConfig = NetworkConfig()
    """How networks are initialised, stored in memory and computed."""
    masked: MaskedConfig | None = None
    """Train masked encoders (families `distilbert`, `bert`). If null, causal models."""
    lora: LoraConfig | None = None
    """Low-rank adapters. If null, full fine-tuning."""
    optim: OptimConfig = OptimConfig()
    """Optimizer, schedule, epochs and batches. For LoRA adapters of a pretrained model the default of `learning_rate` is 2e-4."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Generation, scoring and diagnostics."""
    seed: int = Field(1, ge=0)
    """Seed of every search trial. The confirmation uses `confirm.seeds` instead."""


class CrossEntropyConfig(Record):
    """Tokens of a method's cross-entropy, if they differ from `base.optim`: the reference's defects as separate ablations."""

    loss_on: Literal["answer", "all"] | None = None
    """answer: cross-entropy over the answer and its end of turn. all: over every token after the first. If null, as in `base.optim`."""
    train_end_of_turn: bool | None = None
    """Whether the model is trained to stop after its answer. If null, as in `base.optim`."""


class SearchConfig(Record):
    """How configurations are proposed, separately for each arm and with the same budget."""

    algorithm: Literal["tpe", "random", "grid", "gp", "qmc", "cmaes"] = "tpe"
    """Optuna sampler that proposes configurations. grid: every point of the space once."""
    num_trials: int = Field(20, ge=1)
    """Number of search trials per arm."""
    train_flops: float | None = Field(None, gt=0)
    """Training FLOPs per arm: once an arm's trials have spent them, it starts no further trial. If null, only `num_trials` is a limit."""
    warm_start: tuple[str, ...] = ()
    """Folders of earlier sweeps (`results/OTHER`), whose best configurations are tried right after each method's own values."""
    metric: str = "val_accuracy"
    """Column of the trials table by which trials are selected; always measured on validation."""
    mode: Literal["max", "min"] = "max"
    """max: the largest value of `metric` is best. min: the smallest."""
    seed: int = 0
    """Seed of the sampler. Trials are seeded by `base.seed`."""

    @field_validator("warm_start", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("metric")
    @classmethod
    def _validation_only(cls, value: str) -> str:
        if value not in VALIDATION_METRICS:
            raise ValueError(f"must be one of {', '.join(VALIDATION_METRICS)} (the test split stays sealed), got {value!r}")
        return value


class SchedulerConfig(Record):
    """Early stopping within each arm: asynchronous successive halving (ASHA), or none."""

    name: Literal["asha", "none"] = "asha"
    """asha: weak trials of an arm are stopped early. none: every trial runs to its last epoch."""
    time_attr: Literal["epoch", "step", "train_flops"] = "epoch"
    """Unit of `grace_period` and of the rungs: epochs, optimizer steps (search trials are then validated at each rung as well, within an
    epoch too), or training FLOPs."""
    grace_period: float = Field(2, gt=0)
    """Training that every trial completes before it can be stopped, in units of `time_attr`. (Low learning rates lead
    after the first of four epochs but lose in the end: see `benchmarks.search_efficiency`.)"""
    reduction_factor: float = Field(3, gt=1)
    """At each rung the best 1/reduction_factor of the trials continue."""

    @property
    def at_steps(self) -> tuple[int, ...]:
        """Optimizer steps of the rungs, ascending; none unless trials are compared at steps."""
        if self.name == "none" or self.time_attr != "step":
            return ()
        steps = (math.ceil(self.grace_period * self.reduction_factor**number) for number in range(NUM_RUNGS))
        return tuple(dict.fromkeys(itertools.takewhile(lambda step: step <= MOST_STEPS, steps)))

    @property
    def curve_unit(self) -> Literal["epoch", "step"]:
        """What the curves of trials count in the studies."""
        return "step" if self.time_attr == "step" else "epoch"


class SweepConfig(Record):
    """A sweep: arms = families x tasks x methods, each searched over `space` with the same budget."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the sweep. Results go to `<output>/<name>`; running the same name again continues the sweep."""
    output: str = "results"
    """Parent folder of the results folder."""
    families: tuple[str, ...] = Field(("llama3",), min_length=1)
    """Architectures with their chat templates: names in `models.families.FAMILIES`, or of masked encoders in `models.encoders.ENCODERS`.
    auto: any causal language model, found from its checkpoint; also the default if `model` is a hub id or a folder."""
    model: str | dict[str, str] = "tiny"
    """`tiny` (built in), `paper` (the paper's hub id), a hub id or a local folder: one for all families, or one per family."""
    task: dict[str, TaskData] = Field(default_factory=lambda: {"nl-rx": TaskData()}, min_length=1)
    """Task name, a list of names, or a mapping from each name to its own data keys, such as {nl-rx: {}, gsm8k: {num_train: 500}}."""
    data: DataConfig = DataConfig()
    """Data keys shared by all tasks. `data.task` is another way to write `task`."""
    pretrain: PretrainConfig | None = None
    """A training stage before the fine-tuning, the same for all arms except for the methods' JEPA terms. If null, there is none."""
    methods: dict[str, ObjectiveConfig | None] = Field(min_length=1)
    """Name of each method -> its JEPA term; `none` is the baseline."""
    cross_entropy: dict[str, CrossEntropyConfig] = Field(default_factory=dict)
    """Method -> its own `loss_on` and `train_end_of_turn`, in place of those in `base.optim`."""
    controls: tuple[Literal["lambda_zero", "monitor", "shuffled", "constant_target", "stop_token"], ...] = ()
    """Controls of every method with a JEPA term, added as methods (`jepa-shuffled`). lambda_zero: term computed but weighted 0. monitor:
    measured without gradient. shuffled: pairs exchanged. constant_target: one target. stop_token: end of turn untrained (baselines too)."""
    claims: Literal["all"] | tuple[tuple[str, str], ...] | None = None
    """Comparisons that the verdict decides: pairs such as [[infonce, jepa], [jepa, baseline]], or `all` (every two methods, without
    controls). If null, every method is compared with its baseline. Controls are compared with theirs in any case."""
    space: dict[str, Distribution] = Field(default_factory=dict)
    """Parameter (`optim.learning_rate`, `objective.lambda`, `lora.r`) -> distribution of the values to search."""
    search: SearchConfig = SearchConfig()
    """How configurations are proposed in each arm."""
    scheduler: SchedulerConfig = SchedulerConfig()
    """Early stopping within each arm. none: no early stopping."""
    confirm: ConfirmConfig = ConfirmConfig()
    """Retraining of each arm's best configuration on fresh seeds, and its test score. none: no confirmation."""
    resources: ResourcesConfig = ResourcesConfig()
    """The resources of one trial, and how many trials run at once."""
    track: TrackConfig = TrackConfig()
    """Trackers that show the trials' curves while they run; changes no result. By default none."""
    base: BaseConfig = BaseConfig()
    """Defaults of every trial."""

    @field_validator("output")
    @classmethod
    def _a_folder(cls, value: str) -> str:
        if "://" in value:
            raise ValueError(
                f"must be a folder on a mounted file system, got {show(value)}; write to one and copy the finished tables to the store"
            )
        if value.startswith("~"):
            raise ValueError(f"{show(value)} names a home folder that does not exist on this system; write the full path")
        return value

    @field_validator("model", mode="before")
    @classmethod
    def _one_or_each(cls, value: Any) -> Any:
        if isinstance(value, str) or (isinstance(value, dict) and all(isinstance(part, str) for part in (*value, *value.values()))):
            return value
        raise ValueError(f"must be one name for all families, or one per family such as {{llama3: tiny, gemma2: paper}}, got {show(value)}")

    @field_validator("task", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
            return {name: {} for name in value}
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            return {name: {} if keys is None else keys for name, keys in value.items()}
        raise ValueError(
            f"must be one name, a list of names, or a mapping to data keys such as {{gsm8k: {{num_train: 500}}}}, got {show(value)}"
        )

    @field_serializer("task")
    def _as_written(self, value: dict[str, TaskData]) -> Any:
        written = {name: data.model_dump(mode="json", exclude_none=True) for name, data in value.items()}
        if any(written.values()):
            return written
        return list(written) if len(written) > 1 else next(iter(written))

    @field_validator("claims", mode="before")
    @classmethod
    def _all_or_pairs(cls, value: Any) -> Any:
        return checked_claims(value)

    @field_validator("controls", mode="before")
    @classmethod
    def _one_spelling(cls, value: Any) -> Any:
        return stored_names(value)

    @model_validator(mode="before")
    @classmethod
    def _auto_by_default(cls, value: Any) -> Any:
        return {"families": default_families(value), **value} if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _one_task(cls, value: Any) -> Any:
        """`task` and `data.task` are one key: either sets both. With several tasks, `data.task` is the first."""
        if not isinstance(value, dict):
            return value
        data = value.get("data", {})
        data = canonical(data) if isinstance(data, DataConfig) else data
        task = value.get("task", data.get("task") if isinstance(data, dict) else None)
        first = next(iter(task), None) if isinstance(task, (list, tuple, dict)) else task
        if not isinstance(data, dict) or not isinstance(first, str):
            return value
        if isinstance(task, str) and data.get("task", task) != task:
            raise ValueError(f"data.task {two_tasks(task, data['task'])}")
        return {**value, "task": task, "data": {**data, "task": first}}

    @model_validator(mode="before")
    @classmethod
    def _with_controls(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not value.get("controls") or not isinstance(value.get("methods"), dict):
            return value
        return value | add_controls(value["controls"], value["methods"], value.get("cross_entropy") or {})

    @model_validator(mode="before")
    @classmethod
    def _rate_of_adapters(cls, value: Any) -> Any:
        return with_adapter_rate(value) if isinstance(value, dict) else value

    def loss_side(self, method: str) -> tuple[str, bool]:
        """The tokens of a method's cross-entropy: its own `loss_on` and `train_end_of_turn`, or else those of `base.optim`."""
        common, own = self.base.optim, self.cross_entropy.get(method, CrossEntropyConfig())
        return (
            common.loss_on if own.loss_on is None else own.loss_on,
            common.train_end_of_turn if own.train_end_of_turn is None else own.train_end_of_turn,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the file."""
        return tuple(self.task)

    def model_of(self, family: str) -> str:
        """`tiny`, `paper`, hub id or folder of a family's model."""
        return self.model if isinstance(self.model, str) else self.model[family]

    @property
    def placement(self) -> ResourcesConfig:
        """`resources` for these models: tiny ones, which are slower on a GPU, use one only if `gpus_per_worker` is given."""
        tiny = all(self.model_of(family) == "tiny" for family in self.families)
        return (
            self.resources.model_copy(update={"gpus_per_worker": 0.0})
            if tiny and self.resources.gpus_per_worker is None
            else self.resources
        )

    def data_of(self, task: str) -> DataConfig:
        """The data configuration of a task."""
        keys = self.task[task].model_dump(exclude_none=True, exclude={"max_new_tokens"})
        return DataConfig.model_validate(canonical(self.data) | keys | {"task": task})

    def max_new_tokens_of(self, task: str) -> int | None:
        """Maximum length of an answer in tokens that the file gives for a task. None: the task's own applies."""
        cap = self.task[task].max_new_tokens
        return cap if cap is not None else self.base.evaluation.max_new_tokens

    @model_validator(mode="after")
    def _auto_needs_a_checkpoint(self) -> SweepConfig:
        if "auto" in self.families and (isinstance(self.model, str) or "auto" in self.model) and self.model_of("auto") in ("tiny", "paper"):
            raise ValueError(auto_without_checkpoint(self.model_of("auto")))
        return self

    @model_validator(mode="after")
    def _claims_of_methods(self) -> SweepConfig:
        if why := claim_fault(self.claims, self.methods):
            raise ValueError(why)
        return self

    @model_validator(mode="after")
    def _fresh_seeds(self) -> SweepConfig:
        if self.base.seed in self.confirm.seeds:
            raise ValueError(used_seed(self.base.seed, self.confirm.seeds))
        return self
