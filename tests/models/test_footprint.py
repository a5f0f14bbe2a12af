"""Memory computed from a shape equals the bytes of all live tensors of a training step, within 15 %."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from jepa_ray.config import LoraConfig, ObjectiveConfig
from jepa_ray.data.views import tokenize_split
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.footprint import Footprint, Training, footprint, tokens_that_fit
from jepa_ray.models.loading import add_lora, new_predictor
from jepa_ray.models.network import Network
from jepa_ray.models.shapes import ARCHITECTURES, Shape
from jepa_ray.models.tiny import tiny_config
from jepa_ray.preparation.tiny_base import base_tokenizer
from jepa_ray.training.jepa_term import Term, active_objective, fit_network
from jepa_ray.training.runtime import StepTotals
from jepa_ray.training.step import train_step
from tests import tiny_models as tiny
from tests.live_bytes import LiveBytes

TOLERANCE = 0.15
JEPA, EMA = (ObjectiveConfig(k=2, target=target) for target in ("online", "ema"))  # type: ignore[arg-type]
LORA = LoraConfig(r=4)
LLAMA_100M = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12, "head_dim": 64}


@dataclass(frozen=True)
class Measured:
    """Live bytes of the second optimizer step: while it ran, and after it."""

    peak: int
    state: int
    totals: StepTotals
    estimate: Footprint


@functools.cache
def tokenizer_of(family: str) -> Any:
    """No test changes it."""
    return base_tokenizer(FAMILIES[family], tiny.EXAMPLES)


def measure(
    family: str,
    precision: str,
    lora: LoraConfig | None = None,
    objective: ObjectiveConfig | None = None,
    *,
    rows: int = 16,
    size: int | None = None,
    checkpointing: bool = False,
    changes: dict[str, Any] | None = None,
) -> Measured:
    record = FAMILIES[family]
    tokenizer = tokenizer_of(record.name)
    config = tiny.trial(Path(family), lora=lora, objective=objective, model__precision=precision, optim__micro_batch_size=size)
    shape = tiny_config(record, tokenizer)
    for name, value in (changes or {}).items():
        setattr(shape, name, value)
    half = precision == "bf16" and lora is not None  # as on a GPU
    lm = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16 if half else torch.float32)
    predictor = new_predictor(lm, objective.k, 1) if objective is not None else None
    if checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    network = Network(add_lora(lm, record, lora, 1) if lora is not None else lm, predictor)
    fit_network(network, active_objective(config), 1).train()
    training = Training(
        rank=lora.r if lora is not None else None,
        dropout=lora.dropout if lora is not None else 0.0,
        precision="bf16" if precision == "bf16" else "fp32",
        average=objective is not None and objective.target == "ema",
        gradient_checkpointing=checkpointing,
        device="cpu",
    )
    with LiveBytes() as count:
        count.include(*network.parameters(), *network.buffers())
        term = Term.of(config, network, weight=1.0)
        state = tiny.state_of(network, tokenize_split(tiny.EXAMPLES[:rows], tokenizer, record, 2048), config, term=term)
        for step in range(2):
            count.peak = count.live
            totals = train_step(state, np.arange(rows), step, 10)
        return Measured(count.peak, count.live, totals, footprint(Shape.of(shape.to_dict()), training))


def assert_close(measured: Measured, passes: int = 1) -> None:
    totals, estimate = measured.totals, measured.estimate
    peak = estimate.peak(
        totals.tokens / passes,
        totals.num_labels / passes,
        path_tokens=totals.path_tokens / passes,
        pairs=totals.path_attended / passes,
        accumulates=passes > 1,
    )
    assert estimate.state == pytest.approx(measured.state, rel=0.01), "a predictor token or two is not counted"
    assert measured.peak > 1.2 * measured.state, "the activations are too few to be tested"
    assert peak == pytest.approx(measured.peak, rel=TOLERANCE)
    assert peak - estimate.state == pytest.approx(measured.peak - measured.state, rel=TOLERANCE), "of the activations alone"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("objective", [None, JEPA], ids=["next token", "jepa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_estimate_is_what_a_step_takes(family: str, objective: ObjectiveConfig | None, lora: LoraConfig | None, precision: str) -> None:
    assert_close(measure(family, precision, lora, objective))


FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
OTHERS: dict[str, dict[str, Any]] = {
    "mistral": {},
    "smollm3": {},
    "granite": {},
    "gemma": {},
    "gemma3_text": {"query_pre_attn_scalar": 16, "sliding_window": 128},
    "phi3": {},
    "olmo3": {"tie_word_embeddings": False},
}
"""Architectures of no family in the table, which `auto` finds: model type -> keys of its tiny instance."""


@pytest.mark.parametrize("model_type", OTHERS)
def test_the_estimate_for_other_architectures(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*OTHERS, *(family.model_type for family in FAMILIES.values())} == set(ARCHITECTURES)
    record = FAMILIES["qwen3"]
    targets = FUSED if model_type == "phi3" else record.lora_targets
    tiny_keys = {**record.tiny, **OTHERS[model_type]}
    monkeypatch.setitem(FAMILIES, "other", replace(record, model_type=model_type, tiny=tiny_keys, lora_targets=targets))
    for precision in ("fp32", "bf16"):
        for lora in (None, LORA):
            assert_close(measure("other", precision, lora, JEPA))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("lora", [None, LORA, LoraConfig(r=4, dropout=0.0)], ids=["full", "lora", "no dropout"])
def test_averages_micro_batches_and_larger_batches(lora: LoraConfig | None, precision: str) -> None:
    assert_close(measure("llama3", precision, lora, EMA))
    assert_close(measure("llama3", precision, lora, JEPA, rows=64, size=8), passes=8)
    assert_close(measure("llama3", precision, lora, JEPA, rows=64))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing(family: str) -> None:
    for precision in ("fp32", "bf16"):
        for lora in (None, LORA):
            assert_close(measure(family, precision, lora, JEPA, rows=64, checkpointing=True))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("lora", "precision"), [(None, "fp32"), (LoraConfig(r=16), "bf16")], ids=["full, fp32", "lora, bf16"])
def test_a_model_of_100_million_parameters(lora: LoraConfig | None, precision: str) -> None:
    measured = measure("llama3", precision, lora, JEPA, changes=LLAMA_100M)
    assert measured.estimate.weights > 1.5e8, "bytes"
    assert_close(measured)


def llama_1b() -> Shape:
    """Llama 3.2 1B, from its model card and config.json."""
    config = {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64}
    return Shape.of(config | {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True})


def test_full_fine_tuning_takes_sixteen_bytes_per_parameter_and_adapters_two() -> None:
    shape = llama_1b()
    assert shape.num_parameters == 1_235_814_400
    full = footprint(shape, Training())
    assert full.state == 16 * shape.num_parameters
    adapters = footprint(shape, Training(rank=16))
    assert adapters.state == 2 * shape.num_parameters + 16 * shape.adapter_weights(16)
    assert footprint(shape, Training(average=True)).state == 20 * shape.num_parameters
    per_layer = full.per_token / 16 + full.per_path_token / 16
    assert per_layer == pytest.approx(139_000, rel=0.05), "2.2 MB per token in 16 layers, measured with saved tensors"
    assert full.cache_per_token == 16 * 2 * 8 * 64 * 2
    matrices = 2 * (shape.linear_weights + shape.embedding_weights)
    assert full.generation_peak(64, 200) == 12 * shape.num_parameters + matrices + 64 * 200 * full.cache_per_token


def test_several_workers_hold_buckets_or_shards() -> None:
    shape = llama_1b()
    copies, shards = (footprint(shape, Training(workers=8, sharding=sharding)) for sharding in ("ddp", "fsdp"))  # type: ignore[arg-type]
    assert copies.state == 20 * shape.num_parameters, "and the buckets of gradients"
    assert shards.state == pytest.approx(16 * shape.num_parameters / 8), "embeddings, norms and the head are split as well"
    # Autocast's copies are tensors that autograd keeps, so that FSDP does not free them with a layer's weights.
    matrices = 2 * (shape.linear_weights + shape.embedding_weights)
    assert shards.copies_kept == shards.copies == copies.copies == matrices
    layer, outside = shape.linear_weights / 16, shape.num_parameters - shape.linear_weights
    assert shards.gathered == shards.whole_gradients == 4 * (2 * layer + outside) and copies.gathered == 0
    assert shards.generation_peak(0, 0) == pytest.approx((4 + 8 / 8) * shape.num_parameters + matrices), "whole weights, split moments"
    assert copies.others_weights == 0
    frozen = footprint(shape, Training(workers=8, sharding="fsdp", rank=8))
    assert frozen.gathered == 2 * (2 * layer + outside) and frozen.whole_gradients == 0
    assert footprint(shape, Training(workers=1, sharding="fsdp")) == footprint(shape, Training())


def test_the_largest_micro_batch_fills_the_memory_and_no_more() -> None:
    estimate = footprint(llama_1b(), Training())
    memory = 72e9
    tokens = tokens_that_fit(memory, estimate, labels_per_token=0.3)
    assert estimate.peak(tokens, 0.3 * tokens) <= memory < estimate.peak(tokens + 1, 0.3 * (tokens + 1))
    assert tokens_that_fit(memory, estimate, labels_per_token=0.3, labels_at_once=1024) > tokens, "chunked logits leave more room"
    assert tokens_that_fit(0.9 * estimate.state, estimate, labels_per_token=0.3) == 0, "the state alone does not fit"
    less = footprint(llama_1b(), Training(gradient_checkpointing=True))
    assert tokens_that_fit(memory, less, labels_per_token=0.1, labels_at_once=1024) > 4 * tokens


def test_unknown_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="'mamba' models cannot be estimated; known architectures: llama"):
        Shape.of({"model_type": "mamba"})
