"""What is found in a checkpoint: the same as in the records of the paper's families, and one sentence for what cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_ray.config import LoraConfig, ModelConfig
from jepa_ray.conformance.forms import FORMS
from jepa_ray.data.views import Renderer, tokenize_split
from jepa_ray.models.auto import check_positions, family_of, resolved
from jepa_ray.models.families import AUTO, DAY, FAMILIES, PINNED_DAY, PLAIN_TEMPLATE, ModelFamily
from jepa_ray.models.loading import load_config, load_network, load_tokenizer
from jepa_ray.preparation.text_checks import require_text
from tests import tiny_models as tiny


def auto(folder: Path | str, **model: Any) -> ModelConfig:
    return ModelConfig(family=AUTO, model=str(folder), **model)


def found(folder: Path) -> ModelFamily:
    return family_of(auto(folder), str(folder))


def said(family: ModelFamily) -> str:
    return "; ".join(family.found)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_records_agree_with_what_is_found(name: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoints[name], tmp_path / name)
    record = FAMILIES[name]
    if name == "gemma2":  # the built-in template shows system turns; the published one, imitated here, refuses them
        assert found(tmp_path / name).system_role and not record.system_role
        (tmp_path / name / "chat_template.jinja").write_text(str(FORMS["Gemma 2"].template))
    family = found(tmp_path / name)
    for what in ("model_type", "turn_end", "bos", "system_role", "pad", "template_kwargs"):
        assert getattr(family, what) == getattr(record, what), what
    assert set(family.lora_targets) == set(record.lora_targets)
    assert (family.plain_because, family.no_adapters_because, family.max_positions, family.answer_lead) == (None, None, None, "")


def test_a_named_family_is_its_record() -> None:
    assert family_of(ModelConfig(family="qwen3", model="tiny"), "anywhere") is FAMILIES["qwen3"]
    with pytest.raises(ValueError, match="unknown family 'qwen4'"):
        family_of(ModelConfig(family="qwen4", model="tiny"), "anywhere")


@pytest.fixture
def folder(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A checkpoint that a test may change, with Llama 3's tokens."""
    shutil.copytree(tiny_checkpoints["llama3"], tmp_path / "model")
    return tmp_path / "model"


def write(folder: Path, template: str) -> Path:
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


TURNS = "{% for m in messages %}{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>' ~ m.content ~ '<|eot_id|>' }}{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURNS
DROPS_SYSTEM = TURNS.replace("{{ '<|start", "{% if m.role != 'system' %}{{ '<|start").replace("{% endfor %}", "{% endif %}{% endfor %}")
ALTERNATES = "{% if messages[0].role == 'assistant' %}{{ raise_exception('a question first') }}{% endif %}" + TURNS


def test_the_record_is_found_once_and_again_after_a_change(folder: Path) -> None:
    assert found(folder) is found(folder)
    before = found(write(folder, TURNS))
    assert before.bos is None and found(write(folder, "{{ bos_token }}" + TURNS)).bos == "<|begin_of_text|>"


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM], ids=["refused", "dropped"])
def test_a_system_message_that_the_template_does_not_show_is_put_before_the_users_text(folder: Path, template: str) -> None:
    family = found(write(folder, template))
    assert not family.system_role and "put before the user's text" in said(family)
    assert ("refuses them: TemplateError: no system" in said(family)) == (template == NO_SYSTEM)
    prompt, _ = Renderer(load_tokenizer(str(folder), auto(folder)), family).prompt_and_answer("S", "T", "A")
    assert prompt.endswith("<|end_header_id|>S\n\nT<|eot_id|><|start_header_id|>assistant<|end_header_id|>")
    require_text(str(folder), family, None)


def test_a_lone_answer_that_the_template_refuses_is_cut_out_of_a_conversation(folder: Path) -> None:
    family = found(write(folder, ALTERNATES))
    view = Renderer(load_tokenizer(str(folder), auto(folder)), family).view("assistant", "A")
    assert view == ("<|start_header_id|>assistant<|end_header_id|>A", 45)
    require_text(str(folder), family, None)


def test_a_checkpoint_without_a_template_has_the_plain_one(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    family = found(folder)
    assert family.template == PLAIN_TEMPLATE and said(family).startswith("the plain template of jepa_ray")
    assert family.turn_end == "<|eot_id|>"  # this tokenizer's end of text
    renderer = Renderer(load_tokenizer(str(folder), auto(folder)), family)
    assert renderer.prompt_and_answer("S", "T", "A") == ("System:\nS\n\nUser:\nT\n\nAssistant:\n", "A<|eot_id|>")
    require_text(str(folder), family, None)


def settings(folder: Path, **changes: Any) -> Path:
    path = folder / "tokenizer_config.json"
    kept = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}), encoding="utf-8")
    return folder


REFUSED: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "no template, no end of text": ("", {"eos_token": None}, "contains no chat template.*add chat_template.jinja.*name a family"),
    "no answer": ("{% for m in messages %}{{ m.role }}{% endfor %}", {}, "does not show a question and its answer"),
    "other letters": (TURNS.replace("m.content", "m.content | upper"), {}, "does not show a question and its answer"),
    "refuses": ("{{ raise_exception('tools only') }}", {}, r"refuses a question and its answer \(TemplateError: tools only\); add"),
    "fails": ("{{ 1 / 0 }}", {}, r"refuses a question and its answer \(ZeroDivisionError: division by zero\)"),
    "never ends by itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", {}, r"\(RecursionError: maximum recursion depth"),
    "ends too late": (TURNS + "{{ (10 ** (10 ** 10)) % 2 }}", {}, "does not end: a few.*; add another chat_template.jinja.*name a family"),
    "fills the memory": (TURNS + "{{ 'a' * 10 ** 10 }}", {}, "needs more than 512 MiB of memory.*; add another chat_template.jinja"),
    "no special token": (TURNS.replace("<|eot_id|>", "<|stop|>"), {}, "puts no special token.*'<|stop|>'.*nothing would stop generation"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_template_that_cannot_be_used_is_one_sentence(folder: Path, case: str) -> None:
    template, changes, sentence = REFUSED[case]
    write(folder, template) if template else (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=sentence) as caught:
        found(settings(folder, **changes))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


FAULTS: Mapping[str, tuple[str, str]] = {
    "BOS twice": ("{{ bos_token }}{{ bos_token }}" + TURNS, "appears 2 times"),
    "an open thinking block": (TURNS.replace("~ m.content", "~ '<think>' ~ m.content"), "open or filled <think> block"),
    "text after the answer": (TURNS.replace("m.content ~", "m.content ~ ' Over.' ~"), "labels are"),
    "changed content": (TURNS.replace("m.content", "m.content | replace('i', 'I')"), "does not show the system message"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_text_names_its_check(folder: Path, fault: str) -> None:
    template, sentence = FAULTS[fault]
    with pytest.raises(ValueError, match=sentence) as caught:
        require_text(str(folder), found(write(folder, template)), None)
    assert f"python -m jepa_ray.conformance {folder}" in str(caught.value) and "fails the check `" in str(caught.value)


def test_todays_date_is_fixed(folder: Path) -> None:
    dated = write(folder, "{{ '<|start_header_id|>' ~ strftime_now('%d %B %Y') }}" + TURNS)
    family = found(dated)
    assert family.template.startswith(PINNED_DAY) and f"its date fixed to {DAY}" in said(family)
    tokenizer = load_tokenizer(str(folder), auto(folder))
    assert DAY in Renderer(tokenizer, family).conversation("S", "T", "A")
    require_text(str(folder), family, None)
    tokenizer.save_pretrained(folder)  # as a first stage does
    assert load_tokenizer(str(folder), auto(folder)).chat_template.count(PINNED_DAY) == 1


@pytest.mark.parametrize(("own", "why"), [(None, "it has none of its own"), ("<|eot_id|>", "its own is the end of turn")])
def test_padding_is_never_the_end_of_turn(folder: Path, own: str | None, why: str) -> None:
    family = found(settings(folder, pad_token=own))
    assert family.pad != family.turn_end and why in said(family)


def test_a_bos_that_only_the_tokenizer_adds(folder: Path) -> None:
    FORMS["Gemma 1"].write(folder, [example.text for example in tiny.EXAMPLES])
    family = found(write(folder, str(FORMS["Gemma 1"].template).replace("{{- bos_token }}", "")))
    assert family.bos == "<bos>" and "BOS '<bos>', once, by the tokenizer" in said(family)
    table = tokenize_split(tiny.EXAMPLES[:4], load_tokenizer(str(folder), auto(folder)), family, 512)
    for sequences in (table.lm, table.text, table.code):
        assert all(ids[0] == 2 and ids.tolist().count(2) == 1 for ids in map(sequences.__getitem__, range(4)))


def test_a_default_system_message_is_named(folder: Path) -> None:
    FORMS["Qwen 2.5"].write(folder, [example.text for example in tiny.EXAMPLES])
    assert "default system message ('You are Qwen, created by Alibaba Cloud." in said(found(folder))
    assert "default system" not in said(found(write(folder, str(FORMS["Qwen 3"].template))))


def test_a_tokenizer_that_is_too_large(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder), auto(folder))
    tokenizer.add_tokens([f"token number {i}" for i in range(8)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"rows of embeddings"):
        require_text(str(folder), found(folder), None)


@pytest.mark.parametrize(
    "changes", [{"num_attention_heads": 0}, {"hidden_size": "big"}, {"hidden_act": "nope"}, {"num_hidden_layers": None}]
)
def test_a_config_that_describes_no_network_is_one_sentence(folder: Path, changes: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    with pytest.raises(ValueError, match=r"describes no network|is not a loadable checkpoint") as caught:
        found(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"contains no \*\.safetensors, and pickled weights"):
        load_network(str(folder), auto(folder), None, k=0, seed=1)


def test_the_network_of_auto_is_that_of_the_record(tiny_checkpoints: dict[str, Path]) -> None:
    folder = tiny_checkpoints["olmo2"]
    named = ModelConfig(family="olmo2", model=str(folder))
    weights = [tiny.weights(load_network(str(folder), model, LoraConfig(r=2), k=2, seed=3)) for model in (named, auto(folder))]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert load_config(str(folder), auto(folder)).model_type == "olmo2"


def test_packing_is_resolved_by_what_the_model_can_do() -> None:
    why = "its attention has sinks"
    assert resolved(auto("x"), None) == auto("x") and resolved(auto("x"), why).packing == "plain"
    assert resolved(auto("x", packing="plain"), why).packing == "plain" and resolved(auto("x", packing="flat"), None).packing == "flat"
    for change in ({"packing": "trie"}, {"attention": "flex"}, {"compile": "true"}):
        ((key, value),) = change.items()
        with pytest.raises(ValueError, match=f"base.model.{key}={value} is not supported for this model, because {why}; set it to auto"):
            resolved(auto("x", **change), why)


def test_sequences_must_fit_the_positions(tmp_path: Path) -> None:
    FORMS["GPT-2"].write(tmp_path, [example.text for example in tiny.EXAMPLES])
    family = found(tmp_path)
    assert family.max_positions == 1024 and "at most 1024 positions" in said(family)
    check_positions(family, 1024, 1000, 24)
    with pytest.raises(ValueError, match=r"1025 tokens.*only 1024 positions; lower data.max_length"):
        check_positions(family, 1025, 1, 1)
    with pytest.raises(ValueError, match=r"prompt of 1000 tokens and an answer of 25 \(max_new_tokens\).*data.max_length"):
        check_positions(family, 10, 1000, 25)
    check_positions(FAMILIES["llama3"], 10**6, 10**6, 10**6)
