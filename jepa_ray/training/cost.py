"""Floating-point operations of training, counted from shapes (model FLOPs): the same on every machine.

Per token and weight a matrix product costs 2 operations forward; its backward costs 2 for the gradient of the input and 2 for the
gradient of the weight. Frozen weights (LoRA) save the last. Attention: 4 * head_size * heads operations per query-key pair and
layer forward, twice that backward. The head runs at label positions only. Recomputation under gradient checkpointing, norms and
activations are not counted; nor is the predictor's own map. Tokens that examples of a forward pass share are computed once and
counted once, so packing (trie or flat), micro-batches and workers change that count as they change the work: it is what a trial costs.
Arms are compared, and budgets counted, by another: each sequence and view by itself, without sharing and without padding. Source: Kaplan
et al. 2020, section 2.1, with the terms written out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from torch import nn

from jepa_ray.models.network import Network
from jepa_ray.training.device import peak_memory
from jepa_ray.training.runtime import Runtime, StepTotals


class CountsFlops(Protocol):
    """Operations by what a step carried."""

    def train_flops(self, totals: StepTotals) -> int: ...

    def unpacked_flops(self, totals: StepTotals) -> int: ...


@dataclass(frozen=True)
class FlopModel:
    """Operations as a linear function of what a step carried."""

    per_token: int
    per_token_forward: int
    """Of a token that goes through a target encoder of its own: no backward."""
    per_pair: int
    per_label: int

    @classmethod
    def of(cls, network: Network) -> FlopModel:
        causal_lm = network.causal_lm
        config = causal_lm.config
        per_token = per_token_forward = 0
        for module in causal_lm.base_model.modules():
            if isinstance(module, nn.Linear):
                weight = module.weight
                per_token_forward += weight.numel() * 2
                per_token += weight.numel() * (6 if weight.requires_grad else 4)
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
        """What was computed."""
        trained = self.per_token * totals.tokens + self.per_pair * totals.attended + self.per_label * totals.num_labels
        return trained + self.per_token_forward * totals.frozen_tokens + self.per_pair // 3 * totals.frozen_attended

    def unpacked_flops(self, totals: StepTotals) -> int:
        """What the same training costs with every sequence and view encoded by itself; whatever the packing, micro-batches and workers."""
        trained = self.per_token * totals.path_tokens + self.per_pair * totals.path_attended + self.per_label * totals.num_labels
        return trained + self.per_token_forward * totals.frozen_path_tokens + self.per_pair // 3 * totals.frozen_path_attended


@dataclass
class Spent:
    """What a trial has spent so far; the same for causal models and masked encoders."""

    step: int = 0
    """Optimizer steps."""
    tokens: int = 0
    flops: int = 0
    unpacked: float = 0
    """FLOPs with every sequence and view by itself; nan where a checkpoint of an older version does not say."""
    train_seconds: float = 0.0
    val_seconds: float = 0.0
    wall: float = 0.0
    """Seconds since the trial began, all its attempts together."""

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Spent:
        """What a working checkpoint says; other keys are left alone."""
        names = [field.name for field in fields(cls) if field.name in saved]
        return cls(**{"unpacked": math.nan, **{name: saved[name] for name in names}})

    def train(self, totals: StepTotals, flop_model: CountsFlops, steps: int, seconds: float) -> None:
        """Add an epoch."""
        self.step += steps
        self.tokens += totals.tokens
        self.flops += flop_model.train_flops(totals)
        self.unpacked += flop_model.unpacked_flops(totals)
        self.train_seconds += seconds

    def cost(self) -> dict[str, float]:
        """What training has cost by now, as each point of a curve and the row of `trials` say it."""
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
