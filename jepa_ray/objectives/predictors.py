"""Trained maps of the source state, applied after the network and its predictor tokens: `predictor: linear` and `predictor: mlp`.

Both start as the identity. At the first step the term thus equals the one without a map, and every later effect of the map is learnt. A
randomly drawn map would send the first gradients into a pretrained network through an arbitrary rotation; an arm with a map would differ
from one without by that shock before any trained difference. Semantic Tube (arXiv 2602.22617) has a linear predictor as an ablation; BYOL
and I-JEPA (arXiv 2006.07733, 2301.08243) use an mlp.

Legend: P pairs, D width of a state, H hidden units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_ray.config import ObjectiveConfig
from jepa_ray.streams import derive_seed


class LinearHead(nn.Module):
    """x -> W x + b; initially W is the identity and b zero. (The gradient of W is an outer product with x: no symmetry to break.)

    `bias`: False leaves b out. It is False for differences of states, so that a zero step along a sequence gives a zero prediction, as in
    the released code of Semantic Tube (whose W is drawn at random).
    """

    def __init__(self, width: int, bias: bool = True) -> None:
        super().__init__()
        self.weight_DD = nn.Parameter(torch.eye(width))
        self.bias_D = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, state_PD: Tensor) -> Tensor:
        return F.linear(state_PD.float(), self.weight_DD, self.bias_D)


class MlpHead(nn.Module):
    """x -> x + W2 gelu(W1 x + b1) + b2; initially W2 and the biases are zero.

    W1 is uniform within 1 / sqrt(D), so that hidden units differ. As in a low-rank adapter, the zero factor learns first: W1 has no
    gradient until W2 has changed, one step later.
    """

    def __init__(self, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight_HD = nn.Parameter(torch.empty(hidden, width).uniform_(-bound, bound, generator=generator))
        self.bias_H = nn.Parameter(torch.zeros(hidden))
        self.weight_DH = nn.Parameter(torch.zeros(width, hidden))
        self.bias_D = nn.Parameter(torch.zeros(width))

    def forward(self, state_PD: Tensor) -> Tensor:
        state_PD = state_PD.float()
        return state_PD + F.linear(F.gelu(F.linear(state_PD, self.weight_HD, self.bias_H)), self.weight_DH, self.bias_D)


def make_head(objective: ObjectiveConfig, width: int, seed: int) -> nn.Module | None:
    """The objective's map of (P, D) source states, in fp32 on the CPU; None for `predictor: tokens`.

    Drawn from the stream (seed, "predictor head"); the global generator is not used.
    """
    if objective.predictor == "tokens":
        return None
    if objective.predictor == "linear":
        return LinearHead(width, bias=objective.encodes_views)
    generator = torch.Generator().manual_seed(derive_seed(seed, "predictor head"))
    return MlpHead(width, objective.predictor_width or width, generator)
