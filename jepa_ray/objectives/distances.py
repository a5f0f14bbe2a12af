"""Distances d(source, target) of the JEPA term: one value per pair, in fp32, to be summed and divided by the step's pairs.

Legend: P pairs of this call, N pairs of the whole step (or of all that are to serve as negatives), D width of a state.
Sources: LLM-JEPA, section 3 and table 3 (cosine, L2, MSE, InfoNCE); Huber 1964 (smooth L1); van den Oord et al., arXiv 1807.03748
(InfoNCE).

What is encoded and which side is trained is decided elsewhere: gradients flow into whatever requires them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_ray.config import ObjectiveConfig

SMALLEST_NORM = 1e-8
"""A state shorter than this is divided by it instead of by its own length."""


def cosine(source_PD: Tensor, target_PD: Tensor) -> Tensor:
    """1 - cos(source, target), in [0, 2]."""
    return 1 - F.cosine_similarity(source_PD.float(), target_PD.float(), dim=-1, eps=SMALLEST_NORM)


def l2(source_PD: Tensor, target_PD: Tensor) -> Tensor:
    """Euclidean norm of the difference. Scales with the states' norm (about 100 in Llama-3.2-1B): lambda needs its own search."""
    distance_P: Tensor = (source_PD.float() - target_PD.float()).norm(dim=-1)
    return distance_P


def mse(source_PD: Tensor, target_PD: Tensor) -> Tensor:
    """Mean over the D coordinates of the squared difference."""
    return (source_PD.float() - target_PD.float()).square().mean(dim=-1)


def smooth_l1(source_PD: Tensor, target_PD: Tensor) -> Tensor:
    """Mean over the D coordinates of Huber's loss at beta = 1: x^2 / 2 where |x| < 1, else |x| - 1/2. One outlying coordinate, as
    language models have them, pulls with at most 1 / D."""
    return F.smooth_l1_loss(source_PD.float(), target_PD.float(), reduction="none", beta=1.0).mean(dim=-1)


def infonce(
    source_PD: Tensor,
    target_PD: Tensor,
    *,
    temperature: float,
    symmetric: bool = False,
    all_source_ND: Tensor | None = None,
    all_target_ND: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """(P,) cross-entropy of finding each source's own target among all targets, by their cosines over the temperature:

        -log( exp(cos(s_i, t_(offset + i)) / temperature) / sum_j exp(cos(s_i, t_j) / temperature) )

    Args:
        symmetric: the mean of this and the same with source and target exchanged.
        all_source_ND, all_target_ND: the states of all pairs that take part, these P among them from row `offset` on. None: these P.

    A single pair without others has nothing to be told from: its loss and its gradient are 0.
    """
    source_PD, target_PD = normalized(source_PD), normalized(target_PD)
    all_target_ND = target_PD if all_target_ND is None else normalized(all_target_ND)
    own_P = torch.arange(offset, offset + len(source_PD), device=source_PD.device)
    forward_P = F.cross_entropy(source_PD @ all_target_ND.T / temperature, own_P, reduction="none")
    if not symmetric:
        return forward_P
    all_source_ND = source_PD if all_source_ND is None else normalized(all_source_ND)
    return (forward_P + F.cross_entropy(target_PD @ all_source_ND.T / temperature, own_P, reduction="none")) / 2


def normalized(state_PD: Tensor) -> Tensor:
    """The states in fp32, scaled to length 1."""
    return F.normalize(state_PD.float(), dim=-1, eps=SMALLEST_NORM)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "l2": l2, "mse": mse, "smooth_l1": smooth_l1}
"""Those that need one pair only. `infonce` needs the others, too."""


@dataclass(frozen=True)
class Others:
    """All pairs that serve as InfoNCE's negatives, with the call's own from row `offset` on."""

    source_ND: Tensor
    target_ND: Tensor
    offset: int


def distance(objective: ObjectiveConfig, source_PD: Tensor, target_PD: Tensor, others: Others | None = None) -> Tensor:
    """(P,) the objective's distance, with its `normalize`, `temperature` and `symmetric`.

    `others` is for InfoNCE; None: negatives are the call's own pairs. Gradients flow into it where it requires them.
    """
    if objective.distance == "infonce":
        return infonce(
            source_PD,
            target_PD,
            temperature=objective.temperature,
            symmetric=objective.symmetric,
            all_source_ND=others.source_ND if others is not None else None,
            all_target_ND=others.target_ND if others is not None else None,
            offset=others.offset if others is not None else 0,
        )
    if objective.normalize:
        source_PD, target_PD = normalized(source_PD), normalized(target_PD)
    return DISTANCES[objective.distance](source_PD, target_PD)
