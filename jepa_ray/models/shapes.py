"""Shapes of causal models: what determines the size of their weights and activations. Imports neither torch nor Transformers.

A `Shape` is read from a config.json, or from the same keys of the checkpoints in `checkpoint_configs.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How the layers of a `model_type` are built, as far as it changes sizes."""

    pre_norms: int = 2
    """Norms per layer whose input is the residual stream."""
    post_norms: int = 0
    """Norms per layer whose input is the output of attention or of the feed-forward part."""
    layer_norm: bool = False
    """Norms are LayerNorms with a bias, not RMS norms."""
    head_norms: Literal["none", "head", "width"] = "none"
    """Norms of queries and keys: none, one weight per head dimension, or one per dimension of all heads."""
    fused: bool = False
    """Queries, keys and values come from one matrix, gate and value of the feed-forward part from another."""
    gated: bool = True
    qkv_bias: bool = False
    bias: bool = False
    """Every linear layer has a bias, the head too."""
    softcap: bool = False
    """Attention scores and logits are soft-capped, so that all scores are kept for the backward pass."""


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llama": Architecture(),
        "qwen2": Architecture(qkv_bias=True),
        "qwen3": Architecture(head_norms="head"),
        "olmo2": Architecture(pre_norms=0, post_norms=2, head_norms="width"),
        "gemma2": Architecture(post_norms=2, softcap=True),
        "openelm": Architecture(head_norms="head", fused=True),
        "phi": Architecture(pre_norms=1, layer_norm=True, gated=False, bias=True),
        "mistral": Architecture(),
        "smollm3": Architecture(),
        "granite": Architecture(),
        "gemma": Architecture(),
        "gemma3_text": Architecture(post_norms=2, head_norms="head"),
        "phi3": Architecture(fused=True),
        "olmo3": Architecture(pre_norms=0, post_norms=2, head_norms="width"),
    }
)


@dataclass(frozen=True)
class Layer:
    """One decoder layer."""

    heads: int
    kv_heads: int
    feed_forward: int
    """Width of the feed-forward part."""


@dataclass(frozen=True)
class Linear:
    """A linear layer: its input and output width, and whether it has a bias. Linear layers with the same `reads` have the same input."""

    inputs: int
    outputs: int
    reads: Literal["stream to attention", "heads", "stream to feed-forward", "inner"]
    bias: bool = False

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs + (self.outputs if self.bias else 0)


@dataclass(frozen=True)
class Shape:
    """Everything about a causal model that its memory and operations depend on."""

    model_type: str
    width: int
    head_size: int
    layers: tuple[Layer, ...]
    vocabulary: int
    tied: bool
    """Embeddings and head share their matrix."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """From the dictionary of a Transformers config. ValueError if its architecture is unknown."""
        model_type = str(config["model_type"])
        if model_type not in ARCHITECTURES:
            raise ValueError(f"the memory of {model_type!r} models cannot be estimated; known architectures: {', '.join(ARCHITECTURES)}")
        if model_type == "openelm":
            layers = tuple(Layer(*each) for each in zip(*openelm_heads(config), openelm_feed_forward(config), strict=True))
            tied = bool(config["share_input_output_layers"])
            return cls(model_type, config["model_dim"], config["head_dim"], layers, config["vocab_size"], tied)
        heads = config["num_attention_heads"]
        layer = Layer(heads, config.get("num_key_value_heads") or heads, config["intermediate_size"])
        size = config.get("head_dim") or config["hidden_size"] // heads
        layers = (layer,) * config["num_hidden_layers"]
        return cls(model_type, config["hidden_size"], size, layers, config["vocab_size"], bool(config["tie_word_embeddings"]))

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.model_type]

    def linears(self, layer: Layer) -> tuple[Linear, ...]:
        """The linear layers of a decoder layer."""
        made, width = self.architecture, self.width
        query, key, inner = layer.heads * self.head_size, layer.kv_heads * self.head_size, layer.feed_forward
        qkv, up = [query, key, key], [inner, inner] if made.gated else [inner]
        if made.fused:
            qkv, up = [sum(qkv)], [sum(up)]
        return (
            *(Linear(width, outputs, "stream to attention", made.qkv_bias or made.bias) for outputs in qkv),
            Linear(query, width, "heads", made.bias),
            *(Linear(width, outputs, "stream to feed-forward", made.bias) for outputs in up),
            Linear(inner, width, "inner", made.bias),
        )

    @property
    def linear_weights(self) -> int:
        """Parameters of all linear layers except the head."""
        return sum(linear.weights for layer in self.layers for linear in self.linears(layer))

    @property
    def embedding_weights(self) -> int:
        """Parameters of the embedding table, which are those of the head too if they are tied."""
        return self.vocabulary * self.width

    @property
    def norm_weights(self) -> int:
        made = self.architecture
        per_norm = self.width * (2 if made.layer_norm else 1)
        heads = {
            "none": 0,
            "head": 2 * self.head_size * len(self.layers),
            "width": sum((layer.heads + layer.kv_heads) * self.head_size for layer in self.layers),
        }[made.head_norms]
        return per_norm * (1 + len(self.layers) * (made.pre_norms + made.post_norms)) + heads

    @property
    def num_parameters(self) -> int:
        head_bias = self.vocabulary if self.architecture.bias else 0
        return self.linear_weights + self.norm_weights + self.embedding_weights * (1 if self.tied else 2) + head_bias

    def adapter_weights(self, rank: int) -> int:
        """Parameters of adapters of this rank on every linear layer except the head."""
        return sum(rank * (linear.inputs + linear.outputs) for layer in self.layers for linear in self.linears(layer))

    @property
    def cache_values(self) -> int:
        """Numbers in the cache of keys and values per generated or prompt token."""
        return sum(2 * layer.kv_heads * self.head_size for layer in self.layers)


def make_divisible(value: float, divisor: int) -> int:
    """`value` rounded to a multiple of `divisor`: at least `divisor`, and at least 0.9 * `value`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def per_layer(multipliers: float | Sequence[float], layers: int, name: str) -> list[float]:
    """One multiplier per layer, from a constant, a range `[first, last]`, or a list with one entry per layer.

    As in the published models, the multipliers of a range are rounded to two digits.
    """
    if isinstance(multipliers, (int, float)):
        return [float(multipliers)] * layers
    if len(multipliers) == layers:
        return [float(value) for value in multipliers]
    if len(multipliers) == 2:
        return [round(float(value), 2) for value in np.linspace(multipliers[0], multipliers[1], num=layers)]
    raise ValueError(f"{name} must be one number, a range of two or one per layer ({layers}), not {len(multipliers)} numbers")


def openelm_heads(config: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Query heads and key/value heads of each layer of an OpenELM, which its config may give as multipliers of the width only."""
    size, groups, layers = config["head_dim"], config["num_gqa_groups"], config["num_transformer_layers"]
    query_heads, kv_heads = config.get("num_query_heads"), config.get("num_kv_heads")
    if query_heads is None:
        widths = (config["model_dim"] * factor for factor in per_layer(config["qkv_multipliers"], layers, "qkv_multipliers"))
        query_heads = [make_divisible(width, size * groups) // size for width in widths]
    return list(query_heads), list(kv_heads) if kv_heads is not None else [heads // groups for heads in query_heads]


def openelm_feed_forward(config: Mapping[str, Any]) -> list[int]:
    """Width of the feed-forward part of each layer of an OpenELM."""
    factors = per_layer(config["ffn_multipliers"], config["num_transformer_layers"], "ffn_multipliers")
    return [make_divisible(factor * config["model_dim"], config["ffn_dim_divisor"]) for factor in factors]
