"""A full disk: one sentence, no finished trial is lost, and the same command continues."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jepa_ray import results
from jepa_ray.system import full_disk
from tests import fake_training as fake
from tests.test_sweep import write


def test_recognised_behind_other_errors() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    outer = RuntimeError("an error of a library")
    outer.__cause__ = full
    assert full_disk.is_full(full) and full_disk.is_full(outer)
    assert full_disk.is_full(RuntimeError("(sqlite3.OperationalError) database or disk is full"))
    assert full_disk.says_full("RayTaskError: OSError: [Errno 28] No space left on device")
    assert not full_disk.is_full(OSError(errno.ENOENT, os.strerror(errno.ENOENT))) and not full_disk.is_full(None)


def test_probe_leaves_nothing(tmp_path: Path) -> None:
    assert not full_disk.probe(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--schema"], ["FILE", "--dry-run"]])
def test_standard_output_without_room(arguments: list[str], repository: Path, tmp_path: Path) -> None:
    file = write(fake.make_sweep(tmp_path / "out"), tmp_path)
    command = [sys.executable, "-m", "jepa_ray.sweep", *(file if part == "FILE" else part for part in arguments)]
    with open("/dev/full", "w") as nowhere:
        done = subprocess.run(command, cwd=repository, stdout=nowhere, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_full_disk_stops_the_sweep_and_the_same_command_goes_on(repository: Path, tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path / "out", search={"num_trials": 2}, resources=fake.ONE_AT_A_TIME)
    file, folder = write(sweep, tmp_path), tmp_path / "out" / "fake"
    (folder / "control").mkdir(parents=True)
    (folder / "control" / "full").touch()

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.fake_training", file]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=180)

    stopped = run()
    assert stopped.returncode == 1
    assert "Stopped: a disk is full" in stopped.stderr and "make room, then continue: python -m" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert results.finished(folder) == {}, "a full disk counts as the failure of a trial"
    (folder / "control" / "full").unlink()
    again = run()
    assert again.returncode == 0, again.stderr
    assert {row["state"] for row in results.finished(folder).values()} == {"COMPLETE"}
