"""The command: one table, three exit codes, the family of a checkpoint, and the generated page docs/families.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jepa_ray.conformance import __main__
from jepa_ray.conformance.forms import FORMS
from jepa_ray.conformance.network_checks import CHECKS
from jepa_ray.models.families import AUTO, FAMILIES, published_family
from jepa_ray.preparation.text_checks import Found, Row, Subject

FIRST = next(iter(FAMILIES))


def test_every_check_passes_on_a_tiny_instance(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["tiny", "--family", list(FAMILIES)[-1], "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["check"], row["result"]) for row in rows] == [(name, "ok") for name in CHECKS]
    assert all(row["found"] and not row["remedy"] and row["family"] == list(FAMILIES)[-1] for row in rows)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Subject]:
    """Replace all checks by two, the second of which fails for a folder named `broken`; returns the subjects that they saw."""
    seen: list[Subject] = []

    def first(subject: Subject) -> Found:
        """Exists."""
        seen.append(subject)
        return Found("exists", 1e-7)

    def second(subject: Subject) -> Found:
        """The folder is not named `broken`."""
        if Path(subject.checkpoint).name == "broken":
            raise ValueError("it is broken; repair it")
        return Found("whole")

    monkeypatch.setattr(__main__, "CHECKS", {"first": first, "second": second})
    return seen


def test_the_family_is_found_or_named(tiny_checkpoints: dict[str, Path], quick: list[Subject], capsys: pytest.CaptureFixture[str]) -> None:
    for name, folder in tiny_checkpoints.items():
        assert __main__.main([str(folder)]) == 0
        assert quick[-1].family.name == AUTO and quick[-1].family.model_type == FAMILIES[name].model_type
        out = capsys.readouterr().out
        assert f"family {AUTO}" in out and f"end of turn {FAMILIES[name].turn_end!r}" in out and quick[-1].checkpoint == str(folder)
        assert __main__.main([str(folder), "--family", name]) == 0
        assert quick[-1].family is FAMILIES[name] and f"family {name}" in capsys.readouterr().out
    assert len(quick) == 2 * len(FAMILIES)


def test_a_published_checkpoint_of_a_record_has_that_family() -> None:
    for name, family in FAMILIES.items():
        assert {published_family(each) for each in (family.paper_model, *family.other_models)} == {name}
    assert published_family("Qwen/Qwen2.5-0.5B") is None


def test_a_failure_is_told_with_its_remedy(
    tiny_checkpoints: dict[str, Path], quick: list[Subject], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").symlink_to(tiny_checkpoints[FIRST])
    assert __main__.main([str(tmp_path / "broken"), "--family", FIRST]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["first", "ok", "exists", "(error", "<", "1e-4)"]
    assert lines[2].split() == ["second", "FAILED", "it", "is", "broken"] and lines[3].split() == ["->", "repair", "it"]


def test_threads_wait_without_spinning() -> None:
    """OpenMP reads the variable when torch is loaded, so the package sets it before; a user's own value stays."""
    code = "import sys, os, jepa_ray.conformance; print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for given, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean | given)
        assert ended.stdout.split() == ["False", expected]


def test_a_terminal_shows_the_check_that_runs(
    tiny_checkpoints: dict[str, Path], quick: list[Subject], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert __main__.main([str(tiny_checkpoints[FIRST])]) == 0
    assert "..." not in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert __main__.main([str(tiny_checkpoints[FIRST])]) == 0
    out = capsys.readouterr().out
    assert "  first ...\r  first" in out and "  second ...\r  second" in out


def test_bad_input(tiny_checkpoints: dict[str, Path], quick: list[Subject], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "t5"}), encoding="utf-8")
    mismatch = next(name for name in FAMILIES if FAMILIES[name].model_type != FAMILIES[FIRST].model_type)
    for arguments, sentence in (
        ([], "pass either a checkpoint"),
        (["tiny", "--all"], "pass either a checkpoint"),
        (["tiny", "--family", FIRST, "--markdown"], "add --all"),
        (["tiny"], "needs --family"),
        (["tiny", "--family", "lama"], "unknown family 'lama'"),
        ([str(tmp_path)], "not a loadable checkpoint"),
        (["nobody/no-such-model"], "neither a local folder nor reachable on the hub"),
        ([str(other)], "is an encoder with a decoder (t5)"),
        ([str(tiny_checkpoints[FIRST]), "--family", mismatch], "but family"),
    ):
        assert __main__.main(arguments) == 2, arguments
        out = capsys.readouterr()
        assert sentence in out.err and not out.out, arguments
    assert not quick


def test_the_page_has_one_row_per_family_and_form_and_is_the_same_each_time(
    quick: list[Subject], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "FORMS", {name: FORMS[name] for name in ("Llama 2", "GPT-2")})
    pages = []
    for _ in range(2):
        assert __main__.main(["--all", "--markdown"]) == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1]
    assert table(pages[0]) == {name: {"first": "ok, < 1e-4", "second": "ok"} for name in (*FAMILIES, "Llama 2", "GPT-2")}
    assert "- **first**: Exists." in pages[0]
    assert [subject.family.name for subject in quick] == 2 * [*FAMILIES, AUTO, AUTO]


def test_the_page_tells_what_failed() -> None:
    row = Row("second", "FAILED", "it is broken", "repair it")
    assert __main__.markdown({FIRST: [row]}).endswith(f"- {FIRST}, second: FAILED; it is broken\n")


def table(page: str) -> dict[str, dict[str, str]]:
    """family or form -> check -> cell, of both tables."""
    out = {}
    for part in page.split("\n## ")[1:]:
        header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
        for row in body:
            assert len(row) == len(header)
            family, form = FAMILIES.get(row[0]), FORMS.get(row[0])
            assert (family is None) != (form is None) and (header[0] == "family") == (family is not None)
            known = (family.model_type, family.paper_model) if family is not None else (form.model_type, form.published)  # type: ignore[union-attr]
            assert row[1:3] == [f"`{each}`" for each in known]
            out[row[0]] = dict(zip(header[3:], row[3:], strict=True))
    return out


def test_docs_families_has_the_rows_of_families_and_forms_and_the_columns_of_the_checks(repository: Path) -> None:
    """Not computed here, because `--all` takes too long for a test. If this fails, regenerate the page."""
    page = (repository / "docs" / "families.md").read_text(encoding="utf-8")
    assert f"`{__main__.PAGE_COMMAND} > docs/families.md`" in page
    cells_of = table(page)
    assert list(cells_of) == [*FAMILIES, *FORMS], f"run: {__main__.PAGE_COMMAND} > docs/families.md"
    for name, cells in cells_of.items():
        assert list(cells) == list(CHECKS), f"run: {__main__.PAGE_COMMAND} > docs/families.md"
        experts = name in FORMS and "num_experts" in FORMS[name].config
        assert cells["LoRA targets"] == ("skipped" if experts else "ok, < 1e-4"), (name, cells)
        assert all(cell in ("ok", "ok, < 1e-4") for check, cell in cells.items() if check != "LoRA targets"), (name, cells)
    reasons = dict(line[2:].split(": skipped; ", 1) for line in page.splitlines() if ": skipped; " in line)

    def row(name: str, check: str, cell: str) -> Row:
        if cell == "skipped":
            return Row(check, "skipped", reasons[f"{name}, {check}"])
        return Row(check, "ok", "x", bound=cell.partition(", ")[2])

    rows = {name: [row(name, *each) for each in cells.items()] for name, cells in cells_of.items()}
    assert __main__.markdown(rows) == page, "edited by hand, or the docstrings of the checks have changed"


def test_a_tiny_instance_is_gone_afterwards() -> None:
    state = torch.get_rng_state()
    with __main__.subject_of("tiny", FIRST) as subject:
        assert (Path(subject.checkpoint) / "model.safetensors").is_file()
    assert not Path(subject.checkpoint).exists() and torch.equal(torch.get_rng_state(), state)
