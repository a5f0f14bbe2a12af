"""Floating-point operations of training, counted from shapes (model FLOPs): the same on every machine.

Per token and weight, a matrix product costs 2 operations forward; its backward pass costs 2 for the gradient of the input and 2 for
the gradient of the weight. Frozen weights (LoRA) save the last. Attention costs 4 * head_size * heads operations per query-key pair
and layer forward, twice that backward. The head runs at label positions only. Recomputation under gradient checkpointing, norms,
activations and the predictor's own map are not counted. Source: Kaplan et al. 2020, section 2.1, with the terms written out.

`train_flops`, a trial's cost, counts tokens that examples of a forward pass share once, because they are computed once; it depends on
packing (trie or flat), micro-batches and workers. `unpacked_flops`, which compares arms and which budgets use, counts each sequence
and view separately, without sharing or padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from torch import Tensor, nn

from jepa_ray.models.network import Network
from jepa_ray.training.device import peak_memory
from jepa_ray.training.runtime import Runtime, StepTotals


class CountsFlops(Protocol):
    """Anything that computes operations from the counts of a step."""

    def train_flops(self, totals: StepTotals) -> int: ...

    def unpacked_flops(self, totals: StepTotals) -> int: ...


@dataclass(frozen=True)
class FlopModel:
    """Operations as a linear function of the counts of a step."""

    per_token: int
    per_token_forward: int
    """For a token that goes through a separate target encoder: no backward pass."""
    per_pair: int
    per_label: int

    @classmethod
    def of(cls, network: Network) -> FlopModel:
        causal_lm = network.causal_lm
        config = causal_lm.config
        per_token = per_token_forward = 0
        for weight, share in _matrices(causal_lm):
            used = round(weight.numel() * share)
            per_token_forward += used * 2
            per_token += used * (6 if weight.requires_grad else 4)
        head = causal_lm.get_output_embeddings().weight
        heads = config.num_attention_heads  # one number, or (OpenELM) one per layer
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(
            per_token=per_token,
            per_token_forward=per_token_forward,
            per_pair=12 * size * (sum(heads) if isinstance(heads, list) else heads * config.num_hidden_layers),
            per_label=head.numel() * (6 if head.requires_grad else 4),
        )

    def train_flops(self, totals: StepTotals) -> int:
        """Operations that were computed."""
        trained = self.per_token * totals.tokens + self.per_pair * totals.attended + self.per_label * totals.num_labels
        return trained + self.per_token_forward * totals.frozen_tokens + self.per_pair // 3 * totals.frozen_attended

    def unpacked_flops(self, totals: StepTotals) -> int:
        """Operations with every sequence and view encoded separately, regardless of packing, micro-batches and workers."""
        trained = self.per_token * totals.path_tokens + self.per_pair * totals.path_attended + self.per_label * totals.num_labels
        return trained + self.per_token_forward * totals.frozen_path_tokens + self.per_pair // 3 * totals.frozen_path_attended


def _matrices(causal_lm: Any) -> Iterator[tuple[Tensor, float]]:
    """Every matrix that a token is multiplied by, with the share of it that one token uses: of a layer's experts only the chosen ones."""
    config = causal_lm.config
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    chosen = (getattr(config, "num_experts_per_tok", None) or experts) / experts if experts else 1.0
    for module in causal_lm.base_model.modules():
        if isinstance(module, nn.Linear):
            yield module.weight, 1.0
        elif not isinstance(module, nn.Embedding):
            for weight in module.parameters(recurse=False):
                if weight.ndim >= 2:
                    yield weight, chosen if weight.ndim == 3 else 1.0


@dataclass
class Spent:
    """The cost of a trial so far, for causal models and masked encoders."""

    step: int = 0
    """Optimizer steps."""
    tokens: int = 0
    flops: int = 0
    unpacked: float = 0
    """FLOPs with every sequence and view counted separately; nan if an older version's checkpoint does not contain it."""
    train_seconds: float = 0.0
    val_seconds: float = 0.0
    wall: float = 0.0
    """Seconds of the trial, summed over all its attempts."""

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Spent:
        """Read the values from a working checkpoint; other keys are ignored."""
        names = [field.name for field in fields(cls) if field.name in saved]
        return cls(**{"unpacked": math.nan, **{name: saved[name] for name in names}})

    def train(self, totals: StepTotals, flop_model: CountsFlops, steps: int, seconds: float) -> None:
        """Add an epoch, or the part of one that is finished."""
        self.step += steps
        self.tokens += totals.tokens
        self.flops += flop_model.train_flops(totals)
        self.unpacked += flop_model.unpacked_flops(totals)
        self.train_seconds += seconds

    def cost(self) -> dict[str, float]:
        """Cost of training so far: columns of `trials`, and of each point of a curve."""
        return {"train_flops": float(self.flops), "train_flops_unpacked": float(self.unpacked), "train_seconds": self.train_seconds}

    def columns(self, epochs_done: int, runtime: Runtime) -> dict[str, Any]:
        """Further columns of `trials`: tokens, seconds, optimizer steps, epochs, memory."""
        return {
            "train_tokens": float(self.tokens),
            "val_seconds": self.val_seconds,
            "wall_seconds": self.wall,
            "peak_memory_bytes": peak_memory(runtime.device),
            "epochs_done": epochs_done,
            "steps": self.step,
        }
