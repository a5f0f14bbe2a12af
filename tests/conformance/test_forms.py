"""Every imitation of a published checkpoint: what `auto` finds in it, against the format as its publishers describe it, and the checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from jepa_ray.config import ModelConfig
from jepa_ray.conformance.forms import FORMS, Form
from jepa_ray.conformance.network_checks import CHECKS
from jepa_ray.data.views import Renderer
from jepa_ray.models.auto import family_of
from jepa_ray.models.families import AUTO
from jepa_ray.preparation.text_checks import TEXT_CHECKS, Subject, examples, run_checks

SEPARATE = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
SMOL = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
OLMO = "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n"
SMOL_3 = "<|im_start|>system\n## Metadata\n\nToday Date: 26 Jul 2024\nReasoning Mode: /no_think\n\n## Custom Instructions\n\n"
SMOL_3_ALONE = f"{SMOL_3}You are a helpful AI assistant named SmolLM.\n\n<|im_end|>\n"
ROLE = "<|start_of_role|>{}<|end_of_role|>"
TODAY = "Knowledge Cutoff Date: April 2024.\nToday's Date: 26 Jul 2024.\n"
GRANITE_ALONE = f"{ROLE.format('system')}{TODAY}You are Granite, developed by IBM. You are a helpful AI assistant.<|end_of_text|>\n"
USER, ASSISTANT = "<|im_start|>user\n", "<|im_start|>assistant\n"
NO_THOUGHT = "<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class Format:
    """What system message `S`, question `T` and answer `A` must become."""

    prompt: str
    answer: str
    text: str
    """The Text view before its content."""
    code: str
    turn_end: str
    bos: str | None = None
    system_role: bool = True
    adapters: frozenset[str] | None = frozenset(SEPARATE)
    plain: str = ""
    """A part of the reason why rows cannot be shared; empty: they can."""


def chatml(system: str = "", think: str = "") -> Format:
    prompt = f"<|im_start|>system\nS<|im_end|>\n{USER}T<|im_end|>\n{ASSISTANT}{think}"
    return Format(prompt, "A<|im_end|>", system + USER, system + ASSISTANT + think, "<|im_end|>")


GEMMA = "<bos><start_of_turn>user\n"
MERGED = Format(
    f"{GEMMA}S\n\nT<end_of_turn>\n<start_of_turn>model\n", "A<end_of_turn>", GEMMA, "<bos><start_of_turn>model\n", "<end_of_turn>", "<bos>"
)
FUSED = frozenset({"qkv_proj", "o_proj", "gate_up_proj", "down_proj"})
OLMO_2 = Format(
    "<|endoftext|><|system|>\nS\n<|user|>\nT\n<|assistant|>\n",
    "A<|endoftext|>",
    "<|endoftext|><|user|>\n",
    "<|endoftext|><|assistant|>\n",
    "<|endoftext|>",
    "<|endoftext|>",
)
QWEN_3 = replace(chatml(think=NO_THOUGHT), code=ASSISTANT)
"""Its template shows the empty thinking block in answers to a question only."""
BASE = Format("System:\nS\n\nUser:\nT\n\nAssistant:\n", "A<|endoftext|>", "User:\n", "Assistant:\n", "<|endoftext|>")
FORMATS = {
    "Qwen 2.5": chatml(QWEN),
    "Qwen 3": QWEN_3,
    "Llama 2": Format("<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nT [/INST]", " A </s>", "<s>[INST] ", "<s> ", "</s>", "<s>"),
    "SmolLM2": chatml(SMOL),
    "SmolLM3": replace(
        chatml(SMOL_3_ALONE),
        prompt=f"{SMOL_3}S\n\n<|im_end|>\n{USER}T<|im_end|>\n{ASSISTANT}<think>\n\n</think>\n",
        code=f"{SMOL_3_ALONE}{ASSISTANT}<think>\n\n</think>\n",
    ),
    "Mistral": Format("<s>[INST] S\n\nT[/INST]", " A</s>", "<s>[INST] ", "<s> ", "</s>", "<s>"),
    "Gemma 1": replace(MERGED, system_role=False),
    "Gemma 2": replace(MERGED, system_role=False),
    "Gemma 3": MERGED,
    "Phi 3": Format(
        "<|system|>\nS<|end|>\n<|user|>\nT<|end|>\n<|assistant|>\n", "A<|end|>", "<|user|>\n", "<|assistant|>\n", "<|end|>", adapters=FUSED
    ),
    "Phi 4": Format(
        "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>T<|im_end|><|im_start|>assistant<|im_sep|>",
        "A<|im_end|>",
        "<|im_start|>user<|im_sep|>",
        "<|im_start|>assistant<|im_sep|>",
        "<|im_end|>",
        adapters=FUSED,
    ),
    "OLMo 2": OLMO_2,
    "OLMo 3": chatml(OLMO),
    "Granite": Format(
        f"{ROLE.format('system')}S<|end_of_text|>\n{ROLE.format('user')}T<|end_of_text|>\n{ROLE.format('assistant')}",
        "A<|end_of_text|>",
        f"{GRANITE_ALONE}{ROLE.format('user')}",
        f"{GRANITE_ALONE}{ROLE.format('assistant')}",
        "<|end_of_text|>",
    ),
    "Pythia": replace(BASE, adapters=frozenset({"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"})),
    "GPT-2": replace(BASE, adapters=frozenset({"c_attn", "c_proj", "c_fc"}), plain="attn_pdrop = 0.1"),
    "OLMoE": replace(OLMO_2, adapters=None),
    "Qwen 3 MoE": replace(QWEN_3, adapters=None),
}
SLOW = {"Gemma 2", "Qwen 3 MoE"}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoints, by name."""
    folder = tmp_path_factory.mktemp("architectures")
    for name, form in FORMS.items():
        form.write(folder / name, words())
    return {name: folder / name for name in FORMS}


def words() -> list[str]:
    return [text for pair in examples() for text in (pair.system, pair.text, pair.code)]


@pytest.fixture(params=FORMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def subject(folder: Path, pairs: int = 24) -> Subject:
    return Subject(str(folder), family_of(ModelConfig(family=AUTO, model=str(folder)), str(folder)), examples=examples()[:pairs])


def outcome(subject: Subject, names: Sequence[str]) -> dict[str, str]:
    rows = list(run_checks(subject, {name: CHECKS[name] for name in names}))
    return {row.check: row.result if row.result != "FAILED" else f"{row.found}; {row.remedy}" for row in rows}


def test_every_form_has_its_expectation() -> None:
    assert list(FORMATS) == list(FORMS) and len(FORMATS) == 18
    assert {"qwen2", "llama", "mistral", "gemma", "phi3", "olmo2", "granite", "gpt_neox", "gpt2", "olmoe"} < {
        form.model_type for form in FORMS.values()
    }


def test_what_is_found_is_the_published_format(name: str, folders: dict[str, Path]) -> None:
    family, wanted = subject(folders[name]).family, FORMATS[name]
    assert (family.turn_end, family.bos, family.system_role) == (wanted.turn_end, wanted.bos, wanted.system_role)
    assert family.pad != family.turn_end
    if wanted.adapters is not None:
        assert set(family.lora_targets) == wanted.adapters and family.no_adapters_because is None
    else:
        assert "mixture of experts" in str(family.no_adapters_because)
    assert wanted.plain in str(family.plain_because) if wanted.plain else family.plain_because is None
    renderer = Renderer(subject(folders[name]).tokenizer, family)
    assert renderer.prompt_and_answer("S", "T", "A") == (wanted.prompt, wanted.answer)
    assert renderer.view("user", "T") == (wanted.text + "T", len(wanted.text))
    assert renderer.view("assistant", "A") == (wanted.code + "A", len(wanted.code))
    shown = "; ".join(family.found)
    assert f"end of turn {wanted.turn_end!r}" in shown and (f"BOS {wanted.bos!r}" if wanted.bos else "no BOS") in shown


def test_the_checks_of_the_text_pass(name: str, folders: dict[str, Path]) -> None:
    assert outcome(subject(folders[name], 200), list(TEXT_CHECKS)) == dict.fromkeys(TEXT_CHECKS, "ok")


def test_packed_rows_give_the_states_of_separate_passes(name: str, folders: dict[str, Path]) -> None:
    torch.set_num_threads(1)
    assert outcome(subject(folders[name]), ["packing"]) == {"packing": "ok"}


NETWORK = ("gradients", "LoRA targets", "predictor tokens", "stop token", "save and reload")


@pytest.mark.parametrize("name", [pytest.param(each, marks=pytest.mark.slow if each in SLOW else ()) for each in FORMS])
def test_losses_gradients_and_generation(name: str, folders: dict[str, Path]) -> None:
    torch.set_num_threads(1)
    wanted = dict.fromkeys(NETWORK, "ok") | ({"LoRA targets": "skipped"} if FORMATS[name].adapters is None else {})
    assert outcome(subject(folders[name]), NETWORK) == wanted


def test_an_imitation_is_the_same_each_time(tmp_path: Path) -> None:
    form: Form = FORMS["SmolLM3"]
    for folder in ("a", "b"):
        form.write(tmp_path / folder, words())
    for file in ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
