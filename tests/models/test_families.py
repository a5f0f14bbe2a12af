"""Every record of FAMILIES against the model and tokenizer that it describes: a new family is tested by being in the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from jepa_ray.config import LoraConfig
from jepa_ray.models.families import FAMILIES, ModelFamily, get_family
from jepa_ray.models.tiny import VOCAB_SIZE, tiny_config, tiny_tokenizer
from tests import tiny_models as tiny


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> ModelFamily:
    return FAMILIES[request.param]


def test_lora_targets_are_all_linear_layers_and_no_others(family: ModelFamily, tiny_checkpoints: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoints[family.name])
    linear = {name for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear)}
    assert {name.rpartition(".")[2] for name in linear} == set(family.lora_targets)
    network = tiny.network_of(tiny.trial(tiny_checkpoints[family.name], lora=LoraConfig(r=2)))
    adapted = {
        name.removesuffix(".lora_A.default") for name, _ in network.causal_lm.base_model.named_modules() if name.endswith(".lora_A.default")
    }
    assert adapted == linear


def test_the_turn_ends_in_one_special_token_that_is_not_padding(family: ModelFamily, tiny_checkpoints: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoints[family.name])
    for token in (family.bos, family.turn_end, family.pad):
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [tokenizer.convert_tokens_to_ids(token)]
    assert tokenizer.pad_token == family.pad != family.turn_end == tokenizer.eos_token and tokenizer.bos_token == family.bos
    assert len(set(family.special_tokens)) == len(family.special_tokens)


def test_the_generation_markers_are_around_answer_and_end_of_turn(family: ModelFamily, tiny_checkpoints: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoints[family.name])
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "an answer"}]
    out = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **family.template_kwargs
    )
    marked = [token for token, inside in zip(out["input_ids"], out["assistant_masks"], strict=True) if inside]
    assert tokenizer.decode(marked) == "an answer" + family.turn_end


def test_the_tiny_instance_is_the_real_architecture_and_small(family: ModelFamily, tiny_checkpoints: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoints[family.name])
    assert model.config.model_type == family.model_type
    assert 50_000 < sum(p.numel() for p in model.parameters()) < 1_000_000
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoints[family.name])
    assert model.config.vocab_size == len(tokenizer) <= VOCAB_SIZE
    if family.name == "gemma2":  # what makes this family hard must be on in its tiny instance
        assert model.config.attn_logit_softcapping and model.config.final_logit_softcapping
        assert {"sliding_attention", "full_attention"} == set(model.config.layer_types)


def test_the_tiny_tokenizer_is_lossless_and_deterministic(family: ModelFamily) -> None:
    texts = [example.text for example in tiny.EXAMPLES]
    first, second = tiny_tokenizer(family, texts), tiny_tokenizer(family, list(reversed(texts)))
    assert first.get_vocab() == second.get_vocab()
    for text in [*texts, "naïve 日本語 🦉 \t\n  two  spaces", "don't , stop ."]:
        ids = first(text, add_special_tokens=False)["input_ids"]
        assert ids == second(text, add_special_tokens=False)["input_ids"] and first.decode(ids) == text
    assert tiny_config(family, first).pad_token_id == first.pad_token_id


def test_packed_save_and_reload_give_the_same_states(family: ModelFamily, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Also after merging adapters: what is trained can be handed on."""
    network = tiny.network_of(tiny.trial(tiny_checkpoints[family.name], lora=LoraConfig(r=2))).eval()
    ids = torch.tensor([[3, 9, 27, 81]])
    with torch.no_grad(), network.attention(None):
        before = network.causal_lm(input_ids=ids).logits
        network.lm.merge_and_unload().save_pretrained(tmp_path)
        after = AutoModelForCausalLM.from_pretrained(tmp_path)(input_ids=ids).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert "jepa_ray" not in (tmp_path / "config.json").read_text()


def test_an_unknown_family_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown family 'lama3'.*llama3"):
        get_family("lama3")
