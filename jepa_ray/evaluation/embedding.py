"""Diagnostics of paired embeddings: how far apart they are, how spread out, and whether one side predicts or retrieves the other.

Legend: N examples, D dimensions, float64; row i of `text_ND` and row i of `code_ND` belong to the same example. Pure functions, each
with its formula and source; `describe` collects them in one record. `training/diagnostics/measure.py` chooses the states and the steps.

Degenerate input never raises or warns. A row of zeros has no direction: scaled to length 1 it stays zero, and its cosine with every row
is 0. A value is nan if an entry is not finite or the formula is 0 / 0; each docstring says when that happens.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

NAN = float("nan")
TOP = 100
"""Singular values whose mean is reported (paper, T14)."""
LISTED = 10
"""Number of singular values that are reported individually."""
RIDGES = tuple(10.0**exponent for exponent in range(-6, 5))
"""Ridge penalties tried, as multiples of the mean squared length of a centred Text state."""
SAME = 1e-9
"""Cosines closer than this are tied: equal states give equal cosines only up to rounding."""


def usable(*matrices: Matrix) -> bool:
    """Whether there is at least one example and every entry is finite; otherwise all diagnostics are nan."""
    return all(matrix.size > 0 and bool(np.isfinite(matrix).all()) for matrix in matrices)


def scaled(x_ND: Matrix) -> Matrix:
    """x divided by its largest absolute entry, so that no square overflows; zeros are unchanged."""
    top = np.abs(x_ND).max(initial=0.0)
    return x_ND / top if top > 0 else x_ND


def unit(x_ND: Matrix) -> Matrix:
    """Each row scaled to length 1; a row of zeros stays zero."""
    top_N1 = np.abs(x_ND).max(axis=1, keepdims=True, initial=0.0)
    with np.errstate(invalid="ignore"):  # inf / inf
        x_ND = x_ND / np.where(top_N1 > 0, top_N1, 1.0)
    length_N1 = np.sqrt(np.square(x_ND).sum(axis=1, keepdims=True))
    return x_ND / np.where(length_N1 > 0, length_N1, 1.0)


def singular_values(x_ND: Matrix) -> NDArray[np.float64]:
    """All min(N, D) singular values, descending. For Enc(Text) - Enc(Code): paper, figure 3 and table 14. They grow as sqrt(N)."""
    if not usable(x_ND):
        return np.full(min(x_ND.shape), NAN)
    values: NDArray[np.float64] = np.linalg.svd(x_ND, compute_uv=False).astype(np.float64)
    return values


def top_mean(values: NDArray[np.float64], count: int = TOP) -> float:
    """Mean of the first `count` of descending values, or of all if there are fewer (paper, T14: 100). nan if there are none."""
    return float(values[:count].mean()) if len(values) else NAN


def linearity(text_ND: Matrix, code_ND: Matrix) -> float:
    """min over X of ||Text X - Code||_F, without an intercept (paper, T14).

    With U an orthonormal basis of Text's columns this is ||Code - U U^T Code||_F. nan if Text has rank N, as is usual for N <= D: some X
    then fits every Code, and the zero is meaningless; see `ridge_r2`. It depends on N and D, so compare only values with equal N and D.
    """
    if not usable(text_ND, code_ND):
        return NAN
    basis_NR, values, _ = np.linalg.svd(scaled(text_ND), full_matrices=False)
    rank = int((values > values[0] * max(text_ND.shape) * np.finfo(np.float64).eps).sum())
    if rank == len(text_ND):
        return NAN
    basis_NR = basis_NR[:, :rank]
    return float(np.linalg.norm(code_ND - basis_NR @ (basis_NR.T @ code_ND)))


def ridge_r2(text_ND: Matrix, code_ND: Matrix) -> float:
    """Share of Code's variance on unseen pairs that a linear map of Text explains: 1 - ||Code - fit||^2 / ||Code - mean||^2.

    Every fourth pair is held out. The map has an intercept (the fitted pairs' means; `mean` above is also theirs). Its ridge penalty is
    the one of RIDGES with the least leave-one-out error on the fitted pairs, so the held-out pairs choose nothing. Predicting the mean
    gives 0; negative values are worse than that. nan for fewer than 8 pairs, or if the held-out Codes all equal the mean.
    """
    if not usable(text_ND, code_ND) or len(text_ND) < 8:
        return NAN
    held_N = np.arange(len(text_ND)) % 4 == 3
    text_ND, code_ND = scaled(text_ND), scaled(code_ND)
    text_mean_D, code_mean_D = text_ND[~held_N].mean(axis=0), code_ND[~held_N].mean(axis=0)
    x_ND, y_ND = text_ND - text_mean_D, code_ND - code_mean_D
    total = float(np.square(y_ND[held_N]).sum())
    if total <= np.finfo(np.float64).eps ** 2 * code_ND.size:  # only rounding of the mean
        return NAN
    ridges = np.array(RIDGES) * np.square(x_ND[~held_N]).sum() / (~held_N).sum()
    if ridges[0] == 0:  # every Text equal: the fit is the mean
        return 0.0
    basis_NR, values_R, axes_RD = np.linalg.svd(x_ND[~held_N], full_matrices=False)
    ridge = ridges[int(np.argmin(loo_errors(basis_NR, values_R, y_ND[~held_N], ridges)))]
    slope_RD = (values_R / (values_R**2 + ridge))[:, None] * (basis_NR.T @ y_ND[~held_N])
    return 1 - float(np.square(y_ND[held_N] - x_ND[held_N] @ axes_RD.T @ slope_RD).sum()) / total


def loo_errors(basis_NR: Matrix, values_R: NDArray[np.float64], y_ND: Matrix, ridges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of squared leave-one-out errors of ridge regression with an intercept, for each penalty; x = basis * values * axes and y centred.

    A left-out example's error is its residual divided by 1 - h, where h = 1/N + sum_r U_ir^2 s_r^2 / (s_r^2 + ridge) is its leverage
    (Allen's PRESS; Golub, Heath & Wahba 1979).
    """
    part_RD, out = basis_NR.T @ y_ND, []
    for ridge in ridges:
        shrink_R = values_R**2 / (values_R**2 + ridge)
        residual_ND = y_ND - basis_NR @ (shrink_R[:, None] * part_RD)
        leverage_N = 1 / len(y_ND) + np.square(basis_NR) @ shrink_R
        out.append(float(np.square(residual_ND / np.maximum(1 - leverage_N, 1e-12)[:, None]).sum()))
    return np.array(out)


def effective_rank(x_ND: Matrix) -> float:
    """exp of the entropy of p = s / sum(s), s the singular values, not centred: RankMe (Garrido et al. 2023, arXiv 2210.02885, eq. 1).

    In [1, min(N, D)]. RankMe's epsilon is omitted; 0 log 0 is 0. nan if every entry is 0.
    """
    values = singular_values(scaled(x_ND)) if usable(x_ND) else np.empty(0)
    if values.sum() == 0:
        return NAN
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def participation_ratio(x_ND: Matrix) -> float:
    """(sum v)^2 / sum v^2, v the eigenvalues of the covariance (Gao et al. 2017): the number of directions that share the variance evenly.

    In [1, min(N - 1, D)]. nan if all rows are equal.
    """
    if not usable(x_ND):
        return NAN
    x_ND = scaled(x_ND)
    centred_ND = x_ND - x_ND.mean(axis=0)
    gram = centred_ND @ centred_ND.T if len(x_ND) <= x_ND.shape[1] else centred_ND.T @ centred_ND
    if np.trace(gram) <= np.finfo(np.float64).eps ** 2 * x_ND.size:
        return NAN
    gram = gram / np.trace(gram)
    return float(1 / np.square(gram).sum())


def mean_energy(x_ND: Matrix) -> float:
    """N |mean|^2 / sum |x|^2: the share of the states' energy in their common mean; the rest is the share of the variance.

    In [0, 1]; 1 if all rows are equal, about 1/N if they are independent with mean zero. nan if every entry is 0.
    """
    if not usable(x_ND) or not x_ND.any():
        return NAN
    x_ND = scaled(x_ND)
    return float(len(x_ND) * np.square(x_ND.mean(axis=0)).sum() / np.square(x_ND).sum())


def variance(x_ND: Matrix) -> float:
    """Mean over the D dimensions of the variance over examples (divided by N); 0 for constant states. In units of the scale squared."""
    return float(x_ND.var(axis=0).mean()) if usable(x_ND) else NAN


def alignment(text_ND: Matrix, code_ND: Matrix) -> float:
    """mean |t - c|^2 over pairs, at length 1 (Wang & Isola 2020, arXiv 2005.10242, alpha = 2): 2 - 2 cos. In [0, 4]; 0 is perfect."""
    return float(np.square(unit(text_ND) - unit(code_ND)).sum(axis=1).mean()) if usable(text_ND, code_ND) else NAN


def uniformity(x_ND: Matrix) -> float:
    """log mean exp(-2 |x_i - x_j|^2) over i < j, at length 1 (Wang & Isola 2020, t = 2). In [-8, 0]; 0: all equal. nan for N = 1."""
    if not usable(x_ND) or len(x_ND) < 2:
        return NAN
    unit_ND = unit(x_ND)
    length_N = np.square(unit_ND).sum(axis=1)
    squared_NN = np.maximum(length_N[:, None] + length_N - 2 * unit_ND @ unit_ND.T, 0.0)
    return math.log(float(np.exp(-2 * squared_NN[np.triu_indices(len(x_ND), 1)]).mean()))


def anisotropy(x_ND: Matrix) -> float:
    """Mean cosine of distinct examples (Ethayarajh 2019): (|sum u|^2 - sum |u|^2) / (N (N - 1)), u of length 1. nan for N = 1."""
    n = len(x_ND)
    if not usable(x_ND) or n < 2:
        return NAN
    unit_ND = unit(x_ND)
    return float((np.square(unit_ND.sum(axis=0)).sum() - np.square(unit_ND).sum()) / (n * (n - 1)))


def paired_cosine(text_ND: Matrix, code_ND: Matrix) -> float:
    """Mean over pairs of cos(t_i, c_i)."""
    return float((unit(text_ND) * unit(code_ND)).sum(axis=1).mean()) if usable(text_ND, code_ND) else NAN


def contrast(text_ND: Matrix, code_ND: Matrix) -> float:
    """Mean cos(t_i, c_i) minus mean cos(t_i, c_j) over i != j: the similarity of pairs beyond that of any two examples. nan for N = 1."""
    n = len(text_ND)
    if not usable(text_ND, code_ND) or n < 2:
        return NAN
    paired = paired_cosine(text_ND, code_ND)
    everyone = float(unit(text_ND).sum(axis=0) @ unit(code_ND).sum(axis=0))
    return paired - (everyone - n * paired) / (n * (n - 1))


def retrieval(text_ND: Matrix, code_ND: Matrix) -> tuple[float, float]:
    """(R@1, mean reciprocal rank) of each Text's own Code among all N Codes by cosine.

    Tied Codes are in random order, and the expectation over that order is returned: with g Codes better and e equal (itself included),
    R@1 is 1/e if g = 0, else 0, and the reciprocal rank is the mean of 1/(g + 1) .. 1/(g + e). Collapsed states therefore score `chance`,
    not 1; and because equal Codes are indistinguishable, R@1 is at most the share of distinct Codes.
    """
    if not usable(text_ND, code_ND):
        return NAN, NAN
    n = len(text_ND)
    cosine_NN = unit(text_ND) @ unit(code_ND).T
    own_N1 = np.diagonal(cosine_NN)[:, None]
    better_N = (cosine_NN > own_N1 + SAME).sum(axis=1)
    equal_N = (np.abs(cosine_NN - own_N1) <= SAME).sum(axis=1)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])
    first_N = np.where(better_N == 0, 1 / equal_N, 0.0)
    reciprocal_N = (harmonic[better_N + equal_N] - harmonic[better_N]) / equal_N
    return float(first_N.mean()), float(reciprocal_N.mean())


def chance(n: int) -> tuple[float, float]:
    """Expected `retrieval` of randomly exchanged pairs: (1/N, H_N / N), H_N = 1 + 1/2 + .. + 1/N, for any states.

    For one Text the N Codes have the ranks 1 .. N, and tied Codes the mean over theirs. After a random exchange, its own Code is each of
    them with probability 1/N; summed over all Codes, [rank = 1] is 1 and 1/rank is H_N.
    """
    return (1 / n, math.fsum(1 / rank for rank in range(1, n + 1)) / n) if n else (NAN, NAN)


def describe(text_ND: Matrix, code_ND: Matrix, prediction_ND: Matrix | None = None) -> dict[str, float]:
    """All of the above. `prediction`: Pred(Enc(Text)) if it is not Text itself; only its direction is compared with Code.

    The keys are always the same; singular values beyond the last one are nan.
    """
    text_ND, code_ND = (np.asarray(states, dtype=np.float64) for states in (text_ND, code_ND))
    prediction_ND = text_ND if prediction_ND is None else np.asarray(prediction_ND, dtype=np.float64)
    values: dict[str, float] = {"pairs": float(len(text_ND))}
    for prefix, (one_ND, other_ND) in {"sv": (text_ND, code_ND), "unit_sv": (unit(text_ND), unit(code_ND))}.items():
        with np.errstate(invalid="ignore"):  # inf - inf
            spectrum = singular_values(one_ND - other_ND)
        values |= {f"{prefix}_mean": top_mean(spectrum), f"{prefix}_max": top_mean(spectrum, 1)}
        values |= {f"{prefix}_{i + 1}": float(spectrum[i]) if i < len(spectrum) else NAN for i in range(LISTED)}
    values["linearity"] = linearity(text_ND, code_ND)
    length = float(np.linalg.norm(code_ND)) if usable(code_ND) else 0.0
    values["linearity_relative"] = values["linearity"] / length if length > 0 else NAN
    values["ridge_r2"] = ridge_r2(text_ND, code_ND)
    for side, states_ND in {"text": text_ND, "code": code_ND}.items():
        values |= {
            f"rank_{side}": effective_rank(states_ND),
            f"participation_{side}": participation_ratio(states_ND),
            f"mean_energy_{side}": mean_energy(states_ND),
            f"variance_{side}": variance(states_ND),
            f"uniformity_{side}": uniformity(states_ND),
            f"anisotropy_{side}": anisotropy(states_ND),
        }
    values["alignment"] = alignment(text_ND, code_ND)
    values["paired_cosine"] = paired_cosine(text_ND, code_ND)
    values["contrast"] = contrast(text_ND, code_ND)
    values["r1"], values["mrr"] = retrieval(text_ND, code_ND)
    values["r1_chance"], values["mrr_chance"] = chance(len(text_ND))
    values["pred_distance"] = 1 - paired_cosine(prediction_ND, code_ND)
    values["pred_contrast"] = contrast(prediction_ND, code_ND)
    values["pred_r1"], values["pred_mrr"] = retrieval(prediction_ND, code_ND)
    return values
