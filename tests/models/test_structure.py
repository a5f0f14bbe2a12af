"""What the modules of a network say: on real architectures, without weights."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from jepa_ray.models.structure import refuse, structure_of, without_weights

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128, "intermediate_size": 96}


def config(model_type: str, **keys: Any) -> Any:
    return AutoConfig.for_model(model_type, **SMALL | keys)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda: AutoConfig.for_model("t5"), "x is an encoder with a decoder"),
        (lambda: AutoConfig.for_model("gemma3"), "x reads more than text"),
        (lambda: config("llama", quantization_config={"quant_method": "gptq"}), "weights of x are quantised"),
        (lambda: config("bert", architectures=["BertForMaskedLM"]), r"x is no causal language model \(BertForMaskedLM\)"),
        (lambda: AutoConfig.for_model("vit"), r"x is no causal language model \(vit\)"),
    ],
    ids=["encoder-decoder", "images", "quantised", "masked", "no language model"],
)
def test_a_config_of_another_kind_is_refused(made: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"{sentence}.*; use "):
        refuse(made(), "x")


@pytest.mark.parametrize("architectures", [None, ["LlamaForCausalLM"], ["AnyOtherForCausalLM"]])
def test_a_causal_config_passes(architectures: list[str] | None) -> None:
    refuse(config("llama", architectures=architectures), "x")


@pytest.mark.parametrize(
    ("model_type", "keys", "sentence"),
    [
        ("mamba", {"state_size": 8}, "has recurrent layers"),
        ("bloom", {"n_head": 4}, "do not accept position_ids"),
        ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}, "has no list of layers under a known name"),
        ("gemma3_text", {"use_bidirectional_attention": True, "head_dim": 16}, "attends in both directions"),
    ],
)
def test_a_network_that_cannot_be_trained_here_is_refused(model_type: str, keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"x \({model_type}\).*{sentence}.*; choose a model"):
        structure_of(without_weights(config(model_type, **keys)), "x")


@pytest.mark.parametrize(
    ("model_type", "keys", "reason"),
    [
        ("llama", {}, None),
        ("llama", {"attention_dropout": 0.1}, "attention_dropout = 0.1 in config.json"),
        ("gpt2", {"attn_pdrop": 0.0}, None),
        ("gpt2", {}, "attn_pdrop = 0.1"),
        ("gptj", {"n_head": 4, "n_embd": 64, "n_layer": 2, "rotary_dim": 8, "attn_pdrop": 0.0}, "does not accept another attention"),
        ("gpt_oss", {"num_local_experts": 2, "num_key_value_heads": 2, "head_dim": 16}, "attention has sinks"),
        ("mistral", {"sliding_window": 32}, None),
    ],
)
def test_what_rules_out_shared_rows(model_type: str, keys: dict[str, Any], reason: str | None) -> None:
    because = structure_of(without_weights(config(model_type, **keys))).plain_because
    assert because is None if reason is None else reason in str(because)


@pytest.mark.parametrize(("model_type", "positions"), [("gpt2", 512), ("gpt_bigcode", 512), ("llama", None)])
def test_only_tables_of_positions_limit_the_length(model_type: str, positions: int | None) -> None:
    assert structure_of(without_weights(config(model_type, max_position_embeddings=512))).max_positions == positions


def test_linear_layers_by_their_names() -> None:
    structure = structure_of(without_weights(config("gpt_neox")))
    assert structure.targets() == ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
    experts = structure_of(without_weights(config("mixtral", num_key_value_heads=2, num_local_experts=2)))
    with pytest.raises(ValueError, match=r"adapters are not supported: .*mixture of experts.*base.lora=none"):
        experts.targets()
