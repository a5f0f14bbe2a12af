"""GPU memory of training and generation, computed from a model's shape. Imports neither torch nor Transformers.

What autograd keeps for the backward pass, per token and layer (D width, F feed-forward width, Q and K = query and key heads x head
size, m = 2 bytes under bf16 autocast and 4 in fp32). Derived from the layers as Transformers writes them; the tests compare it with
the bytes of all live tensors of a training step:

    RMS norm          4 D its input in fp32, + 4 D the normalised values if its weight is trained
    linear, trained   m x inputs: an fp32 input is cast once for each linear that reads it, and shared by them in fp32
    linear, adapters  the dropout's mask (1 byte per input on a GPU, 4 on a CPU), the input of A (m x inputs), its output (m r)
    attention         m (2 Q + 2 K) queries, output, keys and values, the last two once per path that reads them; 4 x heads
    scores            additive mask m per query-key pair of a block; soft-capped scores m + 4 + m per head as well
    feed-forward      m 3 F for SiLU or GELU: gate, its activation, value; the product is the input of the last linear

Trained weights are fp32 with an fp32 gradient and two fp32 moments: 16 bytes. Frozen weights (adapters in bf16) have 2. Under bf16
autocast every trained matrix has a bf16 copy from its forward to its backward pass. Llama 3.2 1B: 139 kB per token and layer.

Not counted: the allocator's rounding and fragments, NCCL's buffers, and the CUDA context (about 0.5 to 1 GB together).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from jepa_ray.models.shapes import Layer, Shape

FP32, BF16 = 4, 2
PADDED, SQUARE = 1.1, 2.0
"""Slots of a block of paths per token, as measured on short paths; scores of a block per pair that a causal mask leaves."""


LOGIT_BYTES = 1 << 28
"""Most bytes of fp32 logits at a time in training."""


def labels_at_once(vocabulary: int) -> int:
    """Labels whose logits are computed together, and again in the backward pass if there are more: 523 of Llama 3's 128,256 tokens."""
    return max(1, LOGIT_BYTES // (FP32 * vocabulary))


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a shape is trained, as far as it changes memory."""

    rank: int | None = None
    """Rank of the adapters; None: full fine-tuning."""
    dropout: float = 0.1
    """Dropout of the adapters."""
    precision: Literal["bf16", "fp32"] = "bf16"
    average: bool = False
    """A moving average of the trained weights encodes targets."""
    gradient_checkpointing: bool = False
    workers: int = 1
    """Data-parallel workers of a trial."""
    kernel: Literal["bucketed", "flex"] = "bucketed"
    """Attention of packed rows. flex reads keys and values in place and keeps no scores."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """Between several workers: whole copies with gradient buckets, or weights, gradients and moments split."""
    device: Literal["cuda", "cpu"] = "cuda"


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes on one worker. Those of the state are there all the time, those per token or label during a forward and backward pass."""

    weights: float
    gradients: float
    optimizer: float
    """Two fp32 moments per trained weight."""
    average: float
    """Moving average of the trained weights."""
    copies: float
    """bf16 copies of trained weights at the end of a forward pass. `fsdp` does not split them: autograd keeps them, not FSDP."""
    copies_kept: float
    """Those of them that the backward pass keeps: with gradient checkpointing, one layer's and the head's."""
    gathered: float
    """Under `fsdp`: whole weights of the layers at work, and of everything outside the layers."""
    whole_gradients: float
    """Under `fsdp`: the gradients of those, before they are split."""
    others_weights: float
    """Under `fsdp`: weights of the other workers' shares. Loading, validation and diagnostics hold them, training does not."""
    head_gradient: float
    """Gradient of the head before it is added to the others."""
    per_token: float
    """Activations of a token of the packed row."""
    per_path_token: float
    """Keys and values, once for every path that contains the token."""
    per_pair: float
    """Of a query-key pair: masks, and scores where they are kept."""
    per_layer_token: float
    """Temporary: gradients of one layer, and with gradient checkpointing its recomputed activations."""
    per_label: float
    """Temporary: logits, their softmax and gradients."""
    cache_per_token: float
    """Generation: keys and values."""
    generation_weights: float
    """Generation: a bf16 copy of the trained matrices. Frozen ones are in bf16 already."""

    @property
    def state(self) -> float:
        """Weights, gradients, optimizer state and moving average."""
        return self.weights + self.gradients + self.optimizer + self.average

    def activations(self, tokens: float, path_tokens: float | None = None, pairs: float = 0.0) -> float:
        """Bytes kept for the backward pass.

        `path_tokens`: tokens with shared prefixes counted once per path; `pairs`: query-key pairs that attention covers.
        """
        path_tokens = path_tokens if path_tokens is not None else tokens
        return self.per_token * tokens + self.per_path_token * PADDED * path_tokens + self.per_pair * SQUARE * pairs

    def peak(
        self,
        tokens: float,
        labels: float,
        *,
        path_tokens: float | None = None,
        pairs: float = 0.0,
        labels_at_once: int | None = None,
        accumulates: bool = True,
    ) -> float:
        """Most bytes at any moment of a training step.

        Args:
            tokens: of a micro-batch on one worker; `path_tokens`, `pairs`: see `activations`.
            labels: of the micro-batch.
            labels_at_once: labels that have logits at the same time; None: all of them.
            accumulates: whether gradients of an earlier micro-batch exist during the pass.
        """
        kept = self.activations(tokens, path_tokens, pairs)
        at_once = labels if labels_at_once is None else min(labels, labels_at_once)
        existing = self.state if accumulates else self.state - self.gradients
        moments = (  # with all activations: logits; their gradients; the head's gradient, with the logits freed; the last layer's
            self.copies + self.per_label / 2 * at_once,
            self.copies_kept + self.per_label * at_once,
            self.copies_kept + self.per_label / 6 * at_once + self.head_gradient,
            self.copies_kept + self.per_layer_token * tokens + self.whole_gradients,
        )
        return max(existing + kept + max(moments), self.state + self.head_gradient) + self.gathered

    def generation_peak(self, prompts: int, tokens: float) -> float:
        """Bytes while `prompts` sequences of `tokens` tokens are generated between epochs: gradients are freed, moments stay, and weights
        are whole."""
        whole = self.state - self.gradients + self.others_weights
        return whole + self.generation_weights + self.cache_per_token * prompts * tokens


def footprint(shape: Shape, training: Training) -> Footprint:
    """Memory of training this shape."""
    made, width = shape.architecture, shape.width
    size = BF16 if training.precision == "bf16" else FP32
    layers = [_Kept(shape, training, layer) for layer in shape.layers]
    linear = shape.linear_weights
    outside = shape.num_parameters - linear
    if training.rank is None:
        in_layers, rest, frozen = float(linear), float(outside), 0.0
    else:
        in_layers, rest, frozen = float(shape.adapter_weights(training.rank)), 0.0, float(shape.num_parameters) * size
    sharded = training.sharding == "fsdp" and training.workers > 1
    split = training.workers if sharded else 1
    trained = (in_layers + rest) / split
    buckets = trained * FP32 if training.workers > 1 and not sharded else 0.0
    cast = size < FP32
    head_rows = shape.embedding_weights if training.rank is None else 0
    largest = max(sum(one.weights for one in shape.linears(layer)) for layer in shape.layers)
    copies = copies_kept = (in_layers + head_rows) * BF16 if cast else 0.0
    # Two layers at a time (one computes while the next arrives), and everything outside the layers.
    whole = 2.0 * largest + outside if sharded else 0.0
    stream = BF16 if cast and training.rank is not None else FP32
    # Readout, final norm, ids, masks, cosines and sines.
    ends = width * FP32 * (2 if training.rank is None else 1) + 2 * stream * shape.head_size + 64
    saved: float = sum(layer.tokens for layer in layers)
    keys, pairs = sum(layer.keys for layer in layers), sum(layer.pairs for layer in layers)
    working: float = max(layer.working for layer in layers)
    if training.gradient_checkpointing:
        working = max(layer.recomputed for layer in layers)
        copies_kept = (in_layers / len(layers) + head_rows) * BF16 if cast else 0.0
        saved, keys, pairs = stream * width * len(layers), 0.0, max(layer.pairs for layer in layers)
    elif training.rank is not None:
        saved -= layers[0].first_layer_without
    return Footprint(
        weights=frozen / split + trained * FP32,
        gradients=trained * FP32 + buckets,
        optimizer=trained * 2 * FP32,
        average=trained * FP32 if training.average else 0.0,
        copies=copies,
        copies_kept=copies_kept,
        gathered=whole * (FP32 if training.rank is None else size),
        whole_gradients=whole * FP32 if training.rank is None else 0.0,
        others_weights=(frozen + (in_layers + rest) * FP32) * (1 - 1 / split),
        head_gradient=head_rows * (FP32 + (BF16 if cast else 0)),
        per_token=saved + ends + (keys if training.kernel == "flex" else 0.0),
        per_path_token=keys if training.kernel == "bucketed" else 0.0,
        per_pair=pairs if training.kernel == "bucketed" else 0.0,
        per_layer_token=working,
        per_label=shape.vocabulary * FP32 * (4 if made.softcap else 3) + width * (FP32 + size),
        cache_per_token=shape.cache_values * size,
        generation_weights=(in_layers + head_rows) * BF16 if cast else 0.0,
    )


class _Kept:
    """Bytes that autograd keeps of one layer."""

    def __init__(self, shape: Shape, training: Training, layer: Layer) -> None:
        made, width, full = shape.architecture, shape.width, training.rank is None
        size = BF16 if training.precision == "bf16" else FP32
        query, key, inner = layer.heads * shape.head_size, layer.kv_heads * shape.head_size, layer.feed_forward
        on_gpu = training.device == "cuda"
        normed = FP32 if full else 0
        if made.layer_norm:
            norm = width * (BF16 if size == BF16 and not full and not on_gpu else FP32)
        else:
            norm = width * (FP32 + normed)
        norms = norm * (made.pre_norms + made.post_norms)
        if made.head_norms != "none":
            kept = FP32 + (normed if made.head_norms == "width" else min(normed, size))
            norms += (query + key) * kept
        inputs = 0.0
        read: set[str] = set()
        mask = 0 if training.dropout == 0 else 1 if on_gpu else FP32
        self.first_layer_without = norm if made.pre_norms else 0.0
        for linear in shape.linears(layer):
            is_cast = size == BF16 and linear.reads.startswith("stream")
            source = "stream" if made.pre_norms == 1 and linear.reads.startswith("stream") else linear.reads
            if full:
                inputs += linear.inputs * size if is_cast or source not in read else 0
            else:
                assert training.rank is not None
                shared = size == FP32 and training.dropout == 0
                inputs += linear.inputs * (mask + (size if not shared or source not in read else 0)) + size * training.rank
                if linear.reads == "stream to attention":
                    self.first_layer_without += linear.inputs * mask
            read.add(source)
        attention = size * 2 * query + FP32 * layer.heads
        self.keys = float(size * 2 * key)
        self.pairs = float(size)
        if made.softcap:
            self.keys = float(size * 2 * query)
            self.pairs = layer.heads * (size + FP32 + (size if size == BF16 else 0))
        if made.gated:
            activated = 3 * inner * size
        else:  # the tanh form of GELU: x, tanh, x / 2, 1 + tanh; on a GPU autocast computes the power, and so the rest, in fp32
            activated = inner * (3 * FP32 + BF16 if size == BF16 and on_gpu else 4 * size)
        self.tokens = norms + inputs + attention + activated
        self.working = 2 * inner * size + 3 * width * FP32 + (0 if full else 2 * inner * FP32)
        # The input of the layer is the saved state itself, and its last product is freed before the gradients of the others exist.
        self.recomputed = self.tokens + self.keys - width * FP32 + self.working - inner * size


def tokens_that_fit(
    memory: float, footprint: Footprint, *, labels_per_token: float, paths: float = 1.0, labels_at_once: int | None = None
) -> int:
    """Largest micro-batch in tokens whose peak is at most `memory` bytes; 0 if not even one token fits.

    Args:
        labels_per_token: share of tokens that are labels.
        paths: tokens of all paths per token of the packed row.
        labels_at_once: see `Footprint.peak`.
    """

    def fits(tokens: int) -> bool:
        return footprint.peak(tokens, labels_per_token * tokens, path_tokens=paths * tokens, labels_at_once=labels_at_once) <= memory

    if not fits(1):
        return 0
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
        if high > 1 << 40:
            return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def margin(memory: float) -> float:
    """Bytes of a GPU that can be planned with: a tenth is left to the CUDA context, NCCL and the allocator's fragments."""
    return math.floor(0.9 * memory)
