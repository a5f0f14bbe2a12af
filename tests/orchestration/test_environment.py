"""The environment before Ray starts: addresses, CPUs and folders; and a cluster that requires a token."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepa_ray.orchestration import environment
from tests import fake_training as fake
from tests.test_sweep import write


def test_resources_address_comes_first_then_ray_address() -> None:
    resolve = environment.cluster_address
    assert resolve(None, {}) == (None, None)
    assert resolve("10.0.0.1:6379", {"RAY_ADDRESS": "10.0.0.2:6379"}) == ("10.0.0.1:6379", None)
    assert resolve("local", {"RAY_ADDRESS": "10.0.0.2:6379"}) == (None, None)
    address, note = resolve(None, {"RAY_ADDRESS": "10.0.0.2:6379"})
    assert address == "10.0.0.2:6379" and note and "resources.address=local" in note
    address, note = resolve(None, {"RAY_ADDRESS": "http://127.0.0.1:8265"})
    assert address is None and note and "job server" in note
    with pytest.raises(ValueError, match=r"RAY_ADDRESS=ray://a:1.*`ray job submit`.*resources.address=local"):
        resolve(None, {"RAY_ADDRESS": "ray://a:1"})


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_long_for_sockets_is_replaced(name: str) -> None:
    fits = "/" + "x" * (environment.SOCKET_BYTES - len(environment.SOCKET) - 1)
    assert environment.short_folder({name: fits}) is None
    assert environment.short_folder({name: fits + "x"}) == "/tmp/ray"
    assert environment.short_folder({}) is None


def test_a_home_that_cannot_keep_rays_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(ValueError, match=r"HOME=.*home: .*~/.ray \(Not a directory\); set HOME"):
        environment.check_home({"HOME": str(tmp_path / "file" / "home")})
    environment.check_home({"RAY_AUTH_TOKEN": "a"})
    environment.check_home({"RAY_AUTH_MODE": "disabled"})
    monkeypatch.setenv("HOME", str(tmp_path))
    environment.check_home({})


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs to leave one out")
def test_one_cpu_of_several_and_a_long_folder_for_temporary_files(repository: Path, tmp_path: Path) -> None:
    """A process that may use one CPU runs one trial at a time; Ray's sockets are in a folder with a short enough path."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    file = write(fake.make_sweep(tmp_path / "out", search={"num_trials": 1}), tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_training", file],
        cwd=repository,
        env={**os.environ, "TMPDIR": str(long)},
        capture_output=True,
        text=True,
        timeout=180,
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    )
    assert done.returncode == 0, done.stderr
    assert "1 at a time" in done.stdout
    assert "Ray writes to /tmp/ray" in done.stdout


@pytest.fixture
def head() -> Iterator[str]:
    """Address of a cluster that `ray start --head` has started and that requires a token."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, client = one.getsockname()[1], other.getsockname()[1]
    home = tempfile.mkdtemp(prefix="ray-")  # a short path, because the sockets are in it
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}", "--num-cpus=2", "--block"]
    command += ["--include-dashboard=false", f"--ray-client-server-port={client}", "--min-worker-port=0", "--max-worker-port=0"]
    environ = {**os.environ, "RAY_TMPDIR": home, "RAY_AUTH_MODE": "token"}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert any("block" in line for line in process.stdout), "the cluster did not start"
    yield f"127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:  # `ray start --block` gives its children half a minute
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_cluster_of_ray_start_is_joined_with_its_token(head: str, repository: Path, tmp_path: Path) -> None:
    environment.check_home(os.environ)
    subprocess.run([str(Path(sys.executable).with_name("ray")), "get-auth-token", "--generate"], capture_output=True, timeout=60)
    file = write(fake.make_sweep(tmp_path / "out", search={"num_trials": 1}, resources=fake.ONE_AT_A_TIME), tmp_path)
    environ = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_training", file],
        cwd=repository,
        env=environ | {"RAY_ADDRESS": head},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert f"Joining the Ray cluster at {head}" in done.stdout


def test_the_quota_of_a_container_limits_the_cpus(tmp_path: Path) -> None:
    quota, everything = tmp_path / "cpu.max", environment.allowed_cpus(tmp_path / "missing")
    for text, cpus in (
        ("max 100000", everything),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("99900000 100000", everything),
        ("?", everything),
    ):
        quota.write_text(text)
        assert environment.allowed_cpus(quota) == cpus
