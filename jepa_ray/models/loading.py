"""Checkpoints: tokenizer and network from the built-in tiny base, a local folder or a hub id, through one code path.

Weights are read from safetensors only (no pickle), and code that comes with a checkpoint runs only if asked for.
"""

from __future__ import annotations

import warnings
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from jepa_ray.config import LoraConfig, ModelConfig
from jepa_ray.models.families import ModelFamily, get_family
from jepa_ray.models.network import Network
from jepa_ray.streams import derive_seed


def load_tokenizer(checkpoint: str, model: ModelConfig) -> Any:
    """The checkpoint's tokenizer; the family's template is put in where it brings none."""
    family = get_family(model.family)
    tokenizer = _from_hub(AutoTokenizer.from_pretrained, checkpoint, trust_remote_code=model.trust_remote_code)
    if not tokenizer.chat_template:
        tokenizer.chat_template = family.template
    if tokenizer.convert_tokens_to_ids(family.turn_end) in (None, tokenizer.unk_token_id):
        raise ValueError(f"{checkpoint} does not know {family.turn_end!r}, the end of turn of family {family.name}; is the family right?")
    return tokenizer


def load_config(checkpoint: str, model: ModelConfig) -> Any:
    """The checkpoint's Transformers config, checked against the family."""
    family = get_family(model.family)
    config = _from_hub(AutoConfig.from_pretrained, checkpoint, trust_remote_code=model.trust_remote_code)
    if config.model_type != family.model_type:
        raise ValueError(
            f"{checkpoint} holds a {config.model_type!r} model, but family {family.name} is {family.model_type!r}; change one of them"
        )
    return config


def load_network(
    checkpoint: str, model: ModelConfig, lora: LoraConfig | None, *, k: int, seed: int, device: torch.device | str = "cpu"
) -> Network:
    """The network to be trained: weights, adapters and k predictor tokens; everything new is drawn from the seed's own streams.

    On a GPU frozen weights are bf16 and trained ones fp32 (autocast computes in bf16); on a CPU everything is fp32.
    """
    family = get_family(model.family)
    config = load_config(checkpoint, model)
    device = torch.device(device)
    half = uses_bf16(model, device)
    dtype = torch.bfloat16 if half and lora is not None else torch.float32
    if model.init == "random":
        with seeded(derive_seed(seed, "initial weights")):
            lm = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=model.trust_remote_code)
    else:
        lm = _from_hub(
            AutoModelForCausalLM.from_pretrained,
            checkpoint,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=model.trust_remote_code,
        )
    lm.config.use_cache = False
    predictor = new_predictor(lm, k, seed) if k else None
    if model.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if lora is not None:
        lm = add_lora(lm, family, lora, seed)
    return Network(lm, predictor).to(device)


def uses_bf16(model: ModelConfig, device: torch.device) -> bool:
    """Whether computation runs in bf16 under autocast."""
    return model.precision == "bf16" or (model.precision == "auto" and device.type == "cuda")


def add_lora(lm: Any, family: ModelFamily, lora: LoraConfig, seed: int) -> Any:
    """Adapters on every linear layer of the family; their initial values come from the stream "adapters"."""
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    settings = PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha if lora.alpha is not None else 2 * lora.r,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=list(family.lora_targets),
        task_type="CAUSAL_LM",
    )
    with seeded(derive_seed(seed, "adapters")), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT's use of Transformers; nothing a user could act on
        return get_peft_model(lm, settings)


def new_predictor(lm: Any, k: int, seed: int) -> Tensor:
    """(k, D) initial predictor tokens, drawn like a typical row of the embedding table: normal, with the vocabulary's mean and spread."""
    with torch.no_grad():
        embedded_VD: Tensor = lm.get_input_embeddings().weight.float()
        generator = torch.Generator().manual_seed(derive_seed(seed, "predictor tokens"))
        noise_kD = torch.randn(k, embedded_VD.shape[1], generator=generator)
        return embedded_VD.mean(0) + embedded_VD.std(0) * noise_kD


class seeded:
    """Context in which torch's global generator starts at `seed`, and after which it is as before."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self._fork = torch.random.fork_rng(devices=[])
        self._fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *exception: Any) -> None:
        self._fork.__exit__(*exception)


def _from_hub(load: Any, checkpoint: str, **kwargs: Any) -> Any:
    """Call a `from_pretrained`, without progress bars; turn what goes wrong into one sentence with its remedy."""
    logging.disable_progress_bar()
    getLogger("huggingface_hub").setLevel("ERROR")  # it would report every retry of an unreachable hub
    try:
        return load(checkpoint, **kwargs)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            raise ValueError(
                f"{checkpoint} needs Python code of its own; read that code, then allow it with base.model.trust_remote_code=true"
            ) from error
        if Path(checkpoint).is_dir():
            raise ValueError(
                f"the folder {checkpoint} is no loadable checkpoint ({first}); it needs config.json, a tokenizer and *.safetensors"
            ) from error
        raise ValueError(
            f"cannot load {checkpoint}: neither a local folder nor reachable on the hub ({first}); check the name and network, "
            f"log in for gated models (hf auth login), or download it elsewhere and give the folder's path"
        ) from error
