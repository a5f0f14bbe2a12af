"""The report's content: its first screen, and its sections in the order in which a reader doubts. `report.py` writes it.

Every block names the command that prints it and the tables that it is computed from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis import all_answers, answers, doubts, panels, summary, what_ran
from analysis.artefacts import find
from analysis.figures import forest
from analysis.inputs.plan import plan
from analysis.inputs.sweep import Sweep
from analysis.page import Block, Figure, First, Grid, Ruling, Section, Sentences, diff
from analysis.protocol.claim_statistics import Verdict
from analysis.protocol.claims import Claim, Evidence, gather
from analysis.summary_tables import Summary, tables
from analysis.text_tables import Table, points, sized
from analysis.verdict import Report, corrected, judge

WORDS = ("better", "worse", "equivalent", "undecided")
WIDE, NARROW = 6.0, 3.7
"""Inches of the first screen's picture, on a desktop and on a phone."""
NAMED = 3
"""Up to this many claims are named for each word on the first screen."""
NO_CONTROL = (
    "No control ran. `controls: [lambda_zero, monitor, shuffled, stop_token]` in the sweep file would show whether a difference comes from "
    "the pairs."
)


@dataclass
class Material:
    """Everything that the sections are made from."""

    folder: Path
    sweep: Sweep
    numbers: Summary
    tree: Mapping[str, Any]
    evidence: Evidence | None = None
    report: Report | None = None
    unjudged: str = ""
    """Why there is no verdict."""

    def figure(self, name: str) -> Figure:
        """The figure of `analysis.paper` of this name."""
        plot = find(name).plot
        assert plot is not None, name
        return Figure(plot(self.sweep), f"python -m analysis.paper {name} {self.folder}")

    def verdicts(self, kind: str) -> list[Verdict]:
        """The verdicts on claims or on controls; empty if nothing could be judged."""
        return [] if self.report is None else [verdict for verdict in self.report.verdicts if verdict.kind == kind]

    def grid(self, table: Table, command: str = "summary", sources: tuple[str, ...] = ("trials",), **how: Any) -> Grid:
        """A table with its command."""
        return Grid(table, command=f"python -m analysis.{command} {self.folder}", sources=sources, **how)


def material(folder: Path, sweep: Sweep) -> Material:
    """Gather and judge. A folder that cannot be judged is reported on all the same."""
    made = Material(folder, sweep, summary.summarise(sweep), plan(folder))
    try:
        made.evidence = gather(folder)
        made.report = judge(made.evidence)
    except (ValueError, OSError) as error:
        made.unjudged = f"No verdict: {error}"
    return made


def first(made: Material) -> First:
    """The question, the answer, the forest plot of claims, and what ran."""
    picture = None if made.sweep.trials.empty else _forest(made, "claim")
    return First(
        what_ran.question(made.sweep), _answers(made), picture, what_ran.five_lines(made.sweep, made.tree), tuple(made.sweep.notes)
    )


def sections(made: Material) -> list[Section]:
    """All sections; those without a block are left out."""
    if made.sweep.trials.empty:
        return []
    _, _, confirmation, differences = tables(made.numbers)
    out = [
        Section("Why this verdict", _verdicts(made), name="verdict"),
        Section(
            "Is it enough seeds?",
            [
                made.figure("seeds"),
                *([made.grid(_detectable(made), "verdict", ("trials", "predictions"))] if made.verdicts("claim") else []),
                made.grid(confirmation),
                made.grid(differences, folded=True),
            ],
            "The best configuration of each arm on fresh seeds.",
            "seeds",
        ),
        Section(
            "Is it the pairs?",
            _controls(made),
            "A control is the method without the part that the claim is about; if it gains as much, that part is not the reason.",
            "controls",
        ),
        Section(
            "Is it stopping?",
            _stopping(made),
            "An exact answer takes knowing it and ending it. A gain that `prefix` and `contains` do not share is a gain in ending.",
            "stopping",
        ),
        Section("Is it leakage?", _leakage(made), "Test questions that are also in training or validation reward memory.", "leakage"),
        Section(
            "What did tuning cost?",
            _tuning(made),
            "How the configurations were found. The best of many scores is biased upwards: rely on the confirmation.",
            "tuning",
        ),
        Section(
            "What happens inside?",
            [made.figure(name) for name in ("F1", "F5", "F3-losses", "F3", "diagnostics")],
            "During training, and in the embeddings of fixed validation pairs, for every arm including the baseline. A collapse shows as "
            "an effective rank that falls and an anisotropy that rises.",
            "inside",
        ),
        Section(
            "Answers",
            _side_by_side(made),
            "Compared with the reference: struck out = missing or expected, underlined = wrong, wavy = extra.",
            "answers",
        ),
        Section("What ran", [made.grid(what_ran.counts(made.sweep)), made.grid(what_ran.settings(made.sweep), folded=True)], name="set-up"),
        Section("Notes", [Sentences(tuple(made.numbers.notes))] if made.numbers.notes else [], name="notes"),
    ]
    return [section for section in out if section.blocks]


def _answers(made: Material) -> tuple[tuple[str, str], ...]:
    """One claim: its sentence. Several: one line for each word, with the claims that got it."""
    if made.report is None:
        return (("", made.unjudged),) if made.unjudged else ()
    claims = made.verdicts("claim")
    if len(claims) == 1:
        return ((claims[0].verdict, claims[0].sentence.removeprefix(f"{claims[0].verdict}: ")),)
    by_word: dict[str, list[str]] = defaultdict(list)
    for verdict in claims:
        by_word[verdict.verdict].append(_brief(verdict))
    lines = []
    for word in WORDS:
        if found := by_word.get(word, []):
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            lines.append((word, f"({len(found)} of {len(claims)}): {', '.join(found[:NAMED])}{more}"))
    return tuple(lines) or (("", (made.report.none or made.report.absent or ["No claim."])[0]),)


def _brief(verdict: Verdict) -> str:
    if verdict.difference is None:
        return verdict.method
    interval = "" if verdict.interval is None else f", 95 % {points(verdict.interval.low)} to {points(verdict.interval.high)}"
    return f"{verdict.method} ({points(verdict.difference)} points{interval})"


def _forest(made: Material, kind: str) -> Figure | None:
    if made.evidence is None or made.report is None:
        return None
    lines = [line for line in forest.lines_from(made.evidence, made.report) if line.kind == kind]
    if not lines:
        return None
    name = "forest" if kind == "claim" else "controls"
    wide, narrow = (
        forest.drawn(made.sweep, lines, made.report.margin, name + end, width, stacked)
        for end, width, stacked in (("", WIDE, False), ("-narrow", NARROW, True))
    )
    return Figure(wide, f"python -m analysis.figures.forest {made.folder}", narrow)


def _ruling(verdict: Verdict) -> Ruling:
    marks = {True: "holds", False: "fails", None: "-"}
    rows = [[reason.name, marks[reason.holds], reason.text] for reason in verdict.reasons]
    reasons = Table("Reasons", ["condition", "outcome", "numbers"], rows, "No condition could be checked.")
    sentence = verdict.sentence.removeprefix(f"{verdict.verdict}: ")
    sentence = f"Control: {sentence}" if verdict.kind == "control" else sentence
    return Ruling(verdict.verdict, sentence, reasons, tuple(verdict.notes))


def _verdicts(made: Material) -> list[Block]:
    """The rulings on claims and the panels; if there can be none, the reason and the sentences of `analysis.summary`."""
    report = made.report
    if report is None:
        notes = made.numbers.notes
        sentences = tuple(note for note in notes if " against " in note) or tuple(notes)
        return [Sentences((made.unjudged, *sentences))]
    command = f"python -m analysis.verdict {made.folder} --margin {report.margin:g}"
    how = f"{report.metric}, margin {sized(report.margin)}; {corrected(report)}. Printed by `{command}`."
    rulings = [_ruling(verdict) for verdict in made.verdicts("claim")]
    return [*rulings, *_at_equal("claim", made), Sentences((*report.none, *report.absent, how, *report.notes))]


def _at_equal(kind: str, made: Material) -> list[Block]:
    """The panels of claims, or of controls behind their title."""
    claims = _of(kind, made)
    if made.evidence is None or (kind == "control" and not claims):
        return []
    shown = panels.tables(replace(made.evidence, claims=claims))
    return [made.grid(table, "panels", ("trials", "metrics"), folded=kind == "control") for table in shown]


def _detectable(made: Material) -> Table:
    assert made.report is not None
    return doubts.seeds(made.verdicts("claim"), made.report.margin)


def _controls(made: Material) -> list[Block]:
    rulings = [_ruling(verdict) for verdict in made.verdicts("control")]
    picture = _forest(made, "control")
    if not rulings and made.report is not None:
        return [Sentences((NO_CONTROL,))]
    return [*([picture] if picture else []), *rulings, *_at_equal("control", made)]


def _stopping(made: Material) -> list[Block]:
    tokens = made.grid(answers.differences(made.sweep), "paper T1", ("predictions",))
    if made.evidence is None or made.report is None:
        return [tokens]
    gains = doubts.stopping(_of("claim", made), made.report.verdicts)
    return [made.grid(gains, "verdict"), tokens]


def _leakage(made: Material) -> list[Block]:
    if made.evidence is None or made.report is None:
        return []
    unknown = made.sweep.trials["overlap_text"].isna().all()
    if unknown:
        return [Sentences(("Unknown: the trials table does not say how many test questions are also in training or validation.",))]
    return [made.grid(doubts.leakage(_of("claim", made), made.report.verdicts), "verdict", ("trials", "predictions"))]


def _of(kind: str, made: Material) -> list[Claim]:
    return [] if made.evidence is None else [claim for claim in made.evidence.claims if claim.kind == kind]


def _tuning(made: Material) -> list[Block]:
    states, best, *_ = tables(made.numbers)
    names = ("budget", "best_of_n", "curves", "F7", "parallel", "importance", "stops")
    budget, *others = (made.figure(name) for name in names)
    return [budget, made.grid(best), *others, made.grid(states, folded=True)]


def _side_by_side(made: Material) -> list[Block]:
    found = all_answers.tables(made.sweep, diff)
    if not found:
        return [Sentences((answers.NEEDS,))]
    return [made.grid(one.table, "paper T1", ("predictions",), folded=True, code=True, kinds=one.kinds, notes=one.notes) for one in found]
