"""The network as the packed step sees it: one forward pass over a packed batch gives logits at labels and the views' readouts.

    h      = backbone(embeddings(input_ids), positions, layout)       nothing is cached, no head is applied
    logits = head(h[label_index])                                     the head runs only at label positions
    source, target = sums of weighted states                          after the final norm, or where `Depth` says

Predictor tokens `<|predictor_1|> .. <|predictor_k|>` are a (k, D) parameter placed into the embedded sequence, not rows of the
vocabulary. So full fine-tuning and LoRA train them the same way, the softmax over next tokens is that of the baseline, and the
trained checkpoint keeps its original vocabulary. If a family scales its embeddings (Gemma), predictor tokens are scaled too, so
that one learning rate means the same for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_ray.data.packing import PREDICTOR_BASE, Packed, Readout, ViewBatch
from jepa_ray.models.attention import NAME as PACKED_ATTENTION
from jepa_ray.models.attention import Layout


@dataclass(frozen=True)
class Depth:
    """Where states are read for the JEPA term."""

    layer: float = 1.0
    """Fraction of the layers, rounded to a whole layer."""
    final_norm: bool = True
    """After the model's final norm (applied to whichever layer is read), or before it."""


@dataclass(frozen=True)
class Rows:
    """Packed tokens on a device. Legend: R rows, T tokens per row."""

    input_ids_RT: Tensor
    position_ids_RT: Tensor
    layout: Layout

    @classmethod
    def of(cls, packed: Packed, device: torch.device) -> Rows:
        return cls(torch.from_numpy(packed.input_ids).to(device), torch.from_numpy(packed.position_ids).to(device), Layout(packed, device))


@dataclass(frozen=True)
class DeviceReadout:
    """A Readout on a device: E entries, P pairs."""

    index_E: Tensor
    pair_E: Tensor
    weight_E: Tensor | None
    """None: one entry of weight 1 per pair, in order."""
    num_pairs: int

    @classmethod
    def of(cls, readout: Readout, device: torch.device) -> DeviceReadout:
        weight = None if readout.is_single else torch.from_numpy(readout.weight).to(device)
        return cls(torch.from_numpy(readout.index).to(device), torch.from_numpy(readout.pair).to(device), weight, readout.num_pairs)

    def read(self, states_XD: Tensor, norm: nn.Module | None = None) -> Tensor:
        """(P, D) embeddings, in fp32; `norm` is applied only to the states that are read."""
        entries_ED = states_XD[self.index_E]
        entries_ED = (norm(entries_ED) if norm is not None else entries_ED).float()
        if self.weight_E is None:
            return entries_ED
        entries_ED = entries_ED * self.weight_E[:, None]
        zeros_PD = entries_ED.new_zeros(self.num_pairs, entries_ED.shape[1])
        return zeros_PD.index_add(0, self.pair_E, entries_ED)


@dataclass(frozen=True)
class DeviceBatch:
    """A ViewBatch on a device. Legend: N labels."""

    rows: Rows
    label_index_N: Tensor
    label_ids_N: Tensor
    source: DeviceReadout
    target: DeviceReadout
    frozen: Rows | None
    """Rows for a separate target encoder; `target` then reads that encoder's states."""

    @classmethod
    def of(cls, batch: ViewBatch, device: torch.device) -> DeviceBatch:
        label_index, label_ids = (torch.from_numpy(array).to(device) for array in (batch.label_index, batch.label_ids))
        source, target = (DeviceReadout.of(readout, device) for readout in (batch.source, batch.target))
        frozen = Rows.of(batch.frozen, device) if batch.frozen is not None else None
        return cls(Rows.of(batch.packed, device), label_index, label_ids, source, target, frozen)


class Network(nn.Module):
    """A causal language model with the JEPA term's additions: predictor tokens and a predictor head."""

    def __init__(self, lm: Any, predictor_kD: Tensor | None = None, head: nn.Module | None = None, depth: Depth | None = None) -> None:
        super().__init__()
        self.lm = lm
        """A Transformers causal LM, or the same inside a PEFT model."""
        self.predictor = nn.Parameter(predictor_kD) if predictor_kD is not None else None
        self.head = head
        """A trained map of the source embedding, (P, D) to (P, D)."""
        self.depth = depth or Depth()

    @property
    def causal_lm(self) -> Any:
        """The Transformers model itself, including injected adapters if there are any."""
        return self.lm.get_base_model() if hasattr(self.lm, "get_base_model") else self.lm

    @property
    def device(self) -> torch.device:
        device: torch.device = self.causal_lm.device
        return device

    def forward(self, batch: DeviceBatch | Rows) -> Any:
        """For a batch: logits (N, V) at the labels, source (P, D) and target (P, D) embeddings of the views. For rows: their states, as
        needed from a target encoder.
        """
        if isinstance(batch, Rows):
            _, read_XD, norm = self.states(batch)
            return read_XD if norm is None else norm(read_XD)
        last_XD, read_XD, norm = self.states(batch.rows)
        source_PD = self.mapped(batch.source.read(read_XD, norm))
        target_PD = batch.target.read(read_XD, norm) if batch.frozen is None else source_PD.new_empty(0)
        return self.logits(last_XD[batch.label_index_N]), source_PD, target_PD

    def mapped(self, source_PD: Tensor) -> Tensor:
        """Source embeddings mapped by the head, in fp32 even under autocast."""
        if self.head is None:
            return source_PD
        with torch.autocast(source_PD.device.type, enabled=False):
            mapped: Tensor = self.head(source_PD.float())
        return mapped

    def encode(self, batch: DeviceBatch) -> Tensor:
        """(R * T, D) last hidden states, after the final norm."""
        return self.states(batch.rows)[0]

    def states(self, rows: Rows, cache: Any = None) -> tuple[Tensor, Tensor, nn.Module | None]:
        """(R * T, D) last hidden states after the final norm; the states to read embeddings from; the norm to apply to these, if any.

        An empty Transformers `cache` collects the layers' keys and values.
        """
        plain = rows.layout.packed.backend == "plain"
        # Not restored afterwards: gradient checkpointing calls the layers again in the backward pass.
        self.causal_lm.config._attn_implementation = native_attention(self.causal_lm) if plain else PACKED_ATTENTION
        base = self.causal_lm.base_model
        with _tapped(base, self.depth) as tapped:
            last_RTD = base(
                inputs_embeds=self.embed(rows.input_ids_RT),
                position_ids=rows.position_ids_RT,
                use_cache=cache is not None,
                past_key_values=cache,
                **({} if plain else {"layout": rows.layout}),
            ).last_hidden_state
        read_RTD = tapped[-1] if tapped else last_RTD
        norm = final_norm(base) if tapped and self.depth.final_norm else None
        return last_RTD.flatten(0, 1), read_RTD.flatten(0, 1), norm

    def embed(self, input_ids_RT: Tensor) -> Tensor:
        """(R, T, D) embeddings; ids >= PREDICTOR_BASE are predictor tokens."""
        table = self.causal_lm.get_input_embeddings()
        if self.predictor is None:
            embedded: Tensor = table(input_ids_RT)
            return embedded
        predictor_RT = input_ids_RT >= PREDICTOR_BASE
        embedded = table(input_ids_RT.masked_fill(predictor_RT, 0))
        # Looked up at every position, though `where` drops most: value-dependent shapes would make the host wait for the GPU. This also
        # keeps the parameter in the graph if the batch has no predictor token, which data-parallel training needs.
        tokens_RTD = F.embedding((input_ids_RT - PREDICTOR_BASE).clamp(min=0), self.predictor)
        tokens_RTD = tokens_RTD * getattr(table, "embed_scale", 1.0)  # Gemma: sqrt(D)
        return torch.where(predictor_RT[..., None], tokens_RTD.to(embedded.dtype), embedded)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """(N, V) next-token logits in fp32, soft-capped if the family does that."""
        logits_NV: Tensor = self.causal_lm.get_output_embeddings()(hidden_ND)
        cap = getattr(self.causal_lm.config, "final_logit_softcapping", None)
        return logits_NV.float() if cap is None else torch.tanh(logits_NV.float() / cap) * cap

    @contextmanager
    def attention(self, name: str | None) -> Iterator[None]:
        """Run with the named attention; None: the model's own (SDPA if supported, else eager). For passes without a backward."""
        config = self.causal_lm.config
        before = config._attn_implementation
        config._attn_implementation = name or native_attention(self.causal_lm)
        try:
            yield
        finally:
            config._attn_implementation = before


def final_norm(base: Any) -> nn.Module:
    """The norm after a backbone's last layer."""
    norm = getattr(base, "norm", None) or getattr(base, "final_layernorm", None)
    assert isinstance(norm, nn.Module), f"{type(base).__name__} has neither `norm` nor `final_layernorm`"
    return norm


@contextmanager
def _tapped(base: Any, depth: Depth) -> Iterator[list[Tensor]]:
    """Collect the states after the layer that `depth` names, before any final norm; nothing if the model returns them anyway."""
    seen: list[Tensor] = []
    number = max(1, round(depth.layer * len(base.layers)))
    if number == len(base.layers) and depth.final_norm:
        yield seen
        return
    if number == len(base.layers):
        handle = final_norm(base).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    else:
        handle = base.layers[number - 1].register_forward_hook(
            lambda module, inputs, output: seen.append(output if isinstance(output, Tensor) else output[0])
        )
    try:
        yield seen
    finally:
        handle.remove()


def native_attention(causal_lm: Any) -> str:
    """Name of the model's own exact attention: Gemma 2 has no SDPA because of soft-capping."""
    return "sdpa" if getattr(causal_lm, "_supports_sdpa", False) else "eager"
