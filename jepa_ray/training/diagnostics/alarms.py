"""Alarms raised by the diagnostics of a trial: a pure function of all diagnostics so far.

Alarms inform the reader and stop nothing (a loss that is not finite stops the trial, in `step.py`). A low rank alone raises no alarm:
few distinct targets, or a good representation of an easy task, also have one. The alarms test whether pairs lose what distinguishes
them from other examples, and whether the model still predicts its answers at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

TRIVIAL_DISTANCE = 0.01
"""A mean cosine distance below this before training leaves nothing to learn."""
UNIFORM = 0.95
"""A model whose cross-entropy is at least this share of a uniform guess's knows nothing."""
RATIO = (0.01, 10.0)
"""Bounds of the JEPA term's weighted gradient norm over the cross-entropy's; outside them, one of the two has no effect."""
COMMON = 0.95
"""If the mean cosine of distinct examples, or the share of the states' energy in their mean, is above this, they share one direction."""
SHRUNK = 0.8
"""Contrast has shrunk if it is below this multiple of its start value; a smaller drop is noise on this few pairs."""
RELATED = 0.2
"""Minimum correlation of a Text with its own Code (`correlation`) for pairs to stand out from non-pairs; a lower one may be noise."""
CONTRACTED = 0.25
"""A spread (1 - mean cosine of distinct examples) below this multiple of its start value has collapsed."""
UNDIAGNOSED = "undiagnosed"
"""Alarm of a trial with a failed diagnosis (out of memory, for example), which leaves nothing to judge by."""

FINITE = ("diag_val_ce", "diag_val_jepa", "diag_variance_text", "diag_variance_code")
"""Metrics that are finite if the losses and states are; other metrics are nan where undefined."""

Diagnostics = Mapping[str, float]


def alarms(history: Sequence[Diagnostics]) -> list[str]:
    """One `name: sentence` per alarm, in a fixed order. `history`: merged results of `diagnose` and `gradient_metrics`, starting with
    the check before training; missing metrics raise no alarm.
    """
    raised = [rule(history) for rule in (_non_finite, _diverged, _trivial, _gradient_ratio, _contraction)] if history else []
    return [alarm for alarm in raised if alarm is not None]


def names(raised: Sequence[str]) -> str:
    """The names of alarms, joined by `;`; empty if there are none."""
    return ";".join(alarm.partition(":")[0] for alarm in raised)


def add_alarm(column: object, name: str) -> str:
    """Add a name to the column `alarms` unless it is present: a loss that is not finite ends training before the next diagnosis."""
    present = str(column).split(";") if column else []
    return ";".join(present if name in present else [name, *present])


def _non_finite(history: Sequence[Diagnostics]) -> str | None:
    for check, values in enumerate(history):
        bad = [name for name in FINITE if not math.isfinite(values.get(name, 0.0))]
        if bad:
            return f"non-finite: at check {check + 1} {', '.join(bad)} {'is' if len(bad) == 1 else 'are'} not a finite number"
    return None


def _diverged(history: Sequence[Diagnostics]) -> str | None:
    """The trained model predicts answers no better than a uniform guess over the vocabulary (log V), or has lost more than half of its
    lead over that guess. Overfitting costs cross-entropy too, but less than that."""
    uniform = history[-1].get("diag_uniform_ce", math.nan)
    before, after = (check.get("diag_val_ce", math.nan) for check in (history[0], history[-1]))
    if len(history) < 2 or not after >= min(UNIFORM * uniform, (before + uniform) / 2):
        return None
    return (
        f"diverged: the validation cross-entropy is {after:.3g} ({before:.3g} before training, {uniform:.3g} for a uniform guess); "
        "lower the learning rate, or train longer if weights start at random"
    )


def _trivial(history: Sequence[Diagnostics]) -> str | None:
    """At the start, the term is at its minimum, or Text already finds its Code as often as possible."""
    first = history[0]
    apart = first.get("diag_own_distance", math.nan)
    if apart < TRIVIAL_DISTANCE:
        return f"trivial: before training, the mean cosine distance of pairs is {apart:.3g} (below {TRIVIAL_DISTANCE}): nothing to learn"
    r1, ceiling = first.get("diag_pred_r1", math.nan), first.get("diag_r1_ceiling", 1.0)
    same = math.isclose(apart, first.get("diag_pred_distance", math.nan), abs_tol=1e-6)  # otherwise R@1 is not of the objective's states
    if same and r1 >= ceiling - 1e-9 and r1 > 2 * first.get("diag_r1_chance", 0.0):
        return f"trivial: before training, Text already finds its Code at R@1 {r1:.3g}, the maximum, so pairs are already distinct"
    return None


def _gradient_ratio(history: Sequence[Diagnostics]) -> str | None:
    """Reports the check that is furthest outside the bounds."""
    ratios = [(check, values.get("diag_grad_weighted", math.nan)) for check, values in enumerate(history)]
    outside = [(check, ratio) for check, ratio in ratios if ratio < RATIO[0] or ratio > RATIO[1]]
    if not outside:
        return None
    check, ratio = max(outside, key=lambda pair: abs(math.log(pair[1])) if pair[1] > 0 else math.inf)
    what = "the JEPA term drowns out the cross-entropy" if ratio > RATIO[1] else "the JEPA term has no effect"
    return f"gradient-ratio: at check {check + 1} lambda * JEPA gradient is {ratio:.3g} times the cross-entropy's: {what}"


def correlation(values: Diagnostics) -> float:
    """How well a Text's state identifies its own Code: contrast / sqrt(spread of Texts * spread of Codes), in [-1, 1].

    With states u_i and v_i of length 1 and means mu and nu, contrast is (up to N / (N - 1)) the mean of (u_i - mu)(v_i - nu), and a side's
    spread, 1 - its mean cosine of distinct examples, is the mean of |u_i - mu|^2. So, unlike contrast, the correlation does not depend on
    how narrow the states' cone is. 0 if a side has no spread left.
    """
    spreads = [1 - values.get(f"diag_anisotropy_{side}", math.nan) for side in ("text", "code")]
    scale = math.sqrt(math.prod(max(spread, 0.0) if not math.isnan(spread) else spread for spread in spreads))
    return values.get("diag_contrast", math.nan) / scale if scale != 0 else 0.0


def _contraction(history: Sequence[Diagnostics]) -> str | None:
    """States move into one direction, and pairs lose what they share beyond it, or never had it. Compares the last check with the first."""
    first, last = history[0], history[-1]
    before, after = first.get("diag_contrast", math.nan), last.get("diag_contrast", math.nan)
    # A contrast within the noise has either sign, so its shrinking cannot be detected; the spread decides instead.
    shrunk = correlation(first) >= RELATED and after < SHRUNK * before
    unrelated = correlation(last) < RELATED
    if len(history) < 2 or not (shrunk or unrelated):
        return None
    for side in ("text", "code"):
        start, cosine = (values.get(f"diag_anisotropy_{side}", math.nan) for values in (first, last))
        energy = last.get(f"diag_mean_energy_{side}", math.nan)
        fell = f"while pairs stand out from others by {after:.3g} in cosine ({before:.3g} before training)"
        collapsed = unrelated and 1 - cosine < CONTRACTED * (1 - start)
        if cosine > COMMON and ((shrunk and cosine > start) or collapsed):
            return f"contraction: distinct {side} states have mean cosine {cosine:.3g} ({start:.3g} before training), {fell}"
        if shrunk and energy > COMMON:
            return f"contraction: {energy:.3g} of the {side} states' energy is in their common mean, {fell}"
    return None
