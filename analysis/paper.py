"""One command per table and figure of the paper, and per figure that is not in the paper.

    python -m analysis.paper T3 results/ablation_objectives [results/other ...] [--as-markdown] [--figure FILE.png|FILE.svg|FILE.pdf]
    python -m analysis.paper --list            all names, and the search spaces that produce their data
    python -m analysis.paper --markdown        docs/paper.md

Prints a table, with the paper's numbers next to ours if there are any; for a figure, the table behind it. Several folders are shown as one
if possible. If a folder lacks the data, one sentence says which search space produces it.
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
    """Table, caption and notes of one artefact of one sweep; its figure is written to `figure`."""
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
    """The sweeps to show, several folders combined if the artefact allows it. Raises ValueError if they cannot be combined."""
    if len(sweeps) == 1 or artefact.several == "apart":
        return list(sweeps)
    return [combine.pooled(sweeps) if artefact.several == "pooled" else combine.beside(sweeps)]


def how(artefact: Artefact) -> str:
    """The search spaces that produce the artefact's data."""
    loop = " (in a loop: see the file's first lines)" if artefact.looped else ""
    ways = [
        f"{scale}: {', '.join(f'python -m jepa_ray.sweep {space}' for space in spaces)}{loop}"
        for scale, spaces in (("tiny", artefact.tiny), ("paper", artefact.paper))
        if spaces
    ]
    return f"To produce it: {'; '.join(ways)}." if ways else "Any sweep produces it."


def listing() -> str:
    """Names, descriptions and search spaces of all tables and figures."""
    rows = [[artefact.name, artefact.what, ", ".join(artefact.tiny) or "-", ", ".join(artefact.paper) or "-"] for artefact in ARTEFACTS]
    return text(Table("Tables and figures", ["name", "content", "tiny search space", "at the paper's scale"], rows, ""))


def page() -> str:
    """docs/paper.md."""
    rows = []
    for artefact in ARTEFACTS:
        cells = ["<br>".join(f"`{space}`" for space in spaces) or "-" for spaces in (artefact.tiny, artefact.paper)]
        folders = "results/NAME-*" if artefact.looped else " ".join(f"results/{name}" for name in ("A", "B")[: min(2, len(artefact.tiny))])
        folders = "results/NAME" if len(artefact.tiny) < 2 and not artefact.looped else folders
        loop = " (a loop over sweeps: see the file's first lines)" if artefact.looped else ""
        rows.append([artefact.name, artefact.what + loop, f"`python -m analysis.paper {artefact.name} {folders}`", *cells])
    table = markdown(Table("Commands", ["", "content", "command", "tiny search space", "at the paper's scale"], rows, ""))
    return "\n".join(
        [
            "# Tables and figures, each with its command",
            "",
            "Written by `python -m analysis.paper --markdown > docs/paper.md`; a test checks that it is up to date.",
            "",
            "`T1` to `T15` and `F1` to `F9` are those of the paper (arXiv 2509.14252v2); the others are not in the paper. Each command",
            "takes results folders and prints a table, with the paper's numbers next to ours if there are any. Several folders are shown",
            "side by side in one table or figure. For T8, T9, F7 and F9 they are the ranks or seeds of one design and are pooled; for T1,",
            "T7, T11, F4 and F6 they are shown one after the other. `--figure FILE.png` (or `.svg`, `.pdf`) writes a figure;",
            "`--as-markdown` prints Markdown for a paper or a pull request. The search spaces are arguments of `python -m jepa_ray.sweep`,",
            "one sweep each. The tiny ones run offline. `python -m analysis.report results/NAME` puts all that a sweep has on one page.",
            "",
            table,
        ]
    )


_WITH_NUMBERS = {"T2", "T3", "T4", "T5", "T6", "T8", "T9", "T10", "T12", "T13", "T14", "T15"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Status 2: unknown name, or a folder that is not a sweep's."""
    parser = argparse.ArgumentParser(prog="python -m analysis.paper", description="Tables and figures of the paper, from results folders.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="T3, F7, curves, ...: --list shows all")
    parser.add_argument("sweeps", nargs="*", type=Path, metavar="results/NAME")
    parser.add_argument("--list", action="store_true", help="list all names, and the search spaces that produce their data")
    parser.add_argument("--markdown", action="store_true", help="print docs/paper.md")
    parser.add_argument("--as-markdown", action="store_true", help="print tables as Markdown")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="write the figure: .png, .svg or .pdf")
    options = parser.parse_args(arguments)
    if options.list or options.markdown:
        print(page() if options.markdown else listing())
        return 0
    if options.name is None or not options.sweeps:
        parser.error("name a table or figure and a results folder, as in: T3 results/ablation_objectives (--list shows all names)")
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
            raise ValueError(f"--figure takes one results folder for {artefact.name}: one file cannot contain several figures")
        shown = {sweep.folder: show(artefact, sweep, as_markdown=options.as_markdown, figure=options.figure) for sweep in sweeps}
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for folder, words in shown.items():
        title = f"# {folder}" if options.as_markdown else f"{folder}\n{'=' * len(str(folder))}"
        print(title, words, sep="\n\n", end="\n\n")
    return 0


if __name__ == "__main__":
    run(main)
