"""The environment in which Ray is about to start: a cluster named by a variable, the CPUs of this process, folders for Ray.

Problems are either solved here (a shorter folder for sockets, fewer CPUs) or reported in one sentence. Starts nothing, imports no Ray.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from jepa_ray.config.resources import client_refused

SOCKET_BYTES = 107 if sys.platform.startswith("linux") else 103
"""Longest path of a Unix socket in bytes: `sun_path` of unix(7), without its final NUL."""
SOCKET = "/ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path that Ray appends to its temporary folder (process ids end at 2**22)."""


def cluster_address(configured: str | None, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """(the cluster to join, a sentence for the user); without a cluster to join (None), Ray starts on this machine.

    `configured` is `resources.address` and comes before RAY_ADDRESS (which `ray job submit` sets), as in Ray itself. Raises ValueError for
    a RAY_ADDRESS that cannot carry a sweep.
    """
    if configured is not None:
        return None if configured == "local" else configured, None
    address = environ.get("RAY_ADDRESS", "")
    if address.startswith("ray://"):
        raise ValueError(f"RAY_ADDRESS={address}: {client_refused()}; resources.address=local runs on this machine only")
    if address.startswith(("http://", "https://")):
        return None, f"RAY_ADDRESS={address} is the address of Ray's job server, not of a cluster to join, so Ray starts on this machine."
    if address in ("", "local"):
        return None, None
    return address, f"Joining the Ray cluster at {address}, from RAY_ADDRESS (resources.address=local starts one on this machine)."


def allowed_cpus(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Number of CPUs that this process may run on (taskset, SLURM, cpusets, and the quota of a container) if the system reports it, else of
    all. `quota`: file with microseconds of CPU time per period, of which a part of a CPU counts as none, but there is always one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        most, period = map(int, quota.read_text().split())
    except (OSError, ValueError):  # no cgroup, or `max`: no quota
        return allowed
    return max(1, min(allowed, most // period)) if period > 0 else allowed


def short_folder(environ: Mapping[str, str]) -> str | None:
    """Folder for Ray's session if its own choice (RAY_TMPDIR, TMPDIR) makes the paths of its sockets too long; None if they fit.

    Raises ValueError if none of the system's temporary folders is writable.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if environ.get(name)), None)
    if name is None or len(os.fsencode(environ[name] + SOCKET)) <= SOCKET_BYTES:
        return None
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK | os.X_OK):
            return f"{folder}/ray"
    raise ValueError(
        f"{name}={environ[name]} is too long: the paths of Ray's sockets in it may have at most {SOCKET_BYTES} bytes; "
        f"set RAY_TMPDIR to a folder of at most {SOCKET_BYTES - len(SOCKET)} bytes"
    )


def check_home(environ: Mapping[str, str]) -> None:
    """Raise ValueError if Ray, about to start a cluster, cannot write its token to the home folder."""
    if environ.get("RAY_AUTH_MODE", "token").lower() != "token" or environ.get("RAY_AUTH_TOKEN") or environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    try:
        folder = Path.home() / ".ray"
        if (folder / "auth_token").is_file():
            return
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home folder
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"HOME={environ.get('HOME', '')}: Ray cannot keep its token in ~/.ray ({reason}); set HOME to a writable folder"
        ) from None
