"""What a wheel holds: `analysis` under a name of its own, rewritten wherever it is named; the search spaces; the marker of types."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_wheel_works_outside_the_checkout(tmp_path: Path, repository: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path)]
    copy = tmp_path / "copy"  # building leaves files next to the sources
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=repository, capture_output=True, text=True, check=True)
    for name in tracked.stdout.splitlines():
        if (repository / name).is_file() and not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((repository / name).read_bytes())
    subprocess.run([*build, "."], cwd=copy, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert {path.name.partition("-")[0] for path in installed.iterdir()} == {"jepa_ray", "jepa_ray_analysis"}
    assert (installed / "jepa_ray" / "py.typed").is_file() and (installed / "jepa_ray" / "search_spaces" / "paper").is_dir()
    assert "jepa-ray = jepa_ray.sweep:command" in (next(installed.glob("*.dist-info")) / "entry_points.txt").read_text()
    modules = list(installed.rglob("*.py"))
    assert len(modules) > 100
    for path in modules:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
        names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not [name for name in names if name.partition(".")[0] == "analysis"], path
        assert "python -m analysis." not in path.read_text(), path

    outside = tmp_path / "outside"
    outside.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    for arguments in (["sweep", "lora.yaml", "--schema"], ["verdict", "--help"], ["check", "--help"]):
        script = f"import sys; sys.argv = ['jepa-ray', *{arguments!r}]; from jepa_ray.sweep import command; sys.exit(command())"
        done = subprocess.run(
            [sys.executable, "-P", "-c", script], cwd=outside, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (
        "python -m jepa_ray_analysis.verdict"
        in subprocess.run(
            [sys.executable, "-P", "-m", "jepa_ray_analysis.verdict", "--help"],
            cwd=outside,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
