"""Every record of FAMILIES against the model and tokenizer that it describes: a new family is tested by being in the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from jepa_ray.config import LoraConfig, ModelConfig
from jepa_ray.data.views import Renderer
from jepa_ray.models.families import FAMILIES, ModelFamily, get_family
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.models.tiny import VOCAB_SIZE, tiny_config, tiny_tokenizer
from tests import tiny_models as tiny


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> ModelFamily:
    return FAMILIES[request.param]


@pytest.fixture
def tokenizer(family: ModelFamily, tiny_checkpoints: dict[str, Path]) -> Any:
    folder = str(tiny_checkpoints[family.name])
    return load_tokenizer(folder, ModelConfig(family=family.name, model=folder))


def test_every_model_of_the_paper_has_its_record() -> None:
    """Tables 1 to 15 (REFERENCE, "Families")."""
    assert {name: family.paper_model for name, family in FAMILIES.items()} == {
        "llama3": "meta-llama/Llama-3.2-1B-Instruct",
        "gemma2": "google/gemma-2-2b-it",
        "openelm": "apple/OpenELM-1_1B-Instruct",
        "olmo2": "allenai/OLMo-2-0425-1B-Instruct",
        "qwen3": "Qwen/Qwen3-1.7B",
        "r1-distill-qwen": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "phi": "microsoft/phi-1_5",
    }
    others = {model for family in FAMILIES.values() for model in family.other_models}
    assert {"meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.1-8B-Instruct", "allenai/OLMo-2-1124-7B-Instruct"} < others
    assert not others & {family.paper_model for family in FAMILIES.values()}


def test_lora_targets_are_all_linear_layers_and_no_others(family: ModelFamily, tiny_checkpoints: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoints[family.name])
    head = model.get_output_embeddings()
    outside = [module for module in model.modules() if isinstance(module, nn.Linear) and module not in set(model.base_model.modules())]
    assert outside == [head], "the head is the only linear layer without an adapter"
    linear = {name for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear)}
    assert {name.rpartition(".")[2] for name in linear} == set(family.lora_targets)
    network = tiny.network_of(tiny.trial(tiny_checkpoints[family.name], lora=LoraConfig(r=2)))
    adapted = {
        name.removesuffix(".lora_A.default") for name, _ in network.causal_lm.base_model.named_modules() if name.endswith(".lora_A.default")
    }
    assert adapted == linear


def test_the_turn_ends_in_one_special_token_that_is_not_padding(family: ModelFamily, tokenizer: Any) -> None:
    for token in family.special_tokens:
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [tokenizer.convert_tokens_to_ids(token)]
    assert tokenizer.pad_token == family.pad != family.turn_end == tokenizer.eos_token and tokenizer.bos_token == family.bos
    assert len(set(family.special_tokens)) == len(family.special_tokens)


def test_the_generation_markers_are_around_answer_and_end_of_turn(family: ModelFamily, tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "an answer"}]
    out = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **family.template_kwargs
    )
    marked = [token for token, inside in zip(out["input_ids"], out["assistant_masks"], strict=True) if inside]
    assert tokenizer.decode(marked) == "an answer" + family.turn_end


def test_the_generation_prompt_of_our_templates_is_the_prompt(family: ModelFamily, tokenizer: Any) -> None:
    """Other tools that render these templates generate from the prompts that were trained here."""
    messages = [{"role": role, "content": role[0]} for role in (("system", "user") if family.system_role else ("user",))]
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **family.template_kwargs)
    prompt, answer = Renderer(tokenizer, family).prompt_and_answer("s" if family.system_role else "", "u", "an answer")
    assert (asked, answer) == (prompt, "an answer" + family.turn_end)


def test_the_tiny_instance_is_the_real_architecture_and_small(
    family: ModelFamily, tokenizer: Any, tiny_checkpoints: dict[str, Path]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoints[family.name])
    assert model.config.model_type == family.model_type
    assert 50_000 < sum(p.numel() for p in model.parameters()) < 1_000_000
    assert model.config.vocab_size == len(tokenizer) <= VOCAB_SIZE
    if family.name == "gemma2":  # what makes this family hard must be on in its tiny instance
        assert model.config.attn_logit_softcapping and model.config.final_logit_softcapping
        assert {"sliding_attention", "full_attention"} == set(model.config.layer_types)
    if family.name == "openelm":
        for sizes in (model.config.num_query_heads, model.config.num_kv_heads, model.config.intermediate_sizes):
            assert len(set(sizes)) == len(sizes) == 2, "both layers have the same shape"
    assert model.config.tie_word_embeddings == (family.name in ("llama3", "gemma2", "openelm", "qwen3")), "as in the paper's model"


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
