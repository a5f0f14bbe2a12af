"""What prose cites exists: files, modules and dotted names in documents, docstrings and comments.

Not checked: LOG.md and CHANGELOG.md, which speak of what was, and names of other packages.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jepa_ray import results
from jepa_ray.config import SweepConfig, TrialConfig
from tests.test_layers import ROOT

FOLDERS = ("jepa_ray", "analysis", "benchmarks", "tests", "search_spaces", "docs")
HISTORY = ("LOG.md", "CHANGELOG.md")
ELSEWHERE = (
    *("adapter_config.json", "config.json", "tokenizer.json", "train_spider.json"),  # of a checkpoint, of a public data set
    *("looks.json", "progress.json", "report.md", "selection.json", "sweep.yaml", "trial.json"),  # of a results folder
)
"""Names of files that the package reads or writes, none of the checkout's own."""
INVENTED = re.compile(r"(.*/)?(FILE|new|.*-(N|\d+))\.\w+$|.*\bresults/")
"""Files of an example or of a results folder."""


def prose_of(path: Path) -> str:
    """The comments and docstrings of a module; all of a document."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    docstrings = [
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    comments = [token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.COMMENT]
    return "\n".join([*docstrings, *comments])


def sources() -> list[Path]:
    """Every text that is checked, relative to the root."""
    found = [path for folder in FOLDERS for ending in ("py", "md", "yaml") for path in sorted((ROOT / folder).rglob(f"*.{ending}"))]
    return [path.relative_to(ROOT) for path in (*found, *sorted(ROOT.glob("*.md"))) if path.name not in HISTORY]


def missing_files(prose: str, source: Path, root: Path = ROOT) -> Iterator[str]:
    """Cited files that are neither at the root, nor below one of the folders' roots, nor next to the source or above it."""
    bases = [root, *(root / folder for folder in FOLDERS), *(root / source).parents]
    for name in sorted(set(re.findall(r"[\w/.-]*\w\.(?:py|md|yaml|json|toml)\b", prose))):
        if name.rsplit("/", 1)[-1] in ELSEWHERE or INVENTED.match(name):
            continue
        if not any((base / name).exists() for base in bases):
            yield name


@functools.cache
def defined() -> dict[str, set[str]]:
    """Dotted module -> the names that it and its classes define; packages too."""
    out: dict[str, set[str]] = {}
    for folder in ("jepa_ray", "analysis", "benchmarks", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            names: set[str] = set()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    names.add(node.name)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
                elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    names.add(node.attr)
                elif isinstance(node, ast.ImportFrom) and parts[-1] == "__init__":
                    names |= {alias.name for alias in node.names}
            out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = names
    return out


@functools.cache
def keys() -> set[str]:
    """Dotted keys of a sweep file, of a trial's configuration and of `space`."""

    def leaves(record: Any) -> Iterator[str]:
        for name, field in record.model_fields.items():
            key = field.alias or name
            yield key
            for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if hasattr(kind, "model_fields"):
                    yield from (f"{key}.{inner}" for inner in leaves(kind))

    return {*leaves(SweepConfig), *leaves(TrialConfig), *results.SUMMARY}


def missing_names(prose: str) -> Iterator[str]:
    """Backticked dotted names that begin like one of our modules and lead nowhere.

    `training.trial.run_trial` may be cited from any package on its way: as `trial.run_trial` too.
    """
    modules = defined()
    ours = {part for module in modules for part in module.split(".")}
    for name in sorted(set(re.findall(r"`(?:python -m )?([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\(\))?`", prose))):
        parts = name.split(".")
        if parts[0] not in ours or name in keys() or re.search(r"\.(py|md|yaml|json|toml|parquet|db|jsonl|csv|html)$", name):
            continue
        if any(name in key for key in keys() if key.startswith(parts[0]) or f".{parts[0]}." in f".{key}."):
            continue
        if not any(_leads_to(parts, module, names) for module, names in modules.items()):
            yield name


def _leads_to(parts: list[str], module: str, names: set[str]) -> bool:
    for cut in range(len(parts), 0, -1):
        if f".{module}".endswith("." + ".".join(parts[:cut])):
            return all(part in names for part in parts[cut:])
    return False


@pytest.mark.parametrize("source", sources(), ids=str)
def test_what_is_cited_exists(source: Path) -> None:
    prose = prose_of(ROOT / source)
    assert [*missing_files(prose, source), *missing_names(prose)] == []


def test_a_planted_citation_is_caught() -> None:
    here = Path("jepa_ray/training/step.py")
    prose = "see `jepa_term.py`, `training/jepa_term.py`, gone.py, `evaluation/gone.md` and results/lora/sweep.yaml"
    assert list(missing_files(prose, here)) == ["evaluation/gone.md", "gone.py"]
    prose = "`training.trial.run_trial`, `trial.run_trial`, `search.metric`, `pandas.read_parquet`, `search.Listener`, `jepa_ray.gone`"
    assert list(missing_names(prose)) == ["jepa_ray.gone", "search.Listener"]
