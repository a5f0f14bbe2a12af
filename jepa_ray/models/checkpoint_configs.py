"""Shapes of the checkpoints in `families.py`, so that a sweep on them can be planned before they are downloaded.

Per hub id the keys of its config.json that sizes depend on. Sources: the config.json of each repository, and for the parameter counts
that the tests compare, the model cards. Only plans read this table; a trial reads the checkpoint itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


def _config(
    model_type: str, width: int, feed_forward: int, layers: int, heads: int, kv_heads: int, vocabulary: int, *, tied: bool, **more: Any
) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "model_type": model_type,
            "hidden_size": width,
            "intermediate_size": feed_forward,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": vocabulary,
            "tie_word_embeddings": tied,
            **more,
        }
    )


def _openelm(width: int, layers: int, head_size: int) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "model_type": "openelm",
            "model_dim": width,
            "num_transformer_layers": layers,
            "head_dim": head_size,
            "num_gqa_groups": 4,
            "qkv_multipliers": [0.5, 1.0],
            "ffn_multipliers": [0.5, 4.0],
            "ffn_dim_divisor": 256,
            "vocab_size": 32000,
            "normalize_qk_projections": True,
            "share_input_output_layers": True,
        }
    )


CHECKPOINT_CONFIGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "meta-llama/Llama-3.2-1B-Instruct": _config("llama", 2048, 8192, 16, 32, 8, 128256, tied=True, head_dim=64),
        "meta-llama/Llama-3.2-3B-Instruct": _config("llama", 3072, 8192, 28, 24, 8, 128256, tied=True, head_dim=128),
        "meta-llama/Llama-3.1-8B-Instruct": _config("llama", 4096, 14336, 32, 32, 8, 128256, tied=False, head_dim=128),
        "google/gemma-2-2b-it": _config("gemma2", 2304, 9216, 26, 8, 4, 256000, tied=True, head_dim=256),
        "apple/OpenELM-270M-Instruct": _openelm(1280, 16, 64),
        "apple/OpenELM-450M-Instruct": _openelm(1536, 20, 64),
        "apple/OpenELM-1_1B-Instruct": _openelm(2048, 28, 64),
        "apple/OpenELM-3B-Instruct": _openelm(3072, 36, 128),
        "allenai/OLMo-2-0425-1B-Instruct": _config("olmo2", 2048, 8192, 16, 16, 16, 100352, tied=False),
        "allenai/OLMo-2-1124-7B-Instruct": _config("olmo2", 4096, 11008, 32, 32, 32, 100352, tied=False),
        "Qwen/Qwen3-1.7B": _config("qwen3", 2048, 6144, 28, 16, 8, 151936, tied=True, head_dim=128),
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _config("qwen2", 1536, 8960, 28, 12, 2, 151936, tied=False),
        "microsoft/phi-1_5": _config("phi", 2048, 8192, 24, 32, 32, 51200, tied=False),
    }
)
