"""One optimizer step of a masked encoder, and the update of its target encoder.

    source  = predictor(context encoder(passage with [MASK] at hidden tokens))        at the hidden tokens
    target  = target encoder(intact passage)                                          at the same tokens; without gradient
    loss    = gamma * sum CE / hidden + lambda * sum (1 - cos(source, target)) / hidden
    target encoder <- momentum * target encoder + (1 - momentum) * context encoder

`hidden` is the number of hidden tokens of the whole step, all micro-batches and all workers. Hidden tokens are drawn from the stream
"mask" per step and passage, so every worker knows the count without communication. (Figure 2 of I-JEPA, arXiv 2301.08243, with
tokens instead of patches; spans of random length as in SpanBERT, arXiv 1907.10529.)
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_ray.config import OptimConfig, TrialConfig
from jepa_ray.masked.corpus import Passages
from jepa_ray.masked.network import MaskedNetwork, states
from jepa_ray.masked.spans import hidden_tokens, masked_batch
from jepa_ray.models.encoders import get_encoder
from jepa_ray.models.loading import uses_bf16
from jepa_ray.objectives.distances import DISTANCES
from jepa_ray.objectives.predictors import make_head
from jepa_ray.objectives.schedules import ema_momentum
from jepa_ray.streams import derive_seed, stream
from jepa_ray.training.optimizer import clip_gradients, lr_factor
from jepa_ray.training.parallel import accumulating
from jepa_ray.training.runtime import Runtime, StepTotals, check_finite
from jepa_ray.training.step import read_sums


@dataclass(frozen=True)
class TokenIds:
    """Ids of the mask and the padding token."""

    mask: int
    pad: int


class TargetEncoder:
    """An exponential moving average of the context encoder, without training or dropout."""

    def __init__(self, network: MaskedNetwork) -> None:
        self.encoder = copy.deepcopy(network.encoder).requires_grad_(False).eval()

    @torch.no_grad()
    def follow(self, network: MaskedNetwork, momentum: float) -> None:
        """average <- momentum * average + (1 - momentum) * context, parameter by parameter."""
        averages = list(self.encoder.parameters())
        torch._foreach_lerp_(averages, [parameter.detach() for parameter in network.encoder.parameters()], 1 - momentum)

    @torch.no_grad()
    def __call__(self, intact_RT: Tensor, real_RT: Tensor, index_M: Tensor) -> Tensor:
        """(M, D) states of the intact passages at the hidden tokens."""
        return states(self.encoder, intact_RT, real_RT).flatten(0, 1)[index_M]


def masked_network(lm: Any, config: TrialConfig) -> MaskedNetwork:
    """The network of a trial around a masked-language model, with head and predictor if the objective uses them."""
    objective = config.objective
    predictor = make_head(objective, lm.config.hidden_size, config.seed) if objective is not None and objective.fixed_lambda else None
    with_head = objective is None or objective.gamma > 0
    return MaskedNetwork(lm, get_encoder(config.model.family), predictor, with_head)


def draw_hidden(passages: Passages, rows: NDArray[np.int64], config: TrialConfig, step: int) -> list[NDArray[np.bool_]]:
    """Which tokens of each passage this step hides, from the stream "mask" of step and passage: the same on every worker."""
    assert config.masked is not None
    ratio, mean = config.masked.mask_ratio, config.masked.mean_span
    return [
        hidden_tokens(passages.candidates[passages.span(row)], ratio, mean, stream(config.seed, "mask", step, row)) for row in rows.tolist()
    ]


def make_masked_optimizer(network: MaskedNetwork, optim: OptimConfig, predictor_lr_factor: float) -> torch.optim.AdamW:
    """AdamW over the trained parameters: weight decay on matrices only, and a separate learning rate factor for the predictor."""
    groups = []
    predictor_ids = {id(parameter) for parameter in network.predictor.parameters()} if network.predictor is not None else set()
    for predictor in (False, True):
        trained = [p for p in network.parameters() if p.requires_grad and (id(p) in predictor_ids) == predictor]
        for matrices in (True, False):
            parameters = [p for p in trained if (p.ndim >= 2) == matrices]
            factor = predictor_lr_factor if predictor else 1.0
            if parameters:
                groups.append({"params": parameters, "weight_decay": optim.weight_decay if matrices else 0.0, "lr_factor": factor})
    return torch.optim.AdamW(groups, lr=optim.learning_rate, betas=(optim.beta1, optim.beta2), fused=True)


@dataclass(kw_only=True)
class MaskedState:
    """The inputs of a step, plus everything that a step changes."""

    config: TrialConfig
    passages: Passages
    ids: TokenIds
    network: MaskedNetwork
    optimizer: torch.optim.Optimizer
    target: TargetEncoder | None = None
    """The target encoder, updated after each step; None if there is no JEPA term."""
    runtime: Runtime = field(default_factory=Runtime)
    parallel: nn.Module | None = None
    """The network in DistributedDataParallel, if there are several workers."""
    grad_norm: float = math.nan
    """Norm of the last step's gradients, before clipping."""

    @property
    def model(self) -> nn.Module:
        """The module to call in the forward pass."""
        return self.network if self.parallel is None else self.parallel


def masked_step(state: MaskedState, rows: NDArray[np.int64], step: int, total_steps: int) -> StepTotals:
    """One optimizer step on the passages `rows`, of which this rank takes every world_size-th. `step` counts from 0.

    Raises:
        NonFinite: the loss or the gradient norm is not finite; names the step.
    """
    config, passages, runtime = state.config, state.passages, state.runtime
    model, optimizer, target, ids = state.model, state.optimizer, state.target, state.ids
    optim, objective, device = config.optim, config.objective, torch.device(runtime.device)
    hidden = draw_hidden(passages, rows, config, step)
    num_hidden = sum(int(mask_T.sum()) for mask_T in hidden)
    # Passages of similar length share a micro-batch; the assignment affects rounding only.
    mine = sorted(range(runtime.rank, len(rows), runtime.world_size), key=lambda at: int(passages.lengths[rows[at]]))
    share = -(-len(rows) // runtime.world_size)
    size = min(optim.micro_batch_size or share, share)
    totals, sums = StepTotals(), []
    optimizer.zero_grad(set_to_none=True)
    for number, start in enumerate(range(0, share, size)):
        chosen = mine[start : start + size]
        batch = masked_batch(passages, [int(rows[at]) for at in chosen], [hidden[at] for at in chosen], ids.mask, ids.pad)
        arrays = (batch.hidden_RT, batch.intact_RT, batch.real_RT, batch.index_M, batch.label_ids_M)
        hidden_RT, intact_RT, real_RT, index_M, label_ids_M = (torch.from_numpy(array).to(device) for array in arrays)
        torch.manual_seed(derive_seed(config.seed, "dropout", step, runtime.rank, number))
        with accumulating(model, last=start + size >= share):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16(config.model, device)):
                target_MD = target(intact_RT, real_RT, index_M) if target is not None else None
                logits_MV, source_MD = model(hidden_RT, real_RT, index_M)
            ce_sum, jepa_sum = loss_sums(logits_MV, label_ids_M, source_MD, target_MD)
            gamma, weight = (1.0, 0.0) if objective is None else (objective.gamma, objective.fixed_lambda or 0.0)
            loss = torch.zeros((), device=device)
            if ce_sum is not None:
                loss = loss + ce_sum * (gamma / num_hidden)
            if jepa_sum is not None:
                loss = loss + jepa_sum * (weight / num_hidden)
            (loss * runtime.world_size).backward()  # data-parallel training averages gradients over ranks
        totals.add(
            StepTotals(
                num_labels=len(index_M) if ce_sum is not None else 0,
                num_pairs=len(index_M) if jepa_sum is not None else 0,
                tokens=int(batch.real_RT.sum()) if chosen else 0,
                attended=batch.attended if chosen else 0,
            )
        )
        sums += [loss.new_zeros(()) if each is None else each.detach() for each in (ce_sum, jepa_sum)]
    norm = state.grad_norm = clip_gradients(model, optim.max_grad_norm)
    totals.ce_sum, totals.jepa_sum = read_sums(sums)
    check_finite(totals, norm, step, runtime)
    rate = optim.learning_rate * lr_factor(step, total_steps, optim)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
    optimizer.step()
    if target is not None:
        assert objective is not None
        target.follow(state.network, ema_momentum(objective, step, total_steps))
    return totals


def loss_sums(
    logits_MV: Tensor | None, label_ids_M: Tensor, source_MD: Tensor | None, target_MD: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Sums over hidden tokens: cross-entropy, and 1 - cosine of predicted and target states; None if the inputs are missing."""
    ce_sum = F.cross_entropy(logits_MV.float(), label_ids_M, reduction="sum") if logits_MV is not None else None
    jepa_sum = DISTANCES["cosine"](source_MD, target_MD).sum() if source_MD is not None and target_MD is not None else None
    return ce_sum, jepa_sum


@dataclass(frozen=True)
class MaskedFlops:
    """Operations of training, counted from shapes as in `training/cost.py`, including the target encoder's forward pass."""

    per_token: int
    per_pair: int
    per_hidden: int

    @classmethod
    def of(cls, network: MaskedNetwork) -> MaskedFlops:
        config: Any = network.lm.config
        passes = 6 + (2 if network.predictor is not None else 0)  # 2 forward and 4 backward; the target encoder adds 2 forward
        weights = sum(module.weight.numel() for module in network.encoder.modules() if isinstance(module, nn.Linear))
        inside = {id(module) for module in network.encoder.modules()}
        head = [module for module in network.lm.modules() if isinstance(module, nn.Linear) and id(module) not in inside]
        hidden = sum(module.weight.numel() for module in head) if network.with_head else 0
        if network.predictor is not None:
            hidden += sum(parameter.numel() for parameter in network.predictor.parameters() if parameter.ndim == 2)
        return cls(
            per_token=passes * weights,
            per_pair=2 * passes * config.hidden_size * config.num_hidden_layers,
            per_hidden=6 * hidden,
        )

    def train_flops(self, totals: StepTotals) -> int:
        hidden = max(totals.num_labels, totals.num_pairs)
        return self.per_token * totals.tokens + self.per_pair * totals.attended + self.per_hidden * hidden

    def unpacked_flops(self, totals: StepTotals) -> int:
        """Equals `train_flops`: passages are padded, not packed, and padding is not counted."""
        return self.train_flops(totals)
