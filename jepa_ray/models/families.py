"""One record per model family: everything that differs between families lives in this table and nowhere else.

A checkpoint's own chat template is used where it has one (its format is the family's); the templates below serve the
built-in tiny models and checkpoints without a template. Facts about formats: the families' model cards; quirks: REFERENCE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

LLAMA3_TEMPLATE = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}{% set turns = messages[1:] %}
{%- else %}{% set system = '' %}{% set turns = messages %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\nToday Date: ' + date_string + '\\n\\n' }}
{{- system + '<|eot_id|>' }}
{%- for turn in turns %}
{{- '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' }}
{%- if turn['role'] == 'assistant' %}{% generation %}{{- turn['content'] | trim }}{{- '<|eot_id|>' }}{% endgeneration %}
{%- else %}{{- turn['content'] | trim }}{{- '<|eot_id|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

GEMMA2_TEMPLATE = """\
{{- bos_token }}
{%- for turn in messages %}
{%- if turn['role'] == 'assistant' %}{{- '<start_of_turn>model\\n' }}
{%- generation %}{{- turn['content'] | trim }}{{- '<end_of_turn>' }}{% endgeneration %}{{- '\\n' }}
{%- else %}{{- '<start_of_turn>' + turn['role'] + '\\n' }}{{- turn['content'] | trim }}{{- '<end_of_turn>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{% endif %}"""


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """What jepa_ray must know of a family."""

    name: str
    model_type: str
    """`model_type` in the checkpoints' config.json."""
    paper_model: str
    """Hub id used in the paper; what `model: paper` means."""
    template: str
    """Chat template with `{% generation %}` around the answer and its end of turn."""
    template_kwargs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Passed to every rendering, so that the same run renders the same text on any day."""
    system_role: bool = True
    """False: the system text is put before the user's, separated by a blank line."""
    bos: str
    turn_end: str
    """Text of the token that ends a turn: trained as a label, and stops generation."""
    pad: str
    """Padding token of the built-in tokenizer; never the end of turn."""
    extra_special_tokens: tuple[str, ...] = ()
    lora_targets: tuple[str, ...]
    """Names of the linear layers that carry adapters: all of them, as in the paper."""
    tiny: Mapping[str, Any]
    """Arguments of the Transformers config of the built-in tiny instance (vocabulary and special ids are added)."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Special tokens of the built-in tokenizer, in id order."""
        return (self.pad, self.bos, self.turn_end, *self.extra_special_tokens)


_ATTENTION_AND_MLP = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_TINY = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    # The usual 0.02 is meant for widths in the thousands; at width 64 it starts so close to zero that early training is wasted.
    "initializer_range": 0.08,
}

FAMILIES: dict[str, ModelFamily] = {
    family.name: family
    for family in (
        ModelFamily(
            name="llama3",
            model_type="llama",
            paper_model="meta-llama/Llama-3.2-1B-Instruct",
            template=LLAMA3_TEMPLATE,
            template_kwargs=MappingProxyType({"date_string": "26 Jul 2024"}),
            bos="<|begin_of_text|>",
            turn_end="<|eot_id|>",
            pad="<|finetune_right_pad_id|>",
            extra_special_tokens=("<|start_header_id|>", "<|end_header_id|>"),
            lora_targets=_ATTENTION_AND_MLP,
            tiny=MappingProxyType(_TINY | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rms_norm_eps": 1e-5}),
        ),
        ModelFamily(
            name="gemma2",
            model_type="gemma2",
            paper_model="google/gemma-2-2b-it",
            template=GEMMA2_TEMPLATE,
            system_role=False,
            bos="<bos>",
            turn_end="<end_of_turn>",
            pad="<pad>",
            extra_special_tokens=("<eos>", "<start_of_turn>"),
            lora_targets=_ATTENTION_AND_MLP,
            # Soft-capping at the published values; every second layer slides over a window short enough to matter in tests.
            tiny=MappingProxyType(_TINY | {"query_pre_attn_scalar": 16, "sliding_window": 128}),
        ),
    )
}


def get_family(name: str) -> ModelFamily:
    """The record of a family; ValueError naming the legal names otherwise."""
    if name not in FAMILIES:
        raise ValueError(f"unknown family {name!r}; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]
