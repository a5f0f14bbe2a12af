"""From statistics to a verdict: Holm's correction over the declared family, and the conditions of `better`, `equivalent` and `worse`.

`rule` alone decides; `verdict.py` writes the sentences and adds statistics that decide nothing. `simulation/decisions.py` runs `rule`
unchanged: without an effect, a single claim is significant 5 % of the time, and any claim of a family no more often.

The p that is corrected is the larger of the paired t-test over seeds and the test over seeds x examples, over all looks that there were
or may be (`stats/looks.py`). The first test alone treats this test set as the whole population; leaving the second uncorrected would let
each claim of a large family through at 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.inputs.preregistration import Declared
from analysis.protocol import sources
from analysis.protocol.claim_statistics import (
    ALL_SEEDS,
    LEVEL,
    UNDECLARED,
    Clean,
    Reason,
    Verdict,
    at_flops,
    measure,
    simultaneous,
    without_leaked,
)
from analysis.protocol.claims import Claim
from analysis.stats import paired_tests
from analysis.text_tables import counted, flops, named, points, sized

KINDS = ("claim", "control")
"""The two families, in this order."""
STOPPING = "not only stopping"
DOUBT = "answers match the scores"
ROOM = "room for a difference"
WITHHELD = (sources.NAME, DOUBT, ROOM)
"""Conditions that are listed only where they fail, and then rule out a verdict of any kind."""
CLEAN = "without leaked examples"
LEAKED_ALLOWED = 0.05
"""Share of test examples that may also be in training before `better` must hold without them as well."""
NO_STOP = "-no-stop"
"""Suffix of a method's name: the same method without a trained end of turn."""


def rule(claims: Sequence[Claim], metric: str, margin: float, declared: Declared = UNDECLARED) -> tuple[list[Verdict], dict[str, int]]:
    """Verdicts on all claims that have a baseline, claims before controls, and how many of each kind are declared and tested."""
    verdicts: list[Verdict] = []
    family: dict[str, int] = {}
    for kind in KINDS:
        inside = [claim for claim in claims if claim.kind == kind and claim.baseline is not None]
        group = [measure(claim, metric, margin, declared) for claim in inside]
        for verdict, claim in zip(group, inside, strict=True):
            verdict.clean = without_leaked(claim, metric, margin, declared)
        # The sweep declares the family: a claim that could not be tested, or has not been run yet, still counts.
        size = max(len(group), declared.claims if kind == "claim" else declared.controls)
        for verdict, p in zip(group, _holm([v.p_claim for v in group], size), strict=True):
            verdict.p_holm = p
        for verdict, p in zip(group, _holm([v.p_equivalence for v in group], size), strict=True):
            verdict.p_equivalence_holm = p
        for verdict, p in zip(group, _holm([v.p_claim if v.clean is None else v.clean.p for v in group], size), strict=True):
            if verdict.clean is not None:
                verdict.clean.p_holm = p
        if kind == "claim":
            _decide_at_flops(group, inside, metric, margin, declared, size)
        for verdict, claim in zip(group, inside, strict=True):
            verdict.family_size = size
            verdict.simultaneous = simultaneous(verdict, claim)
            if verdict.difference is not None:
                _decide(verdict, claim, claims, margin, declared)
        family |= {f"{kind}s": size, f"{kind}s tested": sum(v.p is not None for v in group)}
        verdicts += group
    return verdicts, family


def _holm(values: Sequence[float | None], size: int) -> list[float | None]:
    """Adjusted p for every p that is not None; claims that cannot be tested, up to the size of the family, count as p = 1."""
    if not values:
        return []
    padded = {str(i): 1.0 for i in range(size)} | {str(i): p for i, p in enumerate(values) if p is not None}
    adjusted = paired_tests.holm(padded)
    return [None if p is None else adjusted[str(i)] for i, p in enumerate(values)]


def _decide(verdict: Verdict, claim: Claim, others: Sequence[Claim], margin: float, declared: Declared) -> None:
    assert verdict.difference is not None
    interval = verdict.interval
    significant = None if verdict.p_holm is None else verdict.p_holm < LEVEL
    few = sources.too_few(claim.clusters, claim.ours, claim.theirs, verdict.level)
    doubts = {sources.NAME: few, DOUBT: claim.doubt, ROOM: claim.extreme}
    whole = [_all_seeds(verdict, declared), *(Reason(name, False, text) for name, text in doubts.items() if text is not None)]
    verdict.conditions = [
        Reason("significant", significant, _p_text(verdict)),
        Reason("interval above 0", None if interval is None else interval.low > 0, _interval_text(verdict)),
        Reason("margin", verdict.difference >= margin - 1e-9, f"{points(verdict.difference)} points; the margin is {sized(margin)}"),
        _equal_flops(claim, len(verdict.seeds)),
        _not_stopping(claim, others, margin),
        *_without_leaked(verdict.clean, margin),
        *whole,
    ]
    verdict.equivalent = None if verdict.p_equivalence_holm is None else verdict.p_equivalence_holm < LEVEL
    # No verdict of any kind on a part of the seeds: an unplanned look or lost runs may have caused the result.
    # No verdict either if the answers do not match the scores, come from too few clusters, or cannot differ.
    if not all(reason.holds for reason in whole):
        return
    if all(reason.holds for reason in verdict.conditions):
        verdict.verdict = "better"
    elif verdict.equivalent:  # before `worse`: a certain but tiny loss counts as equivalent
        verdict.verdict = "equivalent"
    elif significant and interval is not None and interval.high < 0:
        verdict.verdict = "worse"


def _decide_at_flops(group: Sequence[Verdict], claims: Sequence[Claim], metric: str, margin: float, declared: Declared, size: int) -> None:
    """Add what holds at equal FLOPs: a family of its own, by the same tests and intervals."""
    found = [at_flops(claim, metric, margin, declared) for claim in claims]
    holm = _holm([None if one is None else one.p for one in found], size)
    same = _holm([None if one is None else one.p_equivalence for one in found], size)
    for verdict, claim, one, p, p_same in zip(group, claims, found, holm, same, strict=True):
        verdict.at_flops = one
        if one is None:
            continue
        one.p_holm, one.p_equivalence_holm = p, p_same
        few = sources.too_few(claim.clusters, claim.ours, claim.theirs, verdict.level)
        if not _all_seeds(verdict, declared).holds or few is not None or one.doubt is not None:
            continue
        if p_same is not None and p_same < LEVEL:
            one.verdict = "equivalent"
        elif p is not None and p < LEVEL and one.interval is not None and not one.interval.low <= 0 <= one.interval.high:
            one.verdict = "higher" if one.interval.low > 0 else "lower"


def _all_seeds(verdict: Verdict, declared: Declared) -> Reason:
    if not declared.seeds:
        return Reason(ALL_SEEDS, None, "sweep.yaml is missing or names no confirm.seeds, so the planned seeds are unknown")
    missing = declared.missing(verdict.seeds)
    due = len(missing) + len(set(verdict.seeds) & set(declared.seeds))
    text = f"{due - len(missing)} of {due} planned seeds are in both arms"
    if missing:
        text += f"; missing: {named('seed', missing)} (not run yet, failed, or without the metric)"
    if verdict.look is not None:
        text += f"; raced, {'stopped' if verdict.look < len(verdict.looks) else 'completed'} at look {verdict.look} of {len(verdict.looks)}"
    return Reason(ALL_SEEDS, not missing, text)


def _equal_flops(claim: Claim, seeds: int) -> Reason:
    """Requires every seed: a seed without a match may have diverged at equal FLOPs, which the other seeds would not show."""
    compared = claim.equal_flops
    if compared is None or compared.difference is None:
        return Reason("equal FLOPs", None, f"cannot be determined: {compared.how if compared else 'no pair of trials'}")
    spent = f"{flops(compared.spent)} {compared.unit} of training"
    text = f"{points(compared.difference)} points at {spent}; {compared.how} (n = {counted(compared.seeds, 'seed')})"
    if compared.seeds < seeds:
        return Reason("equal FLOPs", None, f"cannot be determined, as {seeds - compared.seeds} of {seeds} seeds are missing: {text}")
    return Reason("equal FLOPs", compared.difference > 0, text)


def _without_leaked(clean: Clean | None, margin: float) -> list[Reason]:
    """If much of the test set is in training, a difference may come from memorisation: it must hold on the rest as it does on all."""
    if clean is None or clean.leaked <= LEAKED_ALLOWED * clean.of:
        return []
    text = leaked_text(clean)
    if clean.difference is not None and clean.difference < margin:
        return [Reason(CLEAN, False, f"{text}; the margin is {sized(margin)}")]
    if clean.p_holm is None or clean.interval is None:
        return [Reason(CLEAN, None, f"cannot be determined: {text}")]
    low, high = points(clean.interval.low), points(clean.interval.high)
    text += f", Holm p = {clean.p_holm:.3g}, {100 * clean.interval.confidence:.4g} % {low} to {high} points"
    return [Reason(CLEAN, clean.p_holm < LEVEL and clean.interval.low > 0, text)]


def leaked_text(clean: Clean) -> str:
    """How much of the test set is also in training, and the difference on the rest."""
    head = f"{clean.leaked} of {clean.of} test questions ({100 * clean.leaked / clean.of:.3g} %) are also in training or validation"
    if clean.difference is None:
        return f"{head}, {'which leaves none' if clean.leaked >= clean.of else 'but the predictions do not mark them all'}"
    assert clean.ours is not None and clean.theirs is not None
    scores = f"{100 * clean.ours:.2f} against {100 * clean.theirs:.2f} %"
    return f"{head}; on the other {clean.examples}, the scores are {scores}, a difference of {points(clean.difference)} points"


def _not_stopping(claim: Claim, others: Sequence[Claim], margin: float) -> Reason:
    """Requires the margin, not just a gain above 0: a public replication gained 18 points of exact match by stopping, and 0.1 of contains.

    For an arm that does not train the end of turn, the gain must also hold in its twin that does.
    """
    gains = {name: claim.stopping[name] for name in ("prefix", "contains") if name in claim.stopping}
    text = ", ".join(f"{name} {points(gap)}" for name, gap in claim.stopping.items()) or "the trials table has neither prefix nor contains"
    holds = max(gains.values()) >= margin if gains else None
    name = claim.method.partition("/")[0]
    twin_name, how = (name.removesuffix(NO_STOP), "with") if name.endswith(NO_STOP) else (name + NO_STOP, "without")
    alike = [other for other in others if (other.task, other.family, other.model) == (claim.task, claim.family, claim.model)]
    twins = [other for other in alike if other.method.partition("/")[0] == twin_name and other.ours]
    for twin in [twin for twin in twins if _stopped_name(twin.baseline) == _stopped_name(claim.baseline)] or twins:
        gap = sum(twin.ours.values()) / len(twin.ours) - sum(twin.theirs.values()) / len(twin.theirs)
        text += f"; {how} a trained end of turn {points(gap)} points (n = {len(twin.ours)} seeds)"
        if how == "with" and gap < margin:
            holds = False
    return Reason(STOPPING, holds, text)


def _stopped_name(arm: str | None) -> str:
    """The method of an arm without the suffix of one that does not train the end of turn."""
    return (arm or "").partition("/")[0].removesuffix(NO_STOP)


def _p_text(verdict: Verdict) -> str:
    if verdict.p is None or verdict.p_holm is None:
        return "no t-test" if verdict.untested is None else f"no t-test: {verdict.untested[0].lower()}{verdict.untested[1:].rstrip('.')}"
    text = f"Holm p = {verdict.p_holm:.3g} over {counted(verdict.family_size, 'claim')}; two-sided paired t-test p = {verdict.p:.3g}"
    text += f" (n = {len(verdict.seeds)} seeds)"
    if verdict.interval is not None:
        text += f", over seeds x examples p = {verdict.interval.p:.3g}; the larger counts"
    how = "" if len(verdict.history) < 2 else f" (the {' + '.join(map(str, verdict.history))} seeds weighted by stage)"
    return f"{text}{how}, as {verdict.p_claim:.3g}, since more looks may follow: the level at this one is {verdict.level:.3g}"


def _interval_text(verdict: Verdict) -> str:
    if verdict.interval is None:
        return "no interval over seeds x examples"
    low, high = points(verdict.interval.low), points(verdict.interval.high)
    confidence = f"{100 * verdict.interval.confidence:.4g} %"
    race = "" if verdict.look is None else f"look {verdict.look} of {len(verdict.looks)}; "
    found = verdict.interval
    size = f"{found.seeds} seeds x {sources.sized(found.examples, found.clusters, found.effective)}"
    return f"{confidence} ({race}95 % over all looks) {low} to {high} points, {size}"
