"""Networks with random weights, tiny or in the shapes of published checkpoints, and the tokenised examples.

The tokenizer is the family's tiny one in both forms. Its ids stay below the large vocabulary, but the whole head and embedding table take
part in the computation. A network is drawn on its device, which takes one second instead of ten on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from benchmarks.gpu import data
from benchmarks.gpu.form import Form
from jepa_ray.config import LoraConfig, ModelConfig, ObjectiveConfig, OptimConfig, TrialConfig
from jepa_ray.data.example import Example
from jepa_ray.data.views import TokenTable, tokenize_split
from jepa_ray.models.families import FAMILIES, ModelFamily
from jepa_ray.models.loading import add_lora, uses_bf16
from jepa_ray.models.network import Network
from jepa_ray.models.tiny import tiny_config
from jepa_ray.preparation.tiny_base import base_tokenizer
from jepa_ray.training.device import make_ready
from jepa_ray.training.jepa_term import active_objective, fit_network
from jepa_ray.training.runtime import Runtime

TOKENIZER = "the family's tiny one; its ids stay below the model's vocabulary"
MAX_LENGTH = 512
JEPA = {"lambda": 1, "k": 1}
SHAPES: dict[str, tuple[int, dict[str, Any]]] = {
    "llama3": (128_256, {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
                         "num_key_value_heads": 8, "head_dim": 64}),
    "gemma2": (256_000, {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
                         "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096}),
    "olmo2": (100_352, {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 16,
                        "num_key_value_heads": 16, "head_dim": 128}),
    "qwen3": (151_936, {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
                        "num_key_value_heads": 8, "head_dim": 128}),
    "r1-distill-qwen": (151_936, {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
                                  "num_key_value_heads": 2}),
    "phi": (51_200, {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32}),
}  # fmt: skip
"""Family -> (vocabulary size, shape in the config.json of its paper model): one to two billion parameters."""


def family_of(name: str, small: bool) -> ModelFamily:
    """The family, with a large shape instead of its tiny one unless `small`."""
    family = FAMILIES[name]
    if small:
        return family
    return replace(family, tiny=MappingProxyType({**family.tiny, **SHAPES[name][1], "initializer_range": 0.02}))


def config_of(name: str, small: bool, tokenizer: Any) -> Any:
    """Transformers' config of a family's network."""
    config = tiny_config(family_of(name, small), tokenizer)
    if not small:
        config.vocab_size = SHAPES[name][0]
    return config


def network(name: str, small: bool, tokenizer: Any, device: str, lora: LoraConfig | None = None) -> Network:
    """A network as `models.loading.load_network` creates it (frozen weights in bf16 on a GPU), but with weights drawn on the device.

    The device is prepared as before a trial.
    """
    make_ready(device)
    half = lora is not None and uses_bf16(ModelConfig(family=name), torch.device(device))
    torch.manual_seed(0)
    with torch.device(device):
        lm = AutoModelForCausalLM.from_config(config_of(name, small, tokenizer), dtype=torch.bfloat16 if half else torch.float32)
    lm.config.use_cache = False
    if lora is not None:
        lm = add_lora(lm, FAMILIES[name], lora, seed=0)
    return Network(lm).to(device)


def fit(fitted: Network, objective: ObjectiveConfig | None) -> Network:
    """Give a network the modules that an objective needs, and remove those of another one.

    Predictor tokens start as copies of the vocabulary's first embeddings: all are random here.
    """
    embedded_VD = fitted.causal_lm.get_input_embeddings().weight
    k = objective.k if objective is not None else 0
    fitted.predictor = nn.Parameter(embedded_VD.detach()[:k].float().clone()) if k else None
    fitted.head = None
    return fit_network(fitted, objective, seed=0)


def tokenised(name: str, sample: Sequence[Example], scored: bool = False) -> tuple[Any, TokenTable]:
    """(a family's tokenizer made for these examples, the tokenised examples)."""
    tokenizer = base_tokenizer(FAMILIES[name], sample)
    return tokenizer, tokenize_split(sample, tokenizer, FAMILIES[name], MAX_LENGTH, scored=scored)


def write_checkpoint(form: Form, folder: Path) -> Path:
    """A Llama as a folder that trials load with `init: random`: configuration and tokenizer, no weights."""
    sample, _ = data.examples("nl-rx", form.data, 1000)
    tokenizer = base_tokenizer(FAMILIES["llama3"], sample)
    tokenizer.save_pretrained(folder)
    config_of("llama3", form.small, tokenizer).save_pretrained(folder)
    return folder


def trial_config(*, lora: LoraConfig | None, jepa: bool, batch_size: int, **optim: Any) -> TrialConfig:
    """The configuration of one arm."""
    objective = ObjectiveConfig.model_validate(JEPA) if jepa else None
    # A rate so low that 200 steps on random weights stay finite: speed is measured, not learning.
    settings: Mapping[str, Any] = {"learning_rate": 1e-6, "batch_size": batch_size, **optim}
    return TrialConfig(model=ModelConfig(family="llama3"), lora=lora, objective=objective, optim=OptimConfig(**settings))


def arm(fitted: Network, config: TrialConfig) -> Network:
    """The network, fitted for one arm, in training mode."""
    return fit(fitted, active_objective(config)).train()


def runtime(form: Form) -> Runtime:
    """One worker, as a sweep gives a trial by default."""
    return Runtime(device=form.device, num_threads=1)
