"""Distances d(source, target) of the JEPA term: one value per pair, in fp32, to be summed and divided by the step's pairs.

Legend: P pairs of this call, N pairs of the whole step (or all pairs that serve as negatives), D width of a state.
Sources: LLM-JEPA, section 3 and table 3 (cosine, L2, MSE, InfoNCE); Huber 1964 (smooth L1); van den Oord et al., arXiv 1807.03748
(InfoNCE).

Other modules decide what is encoded and which side is trained: gradients flow into every input that requires them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_ray.config import ObjectiveConfig

SMALLEST_NORM = 1e-8
"""A state shorter than this is divided by this value instead of its own length."""


def cosine(source_PD: Tensor, target_PD: Tensor) -> Tensor:
    """1 - cos(source, target), in [0, 2]."""
    return 1 - F.cosine_similarity(source_PD.float(), target_PD.float(), dim=-1, eps=SMALLEST_NORM)


def l2(source_PD: Tensor, target_PD: Tensor) -> Tensor:
    """Euclidean norm of the difference. It scales with the states' norm (about 100 in Llama-3.2-1B), so lambda needs its own search."""
    distance_P: Tensor = (source_PD.float() - target_PD.float()).norm(dim=-1)
    return distance_P


def mse(source_PD: Tensor, target_PD: Tensor) -> Tensor:
    """Mean over the D coordinates of the squared difference."""
    return (source_PD.float() - target_PD.float()).square().mean(dim=-1)


def smooth_l1(source_PD: Tensor, target_PD: Tensor) -> Tensor:
    """Mean over the D coordinates of the Huber loss with beta = 1: x^2 / 2 if |x| < 1, else |x| - 1/2. A single outlying coordinate,
    as language models have them, contributes a gradient of at most 1 / D."""
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
    """(P,) cross-entropy of identifying each source's own target among all targets, from their cosines divided by the temperature:

        -log( exp(cos(s_i, t_(offset + i)) / temperature) / sum_j exp(cos(s_i, t_j) / temperature) )

    Args:
        symmetric: return the mean of this and the same with source and target exchanged.
        all_source_ND, all_target_ND: the states of all participating pairs, with these P starting at row `offset`. None: only these P.

    For a single pair without negatives, the loss and its gradient are 0.
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
"""The distances that need only one pair. `infonce` also needs the other pairs."""


@dataclass(frozen=True)
class Others:
    """All pairs that serve as InfoNCE's negatives, with the call's own pairs starting at row `offset`."""

    source_ND: Tensor
    target_ND: Tensor
    offset: int


def distance(objective: ObjectiveConfig, source_PD: Tensor, target_PD: Tensor, others: Others | None = None) -> Tensor:
    """(P,) the objective's distance, with its `normalize`, `temperature` and `symmetric`.

    `others` is for InfoNCE; None: negatives are the call's own pairs. Gradients flow into `others` if its tensors require them.
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
