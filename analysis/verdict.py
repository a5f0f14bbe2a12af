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
from analysis.protocol.advice import plan
from analysis.protocol.claim_statistics import Verdict, across_tasks, blank, describe
from analysis.protocol.claims import Claim, Evidence, gather
from analysis.protocol.decision import KINDS, rule
from analysis.protocol.ranking import Rank, rankings
from analysis.sentence import word
from analysis.text_tables import Table, counted, points, sized, text
from jepa_ray.results import JUDGED


@dataclass
class Report:
    """The verdicts on one results folder."""

    metric: str
    margin: float
    seeds: tuple[int, ...]
    """Planned seeds."""
    family: dict[str, int]
    """Numbers of claims and controls, over which Holm's correction is made, and how many of each could be tested."""
    verdicts: list[Verdict]
    ranks: list[Rank]
    """Where every two arms are compared: the rank of each, which hold together with 95 %."""
    across_tasks: list[dict[str, Any]]
    counts: list[dict[str, Any]]
    absent: list[str]
    """One sentence per declared arm without a claim."""
    notes: list[str]
    undeclared: str | None = None
    """Why it is unknown which arms are compared; None if it is known."""

    claims_nothing: bool = False
    """Whether the sweep says what it compares, and compares nothing."""

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
        if self.claims_nothing:
            return ["No claim: the sweep declares none (`claims`)."]
        return ["No claim: no method and its baseline were both confirmed."]


def judge(evidence: Evidence, metric: str = JUDGED, margin: float | None = None) -> Report:
    """The verdicts on all claims of one sweep. `margin` None: the sweep's own. Raises ValueError for a margin outside (0, 1)."""
    declared = evidence.declared
    margin = declared.margin if margin is None else margin
    if not 0 < margin < 1:
        raise ValueError(f"The margin must be a share between 0 and 1 (0.01 is one point); it is {margin:g}.")
    verdicts, family = rule(evidence.claims, metric, margin, declared)
    tested = in_order(evidence)
    for verdict, claim in zip(verdicts, tested, strict=True):
        describe(verdict, claim)
        plan(verdict, claim, margin, declared)
        word(verdict, margin)
    ranks = rankings(verdicts, tested)
    for claim in evidence.claims:
        if claim.baseline is None:
            alone = blank(claim, metric)
            other = claim.wanted is not None and not claim.notes[0].startswith("Its baseline")
            lack = f"{claim.method} cannot be compared with {claim.wanted}" if other else f"{claim.method} has no baseline to compare with"
            alone.sentence = f"undecided: {lack}. {claim.notes[0]}"
            verdicts.append(alone)
    notes = [note for note in evidence.notes if verdicts or note != declared.undeclared]
    if metric != JUDGED:
        chosen = "; the search selected by validation, which it also measures" if metric.startswith("val_") else ""
        notes.insert(
            0, f"Exploratory: sweeps are judged by {JUDGED}, and this is {metric}{chosen}. Choosing among metrics is wrong more often."
        )
    if margin != declared.margin:
        notes.insert(0, f"Exploratory: the sweep declared a margin of {sized(declared.margin)}, and this is one of {sized(margin)}.")
    across = across_tasks(evidence.claims)
    nothing = not declared.comparisons and any(arm.against is not None for arm in declared.arms)
    return Report(
        metric,
        margin,
        declared.seeds,
        family,
        verdicts,
        ranks,
        across,
        evidence.counts,
        evidence.absent,
        notes,
        declared.undeclared,
        nothing,
    )


def in_order(evidence: Evidence) -> list[Claim]:
    """The claims that can be compared, in the order of the verdicts of a report, which begin with them."""
    return [claim for kind in KINDS for claim in evidence.claims if claim.kind == kind and claim.baseline is not None]


def render(name: str, report: Report) -> str:
    """One folder as text: each sentence with its reasons, then the counts of trials and the notes."""
    parts = [f"{name}\n{'=' * len(name)}\nmetric {report.metric}, margin {sized(report.margin)}; {corrected(report)}"]
    parts += [*(_render_verdict(verdict) for verdict in report.verdicts), *report.none, *report.absent]
    parts += [text(table) for table in ranking(report)]
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
    at_flops = any(verdict.at_flops is not None and not verdict.at_flops.same_runs for verdict in report.verdicts)
    return f"Holm over {', separately over '.join(sizes)}{', and separately at equal FLOPs' * at_flops}"


def ranking(report: Report) -> list[Table]:
    """The ranks as a table; none without ranks."""
    if not report.ranks:
        return []
    several = len({(rank.task, rank.family, rank.model) for rank in report.ranks}) > 1
    rows = [
        [
            f"{rank.best}" if rank.best == rank.worst else f"{rank.best} to {rank.worst}",
            f"{rank.arm} ({rank.model}, {rank.task})" if several else rank.arm,
            f"{100 * rank.score:.2f}",
            str(rank.of),
        ]
        for rank in report.ranks
    ]
    header = ["rank", "arm", f"{report.metric.replace('_', ' ')}, %", "arms"]
    return [Table("Ranks that hold together with 95 %: arms that share a rank are not shown to differ", header, rows, "")]


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
