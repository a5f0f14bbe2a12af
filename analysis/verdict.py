"""Is it worth it, and how sure are we? One sentence per claim, with its reasons.

    python -m analysis.verdict results/lora [results/other ...] [--margin 0.01] [--metric test_accuracy] [--json]

For every method and its baseline (`protocol/claims.py`), with D the difference of the metric on fresh seeds:

    better       Holm p < 0.05 over all claims that the sweep declares, AND the 95 % interval over seeds x examples is above 0, AND D
                 reaches the margin, AND the difference at equal FLOPs is above 0, AND prefix or contains gains the margin too (a gain
                 in exact answers only is a gain in stopping). A condition that cannot be determined does not hold.
    equivalent   TOST within the margin, over seeds and over seeds x examples: the larger p, also Holm-corrected, is < 0.05
    worse        Holm p < 0.05 and the interval is below 0
    undecided    otherwise; reports the number of seeds that would detect a difference of the margin

Holm's correction starts from the larger of two p: the two-sided paired t over seeds, and the test over seeds x examples. p is over all
looks at the results that there were or may be (`stats/looks.py`), so seeds and methods may be added. The verdict is always `undecided` if
planned seeds are missing in an arm, if the plan is unknown (no sweep.yaml), or if the answers do not match the scores. Seeds that never
were in the plan are ignored. A true difference equal to the margin is `better` half of the time, however many seeds there are: plan for
a larger one. Controls are a family of their own, and so is every folder. The exit status is 0 for every verdict and 2 for bad input.
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
from analysis.protocol import sources
from analysis.protocol.claim_statistics import ALL_SEEDS, LEVEL, POWER, Reason, Verdict, across_tasks, blank, describe, plan
from analysis.protocol.claims import Evidence, gather
from analysis.protocol.decision import DOUBT, KINDS, LEAKED_ALLOWED, STOPPING, leaked_text, rule
from analysis.stats import crossed
from analysis.text_tables import Table, counted, points, sized, text
from jepa_ray.results import JUDGED

MANY = 50
"""If more seeds than this are needed, the advice is a larger test set."""


@dataclass
class Report:
    """The verdicts on one results folder."""

    metric: str
    margin: float
    family: dict[str, int]
    """Numbers of claims and controls, over which Holm's correction is made, and how many of each could be tested."""
    verdicts: list[Verdict]
    across_tasks: list[dict[str, Any]]
    counts: list[dict[str, Any]]
    absent: list[str]
    """One sentence per declared arm without a claim."""
    notes: list[str]
    undeclared: str | None = None
    """Why it is unknown which arms are compared; None if it is known."""

    @property
    def seen(self) -> set[str]:
        """Arms whose verdict could have been any: showing this report is a look at their results."""
        return {str(arm).partition(" (")[0] for one in self.verdicts if one.complete for arm in (one.method, one.baseline)}

    @property
    def none(self) -> list[str]:
        """If there is no verdict, the sentence that says so."""
        if self.verdicts:
            return []
        if self.undeclared is not None:
            return [f"No claim: the arms are unknown. {self.undeclared}"]
        return ["No claim: no method and its baseline were both confirmed."]


def judge(evidence: Evidence, metric: str = JUDGED, margin: float | None = None) -> Report:
    """The verdicts on all claims of one sweep. `margin` None: the sweep's own. Raises ValueError for a margin outside (0, 1)."""
    declared = evidence.declared
    margin = declared.margin if margin is None else margin
    if not 0 < margin < 1:
        raise ValueError(f"The margin must be a share between 0 and 1 (0.01 is one point); it is {margin:g}.")
    verdicts, family = rule(evidence.claims, metric, margin, declared)
    tested = [claim for kind in KINDS for claim in evidence.claims if claim.kind == kind and claim.baseline is not None]
    for verdict, claim in zip(verdicts, tested, strict=True):
        describe(verdict, claim)
        plan(verdict, claim, margin, declared)
        _word(verdict, margin)
    for claim in evidence.claims:
        if claim.baseline is None:
            alone = blank(claim, metric)
            alone.sentence = f"undecided: {claim.method} has no baseline to compare with. {claim.notes[0]}"
            verdicts.append(alone)
    notes = [note for note in evidence.notes if verdicts or note != declared.undeclared]
    across = across_tasks(evidence.claims)
    return Report(metric, margin, family, verdicts, across, evidence.counts, evidence.absent, notes, declared.undeclared)


def _word(verdict: Verdict, margin: float) -> None:
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
    gap = f"{points(verdict.difference)} points of" if abs(verdict.difference) > 1e-9 else "no difference in"
    head = f"{verdict.method} against {verdict.baseline}: {gap} {verdict.metric} over {_size(verdict)}"
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
    verdict.sentence = f"{verdict.verdict}: {head}{tail}{_leaked(verdict)}."


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
    if doubt := next((r for r in verdict.conditions if r.name in (DOUBT, sources.NAME)), None):
        return f"; no verdict: {doubt.text}"
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
    return seeds if verdict.examples is None else f"{seeds} x {counted(verdict.examples, 'example')}"


def render(name: str, report: Report) -> str:
    """One folder as text: each sentence with its reasons, then the counts of trials and the notes."""
    parts = [f"{name}\n{'=' * len(name)}\nmetric {report.metric}, margin {sized(report.margin)}; {corrected(report)}"]
    parts += [*(_render_verdict(verdict) for verdict in report.verdicts), *report.none, *report.absent]
    parts += [_render_across(line) for line in report.across_tasks]
    header = ["arm", "task", "family", "model", "search", "confirm", "complete", "used"]
    rows = [[str(line[column]) for column in header] for line in report.counts]
    parts.append(text(Table("Trials by arm", header, rows, "No trial yet.")))
    if report.notes:
        parts.append("\n".join(f"- {note}" for note in report.notes))
    return "\n\n".join(parts)


def corrected(report: Report) -> str:
    """What Holm's correction is over: `Holm over 2 claims (1 tested), separately over 1 control (1 tested)`."""
    number = report.family
    sizes = [
        f"{counted(number[f'{kind}s'], kind)} ({number[f'{kind}s tested']} tested)"
        for kind in KINDS
        if kind == "claim" or number[f"{kind}s"]
    ]
    return f"Holm over {', separately over '.join(sizes)}"


def _render_verdict(verdict: Verdict) -> str:
    marks = {True: "[holds]", False: "[fails]", None: "[  -  ]"}
    mark = "control, " if verdict.kind == "control" else ""
    reasons = [f"    {marks[reason.holds]} {reason.name}: {reason.text}" for reason in verdict.reasons]
    return "\n".join([mark + verdict.sentence, *reasons, *(f"    [note ] {note}" for note in verdict.notes)])


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
    parser.add_argument("--metric", default=JUDGED, help=f"the metric to compare (default {JUDGED})")
    parser.add_argument("--json", action="store_true", help="print one JSON object, keyed by folder")
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
