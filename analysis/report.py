"""A sweep on one page: the answer, then the evidence in the order of doubt. Works offline, in light and dark, on a phone and on paper.

    python -m analysis.report results/NAME [--output FOLDER] [--no-markdown] [--bundle]

Writes `index.html` (self-contained) and `report.md` with its PNGs to results/NAME/report/; `--bundle` also writes NAME-report.zip, with the
page and its tables, to be mailed. Every number is computed from the folder's tables, and the command below it prints it again. Running
sweeps and unreadable files are reported as such.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analysis import bundle, sections
from analysis.command_line import run
from analysis.inputs.sweep import read
from analysis.page import Page, as_markdown, html


def build(folder: Path, output: Path) -> Page:
    """The page of one sweep. Raises ValueError if `folder` is not a sweep's."""
    made = sections.material(folder, read(folder))
    data = os.path.relpath(folder, output).replace(os.sep, "/")
    title = f"{folder.resolve().name}: results"
    return Page(title, sections.first(made), sections.sections(made), f"python -m analysis.report {folder}", data)


def write(folder: Path, output: Path | None = None, markdown: bool = True, zipped: bool = False) -> list[Path]:
    """Write the report of the sweep in `folder` and return the files; `zipped`: also as a bundle with its tables.

    Raises ValueError if `folder` is not a sweep's.
    """
    output = output or folder / "report"
    page = build(folder, output)
    output.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {"index.html": html(page).encode()}
    if markdown:
        text, images = as_markdown(page)
        files |= {"report.md": text.encode(), **images}
    for name, content in files.items():
        (output / name).write_bytes(content)
    written = [output / name for name in files]
    if zipped:
        inside = files if page.data == ".." else files | {"index.html": html(replace(page, data="..")).encode()}
        written.append(bundle.write(output / f"{folder.resolve().name}-report.zip", folder, page, inside))
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Status 2: the folder is not a sweep's, or cannot be written to."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="One self-contained page of a sweep, and its Markdown.")
    parser.add_argument("sweep", type=Path, metavar="results/NAME")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="output folder (default results/NAME/report)")
    parser.add_argument("--no-markdown", action="store_true", help="write only the page, without report.md and its PNGs")
    parser.add_argument("--bundle", action="store_true", help="also write the page and its tables as one ZIP file, to be mailed")
    options = parser.parse_args(arguments)
    try:
        written = write(options.sweep, options.output, markdown=not options.no_markdown, zipped=options.bundle)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    words = {".html": "Page, to open in a browser", ".md": "The same as Markdown", ".zip": "Page and tables, to be mailed"}
    print("\n".join(f"{words[path.suffix]}: {path}" for path in written if path.suffix in words))
    return 0


if __name__ == "__main__":
    run(main)
