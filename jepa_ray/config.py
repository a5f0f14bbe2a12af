"""What one trial is (TrialConfig) and what a sweep is (SweepConfig): frozen records, unknown keys refused.

Only types, bounds and identity live here. Reading YAML is `loading.py`, distributions are `space.py`. Imports pydantic only.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from jepa_ray.space import Distribution, Record, show

VALIDATION_METRICS = tuple(
    f"val_{name}" for name in ("accuracy", "exact", "prefix", "contains", "stopped", "paper", "equivalent", "retrieval")
)
"""Columns that a search may select by."""

MASKED_METRICS = ("val_accuracy", "val_retrieval")
"""Those of masked encoders: a linear probe's accuracy, and nearest neighbours with the same label."""


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


class GradRatio(Record):
    """lambda from the gradients: such that at the first step the JEPA term's gradient has this share of the cross-entropy's norm."""

    grad_ratio: float = Field(gt=0)


IN_SEQUENCE = ("tube", "tube_patch", "tube_ends", "tube_means", "curvature")
"""Layouts that read states off the training sequence itself and encode no views."""


class ObjectiveConfig(Record):
    """The JEPA term: lambda * d(Pred(Enc(Text)), Enc(Code)), added to gamma * cross-entropy (paper, eq. 1-2).

    What is encoded, where it is read, by which encoder, and how far apart two states are can each be chosen by itself: see OBJECTIVES.md.
    """

    distance: Literal["cosine", "l2", "mse", "smooth_l1", "infonce"] = "cosine"
    """d of the two embeddings: 1 - cosine, L2 norm, mean squared error, mean Huber loss, or InfoNCE against the step's other targets."""
    lambda_: float | GradRatio = Field(1.0, alias="lambda")
    """Weight of the JEPA term; or `{grad_ratio: 0.5}`. 0 (at gamma = 1) is the baseline, bit for bit."""
    lambda_effective: float | None = Field(None, gt=0)
    """In place of lambda: lambda * (1 - loss_dropout), which the paper's rule of thumb keeps constant."""
    gamma: float = Field(1.0, ge=0)
    """Weight of the next-token cross-entropy."""
    k: int = Field(1, ge=0, le=64)
    """Predictor tokens; 0: none. (In-sequence layouts and `target: stop_source` have none.)"""
    loss_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of optimizer steps that skip the JEPA term, and with it the encoding of the views."""
    loss_dropout_mode: Literal["random", "periodic"] = "random"
    """random: each step by itself. periodic: the term is active in every m-th step, m = 1 / (1 - loss_dropout), rounded."""
    lambda_warmup: float = Field(0.0, ge=0, lt=1)
    """Share of all steps over which lambda rises linearly from zero."""
    lambda_end: float = Field(1.0, ge=0)
    """Multiple of lambda at the last step; after the warm-up it moves there linearly. 1: it stays."""
    layout: Literal["append", "prepend", "reverse", "shared_prefix", "tube", "tube_patch", "tube_ends", "tube_means", "curvature"] = (
        "append"
    )
    """What is encoded: predictor tokens after the Text view, before it, after the Code view (Code -> Text), or after the training
    sequence's own prompt; or states of the training sequence itself (Semantic Tube and its variants)."""
    readout: Literal["last", "mean"] = "last"
    """A view's embedding: the state of its last token, or the mean over its content tokens (and predictor tokens)."""
    layer: float = Field(1.0, gt=0, le=1)
    """Depth of the states that are read, as a fraction of the layers, rounded."""
    final_norm: bool = True
    """Read states after the model's final norm, or before it."""
    target: Literal["online", "stop_target", "stop_source", "ema"] = "online"
    """Which side the term trains: both, all but the target, all but the source; or the target comes from an exponential moving average of
    the trained weights (adapters only under LoRA), without gradient."""
    ema_momentum: float = Field(0.99, ge=0, lt=1)
    """Share of the average that each step keeps."""
    ema_end: float | None = Field(None, ge=0, le=1)
    """Momentum at the last step, reached along a half cosine; None: constant."""
    predictor: Literal["tokens", "linear", "mlp"] = "tokens"
    """tokens: the network itself, through its predictor tokens. linear, mlp: besides, a trained map of the source state."""
    predictor_width: int | None = Field(None, ge=1)
    """Hidden units of the mlp; None: as wide as the states."""
    predictor_lr_factor: float = Field(1.0, gt=0)
    """Multiple of the learning rate for what the predictor alone trains: its map and the predictor tokens."""
    normalize: bool = False
    """Scale both states to length 1 before the distance."""
    temperature: float = Field(0.07, gt=0)
    """InfoNCE: cosines are divided by it."""
    symmetric: bool = False
    """InfoNCE: the mean of both directions, source among targets and target among sources."""
    gather: bool = True
    """InfoNCE: negatives come from all workers' share of the step, too."""
    variance: float = Field(0.0, ge=0)
    """Weight of VICReg's variance term, relative to the distance's."""
    covariance: float = Field(0.0, ge=0)
    """Weight of VICReg's covariance term."""
    sigreg: float = Field(0.0, ge=0)
    """Weight of SIGReg (LeJEPA, arXiv 2511.08544): states are drawn towards an isotropic Gaussian."""
    control: Literal["none", "monitor", "zero", "shuffled", "constant_target"] = "none"
    """monitor: the term is measured, without gradient. zero: it is computed in full and weighted 0. shuffled: pairs are exchanged among the
    examples of a step. constant_target: every target is the same fixed random state."""

    @property
    def fixed_lambda(self) -> float | None:
        """The weight lambda as a number; None where the first step's gradients decide it."""
        if self.lambda_effective is not None:
            return self.lambda_effective / self.active_share
        return None if isinstance(self.lambda_, GradRatio) else self.lambda_

    @property
    def active_share(self) -> float:
        """Share of steps in which the term is active."""
        if self.loss_dropout_mode == "periodic":
            return 1 / round(1 / (1 - self.loss_dropout))
        return 1 - self.loss_dropout

    @property
    def encodes_views(self) -> bool:
        """Whether the two views are encoded by themselves."""
        return self.layout not in IN_SEQUENCE

    @field_validator("lambda_")
    @classmethod
    def _not_negative(cls, value: float | GradRatio) -> float | GradRatio:
        if not isinstance(value, GradRatio) and value < 0:
            raise ValueError(f"must be at least 0, got {show(value)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _no_tokens_in_sequence(cls, value: Any) -> Any:
        if isinstance(value, dict) and (value.get("layout") in IN_SEQUENCE or value.get("target") == "stop_source"):
            return {"k": 0, **value}
        return value

    @model_validator(mode="after")
    def _no_idle_knob(self) -> ObjectiveConfig:
        """Refuse what would run as something else than it says: a knob without effect, or a variant that is another one."""
        reason = idle_knob(self)
        if reason is not None:
            raise ValueError(reason)
        return self


def idle_knob(objective: ObjectiveConfig) -> str | None:
    """Why a combination is refused; None where every knob has its effect."""
    own = {name: field.default for name, field in ObjectiveConfig.model_fields.items()}
    changed = {name for name, default in own.items() if getattr(objective, name) != default}
    symmetric_distance = objective.distance != "infonce" or objective.symmetric
    same_sides = objective.target == "online" and objective.predictor == "tokens" and objective.control != "constant_target"
    if objective.encodes_views:
        if objective.layout == "prepend" and objective.k == 0:
            return "layout prepend with k = 0 is layout append with k = 0: there is nothing to prepend; set k, or layout: append"
        if objective.layout == "reverse" and objective.k == 0 and symmetric_distance and same_sides:
            return (
                "layout reverse with k = 0 and a symmetric distance is layout append: the two sides do not differ; set k, or layout: append"
            )
    else:
        for name in ("readout", "predictor", "k"):
            if name in changed and (name != "k" or objective.k):
                return f"{name} has no effect with layout {objective.layout}, which encodes no views; drop it"
        if objective.control == "shuffled":
            return f"layout {objective.layout} pairs states of one sequence, so there are no pairs to exchange; drop control: shuffled"
        if objective.target == "ema" or objective.control == "constant_target":
            asked = "target: ema" if objective.target == "ema" else "a constant target"
            return f"layout {objective.layout} has no target of its own for {asked}"
    needs = (
        (("temperature", "symmetric", "gather"), objective.distance == "infonce", "distance: infonce"),
        (("ema_momentum", "ema_end"), objective.target == "ema", "target: ema"),
        (("predictor_width",), objective.predictor == "mlp", "predictor: mlp"),
        (("predictor_lr_factor",), objective.predictor != "tokens" or objective.k > 0, "a predictor (k above 0, or predictor: mlp)"),
        (("loss_dropout_mode",), objective.loss_dropout > 0, "loss_dropout above 0"),
        (("normalize",), objective.distance not in ("cosine", "infonce"), "a distance that depends on length (l2, mse, smooth_l1)"),
    )
    for names, met, condition in needs:
        for name in names:
            if name in changed and not met:
                return f"{name} has no effect without {condition}; drop it, or set that"
    if objective.target == "stop_source" and (objective.predictor != "tokens" or "predictor_lr_factor" in changed):
        return "target stop_source trains the target side only, so that no predictor learns; drop the predictor, or set target: online"
    if objective.control == "constant_target" and objective.target != "online":
        return f"control constant_target replaces the target, so target: {objective.target} has no effect; drop it"
    if objective.loss_dropout_mode == "periodic" and objective.active_share == 1:
        return (
            f"loss_dropout {objective.loss_dropout:g} in periodic mode skips no step: 1 / (1 - loss_dropout) rounds to 1; set at least 0.34"
        )
    if objective.gamma == 0 and (isinstance(objective.lambda_, GradRatio) or objective.fixed_lambda == 0):
        return "gamma = 0 leaves nothing to train, or nothing to set lambda by; give lambda as a number above 0"
    if objective.distance == "infonce" and objective.control == "constant_target" and not objective.symmetric:
        return "control constant_target makes all targets equal, so infonce has no effect (no gradient); use another distance"
    if objective.target == "stop_source" and objective.k > 0:
        return "target stop_source trains no predictor token, so that k reads a random one; set k: 0"
    if isinstance(objective.lambda_, GradRatio) and objective.control in ("monitor", "zero"):
        return f"control {objective.control} weighs the term with 0, so lambda: grad_ratio has no effect; drop it"
    if "lambda_" in changed and objective.lambda_effective is not None:
        return "lambda and lambda_effective are given, but one follows from the other; drop one"
    return None


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
    diagnostic_pairs: int = Field(128, ge=0)
    """Validation pairs whose embeddings are diagnosed at the start, at the end, and between where it is cheap; 0: none."""
    diagnostic_share: float = Field(0.03, ge=0)
    """Share of training's FLOPs that diagnostics between start and end may cost."""
    every: int = Field(1, ge=1)
    """Validate after every so many epochs (and always after the last)."""
    test: bool = False
    """Also score the sealed test split, once, after the last epoch. Set by the confirmation stage only."""


class MaskingConfig(Record):
    """Which tokens of a passage are hidden."""

    mask_ratio: float = Field(0.3, gt=0, lt=1)
    """Share of a passage's tokens (special ones not counted) at which spans stop being added."""
    mean_span: float = Field(3.0, ge=1)
    """Mean length of a span in tokens; lengths are exponential, rounded up. 1: single tokens."""


class MaskedConfig(MaskingConfig):
    """A masked encoder is trained instead of a causal model: cross-entropy (weight gamma) and JEPA term (lambda) at hidden tokens.

    The baseline, `none`, is masked-language-model training at the same positions. See `training/masked.py`.
    """

    corpus: str | None = None
    """Text file, one passage per line, to train on; None: the texts of the task's training split. The task's labels are for probes only."""
    keep_checkpoints: Literal["all", "confirmed", "none"] = "all"
    """Of which trials both encoders, predictor and optimizer stay in `results/<name>/checkpoints/`."""


MASKED_OBJECTIVE = {"distance": "cosine", "target": "ema", "predictor": "mlp", "k": 0}
"""What the JEPA term of a masked encoder always is."""
MASKED_KNOBS = ("lambda", "gamma", "ema_momentum", "ema_end", "predictor_width", "predictor_lr_factor")
"""What it leaves open."""


def masked_misfit(objective: ObjectiveConfig) -> str | None:
    """Why a masked encoder cannot be trained with an objective; None where it can."""
    fixed = ", ".join(f"{name}: {value}" for name, value in MASKED_OBJECTIVE.items())
    for name, field in ObjectiveConfig.model_fields.items():
        alias, value = field.alias or name, getattr(objective, name)
        if alias in MASKED_OBJECTIVE and value != MASKED_OBJECTIVE[alias]:
            return f"{alias} = {show(value)}, but with base.masked the JEPA term has {{{fixed}}}; write those four"
        if alias not in (*MASKED_OBJECTIVE, *MASKED_KNOBS) and value != field.default:
            return f"{alias} has no effect with base.masked, where the JEPA term has {', '.join(MASKED_KNOBS)}; drop it"
    if isinstance(objective.lambda_, GradRatio):
        return "lambda from gradients is not there with base.masked; give a number"
    return None


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
    masked: MaskedConfig | None = None
    """Train a masked encoder; None: a causal model."""
    optim: OptimConfig = OptimConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(1, ge=0)
    """Replicate: data order, new weights, dropout and loss dropout each draw from a stream of their own derived from it."""

    @model_validator(mode="after")
    def _fit_for_masked(self) -> TrialConfig:
        if self.masked is not None and self.objective is not None and (reason := masked_misfit(self.objective)):
            raise ValueError(reason)
        return self


class BaseConfig(Record):
    """Defaults that every arm of a sweep starts from (TrialConfig without what the arm itself fixes)."""

    model: NetworkConfig = NetworkConfig()
    masked: MaskedConfig | None = None
    """Train masked encoders (families `distilbert`, `bert`); None: causal models."""
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


class CrossEntropyConfig(Record):
    """What a method's cross-entropy is taken over, where that is not `base.optim`'s: the reference's defects as ablations of their own."""

    loss_on: Literal["answer", "all"] | None = None
    train_end_of_turn: bool | None = None


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
    cross_entropy: dict[str, CrossEntropyConfig] = Field(default_factory=dict)
    """Method -> `loss_on` and `train_end_of_turn` of its own."""
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

    def baseline_of(self, method: str) -> str | None:
        """The method without a JEPA term that a method is compared with: the first one with the same loss side."""
        side = self.cross_entropy.get(method, CrossEntropyConfig())
        return next(
            (name for name, own in self.methods.items() if own is None and self.cross_entropy.get(name, CrossEntropyConfig()) == side), None
        )

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
    objective = dict.fromkeys(field.alias or name for name, field in ObjectiveConfig.model_fields.items()) | {
        "distance": "none",
        "gamma": 1.0,
        "k": 0,
        "loss_dropout": 0.0,
    }
    objective |= tree.pop("objective") or {}
    ratio = objective["lambda"]["grad_ratio"] if isinstance(objective["lambda"], dict) else None
    objective["lambda"] = config.objective.fixed_lambda if config.objective is not None else 0.0
    masked = tree.pop("masked") or dict.fromkeys(MaskedConfig.model_fields)
    lora = tree.pop("lora") or {"r": None, "alpha": None, "dropout": None}
    pretrain = tree.pop("pretrain") or {name: None for name in PretrainConfig.model_fields if name != "data"}
    files = pretrain.pop("data", None) or dict.fromkeys(DataConfig.model_fields)
    flat = {
        "objective": objective.pop("distance"),
        "lambda_grad_ratio": ratio,
        **objective,
        **{f"lora_{key}": value for key, value in lora.items()},
    }
    flat |= masked | {f"pretrain_{key}": value for key, value in pretrain.items()}
    flat |= {f"pretrain_{_FILES.get(key, key)}": value for key, value in files.items()}
    flat["evaluate_test"] = tree["evaluation"].pop("test")
    flat["eval_batch_size"] = tree["evaluation"].pop("batch_size")
    flat["eval_every"] = tree["evaluation"].pop("every")
    flat |= {column: tree["data"].pop(key) for key, column in _FILES.items()}
    for part in ("model", "data", "optim", "evaluation"):
        flat |= tree[part]
    return flat | {"seed": tree["seed"]}
