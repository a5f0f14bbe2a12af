"""The architecture, enforced: imports point down only, and Ray and torch stay where they belong.

Modules are parsed, never imported. Every `import` counts, late ones and those under `TYPE_CHECKING` too: they are dependencies of the
reader if not of the interpreter. What is not seen: `importlib.import_module` and `python -m` in a subprocess.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Low to high; the folder is the law. A module imports from lower rows and from its own folder, as long as that makes no circle.
ROWS: tuple[tuple[str, ...], ...] = (
    ("config", "system", "streams"),
    ("data", "results"),
    ("models", "objectives"),
    ("evaluation", "plan"),
    ("training",),
    ("preparation",),
    ("masked", "conformance"),
    ("orchestration",),
    ("judging",),
    ("sweep", "export"),
)
FACES = ("jepa_ray", "jepa_ray.__main__")
"""The version with the Python API, and `python -m jepa_ray`: they hand on to the rows, and are in none."""
ROOT_FILES = {"__init__", "__main__", "streams", "sweep", "export", "judging"}
"""Everything else is in a folder."""
TORCH_FREE = (
    "config",
    "system",
    "streams",
    "data",
    "results",
    "plan",
    "sweep",
    "judging",
    "export",
    "models.families",
    "models.encoders",
    "models.shapes",
    "models.footprint",
    "evaluation.judges",
)
"""Importing these loads no torch, so that a bad YAML file is refused in a moment; a late import is allowed in `sweep`, `export` and `plan`
only."""
RAY, ANALYSIS = "orchestration", "judging"
"""Only this folder imports Ray; only this module imports `analysis`."""
LOADS_TORCH = ("torch", "transformers", "peft", "safetensors.torch")
ANALYSIS_MAY_IMPORT = "jepa_ray.results"
ABOVE = ("analysis", "benchmarks", "tests")  # they look at jepa_ray; it does not know of them


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, and the dotted names that it imports, each with its line."""

    name: str
    path: Path
    imports: tuple[tuple[str, int], ...]
    at_start: frozenset[str]
    """The imports that run when the module is imported: those outside functions and `if TYPE_CHECKING`."""


def _dotted(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _names(node: ast.stmt, package: str, known: set[str]) -> Iterator[str]:
    """What an import statement names: `from jepa_ray.data import views` is jepa_ray.data.views where that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            # safetensors.torch is no module of ours but decides on torch.
            yield inner if inner in known or inner in LOADS_TORCH else base


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _statements(body: list[ast.stmt], late: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Every statement with whether it is late, that is, not executed when the module is imported."""
    for node in body:
        yield node, late
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner_late = late or is_function or (field == "body" and _is_type_checking(node))
            for child in getattr(node, field, []):
                yield from _statements([child] if isinstance(child, ast.stmt) else child.body, inner_late)


def read_modules(root: Path) -> dict[str, Module]:
    """All modules of jepa_ray and analysis under `root`, by dotted name."""
    paths = {_dotted(path, root): path for package in ("jepa_ray", "analysis") for path in sorted((root / package).rglob("*.py"))}
    known = set(paths) | {".".join(name.split(".")[:i]) for name in paths for i in range(1, name.count(".") + 1)}
    modules = {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imports: list[tuple[str, int]] = []
        at_start: set[str] = set()
        for node, late in _statements(ast.parse(path.read_text(encoding="utf-8"), str(path)).body, late=False):
            for imported in _names(node, package, known):
                imports.append((imported, node.lineno))
                if not late:
                    at_start.add(imported)
        modules[name] = Module(name, path, tuple(imports), frozenset(at_start))
    return modules


def _inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _short(name: str) -> str:
    """Dotted name without "jepa_ray."."""
    return name.removeprefix("jepa_ray").removeprefix(".")


def _torch_free(name: str) -> bool:
    return any(_inside(_short(name), free) for free in TORCH_FREE)


def row_of(name: str) -> int | None:
    """Index in ROWS; -1 for the two FACES of the package; None where ROWS lists neither folder nor file."""
    top = _short(name).split(".")[0]
    return next((index for index, row in enumerate(ROWS) if top in row), None) if name not in FACES else -1


def _reached(name: str, modules: dict[str, Module]) -> dict[str, str]:
    """Everything that importing `name` imports with it, each with the module that asks for it; packages' __init__ included."""
    reached: dict[str, str] = {}
    todo = [name]
    while todo:
        current = todo.pop()
        module = modules.get(current)
        wanted = set(module.at_start) if module else set()
        wanted |= {".".join(current.split(".")[:i]) for i in range(1, current.count(".") + 1)} & set(modules)
        for imported in sorted(wanted - set(reached)):
            reached[imported] = current
            todo.append(imported)
    return reached


def violations(root: Path) -> list[str]:
    """One sentence per broken rule, with the place and the remedy."""
    modules = read_modules(root)
    found = []
    for module in modules.values():
        if module.name in FACES:
            continue
        ours, folder = _inside(module.name, "jepa_ray"), _short(module.name).split(".")[0]
        row = row_of(module.name) if ours else None
        if ours and row is None:
            found.append(f"{module.name} is in no row: move it into a folder of ROWS in tests/test_layers.py, as low as its imports allow")
            continue
        for imported, line in module.imports:
            place = f"{module.path.relative_to(root)}:{line}: {module.name} imports {imported}"
            inside, heavy = _inside(imported, "jepa_ray"), any(_inside(imported, library) for library in LOADS_TORCH)
            if not ours:
                if inside and not _inside(imported, ANALYSIS_MAY_IMPORT):
                    found.append(
                        f"{place}; analysis may import {ANALYSIS_MAY_IMPORT} and nothing else of the package: read it from the tables"
                    )
                if heavy or any(_inside(imported, library) for library in ("ray", "benchmarks", "tests")):
                    found.append(f"{place}; analysis knows pandas and the tables, not how they were made")
                continue
            if any(_inside(imported, package) for package in ABOVE) and not (folder == ANALYSIS and _inside(imported, "analysis")):
                found.append(f"{place}, which is above the package: move what is needed into jepa_ray")
            if inside and _short(imported).split(".")[0] not in ("", folder) and (row_of(imported) or 0) >= row:
                found.append(f"{place}, which is not in a lower row: move what is needed down, or pass it as an argument")
            if _inside(imported, "ray") and folder != RAY:
                found.append(f"{place}; only {RAY}/ may: training runs without Ray")
            if _torch_free(module.name) and heavy:
                found.append(f"{place}; this module must work without torch: move the part that needs it up")
        if not ours or _torch_free(module.name):
            found += [
                f"{module.path.relative_to(root)}: importing {module.name} loads {library} through {by}; import it late or move one of them"
                for library, by in _reached(module.name, modules).items()
                if by != module.name and any(_inside(library, heavy) for heavy in (*LOADS_TORCH, "ray"))
            ]
    graph = {
        name: {imported for imported, _ in module.imports if imported in modules} - {name, "jepa_ray"} for name, module in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"modules import each other in a circle: {' -> '.join(error.args[1])}; move the shared part down")
    return found


def test_imports_point_down() -> None:
    assert violations(ROOT) == []


def test_the_checkout_was_really_read() -> None:
    """The rules above hold of an empty set, too. Lower bounds only: the package may grow."""
    modules = read_modules(ROOT)
    edges = [imported for module in modules.values() for imported, _ in module.imports if _inside(imported, "jepa_ray")]
    assert len(modules) >= 20, sorted(modules)
    assert len(edges) >= 40, f"{len(edges)} imports inside the package; are they still recognised?"
    seen = {row_of(name) for name in modules if _inside(name, "jepa_ray")}
    assert seen == {-1, *range(len(ROWS))}, f"no module in {[ROWS[i] for i in range(len(ROWS)) if i not in seen]}"
    outside = {imported.split(".")[0] for module in modules.values() for imported, _ in module.imports}
    assert {"torch", "ray", "pydantic"} <= outside, "neither torch nor Ray was seen anywhere; are `import` statements still recognised?"
    assert {f"jepa_ray.{name}" for name in TORCH_FREE} <= set(modules), "TORCH_FREE names a module that does not exist"


def test_the_root_shows_where_to_go() -> None:
    assert {path.stem for path in (ROOT / "jepa_ray").glob("*.py")} == ROOT_FILES
    folders = {path.parent.name for path in (ROOT / "jepa_ray").glob("*/__init__.py")}
    assert folders == {name for row in ROWS for name in row} - ROOT_FILES and len(folders) <= 13


def test_the_table_of_contributing_shows_these_rows() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("## Where things are")[2].partition("\n## ")[0]
    shown = re.findall(r"^ {3,4}(\d+)  ([\w/., ]*?)(?:  .*)?$", table, re.MULTILINE)
    names = {int(number): tuple(re.sub(r"/|\.py", "", name).split(", ")) for number, name in shown}
    assert names == {number: row for number, row in enumerate(ROWS, start=1)}


# A sound little tree; each case below plants one fault into it.
SOUND = {
    "jepa_ray/__init__.py": "__version__ = '0'",
    "jepa_ray/config/trial.py": "import json\nfrom jepa_ray.config.space import Distribution",
    "jepa_ray/config/space.py": "",
    "jepa_ray/results/__init__.py": "import pyarrow\nfrom jepa_ray.config.trial import columns",
    "jepa_ray/data/__init__.py": "",
    "jepa_ray/data/sources.py": "from jepa_ray.streams import stream",
    "jepa_ray/streams.py": "import numpy",
    "jepa_ray/models/families.py": "",
    "jepa_ray/models/loading.py": "import torch",
    "jepa_ray/training/trial.py": "import torch\nfrom jepa_ray.data import sources",
    "jepa_ray/plan/checks.py": "from jepa_ray.models import families",
    "jepa_ray/orchestration/worker.py": "import ray.train\nfrom ..training.trial import run_trial",
    "jepa_ray/sweep.py": "from jepa_ray.judging import rulings",
    "jepa_ray/judging.py": "def rulings():\n    import analysis.verdict\n    from jepa_ray.orchestration import worker",
    "analysis/summary.py": "import pandas\nfrom jepa_ray.results import read_trials\nfrom jepa_ray import results",
}


def _plant(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


def test_a_sound_tree_passes(tmp_path: Path) -> None:
    assert violations(_plant(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("jepa_ray/config/trial.py", "from jepa_ray.results import finished", "imports jepa_ray.results, which is not in a lower row"),
        (
            "jepa_ray/config/trial.py",
            "def f():\n    from ..training import trial",
            "trial.py:2: jepa_ray.config.trial imports jepa_ray.training",
        ),
        ("jepa_ray/config/trial.py", "import jepa_ray.streams", "imports jepa_ray.streams, which is not in a lower row"),
        ("jepa_ray/results/__init__.py", "from .. import sweep", "jepa_ray.results imports jepa_ray.sweep"),
        ("jepa_ray/data/sources.py", "from ..training.trial import run_trial", "jepa_ray.data.sources imports jepa_ray.training.trial"),
        ("jepa_ray/training/trial.py", "try:\n    import ray\nexcept ImportError:\n    pass", "training runs without Ray"),
        ("jepa_ray/training/trial.py", "match 1:\n    case 1:\n        import ray.tune", "jepa_ray.training.trial imports ray.tune"),
        ("jepa_ray/sweep.py", "import ray", "only orchestration/ may"),
        ("jepa_ray/data/sources.py", "def f():\n    import torch.nn", "must work without torch"),
        ("jepa_ray/results/__init__.py", "from safetensors import torch", "jepa_ray.results imports safetensors.torch"),
        (
            "jepa_ray/plan/checks.py",
            "from jepa_ray.models import loading",
            "jepa_ray.plan.checks loads torch through jepa_ray.models.loading",
        ),
        (
            "jepa_ray/models/__init__.py",
            "from jepa_ray.models import loading",
            "jepa_ray.plan.checks loads torch through jepa_ray.models.loading",
        ),
        ("jepa_ray/training/trial.py", "from analysis import summary", "is above the package"),
        ("jepa_ray/brand_new.py", "", "jepa_ray.brand_new is in no row"),
        ("jepa_ray/config/space.py", "from jepa_ray.config.trial import Record", "in a circle"),
        ("analysis/summary.py", "from jepa_ray.config import columns", "may import jepa_ray.results and nothing else"),
        ("analysis/summary.py", "import jepa_ray", "may import jepa_ray.results and nothing else"),
        ("analysis/summary.py", "if True:\n    import torch", "analysis knows pandas"),
    ],
)
def test_a_planted_fault_is_caught(tmp_path: Path, path: str, text: str, expected: str) -> None:
    found = violations(_plant(tmp_path, SOUND | {path: text}))
    assert any(expected in sentence for sentence in found), found


def test_a_type_only_import_is_checked_but_loads_nothing(tmp_path: Path) -> None:
    lazy = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
    assert violations(_plant(tmp_path, SOUND | {"jepa_ray/config/space.py": lazy})) != []
    text = lazy.replace("torch", "jepa_ray.models.loading")
    assert violations(_plant(tmp_path, SOUND | {"jepa_ray/config/space.py": "", "jepa_ray/plan/checks.py": text})) == []
