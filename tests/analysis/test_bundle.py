"""The bundle: the page's links lead to files inside it, and unpacked it is a results folder that the analysis can read."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from analysis import bundle
from analysis.inputs.sweep import read
from analysis.page import First, Grid, Page, Section, html
from analysis.text_tables import Table
from tests.analysis import sweeps

TABLE = Table("T", ["a"], [["1"]], "None.")


def test_links_lead_into_the_bundle(tmp_path: Path) -> None:
    folder = sweeps.full(tmp_path / "full")
    (folder / "scratch" / "x").mkdir(parents=True)
    (folder / "scratch" / "x" / "progress.json").write_text("{}")
    page = Page("t", First("q"), [Section("s", [Grid(TABLE, sources=("trials", "predictions"))])], "c", "..")
    path = bundle.write(tmp_path / "b.zip", folder, page, {"index.html": html(page).encode()})
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "out")
    assert not [name for name in names if "scratch" in name or name.startswith(("/", ".."))]
    unpacked = tmp_path / "out" / "full"
    links = re.findall(r'href="(\.\.[^"]*)"', (unpacked / "report" / "index.html").read_text())
    assert len(links) == 3 and all((unpacked / "report" / link).exists() for link in links)
    assert len(read(unpacked).trials) == 27 and (unpacked / "sweep.yaml").read_text() == sweeps.SWEEP
    again = bundle.write(tmp_path / "again.zip", folder, page, {"index.html": html(page).encode()})
    assert again.read_bytes() == path.read_bytes(), "the same folder gives the same file"
