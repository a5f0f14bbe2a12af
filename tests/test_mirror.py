"""tests/ mirrors the packages: what a test file is named after exists, and no module is longer than 350 lines."""

from __future__ import annotations

from pathlib import Path

from tests.test_layers import ROOT

EXCEPTIONS = {
    "test_api.py": "jepa_ray/__init__.py and the console command",
    "test_notebook.py": "docs/notebook.ipynb",
    "test_wheel.py": "setup.py",
    "test_citations.py": "every document",
    "test_layers.py": "the architecture",
    "test_mirror.py": "this file",
    "test_real_checkpoint.py": "a real checkpoint, through every layer",
    "analysis/test_bad_input.py": "every command of analysis",
    "analysis/test_paper_runs.py": "the runs behind analysis/paper.py",
    "benchmarks/test_benchmarks.py": "every benchmark",
    "config/test_config.py": "the package as a whole",
    "conformance/test_conformance.py": "the package as a whole",
    "conformance/test_main.py": "conformance/__main__.py",
    "models/test_templates.py": "families.py, on imitations of real tokenizers",
    "objectives/test_page.py": "OBJECTIVES.md",
    "orchestration/test_resume.py": "a sweep that is killed and started again",
}
"""Tests that are named after no module or package, and what they are about."""
LIMIT = 350


def test_every_test_is_named_after_what_it_tests() -> None:
    tests = {path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert len(tests) > 90
    unnamed = {str(test) for test in tests if not _subject(test)}
    assert unnamed == set(EXCEPTIONS)


def _subject(test: Path) -> bool:
    """Whether a module or package has the name and place of this test file: in jepa_ray, analysis or benchmarks."""
    named = test.with_name(test.name.removeprefix("test_"))
    root = ROOT if test.parts[0] in ("analysis", "benchmarks") else ROOT / "jepa_ray"
    return (root / named).is_file() or (root / named.with_suffix("") / "__init__.py").is_file()


def test_no_module_is_too_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("jepa_ray", "analysis", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert len(lengths) > 100
    assert {name: lines for name, lines in lengths.items() if lines > LIMIT} == {}
