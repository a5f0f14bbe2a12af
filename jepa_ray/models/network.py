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

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from jepa_ray.data.packing import PREDICTOR_BASE, Packed, ViewBatch
from jepa_ray.models.attention import NAME as PACKED_ATTENTION
from jepa_ray.models.compiled import CompileError, backbone, compiled_backbone, tell_once
from jepa_ray.models.device_batch import DeviceBatch, Kernel, Placement, Rows
from jepa_ray.models.flex import FlexLayout
from jepa_ray.models.footprint import labels_at_once

T = TypeVar("T")


@dataclass(frozen=True)
class Depth:
    """Where states are read for the JEPA term."""

    layer: float = 1.0
    """Fraction of the layers, rounded to a whole layer."""
    final_norm: bool = True
    """After the model's final norm (applied to whichever layer is read), or before it."""


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
        self.kernel: Kernel = "bucketed"
        """The attention of packed rows."""
        self.compiled = False
        """Whether training passes run as one compiled graph. Needs flex, and states that are read after the last layer's norm."""

    @property
    def causal_lm(self) -> Any:
        """The Transformers model itself, including injected adapters if there are any."""
        return self.lm.get_base_model() if hasattr(self.lm, "get_base_model") else self.lm

    @property
    def device(self) -> torch.device:
        device: torch.device = self.causal_lm.device
        return device

    def place(self, batch: ViewBatch) -> DeviceBatch:
        """The batch on the network's device, as its attention needs it."""
        return DeviceBatch.of(batch, self._placement)

    def place_rows(self, packed: Packed) -> Rows:
        """The same for packed rows alone."""
        return Rows.of(packed, self._placement)

    @property
    def _placement(self) -> Placement:
        return Placement(self.device, self.kernel, self._windows)

    @functools.cached_property
    def _windows(self) -> tuple[int | None, ...]:
        # Some architectures (Mistral, Phi 3) keep the window in the config only.
        owners = [*self.causal_lm.base_model.modules(), self.causal_lm.config]
        sizes = {getattr(owner, "sliding_window", None) for owner in owners}
        return (None, *sorted(size for size in sizes if size is not None))

    def forward(self, batch: DeviceBatch | Rows) -> Any:
        """For a batch: sum of the labels' cross-entropy, source (P, D) and target (P, D) embeddings of the views.
        For rows: their states, as needed from a target encoder.
        """
        if isinstance(batch, Rows):
            _, read_XD, norm = self.states(batch)
            return read_XD if norm is None else norm(read_XD)
        last_XD, read_XD, norm = self.states(batch.rows)
        source_PD = self.mapped(batch.source.read(read_XD, norm))
        target_PD = batch.target.read(read_XD, norm) if batch.frozen is None else source_PD.new_empty(0)
        return self.label_loss(last_XD[batch.label_index_N], batch.label_ids_N), source_PD, target_PD

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
        # Not restored afterwards: gradient checkpointing calls the layers again in the backward pass.
        self.causal_lm.config._attn_implementation = native_attention(self.causal_lm) if rows.layout is None else PACKED_ATTENTION
        base = self.causal_lm.base_model
        with _tapped(base, self.depth) as tapped:
            inputs = base, self.embed(rows.input_ids_RT), rows.position_ids_RT, rows.layout
            last_RTD = compiled_backbone(*inputs) if self._by_graph(rows) else backbone(*inputs, cache)
        read_RTD = tapped[-1] if tapped else last_RTD
        norm = final_norm(base) if tapped and self.depth.final_norm else None
        return last_RTD.flatten(0, 1), read_RTD.flatten(0, 1), norm

    def _by_graph(self, rows: Rows) -> bool:
        """Passes without a gradient, or in evaluation mode, would be graphs of their own, too few to repay compiling them. A graph does not
        see hooks, by which states of other depths are read."""
        training = self.training and torch.is_grad_enabled()
        return self.compiled and training and isinstance(rows.layout, FlexLayout) and self.depth == Depth()

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
        """(N, V) next-token logits in fp32, scaled (Granite, Cohere) and soft-capped (Gemma 2) if the model does that."""
        logits_NV: Tensor = self.causal_lm.get_output_embeddings()(hidden_ND)
        config = self.causal_lm.config
        if (divisor := getattr(config, "logits_scaling", None)) is not None:
            logits_NV = logits_NV / divisor
        if (factor := getattr(config, "logit_scale", None)) is not None:
            logits_NV = logits_NV * factor
        cap = getattr(config, "final_logit_softcapping", None)
        return logits_NV.float() if cap is None else torch.tanh(logits_NV.float() / cap) * cap

    def label_loss(self, hidden_ND: Tensor, label_ids_N: Tensor) -> Tensor:
        """Sum of the labels' cross-entropy. More logits than `labels_at_once` are computed part by part, and again in the backward pass."""
        if len(label_ids_N) <= labels_at_once(self.causal_lm.config.vocab_size):
            return self._loss_sum(hidden_ND, label_ids_N)
        parts = self._label_parts(hidden_ND, label_ids_N)
        sums = [checkpoint(self._loss_sum, *part, use_reentrant=False) for part in parts]
        return torch.stack(sums).sum()

    def label_losses(self, hidden_ND: Tensor, label_ids_N: Tensor) -> Tensor:
        """(N,) cross-entropy of each label, part by part. For passes without a gradient."""
        parts = self._label_parts(hidden_ND, label_ids_N)
        return torch.cat([F.cross_entropy(self.logits(hidden), ids, reduction="none") for hidden, ids in parts])

    def _label_parts(self, hidden_ND: Tensor, label_ids_N: Tensor) -> list[tuple[Tensor, Tensor]]:
        size = labels_at_once(self.causal_lm.config.vocab_size)
        return list(zip(hidden_ND.split(size), label_ids_N.split(size), strict=True))

    def _loss_sum(self, hidden_ND: Tensor, label_ids_N: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(hidden_ND), label_ids_N, reduction="sum")

    def fall_back(self, error: CompileError) -> None:
        """After an error of the compiler: do without the graph, then without the kernel, which is compiled too.

        Says so once per process. Raises the error if nothing was compiled.
        """
        if self.compiled:
            self.compiled, lost = False, "the step is not compiled"
        elif self.kernel == "flex":
            self.kernel, lost = "bucketed", "attention is bucketed, not flex"
        else:
            raise error
        reason = " ".join(str(error).split("\n\n")[0].split())
        tell_once(f"{lost}, because torch.compile failed ({reason}); training goes on without it, more slowly")

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


NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f")
"""Names of the norm after a backbone's last layer."""
LAYERS = ("layers", "h")
"""Names of a backbone's list of layers."""


def final_norm(base: Any) -> nn.Module:
    """The norm after a backbone's last layer."""
    norm = next((module for name in NORMS if isinstance(module := getattr(base, name, None), nn.Module)), None)
    assert norm is not None, f"{type(base).__name__} has none of {', '.join(NORMS)}"
    return norm


def layers_of(base: Any) -> nn.ModuleList:
    """A backbone's layers, first to last."""
    layers = next((module for name in LAYERS if isinstance(module := getattr(base, name, None), nn.ModuleList)), None)
    assert layers is not None, f"{type(base).__name__} has none of {', '.join(LAYERS)}"
    return layers


def compilable(network: Network, run: Callable[[], T]) -> T:
    """The result of `run`, which calls the network; repeated without what cannot be compiled (`Network.fall_back`)."""
    while True:
        try:
            return run()
        except CompileError as error:
            network.fall_back(error)


@contextmanager
def _tapped(base: Any, depth: Depth) -> Iterator[list[Tensor]]:
    """Collect the states after the layer that `depth` names, before any final norm; nothing if the model returns them anyway."""
    seen: list[Tensor] = []
    layers = layers_of(base)
    number = max(1, round(depth.layer * len(layers)))
    if number == len(layers) and depth.final_norm:
        yield seen
        return
    if number == len(layers):
        handle = final_norm(base).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    else:
        handle = layers[number - 1].register_forward_hook(
            lambda module, inputs, output: seen.append(output if isinstance(output, Tensor) else output[0])
        )
    try:
        yield seen
    finally:
        handle.remove()


def native_attention(causal_lm: Any) -> str:
    """Name of the model's own exact attention: Gemma 2 has no SDPA because of soft-capping."""
    return "sdpa" if getattr(causal_lm, "_supports_sdpa", False) else "eager"
