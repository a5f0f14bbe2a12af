"""A sweep on one page: verdicts, confirmation, search, losses, embeddings, cost, answers. Works offline, in light and dark, on a phone.

    python -m analysis.report results/NAME [--output FOLDER] [--no-markdown]

Writes `index.html` (self-contained) and `report.md` with its PNGs to results/NAME/report/. Every number is computed from the
folder's tables, and the command below it prints it again. Running sweeps and unreadable files are reported as such.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis import answers, panels, summary
from analysis.artefacts import ARTEFACTS
from analysis.command_line import run
from analysis.inputs.sweep import Sweep, read
from analysis.page import Block, Figure, Grid, Page, Ruling, Section, Sentences, as_markdown, diff, html
from analysis.protocol.claims import gather
from analysis.summary_tables import tables
from analysis.text_tables import Table, sized
from analysis.verdict import corrected, judge

STAGES = {"search": "search", "confirm": "confirmation", "matched": "at equal FLOPs"}
SOURCES = ("trials", "metrics")


def build(folder: Path, output: Path) -> Page:
    """The page of one sweep. Raises ValueError if `folder` is not a sweep's."""
    sweep = read(folder)
    trials = sweep.trials
    numbers = summary.summarise(sweep)
    states, best, confirmation, differences = tables(numbers)

    def figure(name: str) -> Figure:
        artefact = next(artefact for artefact in ARTEFACTS if artefact.name == name)
        assert artefact.plot is not None, name
        return Figure(artefact.plot(sweep), f"python -m analysis.paper {name} {folder}")

    def grid(table: Table) -> Grid:
        return Grid(table, command=f"python -m analysis.summary {folder}", sources=("trials",))

    def side_by_side(table: Table) -> Grid:
        return Grid(table, folded=True, code=True, command=f"python -m analysis.paper T1 {folder}", sources=("predictions",))

    first: list[Block] = [Sentences(sweep.notes, warning=True)] if sweep.notes else []
    if trials.empty:
        sections = [Section("State", first)]
    else:
        sections = [
            Section("Verdict", [*first, *_verdicts(folder, numbers.notes)]),
            Section(
                "Confirmation",
                [figure("seeds"), grid(confirmation), replace(grid(differences), folded=True)],
                "The best configuration of each arm on fresh seeds.",
            ),
            Section(
                "Search",
                [figure("curves"), grid(best), figure("best_of_n"), figure("F7"), figure("parallel"), figure("importance")],
                "How the configurations were found. The best of many scores is biased upwards: rely on the confirmation.",
            ),
            Section("Training", [figure("F1"), figure("F5"), figure("F3-losses")]),
            Section(
                "Embeddings",
                [figure("F3"), figure("diagnostics")],
                "On fixed validation pairs, for every arm including the baseline.",
            ),
            Section("Cost and stops", [figure("budget"), figure("stops"), replace(grid(states), folded=True)]),
            Section(
                "Answers",
                [
                    replace(side_by_side(answers.differences(sweep)), folded=False, code=False),
                    *(side_by_side(table) for table in answers.side_by_side(sweep, mark=diff)),
                ],
                "Compared with the reference: struck out = missing or expected, underlined = wrong, wavy = extra.",
            ),
            Section("Notes", [Sentences(tuple(numbers.notes))]),
        ]
        sections = [section for section in sections if section.blocks]
    data = os.path.relpath(folder, output).replace(os.sep, "/")
    return Page(f"{folder.resolve().name}: results", facts(sweep), sections, f"python -m analysis.report {folder}", data)


def facts(sweep: Sweep) -> list[tuple[str, str]]:
    """What ran, in counts, and where."""
    trials = sweep.trials
    if trials.empty:
        return [("trials", "none yet")]
    stages, states = trials["stage"].value_counts(), trials["state"].value_counts()
    finished = trials["finished_at"].dropna().astype(str)
    shown = [
        ("trials", f"{len(trials)}: {', '.join(f'{stages[name]} {word}' for name, word in STAGES.items() if name in stages)}"),
        ("ended", f"{states.get('COMPLETE', 0)} complete, {states.get('PRUNED', 0)} cut early, {states.get('FAILED', 0)} failed"),
        ("methods", ", ".join(sweep.methods)),
        ("families", _distinct(trials["family"])),
        ("models", _distinct(trials["model"])),
        ("tasks", _distinct(trials["task"])),
        ("confirmation seeds", _distinct(trials.loc[trials["stage"] == "confirm", "seed"]) or "none"),
        ("selected by", f"{sweep.metric} ({'highest' if sweep.mode == 'max' else 'lowest'})"),
        ("device", _distinct(trials["device"]) or "unknown"),
        ("code", _distinct(trials["git_sha"].astype(str).str.slice(0, 12)) if trials["git_sha"].notna().any() else "unknown"),
        ("last trial ended", finished.max()[:16].replace("T", " ") + " UTC" if len(finished) else "unknown"),
    ]
    return [(name, value) for name, value in shown if value]


def write(folder: Path, output: Path | None = None, markdown: bool = True) -> list[Path]:
    """Write the report of the sweep in `folder` and return the files. Raises ValueError if `folder` is not a sweep's."""
    output = output or folder / "report"
    page = build(folder, output)
    output.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {"index.html": html(page).encode()}
    if markdown:
        text, images = as_markdown(page)
        files |= {"report.md": text.encode(), **images}
    for name, content in files.items():
        (output / name).write_bytes(content)
    return [output / name for name in files]


def _verdicts(folder: Path, notes: Sequence[str]) -> list[Block]:
    """The rulings of `analysis.verdict` and the panels; if there can be none, the reason and the sentences of `analysis.summary`."""
    try:
        evidence = gather(folder)
        report = judge(evidence)
    except (ValueError, OSError) as error:
        sentences = tuple(note for note in notes if " against " in note) or tuple(notes)
        return [Sentences((f"No verdict: {error}", *sentences))]
    marks = {True: "holds", False: "fails", None: "-"}
    blocks: list[Block] = []
    for verdict in report.verdicts:
        rows = [[reason.name, marks[reason.holds], reason.text] for reason in verdict.reasons]
        reasons = Table("Reasons", ["condition", "", "numbers"], rows, "No condition could be checked.")
        sentence = verdict.sentence.removeprefix(f"{verdict.verdict}: ")
        sentence = f"Control: {sentence}" if verdict.kind == "control" else sentence
        blocks.append(Ruling(verdict.verdict, sentence, reasons, tuple(verdict.notes)))
    command = f"python -m analysis.verdict {folder} --margin {report.margin:g}"
    how = f"{report.metric}, margin {sized(report.margin)}; {corrected(report)}. Printed by `{command}`."
    at_equal = [
        Grid(table, command=f"python -m analysis.panels {folder}", sources=SOURCES, prose=True) for table in panels.tables(evidence)
    ]
    return [*blocks, *at_equal, Sentences((*report.none, *report.absent, how, *report.notes))]


def _distinct(values: pd.Series[str], limit: int = 12) -> str:
    names = [f"{value:g}" if isinstance(value, float) else str(value) for value in sorted(values.dropna().unique())]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Status 2: the folder is not a sweep's, or cannot be written to."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="One self-contained page of a sweep, and its Markdown.")
    parser.add_argument("sweep", type=Path, metavar="results/NAME")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="output folder (default results/NAME/report)")
    parser.add_argument("--no-markdown", action="store_true", help="write only the page, without report.md and its PNGs")
    options = parser.parse_args(arguments)
    try:
        written = write(options.sweep, options.output, markdown=not options.no_markdown)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    words = {".html": "Page, to open in a browser", ".md": "The same as Markdown"}
    print("\n".join(f"{words[path.suffix]}: {path}" for path in written if path.suffix in words))
    return 0


if __name__ == "__main__":
    run(main)
