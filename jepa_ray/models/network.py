"""The network as the packed step sees it: one forward pass over a packed batch, giving logits at labels and the views' readouts.

    h      = backbone(embeddings(input_ids), positions, layout)       nothing is cached, no head is applied
    logits = head(h[label_index])                                     the head runs at label positions only
    source, target = h[source_index], h[target_index]                 after the final norm

Predictor tokens `<|predictor_1|> .. <|predictor_k|>` are a (k, D) parameter placed into the embedded sequence, not rows of the
vocabulary: full fine-tuning and LoRA train them alike, the softmax over next tokens is that of the baseline, and the trained
checkpoint has the vocabulary it started with. Where a family scales its embeddings (Gemma) they are scaled too, so that one
learning rate means the same for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jepa_ray.data.packing import PREDICTOR_BASE, ViewBatch
from jepa_ray.models.attention import NAME as PACKED_ATTENTION
from jepa_ray.models.attention import Layout


@dataclass(frozen=True)
class DeviceBatch:
    """A ViewBatch on a device. Legend: R rows, T tokens per row, N labels, P pairs."""

    input_ids_RT: Tensor
    position_ids_RT: Tensor
    layout: Layout
    label_index_N: Tensor
    label_ids_N: Tensor
    source_index_P: Tensor
    target_index_P: Tensor

    @classmethod
    def of(cls, batch: ViewBatch, device: torch.device) -> DeviceBatch:
        packed = batch.packed
        arrays = (packed.input_ids, packed.position_ids)
        ids, positions = (torch.from_numpy(array).to(device) for array in arrays)
        index = (batch.label_index, batch.label_ids, batch.source_index, batch.target_index)
        label_index, label_ids, source, target = (torch.from_numpy(array).to(device) for array in index)
        return cls(ids, positions, Layout(packed, device), label_index, label_ids, source, target)


class Network(nn.Module):
    """A causal language model with optional predictor tokens."""

    def __init__(self, lm: Any, predictor_kD: Tensor | None = None) -> None:
        super().__init__()
        self.lm = lm
        """A Transformers causal LM, or the same inside a PEFT model."""
        self.predictor = nn.Parameter(predictor_kD) if predictor_kD is not None else None

    @property
    def causal_lm(self) -> Any:
        """The Transformers model itself, with adapters injected where there are any."""
        return self.lm.get_base_model() if hasattr(self.lm, "get_base_model") else self.lm

    @property
    def device(self) -> torch.device:
        device: torch.device = self.causal_lm.device
        return device

    def forward(self, batch: DeviceBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, V) at the labels, source (P, D) and target (P, D) embeddings of the views."""
        hidden_XD = self.encode(batch)
        return self.logits(hidden_XD[batch.label_index_N]), hidden_XD[batch.source_index_P], hidden_XD[batch.target_index_P]

    def encode(self, batch: DeviceBatch) -> Tensor:
        """(R * T, D) last hidden states, after the final norm."""
        plain = batch.layout.packed.backend == "plain"
        # Not switched back afterwards: gradient checkpointing calls the layers again in the backward pass.
        self.causal_lm.config._attn_implementation = native_attention(self.causal_lm) if plain else PACKED_ATTENTION
        hidden_RTD = self.causal_lm.base_model(
            inputs_embeds=self.embed(batch.input_ids_RT),
            position_ids=batch.position_ids_RT,
            use_cache=False,
            **({} if plain else {"layout": batch.layout}),
        ).last_hidden_state
        flat: Tensor = hidden_RTD.flatten(0, 1)
        return flat

    def embed(self, input_ids_RT: Tensor) -> Tensor:
        """(R, T, D) embeddings; ids from PREDICTOR_BASE on are predictor tokens."""
        table = self.causal_lm.get_input_embeddings()
        if self.predictor is None:
            embedded: Tensor = table(input_ids_RT)
            return embedded
        predictor_RT = input_ids_RT >= PREDICTOR_BASE
        embedded = table(input_ids_RT.masked_fill(predictor_RT, 0))
        tokens_ND = self.predictor[input_ids_RT[predictor_RT] - PREDICTOR_BASE] * getattr(table, "embed_scale", 1.0)  # Gemma: sqrt(D)
        # Also without any predictor token in the batch: the parameter stays part of the graph, which data-parallel training needs.
        # Not in place: under gradient checkpointing PEFT makes frozen embeddings a leaf that requires a gradient.
        placed: Tensor = embedded.index_put((predictor_RT,), tokens_ND.to(embedded.dtype))
        return placed

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """(N, V) next-token logits in fp32, soft-capped where the family does."""
        logits_NV: Tensor = self.causal_lm.get_output_embeddings()(hidden_ND)
        cap = getattr(self.causal_lm.config, "final_logit_softcapping", None)
        return logits_NV.float() if cap is None else torch.tanh(logits_NV.float() / cap) * cap

    @contextmanager
    def attention(self, name: str | None) -> Iterator[None]:
        """Run with the named attention; None: the model's own (SDPA where it has it, else eager). For passes without a backward."""
        config = self.causal_lm.config
        before = config._attn_implementation
        config._attn_implementation = name or native_attention(self.causal_lm)
        try:
            yield
        finally:
            config._attn_implementation = before


def native_attention(causal_lm: Any) -> str:
    """The model's own exact attention: Gemma 2 has no SDPA because of soft-capping."""
    return "sdpa" if getattr(causal_lm, "_supports_sdpa", False) else "eager"
