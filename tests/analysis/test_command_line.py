"""A command whose reader has gone (`... | head -1`) ends quietly; all others keep their output and status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.command_line import CLOSED_PIPE
from tests.analysis import sweeps

COMMANDS = {"panels", "paper", "planning", "report", "sensitivity", "summary", "verdict"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweeps.full(tmp_path_factory.mktemp("results") / "full")


def start(repository: Path, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # argparse ignores a failing write
    command = [sys.executable, "-m", f"analysis.{arguments[0]}", *arguments[1:]]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=repository, env=environment, timeout=50, check=False
    )


@pytest.mark.parametrize("arguments", [("planning",), ("planning", "--help"), ("summary", "FOLDER"), ("paper", "--list")], ids=" ".join)
def test_a_closed_pipe_ends_a_command_quietly(arguments: tuple[str, ...], folder: Path, repository: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [str(folder) if word == "FOLDER" else word for word in arguments]
    try:
        done = start(repository, *words, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (CLOSED_PIPE, "")


def test_an_open_pipe_gets_all_of_the_output(repository: Path) -> None:
    done = start(repository, "planning")
    assert done.returncode == 0 and "can detect" in done.stdout
    bad = start(repository, "planning", "--seeds", "1")
    assert bad.returncode == 2 and "at least 2 seeds" in " ".join(bad.stderr.split())


def test_every_command_starts_the_same_way(repository: Path) -> None:
    sources = {path.stem: path.read_text(encoding="utf-8") for path in (repository / "analysis").glob("*.py")}
    starting = {name for name, source in sources.items() if '__name__ == "__main__"' in source}
    assert starting == COMMANDS
    assert all(sources[name].endswith('if __name__ == "__main__":\n    run(main)\n') for name in starting)
