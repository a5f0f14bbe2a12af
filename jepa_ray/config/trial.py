"""What one trial is: frozen records, their identity and their columns in the tables.

Imports pydantic, `space` and the JEPA term's record only.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from jepa_ray.config.objective import ObjectiveConfig, masked_misfit
from jepa_ray.config.record import Record


class LoraConfig(Record):
    """Low-rank adapters on all linear layers (paper: alpha = 2r, dropout 0.1)."""

    r: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: float | None = Field(None, gt=0)
    """Scale of the update, applied as alpha / r. If null, 2r as in the paper."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout probability on the adapters' input."""


class NetworkConfig(Record):
    """How a network is initialised, stored in memory and computed."""

    init: Literal["pretrained", "random"] = "pretrained"
    """pretrained: the weights of the checkpoint. random: its architecture and tokenizer, with new weights drawn from the seed."""
    trust_remote_code: bool = False
    """Allow Python code that comes with a checkpoint to run."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU (with fp32 master weights for trained parameters), fp32 on a CPU."""
    packing: Literal["auto", "trie", "flat", "plain"] = "auto"
    """How token sequences share rows. All ways are exact; auto is trie, which never needs more tokens (see `data/packing.py`), or plain for
    architectures whose sequences cannot share rows."""
    attention: Literal["auto", "bucketed", "flex"] = "auto"
    """How tokens of a packed row attend. Both ways are exact. bucketed: PyTorch's fused attention, once per group of similar sequences.
    flex: FlexAttention, one kernel for the row (on a CPU a dense mask, for tests). auto: flex on a GPU, and with `compile: true`."""
    compile: Literal["auto", "true", "false"] = "auto"
    """Whether the layers run as one graph from torch.compile, which needs flex attention. auto: on a GPU, if the trial has enough steps to
    repay the compilation. Some trials run without: see docs/performance.md."""

    @field_validator("compile", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value).lower() if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _compiled_by_flex(self) -> NetworkConfig:
        if self.compile == "true" and self.attention == "bucketed":
            raise ValueError("compile = true needs attention = flex, because bucketed attention has new shapes in every batch; drop one")
        if self.packing == "plain" and (self.attention == "flex" or self.compile == "true"):
            raise ValueError("packing = plain uses the model's own attention, so attention = flex and compile = true need trie or flat")
        return self


class ModelConfig(NetworkConfig):
    """The network to train."""

    family: str
    """Architecture with its chat template: a name in `models.families.FAMILIES`, or auto."""
    model: str = "tiny"
    """`tiny` (built in), `paper` (the hub id that the paper used), a hub id, or a local folder in Hugging Face's format."""


OwnJudge = Literal["exact", "contains", "number", "label", "regex", "sql"]
"""Judges that own data can choose; see `data/tasks/text.py`."""
OWN_DATA = ("judge", "text", "code", "system", "cluster")
"""Keys of `data` for `task: text` only."""


class DataConfig(Record):
    """Where examples come from and how they are split."""

    task: str = "nl-rx"
    """Task: a name in `data.datasets.DATASETS`."""
    train: str | None = None
    """Training data: a file in the reference's format (JSON lines of `{"messages": [...]}`) or in the public source's own,
    `hub:ORG/NAME[@CONFIG]:SPLIT`, or `paper` for the task's public source on the hub. If null, the built-in generator (`task: text`, your
    own data in any of the formats of `data/formats.py`, has none)."""
    test: str | None = None
    """Sealed test split, in the same form as `train`. Required if `train` is given and there is a confirmation. If null, generated."""
    databases: str | None = None
    """Spider's folder of databases, containing `<db_id>/<db_id>.sqlite`. If null, the built-in databases of generated examples."""
    judge: OwnJudge | None = None
    """Only for `task: text`: when an answer is correct. exact: equal to the reference as text. contains: the reference occurs in it.
    number: same number (the one alone on the line of the last `####`, else the last one). label: begins with the label, and with no longer
    one of the training data. regex: equal as text; equivalence is reported too. sql: same rows. If null, exact; every other task has its
    own judge."""
    text: str | None = None
    """Only for `task: text`: column of the Text view, with `code`. If null, the format is recognised by the first row's columns."""
    code: str | None = None
    """Only for `task: text`: column of the Code view, the reference answer, with `text`. If null, the format is recognised."""
    system: str | None = None
    """Only for `task: text`: system message of examples without one: a column, if one has this name, or else the text itself, of at
    least two words. If null, that of the rows, if they have one."""
    cluster: str | None = None
    """Only for `task: text`: column whose value groups examples of one source (a document, an author, a paraphrase group). The verdict then
    treats sources, not examples, as its sample. If null, examples that run on a database are grouped by it, others are independent."""
    num_train: int | None = Field(None, ge=1)
    """Number of training examples kept (a seeded subset). If null, all of the file, or 2,400 generated ones."""
    num_val: int = Field(256, ge=1)
    """Number of validation examples, split off the training data in whole groups of equal targets."""
    num_test: int | None = Field(None, ge=1)
    """Number of test examples kept. If null, all of the file, or 512 generated ones."""
    split_seed: int = 0
    """Seed of the split and of the built-in generator. Not a trial's seed: all trials of a sweep share one split."""
    base_fraction: float = Field(0.5, gt=0, lt=1)
    """Only for `model: tiny`: share of the training split that pretrains the tiny base and is excluded from fine-tuning."""
    max_length: int = Field(512, ge=8)
    """Maximum sequence length in tokens. Longer examples are dropped, counted and reported."""

    @model_serializer(mode="wrap")
    def _without_own(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out keys of own data that are null, so that identities of sweeps and trials without them are those of earlier versions."""
        return {name: value for name, value in serialise(self).items() if value is not None or name not in OWN_DATA}


class StageConfig(Record):
    """One stage of training: AdamW, its schedule, and the tokens of the cross-entropy."""

    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate."""
    num_epochs: int = Field(4, ge=1)
    """Number of passes over the training split."""
    batch_size: int = Field(128, ge=1)
    """Examples per optimizer step, over all workers (paper: 4 x 4 x 8 = 128)."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Examples per forward pass and worker. If null, `tokens_per_forward` applies. Affects only rounding and LoRA dropout masks, except for
    InfoNCE and the regularisers, which compare the pairs of one forward pass (of all workers)."""
    tokens_per_forward: int | None = Field(None, ge=1)
    """Maximum number of tokens per forward pass and worker, counted after packing. Examples are grouped so that all passes have about
    equally many. If null, the worker's whole share of a step, on a GPU as much of it as memory allows (InfoNCE and the regularisers: the
    whole share)."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the learning rate after the warm-up. linear and cosine decay to zero at the last step."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of all steps over which the learning rate rises linearly from zero."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW), applied to matrices only."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's decay rate of the running mean of gradients."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW's decay rate of the running mean of squared gradients."""
    max_grad_norm: float | None = Field(1.0, gt=0)
    """Global gradient norm above which gradients are scaled down. If null, no clipping."""
    loss_on: Literal["answer", "all"] = "answer"
    """answer: cross-entropy over the answer and its end of turn. all: over every token after the first."""
    train_end_of_turn: bool = True
    """Whether the model is trained to stop after its answer. false is the reference's defect 1, kept as an ablation."""

    @model_validator(mode="after")
    def _one_size(self) -> StageConfig:
        if self.micro_batch_size is not None and self.tokens_per_forward is not None:
            raise ValueError(
                f"micro_batch_size = {self.micro_batch_size} and tokens_per_forward = {self.tokens_per_forward} both set the size of a "
                f"forward pass; drop one"
            )
        return self


class OptimConfig(StageConfig):
    """The stage that is evaluated: the only one, or the fine-tuning after `pretrain`."""

    max_train_flops: float | None = Field(None, gt=0)
    """Budget of this stage in training FLOPs (column `train_flops_unpacked`): it runs as many of its steps as the budget allows, and the
    schedule ends with the last of them. If null, all steps of `num_epochs`."""


class PretrainConfig(StageConfig):
    """A first training stage on other data, of the whole network, before the fine-tuning that `optim` and `lora` describe (paper, T9)."""

    data: DataConfig
    """Training data of this stage. Its validation and test splits are not used."""
    objective_in: Literal["pretrain", "finetune", "both"] = "pretrain"
    """Which stage has the method's JEPA term; the other is plain next-token training. Each stage has its own predictor tokens."""
    seed: int | None = Field(None, ge=0)
    """Seed of this stage. If given, trials that differ only in later settings share its checkpoint. If null, the trial's own seed."""

    def optim(self) -> OptimConfig:
        """The optimizer settings of this stage."""
        return OptimConfig(**{name: getattr(self, name) for name in StageConfig.model_fields})


class EvaluationConfig(Record):
    """Greedy generation and scoring."""

    batch_size: int | None = Field(None, ge=1)
    """Number of prompts, sorted by length, that are generated together; null: 64, but on a GPU as many as half of its free memory
    holds, up to 512."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Maximum length of a generated answer in tokens; an output that reaches it counts as not stopped. If null, the task's own."""
    judge: Literal["task", "text"] = "task"
    """task: the task's own criterion. text: an answer is correct if it equals the reference as text (needs no databases, for example)."""
    sql_strict: bool = False
    """Always require the rows of a query in the reference's order, not only if the reference specifies an order."""
    diagnostic_pairs: int = Field(128, ge=0)
    """Number of validation pairs whose embeddings are diagnosed at the start, at the end, and in between if that is cheap. 0: none."""
    diagnostic_share: float = Field(0.03, ge=0)
    """Most that diagnostics between start and end may cost, as a share of the training FLOPs."""
    embeddings: int = Field(0, ge=0)
    """Validation pairs whose Text and Code states are saved after training (`embeddings/`), for confirmed trials only. 0: none."""
    every: int = Field(1, ge=1)
    """Number of epochs between validations; the last epoch is always validated."""
    at_steps: tuple[int, ...] = ()
    """Optimizer steps after which a search trial is validated as well. A sweep sets it to the rungs of `scheduler.time_attr: step`."""
    test: bool = False
    """Also score the sealed test split, once, after the last epoch. Only the confirmation stage sets this."""

    @property
    def encoded_together(self) -> int:
        """Number of examples per pass where nothing is generated: `batch_size`, or 64 if it is null."""
        return self.batch_size or 64

    @model_serializer(mode="wrap")
    def _without_rungs(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out `at_steps` if it is empty: the identities of sweeps and trials without it are those from before it existed."""
        tree: dict[str, Any] = serialise(self)
        if not self.at_steps:
            tree.pop("at_steps", None)
        return tree


class MaskingConfig(Record):
    """Which tokens of a passage are hidden."""

    mask_ratio: float = Field(0.3, gt=0, lt=1)
    """Share of a passage's tokens (excluding special ones) to hide: spans are added until it is reached."""
    mean_span: float = Field(3.0, ge=1)
    """Mean length of a hidden span in tokens. Lengths are exponential, rounded up. 1: single tokens."""


class MaskedConfig(MaskingConfig):
    """Trains a masked encoder instead of a causal model: cross-entropy (weight gamma) and JEPA term (weight lambda) at hidden tokens.

    The baseline, `none`, is masked-language-model training at the same positions. See `masked/trial.py`.
    """

    corpus: str | None = None
    """Text file with one training passage per line. If null, the texts of the task's training split. Only probes use the task's labels."""
    keep_checkpoints: Literal["all", "confirmed", "none"] = "all"
    """Trials whose encoders (both), predictor and optimizer are kept in `results/<name>/checkpoints/`."""


class TrialConfig(Record):
    """Everything that determines a trial's results."""

    model: ModelConfig
    pretrain: PretrainConfig | None = None
    """A training stage before the fine-tuning. If null, there is none."""
    lora: LoraConfig | None = None
    """Low-rank adapters. If null, full fine-tuning."""
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig | None = None
    """The JEPA term. If null, plain next-token fine-tuning: the baseline."""
    masked: MaskedConfig | None = None
    """Train a masked encoder. If null, a causal model."""
    optim: OptimConfig = OptimConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(1, ge=0)
    """Seed of the trial: data order, new weights, dropout and loss dropout each draw from a separate stream derived from it."""

    @model_validator(mode="after")
    def _fit_for_masked(self) -> TrialConfig:
        if self.masked is not None and self.objective is not None and (reason := masked_misfit(self.objective)):
            raise ValueError(reason)
        return self


def canonical(config: Record) -> dict[str, Any]:
    """Plain-JSON form of a record with the key names of the YAML file (`lambda`, not `lambda_`)."""
    return config.model_dump(mode="json", by_alias=True)


_LATER_KEYS = {"attention": "auto", "compile": "auto", "tokens_per_forward": None}
"""Keys that earlier versions did not have, with the values under which they train as those did; there they are no part of an identity."""


def config_id(config: TrialConfig, identity: str) -> str:
    """Identity of a run: 16 hex digits over the resolved configuration and the identity of data, weights and workers. Equal ids on the
    same machine mean equal results. Validations within an epoch (`evaluation.at_steps`) change no result and do not count."""
    tree = canonical(config)
    for part in ("model", "optim", "pretrain"):
        for name, default in _LATER_KEYS.items():
            if tree[part] is not None and tree[part].get(name) == default:
                tree[part].pop(name, None)
    for data in (tree["data"], (tree["pretrain"] or {}).get("data", {})):
        if data.get("judge") == "exact":  # the same as null
            data.pop("judge")
    tree["evaluation"]["batch_size"] = tree["evaluation"]["batch_size"] or 64  # what null was before it existed, and is on a CPU
    tree["evaluation"].pop("at_steps", None)
    text = json.dumps([tree, identity], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_DATA = {"train": "train_file", "test": "test_file", **{name: f"data_{name}" for name in OWN_DATA}}
"""Keys of data whose columns have another name."""


def columns(config: TrialConfig) -> dict[str, Any]:
    """Every leaf of a TrialConfig as a table column (see the results contract), named by its leaf, with the prefix `lora_` for adapters
    and `pretrain_` for the first stage.

    Baselines have `objective` "none", lambda 0, k 0 and no loss dropout.
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
    flat |= {f"pretrain_{_DATA.get(key, key)}": files.get(key) for key in DataConfig.model_fields}
    flat["evaluate_test"] = tree["evaluation"].pop("test")
    flat["eval_batch_size"] = tree["evaluation"].pop("batch_size")
    flat["eval_every"] = tree["evaluation"].pop("every")
    flat["eval_at_steps"] = ";".join(map(str, tree["evaluation"].pop("at_steps", []))) or None
    flat |= {column: tree["data"].pop(key, None) for key, column in _DATA.items()}
    for part in ("model", "data", "optim", "evaluation"):
        flat |= tree[part]
    return flat | {"seed": tree["seed"]}
