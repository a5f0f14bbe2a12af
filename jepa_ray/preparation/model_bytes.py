"""Bytes that a trained model takes on disk, before anything is trained: the network on the meta device, without weights."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

from jepa_ray.config import ModelConfig, SweepConfig
from jepa_ray.models.auto import family_of
from jepa_ray.models.loading import add_lora, load_config
from jepa_ray.training.prepared import Prepared

FP32 = 4
"""Bytes of a trained parameter, on GPUs too."""
BYTES_PER_TOKEN = 200
"""Of a tokenizer's files per token of the vocabulary, merges included: generous."""


def model_bytes(sweep: SweepConfig, family: str, prepared: Prepared) -> float:
    """Bytes of what `training/keeping.py` writes: adapters of the largest rank searched, or all weights, and the tokenizer.

    After a first stage it is all weights, adapters merged into them.
    """
    model = ModelConfig(family=family, model=sweep.model_of(family), **sweep.base.model.model_dump())
    config, lora = load_config(prepared.checkpoint, model, prepared.revision), sweep.base.lora
    record = family_of(model, prepared.checkpoint, prepared.revision)
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config, trust_remote_code=model.trust_remote_code)
        if lora is not None:
            ranks = sweep.space["lora.r"].probes() if "lora.r" in sweep.space else [lora.r]
            lm = add_lora(lm, record, lora.model_copy(update={"r": max(map(int, ranks))}), seed=0)
    adapters = lora is not None and sweep.pretrain is None
    saved = sum(p.numel() for name, p in lm.named_parameters() if ("lora_" in name) == adapters)
    return float(FP32 * saved + BYTES_PER_TOKEN * config.vocab_size)
