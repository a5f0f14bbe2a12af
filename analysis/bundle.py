"""The page and the tables behind it in one ZIP file to mail: unpacked, every link of the page works."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from analysis.page import Figure, Grid, Page

ALWAYS = ("sweep.yaml", "arms.parquet", "trials")
"""Files and tables without which no command of the page runs."""
BESIDE = ("sweep-*.yaml", "selection*.json", "looks*")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every entry, so that the same content makes the same file."""


def write(path: Path, folder: Path, page: Page, report: Mapping[str, bytes]) -> Path:
    """Write the report's files (by name, into `NAME/report/`) and the tables that the page names (into `NAME/`) to `path`."""
    name = folder.resolve().name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in sorted(report.items()):
            archive.writestr(_entry(f"{name}/report/{file}"), content)
        for source in tables(folder, page):
            # Parquet files are compressed already; a second time would only take longer.
            archive.writestr(_entry(f"{name}/{source.relative_to(folder).as_posix()}"), source.read_bytes(), zipfile.ZIP_STORED)
    return path


def tables(folder: Path, page: Page) -> list[Path]:
    """The files of the results folder that the page's commands read, in alphabetical order."""
    blocks = [block for section in page.sections for block in section.blocks]
    named = {source for block in blocks for source in _sources(block)} | {"metrics", "predictions"}
    found: set[Path] = set()
    for name in (*ALWAYS, *named):
        found |= set(_files(folder / name))
    for pattern in BESIDE:
        found |= {path for path in folder.glob(pattern) if path.is_file()}
    return sorted(found)


def _sources(block: object) -> Iterable[str]:
    if isinstance(block, Figure):
        return block.plot.sources
    return block.sources if isinstance(block, Grid) else ()


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [inner for inner in path.rglob("*.parquet") if inner.is_file()]
    return [path] if path.is_file() else []


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
