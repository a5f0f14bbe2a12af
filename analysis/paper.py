"""One command per table and figure of the paper, and per figure that no paper shows.

    python -m analysis.paper T3 results/ablation_objectives [results/other ...] [--as-markdown] [--figure FILE.png|FILE.svg|FILE.pdf]
    python -m analysis.paper --list            what there is, and which search space makes it
    python -m analysis.paper --markdown        docs/paper.md

Prints the table, with the paper's numbers beside ours where it has them; of a figure, the table behind it. Several folders are shown as
one, where that can be. Where a folder doesn't hold what is asked for, one sentence says what does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from analysis.artefacts import ARTEFACTS, Artefact, find
from analysis.command_line import run
from analysis.figures.style import drawing
from analysis.inputs import combine
from analysis.inputs.sweep import Sweep, read
from analysis.inputs.tables import refuse_damaged
from analysis.paper_tables import TINY
from analysis.text_tables import Table, markdown, text


def show(artefact: Artefact, sweep: Sweep, *, as_markdown: bool = False, figure: Path | None = None) -> str:
    """Table, caption and notes of one artefact made from one sweep; the figure goes to `figure`."""
    notes: list[str] = list(sweep.notes)
    tables: list[Table]
    if artefact.plot is not None:
        plot = artefact.plot(sweep)
        tables, notes = [plot.table], [plot.caption, *plot.notes, *notes]
        if plot.figure is None:
            notes.append(how(artefact))
        elif figure is not None:
            figure.parent.mkdir(parents=True, exist_ok=True)
            with drawing():
                plot.figure.savefig(figure, dpi=200)
            notes.append(f"Figure: {figure}")
    else:
        assert artefact.tables is not None, artefact.name
        tables = artefact.tables(sweep)
        if not any(table.rows for table in tables):
            return "\n".join([*(f"{artefact.name}: {table.empty}" for table in tables[:1]), how(artefact), *notes])
        if artefact.name in _WITH_NUMBERS and (sweep.trials["model"] == "tiny").any():
            notes.append(TINY)
    how_to = markdown if as_markdown else text
    return "\n\n".join([*map(how_to, tables), "\n".join(f"- {note}" for note in notes if note)]).rstrip()


def together(artefact: Artefact, sweeps: Sequence[Sweep]) -> list[Sweep]:
    """What of several folders is shown as one. Raises ValueError where they can't be."""
    if len(sweeps) == 1 or artefact.several == "apart":
        return list(sweeps)
    return [combine.pooled(sweeps) if artefact.several == "pooled" else combine.beside(sweeps)]


def how(artefact: Artefact) -> str:
    """Which search space makes it."""
    loop = " (a loop: see the file's first lines)" if artefact.looped else ""
    ways = [
        f"{scale}: {', '.join(f'python -m jepa_ray.sweep {space}' for space in spaces)}{loop}"
        for scale, spaces in (("tiny", artefact.tiny), ("paper", artefact.paper))
        if spaces
    ]
    return f"What makes it: {'; '.join(ways)}." if ways else "Any sweep makes it."


def listing() -> str:
    """Names, what they are, and the command that makes their data."""
    rows = [[artefact.name, artefact.what, ", ".join(artefact.tiny) or "-", ", ".join(artefact.paper) or "-"] for artefact in ARTEFACTS]
    return text(Table("Tables and figures", ["name", "what", "tiny search space", "at the paper's scale"], rows, ""))


def page() -> str:
    """docs/paper.md."""
    rows = []
    for artefact in ARTEFACTS:
        cells = ["<br>".join(f"`{space}`" for space in spaces) or "-" for spaces in (artefact.tiny, artefact.paper)]
        folders = "results/NAME-*" if artefact.looped else " ".join(f"results/{name}" for name in ("A", "B")[: min(2, len(artefact.tiny))])
        folders = "results/NAME" if len(artefact.tiny) < 2 and not artefact.looped else folders
        loop = " (a loop over sweeps: see the file's first lines)" if artefact.looped else ""
        rows.append([artefact.name, artefact.what + loop, f"`python -m analysis.paper {artefact.name} {folders}`", *cells])
    table = markdown(Table("Commands", ["", "what", "command", "tiny search space", "at the paper's scale"], rows, ""))
    return "\n".join(
        [
            "# Tables and figures, each with its command",
            "",
            "Written by `python -m analysis.paper --markdown > docs/paper.md`; a test compares.",
            "",
            "`T1` to `T15` and `F1` to `F9` are those of the paper (arXiv 2509.14252v2); the others no paper shows. Each command takes",
            "results folders and prints a table, with the paper's numbers beside ours where it has them. Several folders are shown in one",
            "table or figure, a sweep beside the other; of T8, T9, F7 and F9 they are the ranks or seeds of one design, and are pooled;",
            "of T1, T7, T11, F4 and F6 they come one after the other. `--figure FILE.png` (or `.svg`, `.pdf`) writes a figure,",
            "`--as-markdown` prints for a paper or a pull request. The search spaces are arguments of `python -m jepa_ray.sweep`; of",
            "several, each is a sweep. The tiny ones run offline. `python -m analysis.report results/NAME` puts what a sweep has on one",
            "page.",
            "",
            table,
        ]
    )


_WITH_NUMBERS = {"T2", "T3", "T4", "T5", "T6", "T8", "T9", "T10", "T12", "T13", "T14", "T15"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 2 where a name or a folder is none."""
    parser = argparse.ArgumentParser(prog="python -m analysis.paper", description="Tables and figures of the paper, from results folders.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="T3, F7, curves, ...: --list shows all")
    parser.add_argument("sweeps", nargs="*", type=Path, metavar="results/NAME")
    parser.add_argument("--list", action="store_true", help="what there is, and which search space makes it")
    parser.add_argument("--markdown", action="store_true", help="print docs/paper.md")
    parser.add_argument("--as-markdown", action="store_true", help="print tables as Markdown")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="write the figure: .png, .svg or .pdf")
    options = parser.parse_args(arguments)
    if options.list or options.markdown:
        print(page() if options.markdown else listing())
        return 0
    if options.name is None or not options.sweeps:
        parser.error("name a table or figure and a results folder, as in: T3 results/ablation_objectives (--list shows what there is)")
    try:
        artefact = find(options.name)
        if options.figure and artefact.plot is None:
            raise ValueError(f"{artefact.name} is a table: --figure is for figures")
        if options.figure and options.figure.suffix not in (".png", ".svg", ".pdf"):
            raise ValueError(f"--figure {options.figure}: the name must end in .png, .svg or .pdf")
        for folder in options.sweeps:
            refuse_damaged(folder)
        sweeps = together(artefact, [read(folder) for folder in options.sweeps])
        if options.figure and len(sweeps) > 1:
            raise ValueError(f"--figure takes one results folder for {artefact.name}: one file can't hold several figures")
        shown = {sweep.folder: show(artefact, sweep, as_markdown=options.as_markdown, figure=options.figure) for sweep in sweeps}
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for folder, words in shown.items():
        title = f"# {folder}" if options.as_markdown else f"{folder}\n{'=' * len(str(folder))}"
        print(title, words, sep="\n\n", end="\n\n")
    return 0


if __name__ == "__main__":
    run(main)
