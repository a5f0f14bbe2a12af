"""Terms that keep the states of a step, as a cloud of points, from collapsing: VICReg's variance and covariance, and SIGReg.

Legend: P states, D width, S slices, T grid points. All in fp32. Each term is one number per call, a statistic of the given states and not
a sum over pairs. The training step passes the states of all workers (`training/jepa_term.py`).

Sources: VICReg, Bardes, Ponce and LeCun, arXiv 2105.04906, eq. 1-4. SIGReg: LeJEPA, Balestriero and LeCun, arXiv 2511.08544, after the test
of Epps and Pulley 1983.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_ray.config import ObjectiveConfig

GAMMA = 1.0
"""Standard deviation below which VICReg's hinge is active."""
EPSILON = 1e-4
"""Added to the variance under the root, so that its gradient stays finite at 0."""
NUM_SLICES = 32
"""Directions of SIGReg per call."""
T_MAX, T_POINTS = 5.0, 17
"""SIGReg integrates over [-T_MAX, T_MAX]; the integrand is even, so T_POINTS grid points from 0 to T_MAX replace 2 * T_POINTS - 1."""


def variance(state_PD: Tensor) -> Tensor:
    """VICReg, eq. 1: mean over coordinates j of max(0, GAMMA - sqrt(Var_j + EPSILON)), with the unbiased variance over the P states.

    0 once every coordinate has standard deviation GAMMA; nearly GAMMA if all states are equal. For a single state (or none), whose
    variance is undefined, this is 0 without gradient.
    """
    if len(state_PD) < 2:
        return state_PD.new_zeros((), dtype=torch.float32)
    return (GAMMA - (state_PD.float().var(dim=0) + EPSILON).sqrt()).clamp(min=0).mean()


def covariance(state_PD: Tensor) -> Tensor:
    """VICReg, eq. 3-4: sum over i != j of C_ij^2, over D, where C is the unbiased covariance of the P states.

    0 for fewer than two states, as in `variance`. C itself is computed only if it is not larger than P x P: with X the centred states,
    ||X'X|| = ||XX'||, so sum_ij C_ij^2 = ||XX'||^2 / (P - 1)^2; the squared variances are subtracted from that.
    """
    num, width = state_PD.shape
    if num < 2:
        return state_PD.new_zeros((), dtype=torch.float32)
    centred_PD = state_PD.float() - state_PD.float().mean(dim=0)
    small = centred_PD.T @ centred_PD if width <= num else centred_PD @ centred_PD.T
    total, diagonal = small.square().sum(), centred_PD.square().sum(dim=0).square().sum()
    return (total - diagonal) / ((num - 1) ** 2 * width)


def epps_pulley(sample_PS: Tensor) -> Tensor:
    """(S,) Epps-Pulley statistic of each column's P numbers against N(0, 1).

    It is defined with the empirical characteristic function phi(t) = 1/P sum_p exp(i t x_p), that of N(0, 1), exp(-t^2 / 2), and a
    Gaussian weight, here exp(-t^2 / 2) as in LeJEPA:

        EP = P * integral |phi(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt

    The real and imaginary parts of phi are the means of cos(t x_p) and sin(t x_p), and the target is real, so the integrand is

        [ (mean_p cos(t x_p) - exp(-t^2 / 2))^2 + (mean_p sin(t x_p))^2 ] exp(-t^2 / 2),

    which is even in t: the value is twice the trapezoidal rule over 0, h, ..., T_MAX. At T_MAX the weight is 4e-6. In closed form, from
    integral cos(a t) exp(-t^2 / 2) dt = sqrt(2 pi) exp(-a^2 / 2) and similar integrals,

        EP = sqrt(2 pi) / P sum_pq exp(-(x_p - x_q)^2 / 2) - 2 sqrt(pi) sum_p exp(-x_p^2 / 4) + P sqrt(2 pi / 3),

    which costs P^2; the tests compare with it. For numbers drawn from N(0, 1) the mean is sqrt(2 pi) - sqrt(2 pi / 3) = 1.059 for every P;
    otherwise the statistic grows like P. The grid's step makes phi periodic in x with 2 pi / h = 20: numbers that far apart look close.
    """
    step = T_MAX / (T_POINTS - 1)
    grid_T = torch.linspace(0, T_MAX, T_POINTS, device=sample_PS.device)
    gauss_T = (-grid_T.square() / 2).exp()
    angle_PST = sample_PS.float().unsqueeze(-1) * grid_T
    error_ST = (angle_PST.cos().mean(dim=0) - gauss_T).square() + angle_PST.sin().mean(dim=0).square()
    return 2 * len(sample_PS) * torch.trapezoid(error_ST * gauss_T, dx=step)


def directions(width: int, generator: torch.Generator) -> Tensor:
    """(D, S) directions drawn uniformly from the unit sphere, as normalised Gaussian vectors."""
    return F.normalize(torch.randn(width, NUM_SLICES, generator=generator, device=generator.device), dim=0)


def sigreg(state_PD: Tensor, direction_DS: Tensor) -> Tensor:
    """Mean over the slices of `epps_pulley` of the projected states: by the Cramer-Wold theorem, a cloud whose every projection is N(0, 1)
    is an isotropic Gaussian. Also defined for a single state; 0 for none."""
    if len(state_PD) == 0:
        return state_PD.new_zeros((), dtype=torch.float32)
    return epps_pulley(state_PD.float() @ direction_DS.to(state_PD.device)).mean()


def regulariser(objective: ObjectiveConfig, source_PD: Tensor, target_PD: Tensor, generator: torch.Generator) -> Tensor:
    """Scalar: variance * v + covariance * c + sigreg * s, each the mean of the term on the sources and on the targets.

    A term of weight 0 is not computed. `generator` draws SIGReg's directions, the same for both sides, and only if sigreg > 0.
    """
    total = source_PD.new_zeros((), dtype=torch.float32)
    if objective.variance > 0:
        total = total + objective.variance * (variance(source_PD) + variance(target_PD)) / 2
    if objective.covariance > 0:
        total = total + objective.covariance * (covariance(source_PD) + covariance(target_PD)) / 2
    if objective.sigreg > 0:
        slices_DS = directions(source_PD.shape[1], generator)
        # With both sides' projections concatenated, the mean over twice the slices is the mean of the two terms.
        if len(source_PD):
            slices_DS = slices_DS.to(source_PD.device)
            both_PS = torch.cat([source_PD.float() @ slices_DS, target_PD.float() @ slices_DS], dim=1)
            total = total + objective.sigreg * epps_pulley(both_PS).mean()
    return total
