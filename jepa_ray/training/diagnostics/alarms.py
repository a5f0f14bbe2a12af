"""What the diagnostics of a trial warn of: a pure function of all of them so far.

Alarms are for the reader; they stop nothing (a loss that is not finite stops the trial, in `step.py`). A low rank alone is none:
few distinct targets, or a good representation of an easy task, have it, too. What is judged is whether pairs lose what tells them
from other examples, and whether the model still predicts its answers at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

TRIVIAL_DISTANCE = 0.01
"""A mean cosine distance under this, before training, leaves nothing to learn."""
UNIFORM = 0.95
"""Share of the cross-entropy of a uniform guess from which on a model knows nothing."""
RATIO = (0.01, 10.0)
"""Weighted norm of the JEPA term's gradient over the cross-entropy's: outside of this one of the two has no say."""
COMMON = 0.95
"""Mean cosine of distinct examples, or share of the states' energy in their mean, from which on they have one direction in common."""
SHRUNK = 0.8
"""Contrast has shrunk when it is under this multiple of what it was at the start; less is noise on so few pairs."""
RELATED = 0.2
"""Correlation of a Text with its own Code (`correlation`) from which on pairs stand out from strangers; below it may be noise."""
CONTRACTED = 0.25
"""Spread (1 - mean cosine of distinct examples) under this multiple of what it was at the start has collapsed."""
UNDIAGNOSED = "undiagnosed"
"""The name of the alarm of a trial of which a diagnosis failed, for want of memory for example: there is nothing to judge by."""

FINITE = ("diag_val_ce", "diag_val_jepa", "diag_variance_text", "diag_variance_code")
"""Metrics that are finite whenever the losses and states are; others are nan where they are not defined."""

Diagnostics = Mapping[str, float]


def alarms(history: Sequence[Diagnostics]) -> list[str]:
    """One `name: sentence` for each alarm, in a fixed order. `history`: results of `diagnose` and `gradient_metrics`, merged, from the
    check before training on; metrics that are missing raise no alarm.
    """
    found = [rule(history) for rule in (_non_finite, _diverged, _trivial, _gradient_ratio, _contraction)] if history else []
    return [alarm for alarm in found if alarm is not None]


def names(found: Sequence[str]) -> str:
    """The alarms' names alone, joined by `;`: empty where there is none."""
    return ";".join(alarm.partition(":")[0] for alarm in found)


def add_alarm(column: object, name: str) -> str:
    """The column `alarms` of a trial with one more name, once: a loss that is not finite ends training before the next diagnosis."""
    known = str(column).split(";") if column else []
    return ";".join(known if name in known else [name, *known])


def _non_finite(history: Sequence[Diagnostics]) -> str | None:
    for check, values in enumerate(history):
        bad = [name for name in FINITE if not math.isfinite(values.get(name, 0.0))]
        if bad:
            return f"non-finite: at check {check + 1} {', '.join(bad)} {'is' if len(bad) == 1 else 'are'} not a finite number"
    return None


def _diverged(history: Sequence[Diagnostics]) -> str | None:
    """After training the model predicts answers no better than a uniform guess over the vocabulary does, log V; or it has lost more than
    half of its lead over that. An answer that is overfitted costs something, too, but not that much."""
    uniform = history[-1].get("diag_uniform_ce", math.nan)
    before, after = (check.get("diag_val_ce", math.nan) for check in (history[0], history[-1]))
    if len(history) < 2 or not after >= min(UNIFORM * uniform, (before + uniform) / 2):
        return None
    return (
        f"diverged: the cross-entropy on validation is {after:.3g}, {before:.3g} before training, {uniform:.3g} for a uniform guess: "
        "lower the learning rate, or train longer if it starts at random"
    )


def _trivial(history: Sequence[Diagnostics]) -> str | None:
    """At the start the term is at its minimum, or Text finds its Code as often as it can."""
    first = history[0]
    apart = first.get("diag_own_distance", math.nan)
    if apart < TRIVIAL_DISTANCE:
        return f"trivial: before training the mean cosine distance of pairs is {apart:.3g}, under {TRIVIAL_DISTANCE}: nothing to learn"
    found, ceiling = first.get("diag_pred_r1", math.nan), first.get("diag_r1_ceiling", 1.0)
    same = math.isclose(apart, first.get("diag_pred_distance", math.nan), abs_tol=1e-6)  # else R@1 is of other states than the objective's
    if same and found >= ceiling - 1e-9 and found > 2 * first.get("diag_r1_chance", 0.0):
        return f"trivial: before training Text already finds its Code at R@1 {found:.3g}, the most there is: pairs are told apart as it is"
    return None


def _gradient_ratio(history: Sequence[Diagnostics]) -> str | None:
    """At the check where it is furthest out."""
    ratios = [(check, values.get("diag_grad_weighted", math.nan)) for check, values in enumerate(history)]
    outside = [(check, ratio) for check, ratio in ratios if ratio < RATIO[0] or ratio > RATIO[1]]
    if not outside:
        return None
    check, ratio = max(outside, key=lambda pair: abs(math.log(pair[1])) if pair[1] > 0 else math.inf)
    what = "the JEPA term drowns the cross-entropy" if ratio > RATIO[1] else "the JEPA term has no say"
    return f"gradient-ratio: at check {check + 1} lambda * JEPA gradient is {ratio:.3g} times the cross-entropy's: {what}"


def correlation(values: Diagnostics) -> float:
    """How far a Text's state tells which Code is its own: contrast / sqrt(spread of Texts * spread of Codes), in [-1, 1].

    With states u_i and v_i of length 1 and means mu and nu, contrast is (up to N / (N - 1)) the mean of (u_i - mu)(v_i - nu), and a side's
    spread, 1 - its mean cosine of distinct examples, that of |u_i - mu|^2. So this does not depend on how narrow the states' cone is,
    which contrast alone does. 0 where a side has no spread left.
    """
    spreads = [1 - values.get(f"diag_anisotropy_{side}", math.nan) for side in ("text", "code")]
    scale = math.sqrt(math.prod(max(spread, 0.0) if not math.isnan(spread) else spread for spread in spreads))
    return values.get("diag_contrast", math.nan) / scale if scale != 0 else 0.0


def _contraction(history: Sequence[Diagnostics]) -> str | None:
    """States move into one direction, and pairs lose what they share beyond it, or never had it. All of it now, against the start."""
    first, last = history[0], history[-1]
    before, after = first.get("diag_contrast", math.nan), last.get("diag_contrast", math.nan)
    # A contrast within the noise cannot be seen to shrink: it has both signs. What counts there is the spread.
    shrunk = correlation(first) >= RELATED and after < SHRUNK * before
    unrelated = correlation(last) < RELATED
    if len(history) < 2 or not (shrunk or unrelated):
        return None
    for side in ("text", "code"):
        start, cosine = (values.get(f"diag_anisotropy_{side}", math.nan) for values in (first, last))
        energy = last.get(f"diag_mean_energy_{side}", math.nan)
        fell = f"while pairs stand out from others by {after:.3g} in cosine, {before:.3g} before"
        collapsed = unrelated and 1 - cosine < CONTRACTED * (1 - start)
        if cosine > COMMON and ((shrunk and cosine > start) or collapsed):
            return f"contraction: distinct {side} states have mean cosine {cosine:.3g}, {start:.3g} before training, {fell}"
        if shrunk and energy > COMMON:
            return f"contraction: {energy:.3g} of the {side} states' energy is in their common mean, {fell}"
    return None
