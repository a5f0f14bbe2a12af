"""All statistics of one claim in one record; `decision.py` decides from it.

A statistic that cannot be computed (one seed, no spread, NaN) is None in the record, and a note says why.
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
from analysis.protocol.log_probability import LogProbability
from analysis.stats import crossed, looks, paired_tests, resampling, sequential
from analysis.stats.clusters import mcnemar as mcnemar_by_cluster

LEVEL = 0.05
UNDECLARED = Declared()
"""For claims that no sweep has declared: no planned seeds, no race."""
ALL_SEEDS = "all planned seeds"
"""Name of the condition that every planned seed is in both arms."""
T = TypeVar("T")


@dataclass
class Reason:
    """One condition, whether it holds (None: cannot be determined), and the numbers behind it."""

    name: str
    holds: bool | None
    text: str


@dataclass
class Clean:
    """The claim without the test examples that are also in training. Shares are in [0, 1]; None if a number does not exist."""

    leaked: int
    of: int
    """Test examples."""
    examples: int = 0
    """Remaining examples with a judged answer in every trial of both arms."""
    ours: float | None = None
    theirs: float | None = None
    difference: float | None = None
    p: float | None = None
    """Computed like the claim's `p_claim`."""
    p_holm: float | None = None
    interval: crossed.Interval | None = None


@dataclass
class AtFlops:
    """The claim after both arms have spent the same training FLOPs, tested like the claim itself. Shares are in [0, 1]."""

    difference: float
    seeds: int
    how: str
    """How the cost was equalised."""
    same_runs: bool
    """Whether both arms cost the same anyway, so that the trials are those of the claim."""
    p: float | None = None
    """Computed like the claim's `p_claim`."""
    p_holm: float | None = None
    """`p` after Holm's correction over all claims at equal FLOPs, a family of its own."""
    p_equivalence: float | None = None
    p_equivalence_holm: float | None = None
    interval: crossed.Interval | None = None
    verdict: str = "undecided"
    """higher, lower, equivalent or undecided: what the test and the interval say of the scores, not what causes it."""
    doubt: str | None = None
    """Why the answers do not match the scores; None if they match or if there are none."""


@dataclass
class Verdict:
    """The verdict on one claim, with all its numbers. Shares are in [0, 1]; None if a number does not exist."""

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
    equal_steps: bool = True
    """Whether both arms took the same number of steps at every seed, as far as is known."""
    verdict: str = "undecided"
    sentence: str = ""
    conditions: list[Reason] = field(default_factory=list)
    """What `better` requires."""
    reasons: list[Reason] = field(default_factory=list)
    """The conditions, and further statistics that decide nothing."""
    notes: list[str] = field(default_factory=list)
    identical: bool = False
    """Whether both arms are right on exactly the same examples at every seed: no spread to test, but n examples without a difference."""
    untested: str | None = None
    """Why there is no t-test over seeds; None if there is one."""
    p: float | None = None
    """p of the two-sided paired t-test over seeds, at this look."""
    p_claim: float | None = None
    """The larger p of the paired t-test over seeds and the test over seeds x examples, over all looks that there were or may be
    (`looks.overall`)."""
    level: float = LEVEL
    """Nominal level of the tests at this look: what p before that correction is compared with if there is one claim."""
    history: list[int] = field(default_factory=list)
    """Numbers of seeds that became known at one look after another."""
    p_holm: float | None = None
    """`p_claim` after Holm's correction over all claims of the folder."""
    p_one_tailed: float | None = None
    p_sign_flip: float | None = None
    family_size: int = 1
    """Number of claims that the sweep declared; Holm's correction is over these."""
    equivalent: bool | None = None
    p_equivalence: float | None = None
    p_equivalence_holm: float | None = None
    interval: crossed.Interval | None = None
    simultaneous: crossed.Interval | None = None
    """Covers together with those of all other claims; None if there is only one."""
    at_flops: AtFlops | None = None
    """The same at equal FLOPs; None if that cannot be determined for every seed."""
    lucky: tuple[float, float] | None = None
    """sd of the difference over seeds, and the sd that the scatter of single answers alone would cause, if that is larger."""
    clean: Clean | None = None
    """The same without the test examples that are also in training; None if there are no such examples."""
    look: int | None = None
    """The look of the race that the claim has reached, counted from 1; None without a race."""
    hopeless: float | None = None
    """After a race that ended early: the upper bound over seeds, if it is below the margin."""
    looks: list[int] = field(default_factory=list)
    """Numbers of seeds after which the race looks."""
    bootstrap: crossed.Interval | None = None
    logprob: LogProbability | None = None
    """Log-probability of the references, for information."""
    mcnemar: dict[int, paired_tests.Outcome] = field(default_factory=dict)
    detectable: dict[int, float] = field(default_factory=dict)
    """Number of seeds -> smallest difference detected with power 0.8 at level 0.05 / claims."""
    seeds_needed: int | None = None
    """Seeds needed in all to detect a difference of the margin at the next look; None if no number of seeds would."""

    @property
    def complete(self) -> bool:
        """Whether every planned seed is in both arms, so that the verdict could be any."""
        return any(reason.name == ALL_SEEDS and reason.holds for reason in self.conditions)


def blank(claim: Claim, metric: str) -> Verdict:
    """The record with everything that needs no statistics."""
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
        difference=None if not claim.ours else float(np.mean(gaps_by_seed(claim))),
        equal_steps=all(panel.as_confirmed for panel in claim.panels if panel.at == "equal steps"),
        notes=list(claim.notes),
    )


def measure(claim: Claim, metric: str, margin: float, declared: Declared = UNDECLARED) -> Verdict:
    """Compute the statistics that decide a verdict, not yet corrected for the number of claims."""
    verdict = blank(claim, metric)
    if not claim.ours:
        return verdict
    history = claim.history or (looks.Stage(len(claim.ours), race=declared.looks),)
    stage, before = history[-1], len(claim.ours) - history[-1].seeds
    if stage.race:
        verdict.looks, verdict.look = [before + look for look in stage.race], len(stage.looks)
    verdict.history = [one.seeds for one in history]
    verdict.level = looks.level(history, LEVEL)
    # Repeated confidence intervals (Jennison & Turnbull 2000, chapter 9): those of all looks, planned or not, cover jointly with 95 %.
    confidence = 1 - verdict.level
    stages = looks.stages(history) if len(history) > 1 else None
    differences = gaps_by_seed(claim)
    try:
        verdict.p = verdict.p_claim = paired_tests.paired_t(differences, stages).p
    except ValueError as error:
        verdict.untested = str(error)
    if verdict.p is not None and verdict.look is not None and verdict.look < len(verdict.looks):
        upper = sequential.upper_bound(differences)
        verdict.hopeless = upper if upper < margin else None
    D_SN = None if claim.right is None else gaps_by_answer(claim.right)
    if D_SN is not None:
        verdict.interval = _attempt(verdict, partial(crossed.interval, D_SN, confidence, stages, claim.clusters))
        # Observed differences are never stronger evidence of equivalence than no difference at all.
        verdict.p_equivalence = paired_tests.never_apart(D_SN.shape[1] if claim.clusters is None else claim.clusters.independent, margin)
        verdict.identical = len(verdict.seeds) > 1 and not D_SN.any() and not any(differences)
        if verdict.interval is not None and verdict.p is not None:
            assert verdict.interval.p is not None
            verdict.p_claim = max(verdict.p, verdict.interval.p)
            by_seed = paired_tests.equivalence(differences, margin, stages).p
            by_answer = crossed.equivalence(D_SN, margin, stages, claim.clusters)
            verdict.p_equivalence = max(verdict.p_equivalence, by_seed, by_answer)
        elif not verdict.identical:
            verdict.p_equivalence = None
        if verdict.p_equivalence is not None:
            verdict.p_equivalence = looks.overall(verdict.p_equivalence, history, sides=1)
    if verdict.p_claim is not None:
        verdict.p_claim = looks.overall(verdict.p_claim, history)
    return verdict


def without_leaked(claim: Claim, metric: str, margin: float, declared: Declared = UNDECLARED) -> Clean | None:
    """Measure the claim again on the examples that are not in training; None if no test example leaked."""
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
    clusters = None if claim.clusters is None else claim.clusters.kept(~claim.leaked.which)
    rest = replace(claim, ours=ours, theirs=theirs, right=(ours_SN, theirs_SN), clusters=clusters, leaked=None, notes=[])
    measured = measure(rest, metric, margin, declared)
    clean.ours, clean.theirs = (float(np.mean(list(scores.values()))) for scores in (ours, theirs))
    clean.difference, clean.p, clean.interval = measured.difference, measured.p_claim, measured.interval
    return clean


def at_flops(claim: Claim, metric: str, margin: float, declared: Declared = UNDECLARED) -> AtFlops | None:
    """The claim at equal FLOPs, not yet corrected for the number of claims; None if not every seed could be compared."""
    panel, same = claim.equal_flops, claim.at_flops
    if panel is None or panel.difference is None or same is None:
        return None
    found = measure(same, metric, margin, declared)
    # Without answers by example, only the test over seeds is left: that is no ground for a verdict.
    p = None if found.interval is None else found.p_claim
    same_runs = any(other.at == "equal steps" and other.runs == panel.runs for other in claim.panels)
    made = AtFlops(panel.difference, panel.seeds, panel.how, same_runs, p=p, p_equivalence=found.p_equivalence, interval=found.interval)
    made.doubt = same.doubt
    return made


def simultaneous(found: Verdict, claim: Claim) -> crossed.Interval | None:
    """The interval at a level that holds for all claims of the family together (Bonferroni); None for a single claim."""
    if found.family_size < 2 or found.interval is None or claim.right is None:
        return None
    history = claim.history or (looks.Stage(len(claim.ours), race=tuple(found.looks)),)
    stages = looks.stages(history) if len(history) > 1 else None
    confidence = 1 - looks.level(history, LEVEL / found.family_size)
    return crossed.interval(gaps_by_answer(claim.right), confidence, stages, claim.clusters)


def describe(found: Verdict, claim: Claim) -> None:
    """Add what is reported but decides nothing: the paper's test, sign flips, bootstrap, McNemar by seed."""
    found.logprob = claim.logprob
    if found.p is not None:
        differences = gaps_by_seed(claim)
        found.p_one_tailed = paired_tests.paper_one_tailed_t(differences).p
        found.p_sign_flip = paired_tests.sign_flip(differences).p
    if claim.right is None:
        return
    if found.interval is not None:
        D_SN = gaps_by_answer(claim.right)
        found.bootstrap = crossed.bootstrap(D_SN, clusters=claim.clusters)
        _, by_seed, _, residual = (float(x) for x in crossed.squares(D_SN, claim.clusters))
        if by_seed < residual:
            units = D_SN.shape[1] if claim.clusters is None else len(claim.clusters)
            found.lucky = math.sqrt(by_seed / units), math.sqrt(residual / units)
    for seed, ours_N, theirs_N in zip(claim.ours, *claim.right, strict=True):
        test = paired_tests.mcnemar if claim.clusters is None else partial(mcnemar_by_cluster, clusters=claim.clusters)
        outcome = _attempt(found, partial(test, ours_N, theirs_N))
        if outcome is not None:
            found.mcnemar[seed] = outcome


def _attempt(verdict: Verdict, call: Callable[[], T]) -> T | None:
    """The result of `call`; None, with a note, if it raises ValueError."""
    try:
        return call()
    except ValueError as error:
        if str(error) not in verdict.notes:
            verdict.notes.append(str(error))
        return None


def across_tasks(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """IQM and probability of improvement of every method that was compared on at least four tasks."""
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


def gaps_by_seed(claim: Claim) -> list[float]:
    """Differences by seed, in the order of the claim's seeds."""
    differences = paired_tests.paired_differences(claim.ours, claim.theirs)
    return [differences[seed] for seed in claim.ours]


def gaps_by_answer(right: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Differences by answer, -1, 0 or 1: (seeds, examples)."""
    ours_SN, theirs_SN = right
    return ours_SN.astype(np.float64) - theirs_SN
