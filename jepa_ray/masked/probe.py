"""How much frozen embeddings reveal about a label: a linear probe, and nearest neighbours. NumPy and SciPy only; deterministic.

The probe is multinomial logistic regression on standardised embeddings. Its L2 penalty is chosen on a held-out part of the training
data; then it is fitted on all of it. The fit uses training embeddings only; other embeddings are only predicted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from jepa_ray.streams import stream

Matrix = NDArray[np.float64]
Classes = NDArray[np.int64]

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates: factor on half the squared norm of the weights, which is added to the mean cross-entropy."""
HELD_OUT = 0.2
"""Share of the training data that chooses among them."""
MAX_STEPS = 200
"""Iterations of L-BFGS."""


def linear_probe(train_ND: Matrix, classes_N: Classes, seed: int = 0) -> Probe:
    """Fit the probe on training embeddings; if two penalties score the same, the stronger one is chosen."""
    num_classes = int(classes_N.max()) + 1
    scale = Scale(train_ND)
    scaled_ND = scale(train_ND)
    order = stream(seed, "probe").permutation(len(scaled_ND))
    held = max(1, round(HELD_OUT * len(order)))
    val, fit = order[:held], order[held:]
    scores = []
    for penalty in PENALTIES:
        weights = _fit(scaled_ND[fit], classes_N[fit], num_classes, penalty)
        scores.append((float((_logits(scaled_ND[val], weights).argmax(1) == classes_N[val]).mean()), penalty))
    penalty = max(scores)[1]
    return Probe(scale, _fit(scaled_ND, classes_N, num_classes, penalty), penalty)


class Scale:
    """Standardisation by the mean and standard deviation of the training embeddings."""

    def __init__(self, train_ND: Matrix) -> None:
        self.mean_D, self.sd_D = train_ND.mean(0), train_ND.std(0)
        self.sd_D[self.sd_D <= 1e-9 * np.abs(self.mean_D)] = 1.0  # a constant dimension has no information

    def __call__(self, states_ND: Matrix) -> Matrix:
        return np.asarray((states_ND - self.mean_D) / self.sd_D)


class Probe:
    """A fitted probe."""

    def __init__(self, scale: Scale, weights: Matrix, penalty: float) -> None:
        self.penalty = penalty
        self._scale, self._weights = scale, weights

    def __call__(self, states_ND: Matrix) -> Classes:
        """(N,) most probable class of each embedding."""
        return np.asarray(_logits(self._scale(states_ND), self._weights).argmax(1))


def nearest(train_ND: Matrix, queries_QD: Matrix, block: int = 1024) -> Classes:
    """(Q,) index of each query's nearest training embedding by cosine; the first one in a tie."""
    unit_ND = train_ND / np.maximum(np.linalg.norm(train_ND, axis=1, keepdims=True), 1e-12)
    parts = [(queries_QD[start : start + block] @ unit_ND.T).argmax(1) for start in range(0, len(queries_QD), block)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _logits(states_ND: Matrix, weights: Matrix) -> Matrix:
    """`weights` is (D + 1, C); its last row contains the intercepts."""
    return np.asarray(states_ND @ weights[:-1] + weights[-1])


def _fit(states_ND: Matrix, classes_N: Classes, num_classes: int, penalty: float) -> Matrix:
    count, size = states_ND.shape
    shape = (size + 1, num_classes)
    truth_NC = np.eye(num_classes)[classes_N]

    def loss(flat: Matrix) -> tuple[float, Matrix]:
        weights = flat.reshape(shape)
        logits_NC = _logits(states_ND, weights)
        logits_NC = logits_NC - logits_NC.max(1, keepdims=True)
        log_sum_N = np.log(np.exp(logits_NC).sum(1))
        error_NC = (np.exp(logits_NC - log_sum_N[:, None]) - truth_NC) / count
        gradient = np.vstack([states_ND.T @ error_NC + penalty * weights[:-1], error_NC.sum(0)])
        value = float((log_sum_N - (logits_NC * truth_NC).sum(1)).mean() + penalty / 2 * (weights[:-1] ** 2).sum())
        return value, gradient.ravel()

    optimum: Any = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS})
    return np.asarray(optimum.x.reshape(shape))
