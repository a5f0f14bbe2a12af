"""What a sweep is: arms, space, search, confirmation, resources. Frozen records, unknown keys refused.

Imports pydantic, `space`, and the records of a trial and of its resources only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from jepa_ray.config.controls import add_controls
from jepa_ray.config.objective import ObjectiveConfig
from jepa_ray.config.record import Record, show
from jepa_ray.config.resources import ResourcesConfig
from jepa_ray.config.space import Distribution
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
"""Columns that a search may select by."""

MASKED_METRICS = ("val_accuracy", "val_retrieval")
"""Those of masked encoders: a linear probe's accuracy, and nearest neighbours with the same label."""


class BaseConfig(Record):
    """Defaults that every arm of a sweep starts from (TrialConfig without what the arm itself fixes)."""

    model: NetworkConfig = NetworkConfig()
    """How networks start out, are held in memory and computed."""
    masked: MaskedConfig | None = None
    """Train masked encoders (families `distilbert`, `bert`); None: causal models."""
    lora: LoraConfig | None = None
    """Low-rank adapters; None: full fine-tuning."""
    optim: OptimConfig = OptimConfig()
    """Optimizer, schedule, epochs and batches."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Generation, scoring and diagnostics."""
    seed: int = Field(1, ge=0)
    """Seed of every search trial; the confirmation uses `confirm.seeds` instead."""


class TaskData(Record):
    """One task of several in a sweep: keys that differ from the sweep's `data`; None: as there."""

    train: str | None = None
    """Training data of this task."""
    test: str | None = None
    """Sealed test data of this task."""
    databases: str | None = None
    """Folder of this task's databases (Spider)."""
    num_train: int | None = Field(None, ge=1)
    """Training examples kept."""
    num_val: int | None = Field(None, ge=1)
    """Validation examples, split off the training data."""
    num_test: int | None = Field(None, ge=1)
    """Test examples kept."""
    max_length: int | None = Field(None, ge=8)
    """Longest sequence in tokens."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Token cap of a generated answer, in place of `base.evaluation.max_new_tokens`."""


class CrossEntropyConfig(Record):
    """What a method's cross-entropy is taken over, where that is not `base.optim`'s: the reference's defects as ablations of their own."""

    loss_on: Literal["answer", "all"] | None = None
    """Cross-entropy over the answer and its end of turn, or over every token after the first. None: as in `base.optim`."""
    train_end_of_turn: bool | None = None
    """Whether the model is taught to stop. None: as in `base.optim`."""


def used_seed(seed: int, seeds: Sequence[int]) -> str:
    """The law that a confirmation breaks which has the search's seed among its own."""
    return f"base.seed = {seed} is also among confirm.seeds = {show(seeds)}, but confirmation needs fresh seeds; change one of the two"


def two_tasks(task: str, data_task: str) -> str:
    """The law that `data.task` breaks where it is another than `task`."""
    return f"is {data_task!r}, but task is {task!r}; drop data.task"


class SearchConfig(Record):
    """How configurations are proposed, arm by arm, with the same budget for each."""

    algorithm: Literal["tpe", "random", "grid", "gp", "qmc", "cmaes"] = "tpe"
    """Optuna's sampler that proposes configurations; grid: every point of the space once."""
    num_trials: int = Field(20, ge=1)
    """Trials per arm."""
    train_flops: float | None = Field(None, gt=0)
    """Training FLOPs per arm: no further trial of an arm starts once its trials have spent them. None: `num_trials` alone decides."""
    warm_start: tuple[str, ...] = ()
    """Folders of earlier sweeps (`results/OTHER`): their best configurations follow each method's own (`plan/warm_start.py`)."""
    metric: str = "val_accuracy"
    """Column of the trials table that selects; always measured on validation."""
    mode: Literal["max", "min"] = "max"
    """Whether the largest or the smallest value of `metric` is best."""
    seed: int = 0
    """Seed of the samplers; trials are seeded by `base.seed`."""

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
    """Early stopping inside each arm: asynchronous successive halving (ASHA), or none."""

    name: Literal["asha", "none"] = "asha"
    """asha: weak trials of an arm are stopped early. none: every trial runs to its last epoch."""
    time_attr: Literal["epoch", "train_flops"] = "epoch"
    """What a rung counts. train_flops: `grace_period` and rungs are in FLOPs."""
    grace_period: float = Field(2, gt=0)
    """No trial is stopped before this much. (After one epoch of four, low learning rates lead that lose in the end: see
    `benchmarks.search_efficiency`.)"""
    reduction_factor: float = Field(3, gt=1)
    """At each rung the best 1/reduction_factor go on."""


class ConfirmConfig(Record):
    """The best configuration of each arm, frozen, again on fresh seeds, and once on the test split."""

    seeds: tuple[int, ...] = (82, 23, 37, 84, 4)
    """The same for all arms, so that differences pair up. Empty: no confirmation. (The paper's five by default.)"""
    margin: float = Field(0.01, gt=0, lt=1)
    """The difference that matters, as a share of the test examples: 0.01 is one point."""
    equal_flops: bool = True
    """Train the dearer of each method and its baseline once more per seed, with the counted training FLOPs of the cheaper one and a
    schedule that ends there: stage `matched`. Not for controls, and not where the two cost the same within 2 %."""
    race: tuple[int, ...] = ()
    """Looks, in numbers of seeds, such as [3, 5, 10]: after each, comparisons that are decided or hopeless are not continued; the last
    look is all seeds. Empty: every arm runs on every seed."""
    pilot: str | None = None
    """Folder of an earlier sweep whose spread over seeds and examples `--dry-run` plans with. None: `sd_seed` and `discordance`."""
    sd_seed: float | None = Field(None, ge=0, lt=1)
    """For the plan: standard deviation over seeds of the paired difference in accuracy. None: `analysis.planning`'s assumption."""
    discordance: float | None = Field(None, gt=0, le=1)
    """For the plan: share of test examples on which two arms disagree. None: likewise."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"must be distinct seeds, got {show(value)}; drop the repeated one")
        if any(seed < 0 for seed in value):
            raise ValueError(f"must be at least 0, each of them, got {show(value)}")
        return value

    @model_validator(mode="after")
    def _looks_at_seeds(self) -> ConfirmConfig:
        if self.race and (list(self.race) != sorted(set(self.race)) or self.race[0] < 2 or self.race[-1] != len(self.seeds)):
            raise ValueError(
                f"race must rise from at least 2 seeds to all {len(self.seeds)} of confirm.seeds, got {show(self.race)}; "
                f"e.g. race: [{min(3, len(self.seeds))}, {len(self.seeds)}]"
            )
        return self


class SweepConfig(Record):
    """A whole sweep: arms = families x tasks x methods, each searched over `space` with an equal budget."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Results go to `<output>/<name>`; the same name continues the sweep."""
    output: str = "results"
    """Folder in which the folder of the results is made."""
    families: tuple[str, ...] = Field(("llama3",), min_length=1)
    """Architectures with their chat templates: names in `models.families.FAMILIES`, or of masked encoders in `models.encoders.ENCODERS`."""
    model: str | dict[str, str] = "tiny"
    """One for all families, or one per family."""
    task: dict[str, TaskData] = Field(default_factory=lambda: {"nl-rx": TaskData()}, min_length=1)
    """One name, a list of names, or a mapping from each name to its own data keys, such as {nl-rx: {}, gsm8k: {num_train: 500}}."""
    data: DataConfig = DataConfig()
    """Data keys of all tasks; `data.task` is `task` again."""
    pretrain: PretrainConfig | None = None
    """A stage before the fine-tuning, the same for all arms but for the methods' JEPA terms."""
    methods: dict[str, ObjectiveConfig | None] = Field(min_length=1)
    """Name -> objective; `none` is the baseline."""
    cross_entropy: dict[str, CrossEntropyConfig] = Field(default_factory=dict)
    """Method -> `loss_on` and `train_end_of_turn` of its own."""
    controls: tuple[Literal["lambda_zero", "monitor", "shuffled", "constant_target", "stop_token"], ...] = ()
    """Controls of every method with a JEPA term, as methods beside it (`jepa-shuffled`): the term computed and weighted 0, measured without
    gradient, with pairs exchanged, with one constant target. stop_token: every method, the baseline too, without a trained end of turn."""
    space: dict[str, Distribution] = Field(default_factory=dict)
    """Path in TrialConfig (`optim.learning_rate`, `objective.lambda`, `lora.r`) -> distribution."""
    search: SearchConfig = SearchConfig()
    """How configurations are proposed, arm by arm."""
    scheduler: SchedulerConfig = SchedulerConfig()
    """Early stopping inside each arm; none: no early stopping."""
    confirm: ConfirmConfig = ConfirmConfig()
    """The best of each arm again on fresh seeds and the test split; none: no confirmation."""
    resources: ResourcesConfig = ResourcesConfig()
    """What one trial occupies, and how many run at once."""
    base: BaseConfig = BaseConfig()
    """Defaults of every trial."""

    @field_validator("output")
    @classmethod
    def _a_folder(cls, value: str) -> str:
        if "://" in value:
            raise ValueError(
                f"must be a folder of a mounted file system, got {show(value)}; write to one, and copy the finished tables to the store"
            )
        if value.startswith("~"):
            raise ValueError(f"{show(value)} names a home folder that this system does not know; write the path out")
        return value

    @field_validator("model", mode="before")
    @classmethod
    def _one_or_each(cls, value: Any) -> Any:
        if isinstance(value, str) or (isinstance(value, dict) and all(isinstance(part, str) for part in (*value, *value.values()))):
            return value
        raise ValueError(f"must be one name for all families, or one for each such as {{llama3: tiny, gemma2: paper}}, got {show(value)}")

    @field_validator("task", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
            return {name: {} for name in value}
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            return {name: {} if own is None else own for name, own in value.items()}
        raise ValueError(
            f"must be one name, a list of names, or names with data keys such as {{gsm8k: {{num_train: 500}}}}, got {show(value)}"
        )

    @field_serializer("task")
    def _as_written(self, value: dict[str, TaskData]) -> Any:
        own = {name: data.model_dump(mode="json", exclude_none=True) for name, data in value.items()}
        if any(own.values()):
            return own
        return list(own) if len(own) > 1 else next(iter(own))

    @model_validator(mode="before")
    @classmethod
    def _one_task(cls, value: Any) -> Any:
        """`task` and `data.task` are one key: either sets both. With several tasks `data.task` is the first."""
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

    def loss_side(self, method: str) -> tuple[str, bool]:
        """What a method's cross-entropy is taken over: `loss_on` and `train_end_of_turn`, its own or else `base.optim`'s."""
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
        """`tiny`, `paper`, hub id or folder of one of the families."""
        return self.model if isinstance(self.model, str) else self.model[family]

    @property
    def placement(self) -> ResourcesConfig:
        """`resources`, with what follows from the models: the tiny ones stay off GPUs that nobody asked for, where they would be slower."""
        tiny = all(self.model_of(family) == "tiny" for family in self.families)
        return (
            self.resources.model_copy(update={"gpus_per_worker": 0.0})
            if tiny and self.resources.gpus_per_worker is None
            else self.resources
        )

    def data_of(self, task: str) -> DataConfig:
        """The data of one of the tasks."""
        keys = self.task[task].model_dump(exclude_none=True, exclude={"max_new_tokens"})
        return DataConfig.model_validate(canonical(self.data) | keys | {"task": task})

    def max_new_tokens_of(self, task: str) -> int | None:
        """Token cap that the file gives for one of the tasks; None: the task's own."""
        own = self.task[task].max_new_tokens
        return own if own is not None else self.base.evaluation.max_new_tokens

    @model_validator(mode="after")
    def _fresh_seeds(self) -> SweepConfig:
        if self.base.seed in self.confirm.seeds:
            raise ValueError(used_seed(self.base.seed, self.confirm.seeds))
        return self
