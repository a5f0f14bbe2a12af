"""Small checkpoints of other architectures than the paper's, for the checks of family `auto`: real architecture, random weights.

Each has an imitation, written here, of the chat template that its published checkpoints contain (control tokens, roles and refusals are
facts of the format), and a tokenizer of their kind, trained on the checks' own texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from jepa_ray.models.loading import seeded

VOCABULARY = 600
SHAPE = MappingProxyType(
    {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
        "initializer_range": 0.1,
    }
)

_ALTERNATE = "{%- if (m.role == 'user') != (loop.index0 is even) %}{{ raise_exception('user and assistant take turns') }}{% endif %}"
_SYSTEM_FIRST = """\
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}
{%- else %}{% set system = '' %}{% set turns = messages %}{% endif %}"""


def _chatml(default: str = "", mark: str = "\\n", end: str = "\\n") -> str:
    """ChatML: `<|im_start|>role`, the content and `<|im_end|>`, with a system message where there is none."""
    missing = "{%- if messages[0].role != 'system' %}{{ '<|im_start|>system" + mark + default + "<|im_end|>" + end + "' }}{% endif %}"
    return (
        (missing if default else "")
        + "{%- for m in messages %}{{ '<|im_start|>' ~ m.role ~ '" + mark + "' ~ m.content ~ '<|im_end|>" + end + "' }}{% endfor %}"
        + "{%- if add_generation_prompt %}{{ '<|im_start|>assistant" + mark + "' }}{% endif %}"
    )  # fmt: skip


QWEN_25 = _chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")
SMOLLM_2 = _chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face")
PHI_4 = _chatml(mark="<|im_sep|>", end="")
OLMO_3 = _chatml("You are a helpful AI assistant.").replace("m.content ~ '<|im_end|>\\n'", "m.content ~ '<|im_end|>' ~ '\\n'")
QWEN_3 = """\
{%- set last = namespace(question=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set last.question = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role != 'assistant' %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}
{%- else %}{{ '<|im_start|>assistant\\n' }}{% if loop.last and loop.index0 > last.question %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{{- m.content ~ '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""
SMOLLM_3 = (
    _SYSTEM_FIRST
    + """\
{%- if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}
{%- set mode = '/think' if enable_thinking else '/no_think' %}
{{- '<|im_start|>system\\n## Metadata\\n\\nToday Date: ' ~ strftime_now('%d %B %Y') ~ '\\nReasoning Mode: ' ~ mode }}
{{- '\\n\\n## Custom Instructions\\n\\n' ~ (system or 'You are a helpful AI assistant named SmolLM.') ~ '\\n\\n<|im_end|>\\n' }}
{%- for m in turns %}
{%- if m.role == 'user' %}{{ '<|im_start|>user\\n' ~ m.content ~ '<|im_end|>\\n' }}
{%- else %}{{ '<|im_start|>assistant\\n' ~ ('' if enable_thinking else '<think>\\n\\n</think>\\n') ~ m.content ~ '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' ~ ('' if enable_thinking else '<think>\\n\\n</think>\\n') }}{% endif %}"""
)
LLAMA_2 = (
    _SYSTEM_FIRST
    + "{%- for m in turns %}"
    + _ALTERNATE
    + """\
{%- set text = '<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' ~ m.content if loop.first and system else m.content %}
{%- if m.role == 'user' %}{{ bos_token ~ '[INST] ' ~ text | trim ~ ' [/INST]' }}
{%- else %}{{ ' ' ~ m.content | trim ~ ' ' ~ eos_token }}{% endif %}
{%- endfor %}"""
)
MISTRAL = (
    "{{- bos_token }}"
    + _SYSTEM_FIRST
    + "{%- for m in turns %}"
    + _ALTERNATE
    + """\
{%- set shown = system ~ '\\n\\n' ~ m.content if system and loop.index0 >= turns | length - 2 else m.content %}
{%- if m.role == 'user' %}{{ '[INST] ' ~ shown ~ '[/INST]' }}
{%- else %}{{ ' ' ~ m.content | trim ~ eos_token }}{% endif %}
{%- endfor %}"""
)
_GEMMA_TURNS = (
    "{%- for m in turns %}"
    + _ALTERNATE
    + """\
{{- '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\\n' ~ (system if loop.first else '') ~ m.content | trim }}
{{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
)
GEMMA = (
    "{{- bos_token }}{%- set system = '' %}{%- set turns = messages %}"
    "{%- if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + _GEMMA_TURNS
)
GEMMA_3 = "{{- bos_token }}" + _SYSTEM_FIRST + "{%- set system = system ~ '\\n\\n' if system else '' %}" + _GEMMA_TURNS
PHI_3 = """\
{%- for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content ~ '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""
OLMO_2 = """\
{{- bos_token }}
{%- for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content }}
{%- if m.role == 'assistant' %}{{ eos_token }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% else %}{{ '\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""
GRANITE = (
    _SYSTEM_FIRST
    + """\
{%- set today = "Knowledge Cutoff Date: April 2024.\\nToday's Date: " ~ strftime_now('%B %d, %Y') ~ '.\\n' %}
{%- set system = system or today ~ 'You are Granite, developed by IBM. You are a helpful AI assistant.' %}
{{- '<|start_of_role|>system<|end_of_role|>' ~ system ~ '<|end_of_text|>\\n' }}
{%- for m in turns %}{{ '<|start_of_role|>' ~ m.role ~ '<|end_of_role|>' ~ m.content ~ '<|end_of_text|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"""
)


@dataclass(frozen=True, kw_only=True)
class Form:
    """The form of a published checkpoint, and how to write a small one."""

    name: str
    model_type: str
    published: str
    """Hub id of a checkpoint of this form."""
    template: str | None
    """None: a base model."""
    special: tuple[str, ...]
    """Special tokens of the tokenizer, in the order of their ids."""
    bos: str | None = None
    """The tokenizer's own BOS."""
    eos: str
    """The tokenizer's end of text."""
    pad: str | None = None
    adds_bos: bool = False
    """The tokenizer puts its BOS in front of every text."""
    sentence_piece: bool = False
    """Spaces are part of the words after them, as in Llama 2's tokenizer; otherwise bytes."""
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """What its config adds to SHAPE; None: a key that it does not have."""

    def write(self, folder: Path, texts: Sequence[str]) -> None:
        """The checkpoint, with a tokenizer trained on the texts."""
        tokenizer = self.tokenizer(texts)
        tokenizer.save_pretrained(folder)
        keys = {name: value for name, value in {**SHAPE, **self.config}.items() if value is not None}
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        config = AutoConfig.for_model(self.model_type, **keys, **ids, vocab_size=len(tokenizer))
        with seeded(0):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            for parameter in model.parameters():  # norms start at 0 or 1, biases at 0, which would hide mistakes
                if parameter.ndim == 1:
                    parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(folder)

    def tokenizer(self, texts: Sequence[str]) -> Any:
        """The tokenizer, trained on the texts."""
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True) if self.sentence_piece else models.BPE())
        alphabet: list[str] = []
        special = list(self.special)
        if self.sentence_piece:
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
            tokenizer.decoder = decoders.Sequence(
                [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            )
            special += [f"<0x{byte:02X}>" for byte in range(256)]
        else:
            tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
            alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(sorted(set(texts)), trainer)
        if self.adds_bos:
            number = tokenizer.token_to_id(str(self.bos))
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{self.bos} $A", pair=f"{self.bos} $A {self.bos} $B", special_tokens=[(str(self.bos), number)]
            )
        unknown = "<unk>" if self.sentence_piece else None
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token=self.bos, eos_token=self.eos, pad_token=self.pad, unk_token=unknown
        )
        fast.add_special_tokens({"additional_special_tokens": [AddedToken(token, special=True) for token in self.special]})
        fast.chat_template = self.template
        return fast


_IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_SPM: Mapping[str, Any] = MappingProxyType(
    {"special": ("<unk>", "<s>", "</s>"), "bos": "<s>", "eos": "</s>", "adds_bos": True, "sentence_piece": True}
)
_GEMMA: Mapping[str, Any] = MappingProxyType(
    {"special": ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"), "bos": "<bos>", "eos": "<eos>", "pad": "<pad>"}
    | {"adds_bos": True, "sentence_piece": True}
)
_OLD = MappingProxyType({"head_dim": None, "num_key_value_heads": None})
_WINDOW = MappingProxyType({"sliding_window": 48})
_TIED = MappingProxyType({"tie_word_embeddings": True})

FORMS: Mapping[str, Form] = MappingProxyType(
    {
        one.name: one
        for one in (
            Form(name="Qwen 2.5", model_type="qwen2", published="Qwen/Qwen2.5-0.5B-Instruct", template=QWEN_25, special=_IM,
                      eos="<|im_end|>", pad="<|endoftext|>", config={"head_dim": None, **_TIED}),
            Form(name="Qwen 3", model_type="qwen3", published="Qwen/Qwen3-0.6B", template=QWEN_3, eos="<|im_end|>",
                      special=(*_IM, "<think>", "</think>"), pad="<|endoftext|>", config=_TIED),
            Form(name="Llama 2", model_type="llama", published="meta-llama/Llama-2-7b-chat-hf", template=LLAMA_2, **_SPM,
                      config={"num_key_value_heads": 4}),
            Form(name="SmolLM2", model_type="llama", published="HuggingFaceTB/SmolLM2-135M-Instruct", template=SMOLLM_2, special=_IM,
                      bos="<|im_start|>", eos="<|im_end|>", pad="<|im_end|>", config=_TIED),
            Form(name="SmolLM3", model_type="smollm3", published="HuggingFaceTB/SmolLM3-3B", template=SMOLLM_3, eos="<|im_end|>",
                      special=("<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"), pad="<|im_end|>",
                      config={"no_rope_layers": [1, 0], "head_dim": None, **_TIED}),
            Form(name="Mistral", model_type="mistral", published="mistralai/Mistral-7B-Instruct-v0.3", template=MISTRAL, **_SPM,
                      config=_WINDOW),
            Form(name="Gemma 1", model_type="gemma", published="google/gemma-2b-it", template=GEMMA, **_GEMMA, config=_TIED),
            Form(name="Gemma 2", model_type="gemma2", published="google/gemma-2-2b-it", template=GEMMA, **_GEMMA,
                      config={"query_pre_attn_scalar": 16, **_TIED, **_WINDOW}),
            Form(name="Gemma 3", model_type="gemma3_text", published="google/gemma-3-1b-it", template=GEMMA_3, **_GEMMA,
                      config={"query_pre_attn_scalar": 16, "layer_types": ["sliding_attention", "full_attention"], **_TIED, **_WINDOW}),
            Form(name="Phi 3", model_type="phi3", published="microsoft/Phi-3-mini-4k-instruct", template=PHI_3, bos="<s>",
                      special=("<unk>", "<s>", "</s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
                      eos="<|endoftext|>", pad="<|endoftext|>", sentence_piece=True, config={"head_dim": None, **_WINDOW}),
            Form(name="Phi 4", model_type="phi3", published="microsoft/phi-4", template=PHI_4, special=(*_IM, "<|im_sep|>"),
                      bos="<|endoftext|>", eos="<|im_end|>", pad="<|endoftext|>", config={"head_dim": None}),
            Form(name="OLMo 2", model_type="olmo2", published="allenai/OLMo-2-0425-1B-Instruct", template=OLMO_2, bos="<|endoftext|>",
                      special=("<|pad|>", "<|endoftext|>"), eos="<|endoftext|>", pad="<|pad|>"),
            Form(name="OLMo 3", model_type="olmo3", published="allenai/Olmo-3-7B-Instruct", template=OLMO_3, bos="<|endoftext|>",
                      special=("<|pad|>", *_IM), eos="<|im_end|>", pad="<|pad|>",
                      config={"layer_types": ["sliding_attention", "full_attention"], **_WINDOW}),
            Form(name="Granite", model_type="granite", published="ibm-granite/granite-3.3-2b-instruct", template=GRANITE,
                      special=("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"), bos="<|end_of_text|>", eos="<|end_of_text|>",
                      pad="<|end_of_text|>", config={"head_dim": None, "attention_multiplier": 0.1, "embedding_multiplier": 3.0,
                                                     "residual_multiplier": 0.5, "logits_scaling": 4.0, **_TIED}),
            Form(name="Pythia", model_type="gpt_neox", published="EleutherAI/pythia-160m", template=None, special=("<|endoftext|>",),
                      bos="<|endoftext|>", eos="<|endoftext|>", config=_OLD),
            Form(name="GPT-2", model_type="gpt2", published="openai-community/gpt2", template=None, special=("<|endoftext|>",),
                      bos="<|endoftext|>", eos="<|endoftext|>", config={**_OLD, **_TIED}),
            Form(name="OLMoE", model_type="olmoe", published="allenai/OLMoE-1B-7B-0125-Instruct", template=OLMO_2,
                      special=("<|padding|>", "<|endoftext|>"), bos="<|endoftext|>", eos="<|endoftext|>", pad="<|padding|>",
                      config={"head_dim": None, "num_experts": 4, "num_experts_per_tok": 2}),
            Form(name="Qwen 3 MoE", model_type="qwen3_moe", published="Qwen/Qwen3-30B-A3B", template=QWEN_3, eos="<|im_end|>",
                      special=(*_IM, "<think>", "</think>"), pad="<|endoftext|>",
                      config={"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
        )
    }
)  # fmt: skip
"""By name."""
