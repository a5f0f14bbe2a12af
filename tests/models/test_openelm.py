"""The OpenELM port: published sizes and tensor names, its forward pass from the definition, cache, tying, saving, safe loading."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from jepa_ray.config import LoraConfig, ModelConfig
from jepa_ray.models.loading import load_config, load_network, load_tokenizer
from jepa_ray.models.openelm import OpenELMConfig, OpenELMForCausalLM
from jepa_ray.models.shapes import make_divisible, per_layer
from tests import tiny_models as tiny

IDS = torch.tensor([[3, 90, 14, 15, 200, 65, 35, 8, 97, 9]])


def published(size: str, **changes: Any) -> dict[str, Any]:
    """The shape of a published config.json, with its ranges unexpanded."""
    model_dim, layers, head_dim = {"270M": (1280, 16, 64), "450M": (1536, 20, 64), "1_1B": (2048, 28, 64), "3B": (3072, 36, 128)}[size]
    return {
        "model_type": "openelm",
        "model_dim": model_dim,
        "num_transformer_layers": layers,
        "head_dim": head_dim,
        "num_gqa_groups": 4,
        "qkv_multipliers": [0.5, 1.0],
        "ffn_multipliers": [0.5, 4.0],
        "ffn_dim_divisor": 256,
        "ffn_with_glu": True,
        "normalize_qk_projections": True,
        "share_input_output_layers": True,
        "vocab_size": 32000,
    } | changes


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["openelm"]


@pytest.fixture
def model(checkpoint: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint).eval()


@pytest.mark.parametrize(
    ("size", "parameters"), [("270M", 271_527_168), ("450M", 457_179_136), ("1_1B", 1_079_891_456), ("3B", 3_036_647_424)]
)
def test_the_published_sizes(size: str, parameters: int) -> None:
    config = AutoConfig.for_model(**published(size))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert type(model) is OpenELMForCausalLM and sum(p.numel() for p in model.parameters()) == parameters
    untied = AutoConfig.for_model(**published(size, share_input_output_layers=False))
    with torch.device("meta"):
        assert sum(p.numel() for p in AutoModelForCausalLM.from_config(untied).parameters()) == parameters + 32000 * config.model_dim


def test_layer_wise_scaling_by_hand() -> None:
    config = OpenELMConfig(**{key: value for key, value in published("270M").items() if key != "model_type"})
    # 0.5 * 1280 = 640 to a multiple of 4 * 64: (640 + 128) // 256 = 3, so 768 = 12 heads; the last 1280 = 20 heads.
    assert config.num_query_heads == [12] * 5 + [16] * 7 + [20] * 4
    assert config.num_kv_heads == [3] * 5 + [4] * 7 + [5] * 4
    # The range 0.5 to 4 in 16 steps, rounded: 0.5, 0.73, ...; 0.73 * 1280 = 934.4 is nearest to 4 * 256 = 1024.
    assert per_layer([0.5, 4.0], 16, "x")[:3] == [0.5, 0.73, 0.97] and config.intermediate_sizes[:2] == [768, 1024]
    assert config.intermediate_sizes[-1] == 4 * 1280
    assert [make_divisible(v, 8) for v in (1, 11, 12, 20)] == [8, 16, 16, 24], "11 would lose more than a tenth at 8"
    with pytest.raises(ValueError, match="one per layer"):
        per_layer([1.0, 2.0, 3.0], 4, "ffn_multipliers")
    with pytest.raises(ValueError, match="one entry for each"):
        OpenELMConfig(num_transformer_layers=2, num_query_heads=[4])
    with pytest.raises(ValueError, match="rms_norm"):
        OpenELMConfig(normalization_layer_name="layer_norm")


def test_explicit_lists_are_taken_as_they_are() -> None:
    given = published("270M", num_query_heads=[20] * 16, num_kv_heads=[5] * 16, ffn_multipliers=[1.0] * 16, qkv_multipliers=[0.5] * 16)
    config = AutoConfig.for_model(**given)
    assert config.num_query_heads == [20] * 16 and config.num_kv_heads == [5] * 16 and config.intermediate_sizes == [1280] * 16
    assert OpenELMConfig(num_transformer_layers=3, qkv_multipliers=1.0, model_dim=256, head_dim=64).num_query_heads == [4, 4, 4]


def from_the_definition(weights: dict[str, Tensor], config: Any, ids: list[int]) -> Tensor:
    """(T, V) logits, token by token and head by head, from the checkpoint's tensors."""

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    def rotated(x: Tensor, position: int) -> Tensor:
        """Entries i and i + H/2 are a complex number, rotated by position / base^(2i / H)."""
        half = config.head_dim // 2
        angle = torch.tensor([position / config.rope_freq_constant ** (i / half) for i in range(half)])
        turned = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones(half), angle)
        return torch.cat([turned.real, turned.imag])

    size, state = config.head_dim, weights["transformer.token_embeddings.weight"][ids]
    for layer in range(config.num_transformer_layers):
        name = f"transformer.layers.{layer}."
        queries, pairs = config.num_query_heads[layer], config.num_kv_heads[layer]
        x = norm(state, weights[name + "attn_norm.weight"])
        fused = (x @ weights[name + "attn.qkv_proj.weight"].T).view(len(ids), queries + 2 * pairs, size)
        attended = torch.zeros(len(ids), queries, size)
        for head in range(queries):
            pair = head * pairs // queries
            key = [rotated(norm(fused[t, queries + pair], weights[name + "attn.k_norm.weight"]), t) for t in range(len(ids))]
            for t in range(len(ids)):
                query = rotated(norm(fused[t, head], weights[name + "attn.q_norm.weight"]), t)
                share = torch.stack([query @ key[s] / math.sqrt(size) for s in range(t + 1)]).softmax(0)
                attended[t, head] = share @ fused[: t + 1, queries + pairs + pair]
        state = state + attended.flatten(1) @ weights[name + "attn.out_proj.weight"].T
        gate, value = (norm(state, weights[name + "ffn_norm.weight"]) @ weights[name + "ffn.proj_1.weight"].T).chunk(2, dim=-1)
        state = state + (F.silu(gate) * value) @ weights[name + "ffn.proj_2.weight"].T
    return norm(state, weights["transformer.norm.weight"]) @ weights["transformer.token_embeddings.weight"].T


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_forward_pass_from_the_definition(checkpoint: Path, model: Any, attention: str) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    model.set_attn_implementation(attention)
    with torch.no_grad():
        wanted = from_the_definition(weights, model.config, IDS[0].tolist())
        torch.testing.assert_close(model(input_ids=IDS).logits[0], wanted, rtol=1e-4, atol=1e-4)
        embedded = model.get_input_embeddings()(IDS)
        torch.testing.assert_close(model(inputs_embeds=embedded, logits_to_keep=2).logits[0], wanted[-2:], rtol=1e-4, atol=1e-4)
        loss = model(input_ids=IDS, labels=IDS).loss
        torch.testing.assert_close(loss, F.cross_entropy(wanted[:-1], IDS[0, 1:]), rtol=1e-4, atol=1e-4)


def test_the_tensors_have_their_published_names(checkpoint: Path) -> None:
    layer = ("attn.qkv_proj", "attn.out_proj", "attn.q_norm", "attn.k_norm", "ffn.proj_1", "ffn.proj_2", "attn_norm", "ffn_norm")
    wanted = {f"transformer.layers.{i}.{name}.weight" for i in (0, 1) for name in layer}
    wanted |= {"transformer.token_embeddings.weight", "transformer.norm.weight"}
    assert set(load_file(checkpoint / "model.safetensors")) == wanted, "a tied head has no separate tensor"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_generation_with_the_cache_equals_generation_without(model: Any, attention: str) -> None:
    model.set_attn_implementation(attention)
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), IDS[:, :7]], dim=1)
    batch = torch.cat([IDS, padded])  # one prompt padded on the left
    mask = torch.ones_like(batch)
    mask[1, :3] = 0
    cached, plain = (model.generate(input_ids=batch, attention_mask=mask, use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, plain) and cached.shape == (2, 22)
    alone = model.generate(input_ids=IDS[:, :7], attention_mask=torch.ones(1, 7, dtype=torch.long), use_cache=True, **options)
    assert torch.equal(alone[0, 7:], cached[1, 10:]), "padding changes what is written"
    with torch.no_grad():
        first = model(input_ids=IDS[:, :6], use_cache=True)
        second = model(input_ids=IDS[:, 6:], past_key_values=first.past_key_values, use_cache=True)
        torch.testing.assert_close(second.logits, model(input_ids=IDS, use_cache=False).logits[:, 6:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_save_and_reload_are_exact(checkpoint: Path, tmp_path: Path, tied: bool) -> None:
    config = AutoConfig.from_pretrained(checkpoint, share_input_output_layers=tied)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) == (not tied)
    assert again.config.to_dict() | {"_name_or_path": ""} == model.config.to_dict() | {
        "_name_or_path": "",
        "architectures": ["OpenELMForCausalLM"],
    }
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    with torch.no_grad():
        assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_apples_checkpoint_loads_without_its_code(checkpoint: Path, tmp_path: Path) -> None:
    """Its config.json names Python files that must not be run, even if the user allows it, and it contains no tokenizer."""
    config = json.loads((checkpoint / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.OpenELMConfig", "AutoModelForCausalLM": "evil.OpenELMForCausalLM"}
    del config["num_query_heads"], config["num_kv_heads"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('code of the checkpoint was run')")
    shutil.copy(checkpoint / "model.safetensors", tmp_path)
    wanted = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    for trust in (False, True):
        settings = ModelConfig(family="openelm", model=str(tmp_path), trust_remote_code=trust)
        assert type(load_config(str(tmp_path), settings)) is OpenELMConfig
        network = load_network(str(tmp_path), settings, LoraConfig(r=2), k=1, seed=1)
        merged = network.lm.merge_and_unload().state_dict()  # adapters start as the zero map
        assert all(torch.equal(merged[name], value) for name, value in wanted.items())


def test_without_a_tokenizer_it_takes_llama_2s(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(checkpoint / "config.json", tmp_path)
    settings = ModelConfig(family="openelm", model=str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot load meta-llama/Llama-2-7b-hf.*needed because .* contains no tokenizer"):
        load_tokenizer(str(tmp_path), settings)
    shutil.copy(checkpoint / "tokenizer.json", tmp_path)
    shutil.copy(checkpoint / "tokenizer_config.json", tmp_path)
    assert load_tokenizer(str(tmp_path), settings).get_vocab() == load_tokenizer(str(checkpoint), tiny.trial(checkpoint).model).get_vocab()


def test_a_checkpoint_that_lacks_weights_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "openelm")
    weights = load_file(checkpoint / "model.safetensors")
    del weights["transformer.layers.1.attn.q_norm.weight"]
    save_file(weights, tmp_path / "openelm" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the model's weights \(transformer.layers.1.attn.q_norm.weight"):
        tiny.network_of(tiny.trial(tmp_path / "openelm"))
