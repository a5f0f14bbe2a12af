"""Every statistic of one claim, gathered in one record; `decision.py` decides on it.

What has no answer (one seed, no spread, NaN) is None in the record and a sentence in its notes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from analysis.inputs.preregistration import Declared
from analysis.protocol.claims import Claim
from analysis.stats import crossed, paired_tests, resampling, sequential

LEVEL = 0.05
POWER = 0.8
PLANS = (5, 10, 20)
UNDECLARED = Declared()
"""Of claims that no sweep has declared: no seeds, no race."""
T = TypeVar("T")


@dataclass
class Reason:
    """One condition, whether it holds (None: cannot be told), and the numbers behind it."""

    name: str
    holds: bool | None
    text: str


@dataclass
class Clean:
    """The claim without the test examples that are also in training. Shares are in [0, 1]; None where a number does not exist."""

    leaked: int
    of: int
    """Test examples."""
    examples: int = 0
    """Examples that are left, with a judged answer in every trial of both arms."""
    ours: float | None = None
    theirs: float | None = None
    difference: float | None = None
    p: float | None = None
    """As the claim's `p_claim`."""
    p_holm: float | None = None
    interval: crossed.Interval | None = None


@dataclass
class Verdict:
    """What can be said of one claim. Shares are in [0, 1]; None where a number does not exist."""

    method: str
    baseline: str | None
    kind: str
    task: str
    family: str
    model: str
    metric: str
    seeds: list[int]
    examples: int | None
    """Test examples with a judged answer in every trial of both arms; None without predictions."""
    difference: float | None
    verdict: str = "undecided"
    sentence: str = ""
    conditions: list[Reason] = field(default_factory=list)
    """What `better` asks for."""
    reasons: list[Reason] = field(default_factory=list)
    """The conditions, and what else there is to read."""
    notes: list[str] = field(default_factory=list)
    identical: bool = False
    """Whether both arms are right on the very same examples at every seed: no spread to test, but n examples without a difference."""
    untested: str | None = None
    """Why there is no t-test over seeds; None where there is."""
    p: float | None = None
    """Of the two-sided paired t over seeds."""
    p_claim: float | None = None
    """Larger p of the paired t over seeds and the test over seeds x examples; after a race overall (`sequential.overall`)."""
    p_holm: float | None = None
    """`p_claim` after Holm's correction over all claims of the folder."""
    p_one_tailed: float | None = None
    p_sign_flip: float | None = None
    family_size: int = 1
    """Claims that the sweep declared: what Holm's correction is over."""
    equivalent: bool | None = None
    p_equivalence: float | None = None
    p_equivalence_holm: float | None = None
    interval: crossed.Interval | None = None
    lucky: tuple[float, float] | None = None
    """sd of the difference over seeds, and the one that the scatter of single answers makes by itself, where that is larger."""
    clean: Clean | None = None
    """The same without the test examples that are also in training; None where there is none of them."""
    look: int | None = None
    """The look of a race, from 1, that the claim has come to; None without a race."""
    hopeless: float | None = None
    """After a race that ended early: the upper bound over seeds, where it lies below the margin."""
    looks: list[int] = field(default_factory=list)
    """Numbers of seeds after which the race looks."""
    bootstrap: crossed.Interval | None = None
    mcnemar: dict[int, paired_tests.Outcome] = field(default_factory=dict)
    detectable: dict[int, float] = field(default_factory=dict)
    """Seeds -> smallest difference detected with power 0.8 at level 0.05 / claims."""
    seeds_needed: int | None = None
    """Seeds that would detect a difference of the margin; None where no number of them would."""


def blank(claim: Claim, metric: str) -> Verdict:
    """The record with what needs no statistics."""
    return Verdict(
        method=claim.method,
        baseline=claim.baseline,
        kind=claim.kind,
        task=claim.task,
        family=claim.family,
        model=claim.model,
        metric=metric,
        seeds=list(claim.ours),
        examples=None if claim.right is None else claim.right[0].shape[1],
        difference=None if not claim.ours else float(np.mean(_by_seed(claim))),
        notes=list(claim.notes),
    )


def measure(claim: Claim, metric: str, margin: float, declared: Declared = UNDECLARED) -> Verdict:
    """The statistics that a ruling goes by, uncorrected for the number of claims."""
    found = blank(claim, metric)
    if not claim.ours:
        return found
    looks = declared.looks
    confidence = 1 - LEVEL
    if looks:
        found.looks, found.look = list(looks), sequential.look_of(len(claim.ours), looks)
        # The repeated confidence interval (Jennison & Turnbull 2000, chapter 9): all looks' intervals cover together with 95 %.
        confidence = 1 - sequential.spending(looks, LEVEL)[found.look - 1]

    def overall(p: float, sides: int = 2) -> float:
        return sequential.overall(p, len(claim.ours), looks, sides=sides) if looks else p

    differences = _by_seed(claim)
    try:
        found.p = found.p_claim = paired_tests.paired_t(differences).p
    except ValueError as error:
        found.untested = str(error)
    if found.p is not None and found.look is not None and found.look < len(looks):
        upper = sequential.upper_bound(differences)
        found.hopeless = upper if upper < margin else None
    D_SN = None if claim.right is None else _by_answer(claim.right)
    if D_SN is not None:
        found.interval = _attempt(found, partial(crossed.interval, D_SN, confidence))
        # No difference that was seen makes two arms more equal than none at all.
        found.p_equivalence = paired_tests.never_apart(D_SN.shape[1], margin)
        found.identical = len(found.seeds) > 1 and not D_SN.any() and not any(differences)
        if found.interval is not None and found.p is not None:
            assert found.interval.p is not None
            found.p_claim = max(found.p, found.interval.p)
            by_seed, by_answer = paired_tests.equivalence(differences, margin).p, crossed.equivalence(D_SN, margin)
            found.p_equivalence = max(found.p_equivalence, by_seed, by_answer)
        elif not found.identical:
            found.p_equivalence = None
        if found.p_equivalence is not None:
            found.p_equivalence = overall(found.p_equivalence, sides=1)
    if found.p_claim is not None:
        found.p_claim = overall(found.p_claim)
    return found


def without_leaked(claim: Claim, metric: str, margin: float, declared: Declared = UNDECLARED) -> Clean | None:
    """The claim measured again on the examples that are not in training."""
    if claim.leaked is None:
        return None
    clean = Clean(claim.leaked.number, claim.leaked.of)
    if claim.right is None or claim.leaked.which is None:
        return clean
    ours_SN, theirs_SN = (right_SN[:, ~claim.leaked.which] for right_SN in claim.right)
    clean.examples = ours_SN.shape[1]
    if not clean.examples:
        return clean
    ours, theirs = (dict(zip(claim.ours, map(float, right_SN.mean(axis=1)), strict=True)) for right_SN in (ours_SN, theirs_SN))
    found = measure(replace(claim, ours=ours, theirs=theirs, right=(ours_SN, theirs_SN), leaked=None, notes=[]), metric, margin, declared)
    clean.ours, clean.theirs = (float(np.mean(list(scores.values()))) for scores in (ours, theirs))
    clean.difference, clean.p, clean.interval = found.difference, found.p_claim, found.interval
    return clean


def describe(found: Verdict, claim: Claim) -> None:
    """Adds what is there for reading and decides nothing: the paper's test, sign flips, bootstrap, McNemar by seed."""
    if found.p is not None:
        differences = _by_seed(claim)
        found.p_one_tailed = paired_tests.paper_one_tailed_t(differences).p
        found.p_sign_flip = paired_tests.sign_flip(differences).p
    if claim.right is None:
        return
    if found.interval is not None:
        D_SN = _by_answer(claim.right)
        found.bootstrap = crossed.bootstrap(D_SN)
        _, by_seed, _, residual = (float(x) for x in crossed.mean_squares(D_SN))
        if by_seed < residual:
            found.lucky = math.sqrt(by_seed / D_SN.shape[1]), math.sqrt(residual / D_SN.shape[1])
    for seed, ours_N, theirs_N in zip(claim.ours, *claim.right, strict=True):
        outcome = _attempt(found, partial(paired_tests.mcnemar, ours_N, theirs_N))
        if outcome is not None:
            found.mcnemar[seed] = outcome


def _attempt(found: Verdict, call: Callable[[], T]) -> T | None:
    """What `call` comes to; None and a note where it has no answer."""
    try:
        return call()
    except ValueError as error:
        if str(error) not in found.notes:
            found.notes.append(str(error))
        return None


def plan(found: Verdict, claim: Claim, margin: float) -> None:
    """Adds what 5, 10, 20 seeds would detect, at the level that Holm asks of the smallest p of the family."""
    if found.p is None:
        return
    if claim.right is not None and found.interval is not None:
        parts = crossed.components(_by_answer(claim.right))
    else:  # by seed only: one stand-in example carries all the spread
        spread = float(np.var(_by_seed(claim), ddof=1))
        parts = crossed.Components(seeds=len(found.seeds), examples=1, mean=0.0, var_seed=spread, var_example=0.0, var_residual=0.0)
    alpha = LEVEL / found.family_size
    found.detectable = crossed.plan(parts, examples=parts.examples, seeds=PLANS, power=POWER, alpha=alpha)
    found.seeds_needed = crossed.seeds_needed(parts, margin, examples=parts.examples, power=POWER, alpha=alpha)


def across_tasks(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """IQM and probability of improvement of every method that was compared on four tasks or more."""
    groups: dict[tuple[str, str, str, str], dict[str, Claim]] = {}
    for claim in claims:
        if claim.kind == "claim" and claim.baseline is not None and claim.ours:
            method, baseline = claim.method.partition("/")[0], claim.baseline.partition("/")[0]
            groups.setdefault((method, baseline, claim.family, claim.model), {})[claim.task] = claim
    lines: list[dict[str, Any]] = []
    for (method, baseline, family, model), by_task in sorted(groups.items()):
        if len(by_task) < resampling.FEWEST_TASKS:
            continue
        line: dict[str, Any] = {"method": method, "baseline": baseline, "family": family, "model": model, "tasks": sorted(by_task)}
        ours = {task: list(claim.ours.values()) for task, claim in by_task.items()}
        theirs = {task: list(claim.theirs.values()) for task, claim in by_task.items()}
        try:
            lines.append(line | {"aggregate": asdict(resampling.aggregate(ours, theirs)), "why": None})
        except ValueError as error:
            lines.append(line | {"aggregate": None, "why": str(error)})
    return lines


def _by_seed(claim: Claim) -> list[float]:
    return list(paired_tests.paired_differences(claim.ours, claim.theirs).values())


def _by_answer(right: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> NDArray[np.float64]:
    ours_SN, theirs_SN = right
    return ours_SN.astype(np.float64) - theirs_SN
