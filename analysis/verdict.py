"""Is it worth it, and how sure are we? One sentence per claim, with its reasons.

    python -m analysis.verdict results/lora [results/other ...] [--margin 0.01] [--metric test_accuracy] [--json]

For every method against its baseline twin (`protocol/claims.py`), with D the difference of the metric on fresh seeds:

    better       Holm p < 0.05 over all claims that the sweep declares, AND the 95 % seeds x examples interval lies above 0, AND D reaches
                 the margin, AND the difference is above 0 at equal FLOPs, AND prefix or contains gains the margin too (a gain of
                 exact answers alone is one of stopping). What cannot be told is not met.
    equivalent   TOST within the margin, over seeds and over seeds x examples, the larger p, Holm-corrected as well, < 0.05
    worse        Holm p < 0.05 and the interval lies below 0
    undecided    else; with the number of seeds that would detect a difference of the margin

Holm's p starts from the larger of the two-sided paired t over seeds and the test over seeds x examples. After a race it is p over all looks
(`stats/sequential.py`), and the interval is that look's. None of the first three is given while planned seeds are missing in an arm,
where it is
not known what was planned (no sweep.yaml), or on answers that are not those the scores were made of. Seeds that the plan does not name
(any more) enter nothing. A true difference of just the margin is `better` half of the time, however many seeds there are: plan for more.
Controls are a family of their own. Every folder is one family. A null is an answer: the exit status is 0; 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.command_line import run
from analysis.inputs.tables import refuse_damaged
from analysis.protocol.claim_statistics import LEVEL, POWER, Reason, Verdict, across_tasks, blank, describe, plan
from analysis.protocol.claims import Evidence, gather
from analysis.protocol.decision import ALL_SEEDS, DOUBT, KINDS, LEAKED_ALLOWED, STOPPING, leaked_text, rule
from analysis.stats import crossed
from analysis.text_tables import Table, points, sized, text
from jepa_ray.results import JUDGED

MANY = 50
"""More seeds than this are no advice: with them the examples are what is too few."""


@dataclass
class Report:
    """One results folder."""

    metric: str
    margin: float
    family: dict[str, int]
    """Claims, controls, and how many of each could be tested: what Holm's correction is over."""
    verdicts: list[Verdict]
    across_tasks: list[dict[str, Any]]
    counts: list[dict[str, Any]]
    absent: list[str]
    """A sentence for each declared arm without a claim."""
    notes: list[str]
    undeclared: str | None = None
    """Why it is not known which arms are compared; None where it is."""

    @property
    def none(self) -> list[str]:
        """Where there is no verdict, the sentence that says so."""
        if self.verdicts:
            return []
        if self.undeclared is not None:
            return [f"No claim: the arms are not known. {self.undeclared}"]
        return ["No claim: no method was confirmed beside a baseline."]


def judge(evidence: Evidence, metric: str = JUDGED, margin: float | None = None) -> Report:
    """The verdicts on all claims of one sweep. `margin` None: the sweep's own. Raises ValueError for a margin that is not in (0, 1)."""
    declared = evidence.declared
    margin = declared.margin if margin is None else margin
    if not 0 < margin < 1:
        raise ValueError(f"The margin is a share between 0 and 1 (0.01 is one point); it is {margin:g}.")
    verdicts, family = rule(evidence.claims, metric, margin, declared)
    tested = [claim for kind in KINDS for claim in evidence.claims if claim.kind == kind and claim.baseline is not None]
    for verdict, claim in zip(verdicts, tested, strict=True):
        describe(verdict, claim)
        plan(verdict, claim, margin)
        _word(verdict, margin)
    for claim in evidence.claims:
        if claim.baseline is None:
            alone = blank(claim, metric)
            alone.sentence = f"undecided: {claim.method} stands alone. {claim.notes[0]}"
            verdicts.append(alone)
    notes = [note for note in evidence.notes if verdicts or note != declared.undeclared]
    if declared.changes:
        notes.append(
            f"{' '.join(declared.changes)} If results were known by then, p is too small: adding or changing seeds or looks until a test "
            "fires is no 5 % test. Plan looks with confirm.race before the first seed, or confirm in a sweep of another name."
        )
    across = across_tasks(evidence.claims)
    return Report(metric, margin, family, verdicts, across, evidence.counts, evidence.absent, notes, declared.undeclared)


def _word(verdict: Verdict, margin: float) -> None:
    """Adds the sentence and the reasons to a ruling."""
    if verdict.difference is None:
        verdict.sentence = f"undecided: {verdict.method} against {verdict.baseline} has no pair of seeds. {verdict.notes[0]}"
        return
    equal = verdict.equivalent
    name = "no example told the arms apart," if verdict.identical else "TOST"
    tost = (
        "cannot be tested" if equal is None else f"{name} Holm p = {verdict.p_equivalence_holm:.3g} (before: {verdict.p_equivalence:.3g})"
    )
    verdict.reasons = [*verdict.conditions, Reason("equivalent", equal, f"within {sized(margin)}: {tost}")]
    verdict.reasons += [Reason(name, None, told) for name, told in _for_reading(verdict)]
    if verdict.clean is not None:
        verdict.notes.insert(0, f"{leaked_text(verdict.clean)}.")
    head = f"{verdict.method} against {verdict.baseline}: {points(verdict.difference)} points of {verdict.metric} over {_size(verdict)}"
    if verdict.look is not None and verdict.look < len(verdict.looks):
        head += f" (raced, stopped at look {verdict.look} of {len(verdict.looks)})"
    if verdict.identical and verdict.verdict == "equivalent":
        tail = f"and right on the very same examples at these seeds (Holm p = {verdict.p_equivalence_holm:.3g})"
    elif verdict.verdict == "equivalent":
        tail = f"and within {100 * margin:g} of each other (TOST, Holm p = {verdict.p_equivalence_holm:.3g})"
    elif verdict.verdict != "undecided":
        tail = f"(Holm p = {verdict.p_holm:.3g})"
    else:
        tail = _undecided(verdict, margin)
    verdict.sentence = f"{verdict.verdict}: {head} {tail}{_leaked(verdict)}."


def _leaked(verdict: Verdict) -> str:
    """What a reader of the one sentence has to know of a test set that is in training. Only *better* has to hold without them, too."""
    if verdict.clean is None or verdict.clean.leaked <= LEAKED_ALLOWED * verdict.clean.of:
        return ""
    share = f"{100 * verdict.clean.leaked / verdict.clean.of:.3g} % of the test questions are also in training or validation"
    rests = {"better": ", and it holds without them", "undecided": ""}.get(
        verdict.verdict, ", and this rests on all of them, those included"
    )
    return f"; {share}{rests}"


def _for_reading(verdict: Verdict) -> list[tuple[str, str]]:
    lines = []
    if verdict.p_one_tailed is not None:
        text_of = f"the paper's one-tailed paired t p = {verdict.p_one_tailed:.3g}, exact sign flips p = {verdict.p_sign_flip:.3g}"
        lines.append(("other tests over seeds, for reading", text_of))
    if verdict.bootstrap is not None and verdict.interval is not None:
        text_of = f"95 % {points(verdict.bootstrap.low)} to {points(verdict.bootstrap.high)} points"
        narrower = verdict.bootstrap.high - verdict.bootstrap.low < verdict.interval.high - verdict.interval.low
        lines.append(("bootstrap over seeds x examples, for reading", text_of + "; too narrow with few seeds" * narrower))
    if verdict.lucky is not None:
        by_seed, by_answer = (f"{100 * sd:.2f}" for sd in verdict.lucky)
        text_of = f"differences scatter by {by_seed} points over seeds, less than the {by_answer} that single answers alone make: luck, "
        text_of += "so the interval may be too narrow, and what is detectable too small (equivalence allows for it)"
        lines.append(("seeds that agree, for reading", text_of))
    if verdict.mcnemar:
        below = sum(outcome.p < LEVEL for outcome in verdict.mcnemar.values())
        split = ", ".join(f"{seed}: p = {o.p:.3g} (n = {o.n})" for seed, o in verdict.mcnemar.items())
        lines.append(("McNemar, for reading", f"p < 0.05 at {below} of {len(verdict.mcnemar)} seeds; by seed {split}"))
    if verdict.detectable:
        text_of = ", ".join(f"{n} seeds {100 * x:.2f}" for n, x in verdict.detectable.items())
        what = f"{text_of} points (power {POWER:g}, level {LEVEL:g} / {verdict.family_size}, {verdict.examples or 'unknown'} examples)"
        lines.append(("detectable, for planning", what))
    return lines


def _undecided(verdict: Verdict, margin: float) -> str:
    if verdict.untested is not None and len(verdict.seeds) < 2:
        return f"cannot be tested: {_lower(verdict.untested)}"
    if incomplete := next((r for r in verdict.conditions if r.name == ALL_SEEDS and not r.holds), None):
        return f"is no verdict{'' if incomplete.holds is None else ' yet'}: {incomplete.text}"
    if doubt := next((r for r in verdict.conditions if r.name == DOUBT), None):
        return f"is no verdict: {doubt.text}"
    if verdict.identical:
        told = f"{verdict.examples} examples are too few to rule out {sized(margin)}"
        return f"and right on the very same examples at these seeds, but {told} (Holm p = {verdict.p_equivalence_holm:.3g})"
    if verdict.untested is not None:
        return f"cannot be tested: {_lower(verdict.untested)}"
    assert verdict.difference is not None and verdict.p is not None
    if verdict.p_holm is not None and verdict.p_holm < LEVEL:
        if verdict.difference < 0:
            return f"is significant over seeds (Holm p = {verdict.p_holm:.3g}), but nothing is known by example"
        failed = [f"'{r.name}' {'cannot be told' if r.holds is None else 'fails'}" for r in verdict.conditions if not r.holds]
        if [r.name for r in verdict.conditions if r.holds is False] == [STOPPING]:
            gains = next(r.text for r in verdict.conditions if r.name == STOPPING)
            return f"is significant (Holm p = {verdict.p_holm:.3g}), and it is one of stopping only: {gains}"
        return f"is significant (Holm p = {verdict.p_holm:.3g}), but {' and '.join(failed)}"
    nothing = "decides nothing"
    if verdict.p < LEVEL / verdict.family_size and verdict.interval is not None and verdict.look is None:
        nothing = "is significant over seeds, but not over seeds x examples, so it decides nothing"
    if verdict.hopeless is not None:
        bound = f"the one-sided 95 % upper bound over seeds is {points(verdict.hopeless)} points, below the margin of {100 * margin:g}"
        return f"decides nothing, and was not continued as hopeless: {bound}"
    if verdict.seeds_needed is None:
        size = f"on {verdict.examples or 'these'} examples: the test set is too small"
        return f"{nothing}, and {crossed.MOST_SEEDS} seeds would not detect {sized(margin)} {size}"
    more = verdict.seeds_needed - len(verdict.seeds)
    rough = "; rather a larger test set" if more > MANY else ""
    if more > 0:
        return f"{nothing}; {more} more seed{'s' * (more > 1)} would detect {sized(margin)} (power {POWER:g}{rough})"
    return f"{nothing}, although {verdict.seeds_needed} seeds would detect {sized(margin)} (power {POWER:g})"


def _lower(sentence: str) -> str:
    return f"{sentence[0].lower()}{sentence[1:].rstrip('.')}"


def _size(verdict: Verdict) -> str:
    seeds = f"{len(verdict.seeds)} seed{'s' * (len(verdict.seeds) != 1)}"
    return seeds if verdict.examples is None else f"{seeds} x {verdict.examples} examples"


def render(name: str, report: Report) -> str:
    """One folder as text: the sentences first, then their reasons, the counts, and what is missing."""
    tested = ", ".join(f"{number} {what}" for what, number in report.family.items() if number or what.startswith("claims"))
    parts = [f"{name}\n{'=' * len(name)}\nmetric {report.metric}, margin {sized(report.margin)}; Holm over: {tested}"]
    parts += [*(_render_verdict(verdict) for verdict in report.verdicts), *report.none, *report.absent]
    parts += [_render_across(line) for line in report.across_tasks]
    header = ["arm", "task", "family", "model", "search", "confirm", "complete", "used"]
    rows = [[str(line[column]) for column in header] for line in report.counts]
    parts.append(text(Table("Trials that were counted", header, rows, "No trial yet.")))
    if report.notes:
        parts.append("\n".join(f"- {note}" for note in report.notes))
    return "\n\n".join(parts)


def _render_verdict(verdict: Verdict) -> str:
    marks = {True: "holds", False: "fails", None: "-"}
    mark = "control, " if verdict.kind == "control" else ""
    reasons = [f"    {marks[reason.holds]:<6}{reason.name}: {reason.text}" for reason in verdict.reasons]
    return "\n".join([mark + verdict.sentence, *reasons, *(f"    !   {note}" for note in verdict.notes)])


def _render_across(line: dict[str, Any]) -> str:
    head = f"{line['method']} against {line['baseline']}, {line['family']}, over {len(line['tasks'])} tasks"
    aggregate = line["aggregate"]
    if aggregate is None:
        return f"{head}: no aggregate. {line['why']}"
    gap, wins = aggregate["difference"], aggregate["improvement"]
    return (
        f"{head} and {aggregate['pairs']} pairs of runs: IQM {100 * aggregate['iqm']:.2f} against {100 * aggregate['iqm_baseline']:.2f} "
        f"({points(gap['estimate'])}, 95 % {points(gap['low'])} to {points(gap['high'])}); probability of improvement "
        f"{wins['estimate']:.2f} ({wins['low']:.2f} to {wins['high']:.2f})"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.verdict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="results/NAME")
    parser.add_argument("--margin", type=float, help="the difference that matters, as a share (0.01 is one point); default: confirm.margin")
    parser.add_argument("--metric", default=JUDGED, help=f"what is compared (default {JUDGED})")
    parser.add_argument("--json", action="store_true", help="one JSON object, folder by folder")
    options = parser.parse_args(arguments)
    reports: dict[str, Report] = {}
    for folder in options.sweeps:
        try:
            refuse_damaged(folder)
            reports[str(folder)] = judge(gather(folder, options.metric), options.metric, options.margin)
        except ValueError as error:
            parser.error(str(error))
    if options.json:
        print(json.dumps({name: asdict(report) for name, report in reports.items()}, allow_nan=False))
    else:
        print("\n\n\n".join(render(name, report) for name, report in reports.items()))
    return 0


if __name__ == "__main__":
    run(main)
