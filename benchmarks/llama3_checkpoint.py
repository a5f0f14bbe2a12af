"""A checkpoint folder of Llama-3.2-1B without weights, for `model: FOLDER` and `init: random`: its shape and its tokenizer."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from jepa_ray.config import ModelConfig
from jepa_ray.data.example import Example
from jepa_ray.data.views import tokenize_split
from jepa_ray.models.checkpoint_configs import CHECKPOINT_CONFIGS
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.models.tiny import tiny_config

LLAMA3 = FAMILIES["llama3"]
RESERVED = 256
"""Special tokens of Llama 3; their ids follow those of the text tokens."""
NAMED = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
SPECIAL = (*NAMED, *(f"<|reserved_special_token_{number}|>" for number in range(3, RESERVED - len(NAMED) + 3)))
SHAPE = {
    **CHECKPOINT_CONFIGS[LLAMA3.paper_model],
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
    },
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
}
"""config.json of meta-llama/Llama-3.2-1B-Instruct."""
CHECKED = 256
"""Examples that are tokenised when a tokenizer is written."""


class _Converter(TikTokenConverter):
    """Transformers' converter, with its own reader of the file: the one that it would call is in another package."""

    @staticmethod
    def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
        return ranks(Path(tiktoken_url))


def ranks(file: Path) -> dict[bytes, int]:
    """Token -> rank, from lines of a token in base64 and its rank. ValueError if the file has another format."""
    try:
        pairs = [line.split() for line in file.read_bytes().splitlines() if line.strip()]
        found = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except OSError as error:
        raise ValueError(f"--tokenizer {file}: cannot be read ({error.strerror})") from error
    except (ValueError, binascii.Error):
        found = {}
    if sorted(found.values()) != list(range(len(found))) or not all(bytes([value]) in found for value in range(256)):
        raise ValueError(
            f"--tokenizer {file}: is not in tiktoken's format (lines of a token in base64 and its rank, all 256 bytes among them); "
            "give llama_models/llama3/tokenizer.model of the PyPI package llama-models"
        )
    return found


def write_tokenizer(file: Path, folder: Path, examples: Sequence[Example]) -> float:
    """Write the tokenizer of a tiktoken file to the folder, with Llama 3's special tokens and the family's chat template.

    Returns the mean number of tokens of a conversation. ValueError if the file has another format, or the examples cannot be tokenised.
    """
    count = len(ranks(file))
    if count + RESERVED > SHAPE["vocab_size"]:
        raise ValueError(f"--tokenizer {file}: has {count} tokens, but Llama-3.2-1B has {SHAPE['vocab_size'] - RESERVED}")
    converter: Any = _Converter
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=converter(vocab_file=str(file), extra_special_tokens=list(SPECIAL)).converted(),
        bos_token=LLAMA3.bos,
        eos_token=LLAMA3.turn_end,
        pad_token=LLAMA3.pad,
        clean_up_tokenization_spaces=False,
        model_max_length=SHAPE["max_position_embeddings"],
    )
    tokenizer.chat_template = LLAMA3.template
    tokenizer.save_pretrained(folder)
    loaded = load_tokenizer(str(folder), ModelConfig(family=LLAMA3.name, model=str(folder)))
    table = tokenize_split(examples[:CHECKED], loaded, LLAMA3, 512)
    return float(table.lm.lengths.mean())


def write_shape(folder: Path) -> None:
    """Write the config.json of Llama-3.2-1B."""
    (folder / "config.json").write_text(json.dumps(SHAPE, indent=2) + "\n", encoding="utf-8")


def write_tiny_checkpoint(folder: Path, tiny: Path) -> None:
    """Write a checkpoint with the tokenizer of `folder` and the family's tiny shape."""
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.save_pretrained(tiny)
    tiny_config(LLAMA3, tokenizer).save_pretrained(tiny)
