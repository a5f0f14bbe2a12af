"""A mean difference from several stages of seeds, with weights that do not depend on how many seeds a stage has.

A comparison that goes on after its results are known has chosen the size of what follows in their light. A test of all seeds together then
errs more often than it says. The inverse-normal combination (Lehmacher & Wassmer 1999) gives every stage a weight that was fixed before it
ran; the size of a stage may then depend on everything that was known.

The stages share their test examples. With var_example / N = tau^2 and the variance of one seed's mean sigma^2, the mean after S seeds has
variance sigma^2 / S + tau^2, and the covariance of an earlier with a later mean is the variance of the later. So I * mean, with the
information I = 1 / (sigma^2 / S + tau^2), has independent increments (Jennison & Turnbull 2000, chapter 3), and stage j contributes

    x_j = (I_j mean_j - I_(j-1) mean_(j-1)) / sqrt(I_j - I_(j-1))        standard normal without an effect

    estimate = sum_j w_j x_j / sum_j w_j sqrt(I_j - I_(j-1))             se = sqrt(sum_j w_j^2) / sum_j w_j sqrt(I_j - I_(j-1))

The variances are estimated from all seeds so far. With weights w_j^2 in proportion to the information, the estimate is the plain mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stages:
    """The seeds of each stage, in the order of the rows, and the squared weights. One stage: the plain mean."""

    seeds: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seeds or len(self.seeds) != len(self.weights) or min(self.seeds) < 1 or not min(self.weights) > 0:
            raise ValueError(f"Each stage needs at least one seed and a weight above 0; got seeds {self.seeds}, weights {self.weights}.")


def estimate(d_RS: Floats, sigma2_R: Any, tau2_R: Any, stages: Stages) -> tuple[Any, Any]:
    """Mean difference and standard error from (..., S) differences by seed, ordered by stage.

    `sigma2_R` (...): variance of one seed's mean, without that of the examples; `tau2_R` (...): variance of the mean over examples, which
    all seeds share (0: these examples are all there are). Raises ValueError if the stages do not cover the S seeds.
    """
    ends = list(accumulate(stages.seeds))
    if ends[-1] != d_RS.shape[-1]:
        raise ValueError(f"The stages have {ends[-1]} seeds, the differences {d_RS.shape[-1]}.")
    sums_RS = np.cumsum(d_RS, axis=-1)
    sigma2_R, tau2_R = np.float64(1.0) * sigma2_R, np.float64(1.0) * tau2_R
    signal: Any = 0.0
    reach: Any = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):  # without any variance 0 / 0, which callers refuse or handle
        for (before, end), weight in zip(pairwise([0, *ends]), stages.weights, strict=True):
            # I * mean = sum / (sigma^2 + S tau^2); the difference of two informations is written out, as they may nearly agree.
            here, there = sigma2_R + end * tau2_R, sigma2_R + before * tau2_R
            earlier = sums_RS[..., before - 1] / there if before else 0.0
            step = np.sqrt((sigma2_R if before else 1.0) * (end - before) / (here * (there if before else 1.0)))
            added = np.where(step > 0, (sums_RS[..., end - 1] / here - earlier) / step, 0.0)
            signal, reach = signal + math.sqrt(weight) * added, reach + math.sqrt(weight) * step
        return signal / reach, math.sqrt(sum(stages.weights)) / reach
