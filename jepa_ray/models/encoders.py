"""One record per family of masked encoders: the counterpart of `families.py`, without templates and turns.

`masked/` loads and trains them. This module imports neither torch nor Transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EncoderFamily:
    """What jepa_ray must know about a family of masked encoders."""

    name: str
    model_type: str
    """`model_type` in the checkpoints' config.json."""
    paper_model: str
    """Hub id of the usual checkpoint; what `model: paper` means."""
    head: tuple[str, ...]
    """Modules of the masked language model that map a hidden state to logits, in order of application."""
    tiny: Mapping[str, Any]
    """Arguments for the Transformers config of the built-in tiny instance (vocabulary and special ids are added)."""


ENCODERS: dict[str, EncoderFamily] = {
    family.name: family
    for family in (
        EncoderFamily(
            name="distilbert",
            model_type="distilbert",
            paper_model="distilbert/distilbert-base-uncased",
            head=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
            tiny=MappingProxyType(
                {"dim": 64, "hidden_dim": 192, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 512, "initializer_range": 0.08}
            ),
        ),
        EncoderFamily(
            name="bert",
            model_type="bert",
            paper_model="google-bert/bert-base-uncased",
            head=("cls",),
            tiny=MappingProxyType(
                {
                    "hidden_size": 64,
                    "intermediate_size": 192,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "max_position_embeddings": 512,
                    "initializer_range": 0.08,
                }
            ),
        ),
    )
}


def get_encoder(name: str) -> EncoderFamily:
    """The record of a family. ValueError that lists the legal names if `name` is unknown."""
    if name not in ENCODERS:
        raise ValueError(f"unknown family of masked encoders {name!r}; known: {', '.join(ENCODERS)}")
    return ENCODERS[name]
