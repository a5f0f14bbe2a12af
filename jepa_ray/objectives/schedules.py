"""The weight of the JEPA term at a step, whether the step skips it, and how fast its target encoder follows.

Steps count from 0. All are pure functions of the objective, the seed and the step, so every rank computes the same value.
"""

from __future__ import annotations

import math

from jepa_ray.config import ObjectiveConfig
from jepa_ray.streams import stream


def lambda_factor(objective: ObjectiveConfig, step: int, total_steps: int) -> float:
    """Multiple of lambda at `step` of `total_steps`.

    Over w = round(lambda_warmup * total_steps) steps it rises linearly, 1/w, 2/w, ..., 1 (like the learning rate), then changes linearly
    from 1 at step w to `lambda_end` at the last step. The last step is never part of the warm-up.
    """
    assert 0 <= step < total_steps
    last = total_steps - 1
    warmup = min(round(objective.lambda_warmup * total_steps), last)
    if step < warmup:
        return (step + 1) / warmup
    if step == last:
        return objective.lambda_end
    return 1 + (objective.lambda_end - 1) * (step - warmup) / (last - warmup)


def period(objective: ObjectiveConfig) -> int:
    """Period m of periodic loss dropout: the term is active at steps 0, m, 2m, ..., a share of 1/m, close to 1 - loss_dropout."""
    return round(1 / (1 - objective.loss_dropout))


def is_dropped(objective: ObjectiveConfig, seed: int, step: int) -> bool:
    """Whether loss dropout (paper, table 6) skips the JEPA term in this step; the same on every rank."""
    if objective.loss_dropout_mode == "periodic":
        return step % period(objective) != 0
    return bool(stream(seed, "loss dropout", step).random() < objective.loss_dropout)


def ema_momentum(objective: ObjectiveConfig, step: int, total_steps: int) -> float:
    """Share of the average that `step` keeps: from `ema_momentum` at the first step to `ema_end` at the last along a half cosine (BYOL,
    arXiv 2006.07733, where the end is 1); constant if `ema_end` is not given."""
    assert 0 <= step < total_steps
    start, end = objective.ema_momentum, objective.ema_end
    if end is None or total_steps == 1:
        return start
    return end - (end - start) * (1 + math.cos(math.pi * step / (total_steps - 1))) / 2
