"""What one trial is (TrialConfig) and what a sweep is (SweepConfig): frozen records, unknown keys refused.

Only types, bounds and identity live here. Reading YAML is `loading.py`, distributions are `space.py`. Imports pydantic only.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from jepa_ray.space import Distribution, Record, show

VALIDATION_METRICS = tuple(f"val_{name}" for name in ("accuracy", "exact", "prefix", "contains", "stopped", "paper", "equivalent"))
"""Columns that a search may select by."""


class LoraConfig(Record):
    """Low-rank adapters on all linear layers (paper: alpha = 2r, dropout 0.1)."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: float | None = Field(None, gt=0)
    """Scale of the update, applied as alpha / r. None: 2r, as in the paper."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout on the adapters' input."""


class NetworkConfig(Record):
    """How a network starts out, is held in memory and computed."""

    init: Literal["pretrained", "random"] = "pretrained"
    """`random` keeps the architecture and tokenizer and draws new weights from the seed."""
    trust_remote_code: bool = False
    """Run Python code that comes with a checkpoint. Off unless asked for."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU (fp32 master weights for what is trained), fp32 on a CPU."""
    packing: Literal["auto", "trie", "flat", "plain"] = "auto"
    """How token sequences share rows. All are exact; auto is the trie, which never holds more tokens (see `data/packing.py`)."""


class ModelConfig(NetworkConfig):
    """Which network is trained."""

    family: str
    """A name in `models.families.FAMILIES`."""
    model: str = "tiny"
    """`tiny` (built in), `paper` (the hub id the paper used), a hub id, or a local folder in Hugging Face's format."""


class DataConfig(Record):
    """Where examples come from and how they are split. None in `train`: the built-in generator."""

    task: str = "nl-rx"
    """A name in `data.datasets.DATASETS`."""
    train: str | None = None
    """A file in the reference's format (JSON lines of `{"messages": [...]}`) or the public source's own; `hub:ORG/NAME[@CONFIG]:SPLIT`;
    `paper`: the task's public source on the hub. None: the built-in generator."""
    test: str | None = None
    """The sealed test split, likewise. Needed where `train` is given and confirmation is asked for."""
    databases: str | None = None
    """Spider's folder of databases, `<db_id>/<db_id>.sqlite` in it. None: the built-in ones, for generated examples."""
    num_train: int | None = Field(None, ge=1)
    """Training examples kept (a seeded subset); None: all of the file, or 2,400 generated."""
    num_val: int = Field(256, ge=1)
    """Validation examples, split off the training data by whole groups of equal targets."""
    num_test: int | None = Field(None, ge=1)
    """Test examples kept; None: all of the file, or 512 generated."""
    split_seed: int = 0
    """Seed of the split and of the built-in generator; not a trial's seed: all trials of a sweep share one split."""
    base_fraction: float = Field(0.5, gt=0, lt=1)
    """Only for `model: tiny`: share of the training split that pre-trains the tiny base and is then not fine-tuned on."""
    max_length: int = Field(512, ge=8)
    """Longest sequence in tokens; a longer example is counted, dropped and reported."""


class ObjectiveConfig(Record):
    """The JEPA term: lambda * d(Pred(Enc(Text)), Enc(Code)), added to gamma * cross-entropy (paper, eq. 1-2)."""

    distance: Literal["cosine", "l2", "mse"] = "cosine"
    """d: 1 - cosine, L2 norm, or mean squared error of the two embeddings."""
    lambda_: float = Field(1.0, ge=0, alias="lambda")
    """Weight of the JEPA term. 0 (at gamma = 1) is the baseline, bit for bit."""
    gamma: float = Field(1.0, ge=0)
    """Weight of the next-token cross-entropy."""
    k: int = Field(1, ge=0, le=64)
    """Predictor tokens after the Text view; 0: the predictor is the identity."""
    loss_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that an optimizer step skips the JEPA term, and with it the encoding of the views."""


class OptimConfig(Record):
    """AdamW, its schedule, and what the cross-entropy is taken over."""

    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate."""
    num_epochs: int = Field(4, ge=1)
    """Passes over the training split."""
    batch_size: int = Field(128, ge=1)
    """Examples per optimizer step, over all workers (paper: 4 x 4 x 8 = 128)."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Examples per forward pass and worker; None: the worker's whole share of a step. Changes nothing but rounding."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay after the warm-up, to zero at the last step."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of all steps over which the learning rate rises linearly from zero."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW), on matrices only."""
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    max_grad_norm: float | None = Field(1.0, gt=0)
    """Global gradient norm above which gradients are scaled down; None: no clipping."""
    loss_on: Literal["answer", "all"] = "answer"
    """Cross-entropy over the answer and its end of turn, or over every token after the first."""
    train_end_of_turn: bool = True
    """False is the reference's defect 1, kept as an ablation: the model is never taught to stop."""


class PretrainConfig(OptimConfig):
    """A first training stage on other data, of the whole network, before the fine-tuning that `optim` and `lora` describe (paper, T9)."""

    data: DataConfig
    """What it trains on; its validation and test splits are not used."""
    objective_in: Literal["pretrain", "finetune", "both"] = "pretrain"
    """Which stage has the method's JEPA term; the other is plain next-token training. Predictor tokens are each stage's own."""
    seed: int | None = Field(None, ge=0)
    """Replicate of this stage. None: the trial's own; given, trials that differ in later settings only share its checkpoint."""

    def optim(self) -> OptimConfig:
        """The stage's optimizer settings alone."""
        return OptimConfig(**{name: getattr(self, name) for name in OptimConfig.model_fields})


class EvaluationConfig(Record):
    """Greedy generation and scoring."""

    batch_size: int = Field(64, ge=1)
    """Prompts generated together, sorted by length."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Token cap; an output that reaches it counts as not stopped. None: the task's own."""
    judge: Literal["task", "text"] = "task"
    """task: the task's own criterion. text: an answer is correct when it equals the reference as text (needs no databases, say)."""
    sql_strict: bool = False
    """Rows of a query must come in the reference's order always, not only where the reference asks for an order."""
    every: int = Field(1, ge=1)
    """Validate after every so many epochs (and always after the last)."""
    test: bool = False
    """Also score the sealed test split, once, after the last epoch. Set by the confirmation stage only."""


class TrialConfig(Record):
    """Everything that determines a trial's numbers."""

    model: ModelConfig
    pretrain: PretrainConfig | None = None
    """A stage before the fine-tuning; None: there is none."""
    lora: LoraConfig | None = None
    """Low-rank adapters; None: full fine-tuning."""
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig | None = None
    """The JEPA term; None: plain next-token fine-tuning, the baseline."""
    optim: OptimConfig = OptimConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(1, ge=0)
    """Replicate: data order, new weights, dropout and loss dropout each draw from a stream of their own derived from it."""


class BaseConfig(Record):
    """Defaults that every arm of a sweep starts from (TrialConfig without what the arm itself fixes)."""

    model: NetworkConfig = NetworkConfig()
    lora: LoraConfig | None = None
    optim: OptimConfig = OptimConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(1, ge=0)
    """Seed of every search trial; the confirmation uses `confirm.seeds` instead."""


class TaskData(Record):
    """One task of several in a sweep: keys that differ from the sweep's `data`; None: as there."""

    train: str | None = None
    test: str | None = None
    databases: str | None = None
    num_train: int | None = Field(None, ge=1)
    num_val: int | None = Field(None, ge=1)
    num_test: int | None = Field(None, ge=1)
    max_length: int | None = Field(None, ge=8)
    max_new_tokens: int | None = Field(None, ge=1)
    """Token cap of a generated answer, in place of `base.evaluation.max_new_tokens`."""


class SearchConfig(Record):
    """How configurations are proposed, arm by arm, with the same budget for each."""

    algorithm: Literal["tpe", "random", "grid", "gp", "qmc", "cmaes"] = "tpe"
    num_trials: int = Field(20, ge=1)
    """Trials per arm."""
    metric: str = "val_accuracy"
    """Column of the trials table that selects; always measured on validation."""
    mode: Literal["max", "min"] = "max"
    seed: int = 0

    @field_validator("metric")
    @classmethod
    def _validation_only(cls, value: str) -> str:
        if value not in VALIDATION_METRICS:
            raise ValueError(f"must be one of {', '.join(VALIDATION_METRICS)} (the test split stays sealed), got {value!r}")
        return value


class SchedulerConfig(Record):
    """Early stopping inside each arm: asynchronous successive halving (ASHA), or none."""

    name: Literal["asha", "none"] = "asha"
    time_attr: Literal["epoch", "train_flops"] = "epoch"
    """What a rung counts. train_flops: `grace_period` and rungs are in FLOPs."""
    grace_period: float = Field(1, gt=0)
    """No trial is stopped before this much."""
    reduction_factor: float = Field(3, gt=1)
    """At each rung the best 1/reduction_factor go on."""


class ConfirmConfig(Record):
    """The best configuration of each arm, frozen, again on fresh seeds, and once on the test split."""

    seeds: tuple[int, ...] = (82, 23, 37, 84, 4)
    """The same for all arms, so that differences pair up. Empty: no confirmation. (The paper's five by default.)"""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"must be distinct seeds, got {show(value)}; drop the repeated one")
        if any(seed < 0 for seed in value):
            raise ValueError(f"must be at least 0, each of them, got {show(value)}")
        return value


class ResourcesConfig(Record):
    """What one trial occupies, and how many run at once."""

    workers_per_trial: int = Field(1, ge=1)
    """Data-parallel workers of one trial (DDP)."""
    cpus_per_worker: int = Field(1, ge=1)
    gpus_per_worker: float | None = Field(None, ge=0)
    """None: one GPU where the cluster has any, else none."""
    max_concurrent: int | None = Field(None, ge=1)
    """Trials at once; None: as many as fit."""
    address: str | None = None
    """Ray cluster to join (`auto` or `ray://...`); None: start one on this machine."""
    dashboard: bool = True
    max_failures: int = Field(2, ge=0)
    """How often a trial whose process died is started again, from its last epoch."""


class SweepConfig(Record):
    """A whole sweep: arms = families x tasks x methods, each searched over `space` with an equal budget."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    output: str = "results"
    families: tuple[str, ...] = Field(("llama3",), min_length=1)
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
    space: dict[str, Distribution] = Field(default_factory=dict)
    """Path in TrialConfig (`optim.learning_rate`, `objective.lambda`, `lora.r`) -> distribution."""
    search: SearchConfig = SearchConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    confirm: ConfirmConfig = ConfirmConfig()
    resources: ResourcesConfig = ResourcesConfig()
    base: BaseConfig = BaseConfig()

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
            raise ValueError(f"task is {task!r}, but data.task is {data['task']!r}; drop data.task")
        return {**value, "task": task, "data": {**data, "task": first}}

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the file."""
        return tuple(self.task)

    def model_of(self, family: str) -> str:
        """`tiny`, `paper`, hub id or folder of one of the families."""
        return self.model if isinstance(self.model, str) else self.model[family]

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
            raise ValueError(f"confirm.seeds contains base.seed = {self.base.seed}: confirmation needs fresh seeds; change one of the two")
        return self


def canonical(config: Record) -> dict[str, Any]:
    """Plain-JSON form of a record, in YAML's words (`lambda`, not `lambda_`)."""
    return config.model_dump(mode="json", by_alias=True)


def config_id(config: TrialConfig, identity: str) -> str:
    """Identity of a run: 16 hex digits over the resolved configuration and the identity of data, weights and workers. Same id on the
    same machine, same numbers."""
    text = json.dumps([canonical(config), identity], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_FILES = {"train": "train_file", "test": "test_file"}


def columns(config: TrialConfig) -> dict[str, Any]:
    """Every leaf of a TrialConfig as a table column (see the results contract): bare leaf names, `lora_` for adapters,
    `pretrain_` for the first stage.

    Baselines have `objective` "none", lambda 0 and k 0, and no loss dropout.
    """
    tree = canonical(config)
    objective = tree.pop("objective") or {"distance": "none", "lambda": 0.0, "gamma": 1.0, "k": 0, "loss_dropout": 0.0}
    lora = tree.pop("lora") or {"r": None, "alpha": None, "dropout": None}
    pretrain = tree.pop("pretrain") or {name: None for name in PretrainConfig.model_fields if name != "data"}
    files = pretrain.pop("data", None) or dict.fromkeys(DataConfig.model_fields)
    flat = {"objective": objective.pop("distance"), **objective, **{f"lora_{key}": value for key, value in lora.items()}}
    flat |= {f"pretrain_{key}": value for key, value in pretrain.items()}
    flat |= {f"pretrain_{_FILES.get(key, key)}": value for key, value in files.items()}
    flat["evaluate_test"] = tree["evaluation"].pop("test")
    flat["eval_batch_size"] = tree["evaluation"].pop("batch_size")
    flat["eval_every"] = tree["evaluation"].pop("every")
    flat |= {column: tree["data"].pop(key) for key, column in _FILES.items()}
    for part in ("model", "data", "optim", "evaluation"):
        flat |= tree[part]
    return flat | {"seed": tree["seed"]}
