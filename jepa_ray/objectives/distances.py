"""Distances d(source, target) of the JEPA term: (P, D) and (P, D) to (P,), one value per pair, in fp32. Paper, section 3 and table 3."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def cosine(source_PD: Tensor, target_PD: Tensor) -> Tensor:
    """1 - cos(source, target), in [0, 2]."""
    return 1 - F.cosine_similarity(source_PD.float(), target_PD.float(), dim=-1)


def l2(source_PD: Tensor, target_PD: Tensor) -> Tensor:
    """Euclidean norm of the difference. Scales with the states' norm (about 100 in Llama-3.2-1B): lambda needs its own search."""
    distance_P: Tensor = (source_PD.float() - target_PD.float()).norm(dim=-1)
    return distance_P


def mse(source_PD: Tensor, target_PD: Tensor) -> Tensor:
    """Mean over the D coordinates of the squared difference."""
    return (source_PD.float() - target_PD.float()).square().mean(dim=-1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "l2": l2, "mse": mse}
