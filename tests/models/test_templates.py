"""Checkpoints' own chat templates: imitations, written here in the published formats, of those that real tokenizers contain.

Each is put into the family's tiny tokenizer; the prompt is compared with the published format, character by character.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from jepa_ray.config import ModelConfig
from jepa_ray.data.example import Example
from jepa_ray.data.packing import PREDICTOR_BASE, make_batch
from jepa_ray.data.views import Renderer, tokenize_split
from jepa_ray.models.families import FAMILIES, ModelFamily
from jepa_ray.models.loading import load_tokenizer
from tests.tiny_models import EXAMPLES

LLAMA_32 = """\
{{ bos_token }}{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}
{%- if messages[0].role == 'system' %}{% set first = messages[0].content | trim %}{% set rest = messages[1:] %}
{%- else %}{% set first = '' %}{% set rest = messages %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\nToday Date: ' ~ date_string ~ '\\n\\n' }}
{{- first ~ '<|eot_id|>' }}
{%- for m in rest %}{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' ~ m.content | trim ~ '<|eot_id|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

GEMMA_2 = """\
{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system turn here') }}{% endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 is even) %}{{ raise_exception('user and assistant take turns') }}{% endif %}
{{- '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\\n' ~ m.content | trim ~ '<end_of_turn>\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

QWEN_3 = """\
{%- set ns = namespace(asked=messages | length - 1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role != 'assistant' %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}
{%- else %}{% set said = m.content.split('</think>')[-1].lstrip('\\n') %}{{ '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.asked and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{ said ~ '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""

R1_OLD = """\
{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '<｜User｜>' ~ m.content }}{% endif %}
{%- if m.role == 'assistant' %}{{ '<｜Assistant｜>' ~ m.content.split('</think>')[-1] ~ '<｜end▁of▁sentence｜>' }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"""
R1_NEW = R1_OLD.replace("{{ '<｜Assistant｜>' }}", "{{ '<｜Assistant｜><think>\\n' }}")

OLMO_2 = """\
{{ bos_token }}{% for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content }}
{%- if m.role == 'assistant' %}{{ eos_token }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% else %}{{ '\\n' }}{% endif %}
{%- if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}"""


@dataclass(frozen=True)
class TemplateCase:
    """A checkpoint's template, and the prompt and views that it must render for system <S> and text <T>."""

    family: str
    template: str
    prompt: str
    text: str
    """The Text view up to the content."""
    code: str
    trims: bool = True


HEADER = "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
LLAMA = "<|start_header_id|>{}<|end_header_id|>\n\n"
CHATML = "<|im_start|>{}\n"
BOS_R1 = "<｜begin▁of▁sentence｜>"
OWN = {
    "llama 3.2": TemplateCase(
        "llama3",
        LLAMA_32,
        f"<|begin_of_text|>{HEADER}<S><|eot_id|>{LLAMA.format('user')}<T><|eot_id|>{LLAMA.format('assistant')}",
        f"<|begin_of_text|>{HEADER}<|eot_id|>{LLAMA.format('user')}",
        f"<|begin_of_text|>{HEADER}<|eot_id|>{LLAMA.format('assistant')}",
    ),
    "gemma 2": TemplateCase(
        "gemma2",
        GEMMA_2,
        "<bos><start_of_turn>user\n<S>\n\n<T><end_of_turn>\n<start_of_turn>model\n",
        "<bos><start_of_turn>user\n",
        "<bos><start_of_turn>model\n",
    ),
    "qwen 3": TemplateCase(
        "qwen3",
        QWEN_3,
        f"{CHATML.format('system')}<S><|im_end|>\n{CHATML.format('user')}<T><|im_end|>\n{CHATML.format('assistant')}<think>\n\n</think>\n\n",
        CHATML.format("user"),
        CHATML.format("assistant"),
        trims=False,
    ),
    "r1-distill, old": TemplateCase(
        "r1-distill-qwen",
        R1_OLD,
        f"{BOS_R1}<S><｜User｜><T><｜Assistant｜>",
        f"{BOS_R1}<｜User｜>",
        f"{BOS_R1}<｜Assistant｜>",
        trims=False,
    ),
    "r1-distill, new": TemplateCase(
        "r1-distill-qwen",
        R1_NEW,
        f"{BOS_R1}<S><｜User｜><T><｜Assistant｜>",
        f"{BOS_R1}<｜User｜>",
        f"{BOS_R1}<｜Assistant｜>",
        trims=False,
    ),
    "olmo 2": TemplateCase(
        "olmo2",
        OLMO_2,
        "<|endoftext|><|system|>\n<S>\n<|user|>\n<T>\n<|assistant|>\n",
        "<|endoftext|><|user|>\n",
        "<|endoftext|><|assistant|>\n",
        trims=False,
    ),
}


@pytest.fixture(params=OWN)
def case(request: pytest.FixtureRequest) -> TemplateCase:
    return OWN[request.param]


def tokenizer_of(family: str, tiny_checkpoints: dict[str, Path], template: str) -> Any:
    folder = str(tiny_checkpoints[family])
    tokenizer = load_tokenizer(folder, ModelConfig(family=family, model=folder))
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture
def tokenizer(case: TemplateCase, tiny_checkpoints: dict[str, Path]) -> Any:
    return tokenizer_of(case.family, tiny_checkpoints, case.template)


def test_prompt_answer_and_views_are_those_of_the_format(case: TemplateCase, tokenizer: Any) -> None:
    family = FAMILIES[case.family]
    renderer = Renderer(tokenizer, family)
    assert renderer.prompt_and_answer("<S>", "<T>", "[ab]+") == (case.prompt, "[ab]+" + family.turn_end)
    assert renderer.view("user", "T") == (case.text + "T", len(case.text))
    assert renderer.view("assistant", "[ab]+") == (case.code + "[ab]+", len(case.code))
    assert renderer.prompt_and_answer("S", "T", " [ab]+\t")[1].removesuffix(family.turn_end) == ("[ab]+" if case.trims else " [ab]+\t")
    assert renderer.view("assistant", "[ab]+ \n")[0].endswith("[ab]+")


def test_earlier_turns_are_rendered_as_the_format_does(case: TemplateCase, tokenizer: Any) -> None:
    """A reasoning model's template removes the thinking of earlier answers; that is the prompt the model would get."""
    family = FAMILIES[case.family]
    history = [("user", "hi"), ("assistant", "<think>\nhm\n</think>\n\nyes?"), ("user", "no"), ("assistant", "well")]
    turns = [("system", "S"), *history, ("user", "T"), ("assistant", "[ab]+")]
    if not family.system_role:
        turns = [("user", "S\n\nhi"), *turns[2:]]
    messages = [{"role": role, "content": content} for role, content in turns]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, **family.template_kwargs)
    prompt, answer = Renderer(tokenizer, family).prompt_and_answer("S", "T", "[ab]+", history)
    assert prompt == whole[: whole.index("[ab]+")] and answer == "[ab]+" + family.turn_end
    assert ("hm" in prompt) == (case.family not in ("qwen3", "r1-distill-qwen")) and prompt.index("yes?") < prompt.index("well")


def test_turns_that_a_template_refuses_are_named(tiny_checkpoints: dict[str, Path]) -> None:
    tokenizer = tokenizer_of("gemma2", tiny_checkpoints, GEMMA_2)
    greeting = Example("chats:7", "", "T", "C", history=(("assistant", "hello"),))
    with pytest.raises(ValueError, match=r"^chats:7: the chat template of family gemma2 refuses the turns \(assistant, user, assistant\)"):
        tokenize_split([greeting], tokenizer, FAMILIES["gemma2"], 512)


def test_labels_and_readouts_on_200_examples(case: TemplateCase, tokenizer: Any) -> None:
    family = FAMILIES[case.family]
    table = tokenize_split(EXAMPLES, tokenizer, family, 2048)
    batch = make_batch(table, list(range(len(EXAMPLES))), backend="flat", k=2)
    count, read = len(EXAMPLES), batch.packed.input_ids.reshape(-1)
    assert count == 200
    assert tokenizer.decode(batch.label_ids) == "".join(example.code + family.turn_end for example in EXAMPLES)
    bos = tokenizer.convert_tokens_to_ids(family.bos) if family.bos else None
    for i, example in enumerate(EXAMPLES):
        assert tokenizer.decode(table.prompt(i)) == case.prompt.replace("<S>", example.system).replace("<T>", example.text)
        source, target = batch.packed.nodes[count + i], batch.packed.nodes[2 * count + i]
        assert (batch.source_index[i], batch.target_index[i]) == (source[-1], target[-1])
        assert read[source[-2:]].tolist() == [PREDICTOR_BASE, PREDICTOR_BASE + 1]
        assert tokenizer.decode(read[source[:-2]]) == case.text + example.text
        assert tokenizer.decode(read[target]) == case.code + example.code
        if bos is not None:
            assert all(np.flatnonzero(ids[:-1] == bos).tolist() == [0] for ids in (table.lm[i], table.text[i], table.code[i]))


def test_a_generation_prompt_that_no_answer_begins_with_is_not_the_prompt(tiny_checkpoints: dict[str, Path]) -> None:
    """Newer R1-Distill templates prompt with `<think>`, which is never trained, so generation must not start with it either."""
    tokenizer = tokenizer_of("r1-distill-qwen", tiny_checkpoints, R1_NEW)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "T"}], tokenize=False, add_generation_prompt=True)
    prompt, _ = Renderer(tokenizer, FAMILIES["r1-distill-qwen"]).prompt_and_answer("", "T", "C")
    assert asked == prompt + "<think>\n"


def test_thinking_can_be_left_on(tiny_checkpoints: dict[str, Path]) -> None:
    """The text before the answer does not depend on the template's generation prompt."""
    tokenizer = tokenizer_of("qwen3", tiny_checkpoints, QWEN_3)
    off, on = FAMILIES["qwen3"], replace(FAMILIES["qwen3"], template_kwargs={"enable_thinking": True})
    assert Renderer(tokenizer, off).prompt_and_answer("", "T", "C") == Renderer(tokenizer, on).prompt_and_answer("", "T", "C")


def test_an_answer_that_the_template_cuts_is_refused(tiny_checkpoints: dict[str, Path]) -> None:
    renderer = Renderer(tokenizer_of("r1-distill-qwen", tiny_checkpoints, R1_NEW), FAMILIES["r1-distill-qwen"])
    with pytest.raises(ValueError, match=re.escape("does not show the answer 'a</think>b'")):
        renderer.prompt_and_answer("", "T", "a</think>b")


def test_the_day_does_not_matter(tiny_checkpoints: dict[str, Path]) -> None:
    tokenizer, family = tokenizer_of("llama3", tiny_checkpoints, LLAMA_32), FAMILIES["llama3"]
    assert "26 Jul 2024" in Renderer(tokenizer, family).conversation("S", "T", "C")
    today = Renderer(tokenizer, replace(family, template_kwargs={})).conversation("S", "T", "C")
    assert "26 Jul 2024" not in today, "the imitation has no date, so nothing was tested"


def test_a_bos_that_the_template_leaves_to_the_tokenizer(tiny_checkpoints: dict[str, Path]) -> None:
    for name, bare in (("llama3", LLAMA_32), ("gemma2", GEMMA_2), ("r1-distill-qwen", R1_OLD)):
        with_bos, without = (
            Renderer(tokenizer_of(name, tiny_checkpoints, template), FAMILIES[name])
            for template in (bare, bare.replace("{{ bos_token }}", ""))
        )
        assert with_bos.prompt_and_answer("S", "T", "C") == without.prompt_and_answer("S", "T", "C")
        assert with_bos.view("assistant", "C") == without.view("assistant", "C")


@pytest.fixture(scope="module")
def sentence_piece() -> Any:
    """A tokenizer like Llama 2's: spaces are \u2581, one is put before each piece of text, unknown characters become bytes."""
    family: ModelFamily = FAMILIES["openelm"]
    special = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[*special, *(f"<0x{i:02X}>" for i in range(256))], show_progress=False)
    # The words of the examples; line ends and other rare characters stay out of the alphabet, as in the real one.
    tokenizer.train_from_iterator([text for example in EXAMPLES for text in (example.text, example.code)], trainer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.add_special_tokens({"additional_special_tokens": [AddedToken(token, special=True) for token in special]})
    fast.chat_template = family.template
    return fast


def test_llama_2s_kind_of_tokenizer(sentence_piece: Any) -> None:
    """OpenELM's: no offsets of bytes within a character, a space before each piece of text."""
    odd = [Example("odd", "S", "naïve 日本語 🦉", "[🦉é]{2}"), Example("white", "", "  a  b \n", "\tc  d")]
    odd.append(Example("quoted", "S </s>", "say <s>", "a </s> b<s>"))  # text, not tokens
    examples = [*EXAMPLES, *odd]
    table = tokenize_split(examples, sentence_piece, FAMILIES["openelm"], 2048)
    assert len(table) == 203
    for i, example in enumerate(examples):
        labels = table.lm[i][table.prompt_length[i] :]
        assert labels[-1] == sentence_piece.eos_token_id and sentence_piece.decode(labels[:-1]) == example.code.strip()
        assert sentence_piece.decode(table.text[i]).endswith("User:\n" + example.text.strip())
        assert sentence_piece.decode(table.code[i]).endswith("Assistant:\n" + example.code.strip())
        assert [ids.tolist().count(sentence_piece.bos_token_id) for ids in (table.lm[i], table.text[i], table.code[i])] == [1, 1, 1]
