"""One record per model family: everything that differs between families is in this table and nowhere else.

If a checkpoint has its own chat template, that one is used (its format is the family's). The templates below are for the
built-in tiny models and for checkpoints without a template. Formats are from the families' model cards; quirks: REFERENCE.
The record of any other causal language model, family `auto`, is found from its checkpoint (`auto.py`).
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

OPENELM_TEMPLATE = """\
{{- bos_token }}
{%- for turn in messages %}
{%- if turn['role'] == 'assistant' %}{{- 'Assistant:\\n' }}{% generation %}{{- turn['content'] | trim }}{{- '</s>' }}{% endgeneration %}
{%- else %}{{- turn['role'] | capitalize + ':\\n' }}{{- turn['content'] | trim }}{{- '\\n\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'Assistant:\\n' }}{% endif %}"""
"""Our own: OpenELM's repositories contain none. The answer starts on a new line, so that no token spans its beginning."""

OLMO2_TEMPLATE = """\
{{- '<|endoftext|>' }}
{%- for turn in messages %}
{{- '<|' + turn['role'] + '|>\\n' }}
{%- if turn['role'] == 'assistant' %}{% generation %}{{- turn['content'] | trim }}{{- '<|endoftext|>' }}{% endgeneration %}
{%- if not loop.last %}{{- '\\n' }}{% endif %}
{%- else %}{{- turn['content'] | trim }}{{- '\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{% endif %}"""

QWEN3_TEMPLATE = """\
{%- set start = '<|im_start|>assistant\\n' + ('' if enable_thinking else '<think>\\n\\n</think>\\n\\n') %}
{%- for turn in messages %}
{%- if turn['role'] == 'assistant' %}{{- start }}{% generation %}{{- turn['content'] | trim }}{{- '<|im_end|>' }}{% endgeneration %}
{%- else %}{{- '<|im_start|>' + turn['role'] + '\\n' }}{{- turn['content'] | trim }}{{- '<|im_end|>' }}{% endif %}{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- start }}{% endif %}"""

R1_DISTILL_TEMPLATE = """\
{{- bos_token }}
{%- for turn in messages %}
{%- if turn['role'] == 'system' %}{{- turn['content'] | trim }}
{%- elif turn['role'] == 'user' %}{{- '<｜User｜>' }}{{- turn['content'] | trim }}
{%- else %}{{- '<｜Assistant｜>' }}{% generation %}{{- turn['content'] | trim }}{{- '<｜end▁of▁sentence｜>' }}{% endgeneration %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<｜Assistant｜>' }}{% endif %}"""

PHI_TEMPLATE = """\
{%- for turn in messages %}
{%- if turn['role'] == 'system' %}{{- turn['content'] | trim }}{{- '\\n\\n' }}
{%- elif turn['role'] == 'user' %}{{- 'Instruct: ' }}{{- turn['content'] | trim }}{{- '\\n' }}
{%- else %}{{- 'Output:\\n' }}{% generation %}{{- turn['content'] | trim }}{{- '<|endoftext|>' }}{% endgeneration %}
{%- if not loop.last %}{{- '\\n' }}{% endif %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'Output:\\n' }}{% endif %}"""
"""phi-1.5 is not a chat model and has none; this is the format of phi-2's card, with the answer on a new line (see OpenELM)."""

PLAIN_TEMPLATE = """\
{%- for turn in messages %}
{{- turn['role'] | capitalize + ':\\n' }}
{%- if turn['role'] == 'assistant' %}{% generation %}{{- turn['content'] | trim }}{{- eos_token }}{% endgeneration %}
{%- if not loop.last %}{{- '\\n' }}{% endif %}
{%- else %}{{- turn['content'] | trim }}{{- '\\n\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'Assistant:\\n' }}{% endif %}"""
"""Our own, for base models under family `auto`: they have no chat template. The answer starts on a new line (see OpenELM)."""

DAY = "26 Jul 2024"
"""The day that templates which show today's date are given, so that the same run renders the same text on any day."""
PINNED_DAY = "{%- macro strftime_now(format) -%}" + DAY + "{%- endmacro -%}"
"""Put in front of a template that asks for today's date: its own `strftime_now` comes before Transformers'."""

AUTO = "auto"
"""Name of the family whose record is found from the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """What jepa_ray must know about a family."""

    name: str
    model_type: str
    """`model_type` in the checkpoints' config.json."""
    paper_model: str
    """Hub id used in the paper; what `model: paper` means."""
    other_models: tuple[str, ...] = ()
    """Hub ids of more checkpoints of the family: those in the paper's other tables, and other sizes."""
    tokenizer_model: str | None = None
    """Hub id whose tokenizer is used if the checkpoint contains none."""
    template: str
    """Chat template with `{% generation %}` around the answer and its end of turn."""
    template_kwargs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Passed to every rendering, so that the same run renders the same text on any day."""
    system_role: bool = True
    """False: the system text is prepended to the user's, separated by a blank line."""
    bos: str | None
    """Text of the token that every sequence starts with, exactly once; None: the family has no such token."""
    turn_end: str
    """Text of the token that ends a turn: it is trained as a label and stops generation. It may be the same as `bos`."""
    pad: str
    """Padding token of the built-in tokenizer; never the end of turn."""
    extra_special_tokens: tuple[str, ...] = ()
    lora_targets: tuple[str, ...]
    """Names of the linear layers that get adapters: all of them, as in the paper."""
    tiny: Mapping[str, Any]
    """Arguments for the Transformers config of the built-in tiny instance (vocabulary and special ids are added)."""

    # The rest is for `auto`. It is left out of `repr`, which identifies the tiny bases in the cache.
    answer_lead: str = field(default="", repr=False)
    """White space that the template puts before the answer and its generation prompt lacks: it belongs to the answer's first token."""
    plain_because: str | None = field(default=None, repr=False)
    """Why `packing: auto` means padded rows, in words; None: sequences can share rows."""
    no_adapters_because: str | None = field(default=None, repr=False)
    """Why the model cannot have adapters, in words; None: it can."""
    max_positions: int | None = field(default=None, repr=False)
    """Tokens of the longest sequence that the model has positions for; None: positions are computed, so there is no hard limit."""
    found: tuple[str, ...] = field(default=(), repr=False)
    """What was found in the checkpoint, in words."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Special tokens of the built-in tokenizer, in id order."""
        tokens = (self.pad, self.bos, self.turn_end, *self.extra_special_tokens)
        return tuple(dict.fromkeys(token for token in tokens if token is not None))


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
    # The usual 0.02 is meant for widths in the thousands; at width 64 weights start so close to zero that early training is wasted.
    "initializer_range": 0.08,
}

FAMILIES: dict[str, ModelFamily] = {
    family.name: family
    for family in (
        ModelFamily(
            name="llama3",
            model_type="llama",
            paper_model="meta-llama/Llama-3.2-1B-Instruct",
            other_models=("meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
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
            # Soft-capping at the published values; every second layer has a sliding window short enough to matter in tests.
            tiny=MappingProxyType(_TINY | {"query_pre_attn_scalar": 16, "sliding_window": 128}),
        ),
        ModelFamily(
            name="openelm",
            model_type="openelm",
            paper_model="apple/OpenELM-1_1B-Instruct",
            other_models=("apple/OpenELM-270M-Instruct", "apple/OpenELM-450M-Instruct", "apple/OpenELM-3B-Instruct"),
            tokenizer_model="meta-llama/Llama-2-7b-hf",
            template=OPENELM_TEMPLATE,
            bos="<s>",
            turn_end="</s>",
            pad="<unk>",
            lora_targets=("qkv_proj", "out_proj", "proj_1", "proj_2"),
            # 2 and 4 query heads, 1 and 2 key/value heads, feed-forward widths 64 and 192: every layer has its own shape.
            tiny=MappingProxyType(
                {
                    "model_dim": 64,
                    "num_transformer_layers": 2,
                    "head_dim": 16,
                    "num_gqa_groups": 2,
                    "qkv_multipliers": [0.5, 1.0],
                    "ffn_multipliers": [1.0, 3.0],
                    "ffn_dim_divisor": 16,
                    "normalize_qk_projections": True,
                    "share_input_output_layers": True,
                    "initializer_range": _TINY["initializer_range"],
                }
            ),
        ),
        ModelFamily(
            name="olmo2",
            model_type="olmo2",
            paper_model="allenai/OLMo-2-0425-1B-Instruct",
            other_models=("allenai/OLMo-2-1124-7B-Instruct",),
            template=OLMO2_TEMPLATE,
            bos="<|endoftext|>",
            turn_end="<|endoftext|>",
            pad="<|pad|>",
            lora_targets=_ATTENTION_AND_MLP,
            tiny=MappingProxyType(_TINY | {"tie_word_embeddings": False}),
        ),
        ModelFamily(
            name="qwen3",
            model_type="qwen3",
            paper_model="Qwen/Qwen3-1.7B",
            template=QWEN3_TEMPLATE,
            template_kwargs=MappingProxyType({"enable_thinking": False}),
            bos=None,
            turn_end="<|im_end|>",
            pad="<|endoftext|>",
            extra_special_tokens=("<|im_start|>", "<think>", "</think>"),
            lora_targets=_ATTENTION_AND_MLP,
            tiny=MappingProxyType(_TINY),
        ),
        ModelFamily(
            name="r1-distill-qwen",
            model_type="qwen2",
            paper_model="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
            template=R1_DISTILL_TEMPLATE,
            bos="<｜begin▁of▁sentence｜>",
            turn_end="<｜end▁of▁sentence｜>",
            pad="<｜▁pad▁｜>",
            extra_special_tokens=("<｜User｜>", "<｜Assistant｜>"),
            lora_targets=_ATTENTION_AND_MLP,
            tiny=MappingProxyType({key: value for key, value in _TINY.items() if key != "head_dim"} | {"tie_word_embeddings": False}),
        ),
        ModelFamily(
            name="phi",
            model_type="phi",
            paper_model="microsoft/phi-1_5",
            template=PHI_TEMPLATE,
            bos=None,
            turn_end="<|endoftext|>",
            pad="<|pad|>",
            lora_targets=("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
            tiny=MappingProxyType(
                {key: value for key, value in _TINY.items() if key not in ("head_dim", "num_key_value_heads")}
                # Phi rotates only half of each head: at 0.08 its untrained attention hardly depends on positions.
                | {"intermediate_size": 256, "tie_word_embeddings": False, "initializer_range": 0.12}
            ),
        ),
    )
}


def get_family(name: str) -> ModelFamily:
    """The record of a family. ValueError that lists the legal names if `name` is unknown."""
    if name not in FAMILIES:
        raise ValueError(f"unknown family {name!r}; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def published_family(checkpoint: str) -> str | None:
    """Name of the family in whose record a hub id is; None if there is none."""
    return next((name for name, family in FAMILIES.items() if checkpoint in (family.paper_model, *family.other_models)), None)
