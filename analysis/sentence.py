"""A verdict in words: at equal steps, at equal FLOPs, and what a reader may now believe. The same words everywhere.

The console, the page, the model cards, `analysis.verdict` and its JSON show `Verdict.sentence` as written here.
"""

from __future__ import annotations

from analysis.protocol import sources
from analysis.protocol.advice import POWER
from analysis.protocol.claim_statistics import ALL_SEEDS, LEVEL, Reason, Verdict
from analysis.protocol.decision import LEAKED_ALLOWED, STOPPING, WITHHELD, leaked_text
from analysis.stats import crossed
from analysis.text_tables import counted, points, sized

MANY = 50
"""If more seeds than this are needed, the advice is a larger test set."""


def word(verdict: Verdict, margin: float) -> None:
    """Add the sentence and the reasons to a ruling."""
    if verdict.difference is None:
        verdict.sentence = f"undecided: {verdict.method} against {verdict.baseline} has no common seed. {verdict.notes[0]}"
        return
    equal = verdict.equivalent
    test = "cannot be tested"
    if equal is not None:
        test = "no example differs between the arms," if verdict.identical else "TOST"
        test += f" Holm p = {verdict.p_equivalence_holm:.3g} (before: {verdict.p_equivalence:.3g})"
    verdict.reasons = [*verdict.conditions, Reason("equivalent", equal, f"within {sized(margin)}: {test}")]
    verdict.reasons += [Reason(name, None, text) for name, text in _for_information(verdict)]
    if verdict.clean is not None:
        verdict.notes.insert(0, f"{leaked_text(verdict.clean)}.")
    withheld = any(reason.name in WITHHELD for reason in verdict.conditions)
    gap = f"{points(verdict.difference)} points of" if abs(verdict.difference) > 1e-9 else "no difference in"
    at = "at equal steps" if verdict.equal_steps else "as tuned, in different numbers of steps"
    between = "" if withheld else _between(verdict.interval)
    head = f"{verdict.method} against {verdict.baseline}: {at}, {gap} {verdict.metric}{between} over {_size(verdict)}"
    if verdict.look is not None and verdict.look < len(verdict.looks):
        head += f" (raced, stopped at look {verdict.look} of {len(verdict.looks)})"
    if verdict.identical and verdict.verdict == "equivalent":
        rare = f"which would be rare if they differed by {sized(margin)} (Holm p = {verdict.p_equivalence_holm:.3g})"
        tail = f"; both are right on exactly the same examples at these seeds, {rare}"
    elif verdict.verdict == "equivalent":
        tail = f", within {sized(margin)} of each other (TOST, Holm p = {verdict.p_equivalence_holm:.3g})"
    elif verdict.verdict != "undecided":
        tail = f" (Holm p = {verdict.p_holm:.3g})"
    else:
        tail = _undecided(verdict, margin)
    tested = verdict.p is not None or verdict.identical
    known = verdict.complete and tested and not withheld
    cost, belief = (_at_flops(verdict, margin), _belief(verdict)) if known and verdict.kind == "claim" else ("", "")
    verdict.sentence = f"{verdict.verdict}: {head}{tail}{cost}{_leaked(verdict)}.{belief}"


def _between(interval: crossed.Interval | None) -> str:
    """The interval in brackets; at whatever level it was computed, it covers with 95 % over all looks."""
    return "" if interval is None else f" (95 % {points(interval.low)} to {points(interval.high)})"


def _at_flops(verdict: Verdict, margin: float) -> str:
    """The clause on equal training cost."""
    found = verdict.at_flops
    if found is None:
        reason = next((reason for reason in verdict.conditions if reason.name == "equal FLOPs"), None)
        read = reason is not None and reason.holds is not None
        return f"; at equal FLOPs, not tested: {reason.text}" if read and reason is not None else "; at equal FLOPs, nothing can be tested"
    if found.same_runs:
        return "; both arms cost the same, so this is also at equal FLOPs"
    head = f"; at equal FLOPs, {points(found.difference)} points"
    if found.doubt is not None:
        return f"{head}, not tested: {found.doubt}"
    holm = "" if found.p_holm is None else f" (Holm p = {found.p_holm:.3g})"
    how = {
        "higher": f", higher{holm}",
        "lower": f", lower{holm}",
        "equivalent": f", within {sized(margin)} of each other",
        "undecided": ", not significant" if found.p_holm is not None and found.p_holm >= LEVEL else ", not tested by example",
    }[found.verdict]
    return f"{head}{_between(found.interval)}{how}"


def _belief(verdict: Verdict) -> str:
    """What a reader may now believe. At equal FLOPs only scores are compared: whether a gain is more than stopping is not asked there."""
    cost = None if verdict.at_flops is None or verdict.at_flops.same_runs else verdict.at_flops.verdict
    steps = "in the same number of steps" if verdict.equal_steps else "as tuned"
    if verdict.verdict in ("better", "worse"):
        gains = verdict.verdict == "better"
        word, same = ("gains", "higher") if gains else ("loses", "lower")
        if cost is None:
            return f" So the method {word} {steps}."
        if cost == same:
            return f" So the method {word} {steps}, and its scores are {same} for the same training cost too."
        if cost == "undecided":
            return f" So the method {word} {steps}; for the same training cost, no {'gain' if gains else 'loss'} is shown."
        other = "the scores do not differ by more than the margin" if cost == "equivalent" else f"its scores are {cost}"
        return f" So the method {word} {steps}, but for the same training cost {other}."
    if verdict.verdict == "equivalent":
        return " So the method changes nothing that matters" + _for_cost(cost, f" {steps}, but")
    if verdict.p_holm is not None and verdict.p_holm < LEVEL and verdict.difference is not None:
        word = "higher" if verdict.difference > 0 else "lower"
        return f" So its scores are {word} {steps}, but not in a way that counts as a {'gain' if word == 'higher' else 'loss'}" + _for_cost(
            cost, ";"
        )
    if cost in ("higher", "lower"):
        return f" So its scores are {cost} for the same training cost; {steps}, nothing is settled."
    return " So nothing is shown, in either direction."


def _for_cost(cost: str | None, joined: str) -> str:
    """The end of a belief, with what differs at equal cost."""
    return f"{joined} for the same training cost, its scores are {cost}." if cost in ("higher", "lower") else "."


def _leaked(verdict: Verdict) -> str:
    """What a reader of this sentence must know about test questions that are in training. Only *better* must also hold without them."""
    if verdict.clean is None or verdict.clean.leaked <= LEAKED_ALLOWED * verdict.clean.of:
        return ""
    share = f"{100 * verdict.clean.leaked / verdict.clean.of:.3g} % of the test questions are also in training or validation"
    rests = {"better": "; the verdict also holds without them", "undecided": ""}.get(verdict.verdict, "; the verdict includes them")
    return f"; {share}{rests}"


def _for_information(verdict: Verdict) -> list[tuple[str, str]]:
    lines = []
    if verdict.p_one_tailed is not None:
        tests = f"the paper's one-tailed paired t p = {verdict.p_one_tailed:.3g}, exact sign flips p = {verdict.p_sign_flip:.3g}"
        lines.append(("other tests over seeds, for information", tests))
    if verdict.bootstrap is not None and verdict.interval is not None:
        interval = f"95 % {points(verdict.bootstrap.low)} to {points(verdict.bootstrap.high)} points"
        narrower = verdict.bootstrap.high - verdict.bootstrap.low < verdict.interval.high - verdict.interval.low
        lines.append(("bootstrap over seeds x examples, for information", interval + "; too narrow with few seeds" * narrower))
    if verdict.lucky is not None:
        by_seed, by_answer = (f"{100 * sd:.2f}" for sd in verdict.lucky)
        scatter = f"differences vary by {by_seed} points over seeds, less than the {by_answer} expected from single answers alone. This is "
        scatter += "luck: the interval and the detectable differences may be too small (equivalence allows for it)"
        lines.append(("seeds that agree, for information", scatter))
    if verdict.logprob is not None:
        lines.append(("log-probability of the references, for information", verdict.logprob.sentence()))
    if verdict.mcnemar:
        below = sum(outcome.p < LEVEL for outcome in verdict.mcnemar.values())
        split = ", ".join(f"{seed}: p = {o.p:.3g} (n = {o.n})" for seed, o in verdict.mcnemar.items())
        lines.append(("McNemar, for information", f"p < 0.05 at {below} of {len(verdict.mcnemar)} seeds; by seed {split}"))
    if verdict.detectable:
        sizes = ", ".join(f"{n} seeds {100 * x:.2f}" if x < 1 else f"{n} seeds none" for n, x in verdict.detectable.items())
        size = sources.sized(verdict.examples, None if verdict.interval is None else verdict.interval.clusters)
        what = f"{sizes} points (power {POWER:g}, level {LEVEL:g} / {verdict.family_size}, {size})"
        lines.append(("detectable, for planning", what))
    return lines


def _undecided(verdict: Verdict, margin: float) -> str:
    if verdict.untested is not None and len(verdict.seeds) < 2:
        return f"; cannot be tested: {_lower(verdict.untested)}"
    if incomplete := next((r for r in verdict.conditions if r.name == ALL_SEEDS and not r.holds), None):
        return f"; no verdict{'' if incomplete.holds is None else ' yet'}: {incomplete.text}"
    if doubt := next((r for r in verdict.conditions if r.name in WITHHELD), None):
        return f"; no verdict: {_lower(doubt.text)}"
    if verdict.identical:
        few = f"{counted(verdict.examples or 0, 'example')} are too few to rule out a difference of {sized(margin)}"
        return f"; both are right on exactly the same examples at these seeds, but {few} (Holm p = {verdict.p_equivalence_holm:.3g})"
    if verdict.untested is not None:
        return f"; cannot be tested: {_lower(verdict.untested)}"
    assert verdict.difference is not None and verdict.p is not None
    if verdict.p_holm is not None and verdict.p_holm < LEVEL:
        if verdict.difference < 0:
            return f", significant over seeds (Holm p = {verdict.p_holm:.3g}), but nothing is known by example"
        failed = [f"'{r.name}' {'cannot be determined' if r.holds is None else 'fails'}" for r in verdict.conditions if not r.holds]
        if [r.name for r in verdict.conditions if r.holds is False] == [STOPPING]:
            gains = next(r.text for r in verdict.conditions if r.name == STOPPING)
            return f", significant (Holm p = {verdict.p_holm:.3g}), but only a gain in stopping: {gains}"
        return f", significant (Holm p = {verdict.p_holm:.3g}), but {' and '.join(failed)}"
    result = ", not significant"
    if verdict.p < LEVEL / verdict.family_size and verdict.interval is not None and verdict.look is None:
        result = ", significant over seeds but not over seeds x examples"
    if verdict.hopeless is not None:
        bound = f"the one-sided 95 % upper bound over seeds is {points(verdict.hopeless)} points, below the margin of {100 * margin:g}"
        return f", not significant and stopped as hopeless: {bound}"
    if verdict.seeds_needed is None:
        size = f"on {verdict.examples or 'these'} examples: the test set is too small"
        return f"{result}; even {crossed.MOST_SEEDS} seeds would not detect {sized(margin)} {size}"
    more = verdict.seeds_needed - len(verdict.seeds)
    larger = "; a larger test set is the better choice" if more > MANY else ""
    if more > 0:
        return f"{result}; {counted(more, 'more seed')} would detect {sized(margin)} (power {POWER:g}){larger}"
    return f"{result}, although {verdict.seeds_needed} seeds would detect {sized(margin)} (power {POWER:g})"


def _lower(sentence: str) -> str:
    return f"{sentence[0].lower()}{sentence[1:].rstrip('.')}"


def _size(verdict: Verdict) -> str:
    seeds = counted(len(verdict.seeds), "seed")
    clusters = None if verdict.interval is None else verdict.interval.clusters
    return seeds if verdict.examples is None else f"{seeds} x {sources.sized(verdict.examples, clusters)}"
