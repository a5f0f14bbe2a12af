"""What one trial is: frozen records, their identity, and their columns in the tables.

Imports pydantic, `space` and the JEPA term's record only.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, model_validator

from jepa_ray.config.objective import ObjectiveConfig, masked_misfit
from jepa_ray.config.record import Record


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


class StageConfig(Record):
    """AdamW, its schedule, and what the cross-entropy is taken over: one stage of training."""

    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate."""
    num_epochs: int = Field(4, ge=1)
    """Passes over the training split."""
    batch_size: int = Field(128, ge=1)
    """Examples per optimizer step, over all workers (paper: 4 x 4 x 8 = 128)."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Examples per forward pass and worker; None: the worker's whole share of a step, on a GPU 4,096 tokens of it. Changes nothing but
    rounding and the masks of LoRA dropout, except for InfoNCE and the regularisers, which compare the pairs of one forward pass (of all
    workers); for those None is the whole share also on a GPU."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay after the warm-up, to zero at the last step."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of all steps over which the learning rate rises linearly from zero."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW), on matrices only."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's decay of the gradients' running mean."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW's decay of the squared gradients' running mean."""
    max_grad_norm: float | None = Field(1.0, gt=0)
    """Global gradient norm above which gradients are scaled down; None: no clipping."""
    loss_on: Literal["answer", "all"] = "answer"
    """Cross-entropy over the answer and its end of turn, or over every token after the first."""
    train_end_of_turn: bool = True
    """False is the reference's defect 1, kept as an ablation: the model is never taught to stop."""


class OptimConfig(StageConfig):
    """The stage that is judged; the only one, or the fine-tuning after `pretrain`."""

    max_train_flops: float | None = Field(None, gt=0)
    """Training FLOPs (`train_flops_unpacked` of the tables) that this stage may spend: it makes as many of its steps as they pay for, and
    the schedule ends with the last of them. None: all steps of `num_epochs`."""


class PretrainConfig(StageConfig):
    """A first training stage on other data, of the whole network, before the fine-tuning that `optim` and `lora` describe (paper, T9)."""

    data: DataConfig
    """What it trains on; its validation and test splits are not used."""
    objective_in: Literal["pretrain", "finetune", "both"] = "pretrain"
    """Which stage has the method's JEPA term; the other is plain next-token training. Predictor tokens are each stage's own."""
    seed: int | None = Field(None, ge=0)
    """Replicate of this stage. None: the trial's own; given, trials that differ in later settings only share its checkpoint."""

    def optim(self) -> OptimConfig:
        """The stage's optimizer settings alone."""
        return OptimConfig(**{name: getattr(self, name) for name in StageConfig.model_fields})


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
    embeddings: int = Field(0, ge=0)
    """Validation pairs whose Text and Code states are kept after training (`embeddings/`), of confirmed trials only; 0: none."""
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

    The baseline, `none`, is masked-language-model training at the same positions. See `masked/trial.py`.
    """

    corpus: str | None = None
    """Text file, one passage per line, to train on; None: the texts of the task's training split. The task's labels are for probes only."""
    keep_checkpoints: Literal["all", "confirmed", "none"] = "all"
    """Of which trials both encoders, predictor and optimizer stay in `results/<name>/checkpoints/`."""


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
