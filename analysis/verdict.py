"""Is it worth it, and how sure are we? One sentence per claim, with its reasons.

    python -m analysis.verdict results/lora [results/other ...] [--margin 0.01] [--metric test_accuracy] [--json]

For every method against its baseline twin (`claims.py`), with D the difference of the metric on fresh seeds:

    better       Holm p of the two-sided paired t < 0.05 over all claims of the folder, AND the 95 % seeds x examples interval lies above 0,
                 AND D reaches the margin, AND the difference is above 0 at equal FLOPs, AND prefix or contains gains the margin too
                 (a gain of exact answers alone is one of stopping). What cannot be told is not met.
    equivalent   TOST within the margin, over seeds and over seeds x examples, the larger p, Holm-corrected as well, < 0.05
    worse        Holm p < 0.05 and the interval lies below 0
    undecided    else; with the number of seeds that would detect a difference of the margin

Controls are a family of their own. Every folder is one family. A null is an answer: the exit status is 0; 2 for bad input.

May import: claims, measured, statistics, crossed, tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis import crossed, statistics
from analysis.claims import Claim, Evidence, gather
from analysis.measured import LEVEL, POWER, Reason, Verdict, across_tasks, blank, measure, plan
from analysis.tables import Table, text


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
    notes: list[str]


def judge(evidence: Evidence, metric: str = "test_accuracy", margin: float = 0.01) -> Report:
    """The verdicts on all claims of one sweep. Raises ValueError for a margin that is not in (0, 1)."""
    if not 0 < margin < 1:
        raise ValueError(f"The margin is a share between 0 and 1 (0.01 is one point); it is {margin:g}.")
    family: dict[str, int] = {}
    verdicts: list[Verdict] = []
    for kind in ("claim", "control"):
        claims = [claim for claim in evidence.claims if claim.kind == kind and claim.baseline is not None]
        found = [measure(claim, metric, margin) for claim in claims]
        # The family is declared by the sweep: a claim that could not be tested still counts.
        for single, family_p in (("p", "p_holm"), ("p_equivalence", "p_equivalence_holm")):
            if found:
                adjusted = statistics.holm({str(i): 1.0 if getattr(v, single) is None else getattr(v, single) for i, v in enumerate(found)})
                for i, v in enumerate(found):
                    setattr(v, family_p, None if getattr(v, single) is None else adjusted[str(i)])
        for verdict, claim in zip(found, claims, strict=True):
            plan(verdict, claim, margin, len(found))
            _decide(verdict, claim, margin, len(found))
        family |= {f"{kind}s": len(found), f"{kind}s tested": sum(v.p is not None for v in found)}
        verdicts += found
    for claim in evidence.claims:
        if claim.baseline is None:
            alone = blank(claim, metric)
            alone.sentence = f"undecided: {claim.method} stands alone. {claim.notes[0]}"
            verdicts.append(alone)
    return Report(metric, margin, family, verdicts, across_tasks(evidence.claims), evidence.counts, evidence.notes)


def _decide(found: Verdict, claim: Claim, margin: float, family: int) -> None:
    if found.difference is None:
        found.sentence = f"undecided: {found.method} against {found.baseline} has no pair of seeds. {found.notes[0]}"
        return
    difference, interval = found.difference, found.interval
    significant = None if found.p_holm is None else found.p_holm < LEVEL
    conditions = [
        Reason("significant", significant, _p_text(found, family)),
        Reason("interval above 0", None if interval is None else interval.low > 0, _interval_text(found)),
        Reason("margin", difference >= margin, f"{_points(difference)} points; the margin is {100 * margin:g}"),
        _equal_flops(claim),
        _not_stopping(claim, margin),
    ]
    equal = None if found.p_equivalence_holm is None else found.p_equivalence_holm < LEVEL
    tost = "cannot be tested" if equal is None else f"TOST Holm p = {found.p_equivalence_holm:.3g} (before: {found.p_equivalence:.3g})"
    found.reasons = [*conditions, Reason("equivalent", equal, f"within {100 * margin:g} points: {tost}")]
    if found.mcnemar:
        below = sum(outcome.p < LEVEL for outcome in found.mcnemar.values())
        split = ", ".join(f"{seed}: p = {o.p:.3g} (n = {o.n})" for seed, o in found.mcnemar.items())
        found.reasons.append(Reason("McNemar, for reading", None, f"p < 0.05 at {below} of {len(found.mcnemar)} seeds; by seed {split}"))
    if found.detectable:
        told = ", ".join(f"{n} seeds {100 * x:.2f}" for n, x in found.detectable.items())
        what = f"{told} points (power {POWER:g}, level {LEVEL:g} / {family}, {found.examples or 'unknown'} examples)"
        found.reasons.append(Reason("detectable, for planning", None, what))
    # What was found without the next seeds: better first, then equal, so that a sure but tiny loss is called equal, not worse.
    head = f"{found.method} against {found.baseline}: {_points(difference)} points of {found.metric} over {_size(found)}"
    if all(reason.holds for reason in conditions):
        found.verdict, tail = "better", f"(Holm p = {found.p_holm:.3g})"
    elif equal:
        found.verdict, tail = "equivalent", f"and within {100 * margin:g} of each other (TOST, Holm p = {found.p_equivalence_holm:.3g})"
    elif significant and interval is not None and interval.high < 0:
        found.verdict, tail = "worse", f"(Holm p = {found.p_holm:.3g})"
    else:
        tail = _undecided(found, conditions, margin)
    found.sentence = f"{found.verdict}: {head} {tail}."


def _undecided(found: Verdict, conditions: list[Reason], margin: float) -> str:
    if found.untested is not None:
        return f"cannot be tested: {found.untested[0].lower()}{found.untested[1:].rstrip('.')}"
    assert found.difference is not None
    if found.p_holm is not None and found.p_holm < LEVEL:
        if found.difference < 0:
            return f"is significant over seeds (Holm p = {found.p_holm:.3g}), but not over seeds x examples"
        failed = [f"'{r.name}' {'cannot be told' if r.holds is None else 'fails'}" for r in conditions if not r.holds]
        return f"is significant (Holm p = {found.p_holm:.3g}), but {' and '.join(failed)}"
    if found.seeds_needed is None:
        size = f"on {found.examples or 'these'} examples: the test set is too small"
        return f"decides nothing, and {crossed.MOST_SEEDS} seeds would not detect {100 * margin:g} points {size}"
    more = found.seeds_needed - len(found.seeds)
    if more > 0:
        return f"decides nothing; {more} more seed{'s' * (more > 1)} would detect {100 * margin:g} points (power {POWER:g})"
    return f"decides nothing, although {found.seeds_needed} seeds would detect {100 * margin:g} points (power {POWER:g})"


def _equal_flops(claim: Claim) -> Reason:
    compared = claim.equal_flops
    if compared is None or compared.difference is None:
        return Reason("equal FLOPs", None, f"cannot be told: {compared.how if compared else 'no pair of trials'}")
    told = f"{_points(compared.difference)} points at {compared.spent:.3g} training FLOPs, {compared.how} (n = {compared.seeds} seeds)"
    return Reason("equal FLOPs", compared.difference > 0, told)


def _not_stopping(claim: Claim, margin: float) -> Reason:
    """Above 0 alone would not do: a public replication gained 18 points of exact match, all by stopping, and 0.1 of contains."""
    gains = {name: claim.stopping[name] for name in ("prefix", "contains") if name in claim.stopping}
    told = ", ".join(f"{name} {_points(gap)}" for name, gap in claim.stopping.items()) or "no prefix or contains in the trials table"
    return Reason("not only stopping", max(gains.values()) >= margin if gains else None, told)


def _p_text(found: Verdict, family: int) -> str:
    if found.p is None or found.p_holm is None or found.p_one_tailed is None or found.p_sign_flip is None:
        return "no t-test"
    others = f"the paper's one-tailed {found.p_one_tailed:.3g}, exact sign flips {found.p_sign_flip:.3g}"
    return (
        f"Holm p = {found.p_holm:.3g} over {family} claim(s); two-sided paired t p = {found.p:.3g}, {others} (n = {len(found.seeds)} seeds)"
    )


def _interval_text(found: Verdict) -> str:
    if found.interval is None or found.bootstrap is None:
        return "no interval over seeds x examples"
    low, high = _points(found.interval.low), _points(found.interval.high)
    again = f"bootstrap {_points(found.bootstrap.low)} to {_points(found.bootstrap.high)}"
    return f"95 % {low} to {high} points, {found.interval.seeds} seeds x {found.interval.examples} examples; {again}"


def _size(found: Verdict) -> str:
    seeds = f"{len(found.seeds)} seed{'s' * (len(found.seeds) != 1)}"
    return seeds if found.examples is None else f"{seeds} x {found.examples} examples"


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"


def render(name: str, report: Report) -> str:
    """One folder as text: the sentences first, then their reasons, the counts, and what is missing."""
    tested = ", ".join(f"{number} {what}" for what, number in report.family.items() if number or what.startswith("claims"))
    parts = [f"{name}\n{'=' * len(name)}\nmetric {report.metric}, margin {100 * report.margin:g} points; Holm over: {tested}"]
    parts += [_render_verdict(verdict) for verdict in report.verdicts] or ["No claim: no method was confirmed beside a baseline."]
    parts += [_render_across(line) for line in report.across_tasks]
    header = ["arm", "task", "family", "model", "search", "confirm", "complete", "used"]
    rows = [[str(line[column]) for column in header] for line in report.counts]
    parts.append(text(Table("Trials that were counted", header, rows, "No trial yet.")))
    if report.notes:
        parts.append("\n".join(f"- {note}" for note in report.notes))
    return "\n\n".join(parts)


def _render_verdict(found: Verdict) -> str:
    marks = {True: "yes", False: "no", None: "-"}
    mark = "control, " if found.kind == "control" else ""
    reasons = [f"    {marks[reason.holds]:<4}{reason.name}: {reason.text}" for reason in found.reasons]
    return "\n".join([mark + found.sentence, *reasons, *(f"    !   {note}" for note in found.notes)])


def _render_across(line: dict[str, Any]) -> str:
    head = f"{line['method']} against {line['baseline']}, {line['family']}, over {len(line['tasks'])} tasks"
    found = line["aggregate"]
    if found is None:
        return f"{head}: no aggregate. {line['why']}"
    gap, wins = found["difference"], found["improvement"]
    return (
        f"{head} and {found['pairs']} pairs of runs: IQM {100 * found['iqm']:.2f} against {100 * found['iqm_baseline']:.2f} "
        f"({_points(gap['estimate'])}, 95 % {_points(gap['low'])} to {_points(gap['high'])}); probability of improvement "
        f"{wins['estimate']:.2f} ({wins['low']:.2f} to {wins['high']:.2f})"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.verdict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="results/NAME")
    parser.add_argument("--margin", type=float, default=0.01, help="the difference that matters, as a share (0.01 is one point)")
    parser.add_argument("--metric", default="test_accuracy", help="what is compared (default test_accuracy)")
    parser.add_argument("--json", action="store_true", help="one JSON object, folder by folder")
    options = parser.parse_args(arguments)
    reports: dict[str, Report] = {}
    for folder in options.sweeps:
        try:
            reports[str(folder)] = judge(gather(folder, options.metric), options.metric, options.margin)
        except ValueError as error:
            parser.error(str(error))
    if options.json:
        print(json.dumps({name: asdict(report) for name, report in reports.items()}, allow_nan=False))
    else:
        print("\n\n\n".join(render(name, report) for name, report in reports.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
