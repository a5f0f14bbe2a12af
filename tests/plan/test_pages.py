"""The generated parts of docs/: current, complete, and repaired by the command; and links and examples of the pages around them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jepa_ray import results
from jepa_ray.config import SweepConfig
from jepa_ray.plan import pages
from jepa_ray.plan.load import load_sweep
from jepa_ray.plan.schema import json_schema

ROOT = Path(__file__).resolve().parents[2]
BY_HAND = [ROOT / "README.md", ROOT / "search_spaces" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", pages.PAGES, ids=str)
def test_the_committed_page_is_current(path: Path, repository: Path) -> None:
    page = (repository / path).read_text(encoding="utf-8")
    assert pages.updated(page, pages.PAGES[path]()) == page, "run `make docs`"


def test_every_key_has_a_row_with_its_default() -> None:
    tree, page = json_schema(), pages.keys()
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (\S.*?) \| (\S.*?) \|$", page, re.MULTILINE)
    assert sorted(row[0] for row in rows) == sorted(key for part in (tree, *tree["$defs"].values()) for key in part["properties"])
    assert len(rows) > 140
    first = {row[0]: row for row in rows[: len(SweepConfig.model_fields)]}
    assert first["name"][1:3] == ("text", "required") and first["task"][2] == "`nl-rx`" and first["space"][2] == "`{}`"
    assert "[`base`](#base)" in page and "### `base.optim`" in page


def test_every_column_has_a_row() -> None:
    parts = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", pages.columns(), re.MULTILINE | re.DOTALL))
    schemas = {"trials": results.TRIALS, "metrics": results.METRICS, "predictions": results.PREDICTIONS}
    assert set(parts) == {*schemas, "embeddings", "arms"}
    for table, schema in schemas.items():
        assert re.findall(r"^\| `(\w+)` \|", parts[table], re.MULTILINE) == schema.names


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("Seconds of training.", ("Seconds of training.", "never")),
        ("Why. Null unless `state` is `FAILED`.", ("Why.", "unless `state` is `FAILED`")),
        ("Kept (a subset); null: all, or 2,400.", ("Kept (a subset).", "if not set: all, or 2,400")),
        ("Scale. Null: 2r. Null without LoRA.", ("Scale.", "if not set: 2r; without LoRA")),
        ("Reserved. Always null: nothing computes it.", ("Reserved.", "always: nothing computes it")),
    ],
)
def test_what_is_said_of_null_is_a_column_of_its_own(description: str, expected: tuple[str, str]) -> None:
    assert pages._meaning(description) == expected


def test_the_command_repairs_a_stale_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for path in pages.PAGES:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# Title\n\n{pages.BEGIN}old\n{pages.END}\nafter\n")
    before = [path.read_text() for path in pages.PAGES]
    assert pages.main(["--check"]) == 1 and "run `make docs`" in capsys.readouterr().err
    assert [path.read_text() for path in pages.PAGES] == before
    assert pages.main([]) == 0 and pages.main(["--check"]) == 0
    for path, generated in pages.PAGES.items():
        assert path.read_text() == f"# Title\n\n{pages.BEGIN}\n{generated()}\n\n{pages.END}\nafter\n"
    next(iter(pages.PAGES)).write_text("no marks")
    with pytest.raises(SystemExit) as stopped:
        pages.main([])
    assert stopped.value.code == 2 and "needs one line" in capsys.readouterr().err


def anchors(path: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", BY_HAND, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    assert links or path.parent.name == "docs"
    for name in (link or picture for link, picture in links):
        if not name.startswith("https://"):
            file, _, anchor = name.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.exists(), name
            assert not anchor or anchor in anchors(target), name


def test_the_sweep_in_the_readme_loads(tmp_path: Path) -> None:
    shown = re.search(r"^    name: new.*?(?=^\S)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert shown is not None
    (tmp_path / "new.yaml").write_text(re.sub(r"^    ", "", shown[0], flags=re.MULTILINE))
    sweep = load_sweep(tmp_path / "new.yaml")
    assert list(sweep.methods) == ["baseline", "jepa"] and list(sweep.space) and len(sweep.confirm.seeds) == 5
