"""From statistics to a ruling: Holm over the declared family, and the conditions of `better`, `equivalent` and `worse`.

`rule` is all that decides; `verdict.py` puts it into sentences and adds what is there for reading. It is simulated as it stands
(`simulation/decisions.py`): at no effect a single claim is significant 5 % of the time, and any claim of a family no more often.

The p that is corrected is the larger of the paired t over seeds and the test over seeds x examples. The first alone takes this test set for
all; the second alone, uncorrected, would let a family of many claims through at 5 % each.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.inputs.preregistration import Declared
from analysis.protocol.claim_statistics import LEVEL, UNDECLARED, Clean, Reason, Verdict, measure, without_leaked
from analysis.protocol.claims import Claim
from analysis.stats import paired_tests
from analysis.text_tables import counted, flops, points

KINDS = ("claim", "control")
"""The two families, in this order."""
ALL_SEEDS = "all planned seeds"
STOPPING = "not only stopping"
DOUBT = "answers of the scores"
CLEAN = "without leaked examples"
LEAKED_ALLOWED = 0.05
"""Share of test examples that may also be in training before *better* has to hold without them, too."""
NO_STOP = "-no-stop"
"""Behind a method's name: the same without a trained end of turn."""


def rule(claims: Sequence[Claim], metric: str, margin: float, declared: Declared = UNDECLARED) -> tuple[list[Verdict], dict[str, int]]:
    """Rulings on all claims that have a baseline, claims before controls, and how many are declared and tested of either kind."""
    verdicts: list[Verdict] = []
    family: dict[str, int] = {}
    for kind in KINDS:
        inside = [claim for claim in claims if claim.kind == kind and claim.baseline is not None]
        found = [measure(claim, metric, margin, declared) for claim in inside]
        for verdict, claim in zip(found, inside, strict=True):
            verdict.clean = without_leaked(claim, metric, margin, declared)
        # The family is declared by the sweep: a claim that could not be tested, or has not been run yet, still counts.
        told = declared.claims if kind == "claim" else declared.controls
        size = max(len(found), told)
        for verdict, p in zip(found, _holm([v.p_claim for v in found], size), strict=True):
            verdict.p_holm = p
        for verdict, p in zip(found, _holm([v.p_equivalence for v in found], size), strict=True):
            verdict.p_equivalence_holm = p
        for verdict, p in zip(found, _holm([v.p_claim if v.clean is None else v.clean.p for v in found], size), strict=True):
            if verdict.clean is not None:
                verdict.clean.p_holm = p
        for verdict, claim in zip(found, inside, strict=True):
            verdict.family_size = size
            if verdict.difference is not None:
                _decide(verdict, claim, claims, margin, declared)
        family |= {f"{kind}s": size, f"{kind}s tested": sum(v.p is not None for v in found)}
        verdicts += found
    return verdicts, family


def _holm(values: Sequence[float | None], size: int) -> list[float | None]:
    """Adjusted p where there is a p; what cannot be tested, up to the size of the family, counts as p = 1."""
    if not values:
        return []
    named = {str(i): 1.0 for i in range(size)} | {str(i): p for i, p in enumerate(values) if p is not None}
    adjusted = paired_tests.holm(named)
    return [None if p is None else adjusted[str(i)] for i, p in enumerate(values)]


def _decide(found: Verdict, claim: Claim, others: Sequence[Claim], margin: float, declared: Declared) -> None:
    assert found.difference is not None
    interval = found.interval
    significant = None if found.p_holm is None else found.p_holm < LEVEL
    whole = [_all_seeds(found, declared), *([] if claim.doubt is None else [Reason(DOUBT, False, claim.doubt)])]
    found.conditions = [
        Reason("significant", significant, _p_text(found)),
        Reason("interval above 0", None if interval is None else interval.low > 0, _interval_text(found)),
        Reason("margin", found.difference >= margin, f"{points(found.difference)} points; the margin is {100 * margin:g}"),
        _equal_flops(claim, len(found.seeds)),
        _not_stopping(claim, others, margin),
        *_without_leaked(found.clean, margin),
        *whole,
    ]
    found.equivalent = None if found.p_equivalence_holm is None else found.p_equivalence_holm < LEVEL
    # No ruling of any kind on a part of the seeds: a look that was not planned, or runs that were lost, may be why they look as they do.
    # None on answers that are not those of the scores either.
    if not all(reason.holds for reason in whole):
        return
    if all(reason.holds for reason in found.conditions):
        found.verdict = "better"
    elif found.equivalent:  # before worse: a sure but tiny loss is called equal
        found.verdict = "equivalent"
    elif significant and interval is not None and interval.high < 0:
        found.verdict = "worse"


def _all_seeds(found: Verdict, declared: Declared) -> Reason:
    if not declared.seeds:
        return Reason(ALL_SEEDS, None, "sweep.yaml is missing or names no confirm.seeds, so it is not known what was planned")
    missing = declared.missing(found.seeds)
    due = len(missing) + len(set(found.seeds) & set(declared.seeds))
    told = f"{due - len(missing)} of {due} planned seeds are in both arms"
    if missing:
        told += f"; missing {', '.join(map(str, missing))} (not run yet, failed, or without the metric)"
    if found.look is not None:
        told += f"; raced, {'stopped' if found.look < len(found.looks) else 'run'} at look {found.look} of {len(found.looks)}"
    return Reason(ALL_SEEDS, not missing, told)


def _equal_flops(claim: Claim, seeds: int) -> Reason:
    """At every seed: one that could not be matched may have diverged there, and the others would not know."""
    compared = claim.equal_flops
    if compared is None or compared.difference is None:
        return Reason("equal FLOPs", None, f"cannot be told: {compared.how if compared else 'no pair of trials'}")
    spent = f"{flops(compared.spent)} {compared.unit} of training"
    told = f"{points(compared.difference)} points at {spent}, {compared.how} (n = {compared.seeds} seeds)"
    if compared.seeds < seeds:
        return Reason("equal FLOPs", None, f"cannot be told, as {seeds - compared.seeds} of {seeds} seeds are not in it: {told}")
    return Reason("equal FLOPs", compared.difference > 0, told)


def _without_leaked(clean: Clean | None, margin: float) -> list[Reason]:
    """Where much of the test set is in training, a difference may be one of memory: it has to hold on the rest, as it does on all."""
    if clean is None or clean.leaked <= LEAKED_ALLOWED * clean.of:
        return []
    told = leaked_text(clean)
    if clean.difference is not None and clean.difference < margin:
        return [Reason(CLEAN, False, f"{told}; the margin is {100 * margin:g}")]
    if clean.p_holm is None or clean.interval is None:
        return [Reason(CLEAN, None, f"cannot be told: {told}")]
    low, high = points(clean.interval.low), points(clean.interval.high)
    told += f", Holm p = {clean.p_holm:.3g}, {100 * clean.interval.confidence:.4g} % {low} to {high} points"
    return [Reason(CLEAN, clean.p_holm < LEVEL and clean.interval.low > 0, told)]


def leaked_text(clean: Clean) -> str:
    """How much of the test set is in training, and what is left of the difference without it."""
    head = f"{clean.leaked} of {clean.of} test questions ({100 * clean.leaked / clean.of:.3g} %) are also in training or validation"
    if clean.difference is None:
        return f"{head}, and {'none is left' if clean.leaked >= clean.of else 'the answers to the others are not marked as such'}"
    assert clean.ours is not None and clean.theirs is not None
    scores = f"{100 * clean.ours:.2f} against {100 * clean.theirs:.2f} %"
    return f"{head}; on the other {clean.examples} {scores}, {points(clean.difference)} points"


def _not_stopping(claim: Claim, others: Sequence[Claim], margin: float) -> Reason:
    """Above 0 alone would not do: a public replication gained 18 points of exact match, all by stopping, and 0.1 of contains.

    An arm that does not train the end of turn is held to its twin that does.
    """
    gains = {name: claim.stopping[name] for name in ("prefix", "contains") if name in claim.stopping}
    told = ", ".join(f"{name} {points(gap)}" for name, gap in claim.stopping.items()) or "no prefix or contains in the trials table"
    holds = max(gains.values()) >= margin if gains else None
    name = claim.method.partition("/")[0]
    twin_name, how = (name.removesuffix(NO_STOP), "with") if name.endswith(NO_STOP) else (name + NO_STOP, "without")
    for twin in others:
        same = (twin.task, twin.family, twin.model) == (claim.task, claim.family, claim.model)
        if not same or twin.method.partition("/")[0] != twin_name or not twin.ours:
            continue
        gap = sum(twin.ours.values()) / len(twin.ours) - sum(twin.theirs.values()) / len(twin.theirs)
        told += f"; {how} a trained end of turn {points(gap)} points (n = {len(twin.ours)} seeds)"
        if how == "with" and gap < margin:
            holds = False
    return Reason(STOPPING, holds, told)


def _p_text(found: Verdict) -> str:
    if found.p is None or found.p_holm is None:
        return "no t-test"
    told = f"Holm p = {found.p_holm:.3g} over {counted(found.family_size, 'claim')}; two-sided paired t p = {found.p:.3g}"
    told += f" (n = {len(found.seeds)} seeds)"
    if found.interval is not None:
        told += f", over seeds x examples p = {found.interval.p:.3g}; the larger counts"
    if found.look is not None:
        told += f", as one of {len(found.looks)} looks {found.p_claim:.3g}"
    return told


def _interval_text(found: Verdict) -> str:
    if found.interval is None:
        return "no interval over seeds x examples"
    low, high = points(found.interval.low), points(found.interval.high)
    confidence = f"{100 * found.interval.confidence:.4g} %"
    look = "" if found.look is None else f" (this look's share of 95 %, look {found.look} of {len(found.looks)})"
    return f"{confidence}{look} {low} to {high} points, {found.interval.seeds} seeds x {found.interval.examples} examples"
