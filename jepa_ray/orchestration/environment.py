"""What this process finds around it when Ray is about to start: a cluster named in the environment, the CPUs it may use, folders for Ray.

Each surprise is either met here (a shorter folder for sockets, fewer CPUs) or refused in one sentence. Starts nothing, imports no Ray.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from jepa_ray.config.resources import client_refused

SOCKET_BYTES = 107 if sys.platform.startswith("linux") else 103
"""Longest path of a Unix socket: `sun_path` of unix(7), less its final NUL."""
SOCKET = "/ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest that Ray puts behind its temporary folder (process ids end at 2**22)."""


def cluster_address(said: str | None, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """(the cluster to join, a sentence for the user); None as the first starts Ray on this machine.

    `resources.address` comes first, then RAY_ADDRESS (`ray job submit` sets it), as in Ray itself. Raises ValueError for a RAY_ADDRESS that
    cannot carry a sweep.
    """
    if said is not None:
        return None if said == "local" else said, None
    address = environ.get("RAY_ADDRESS", "")
    if address.startswith("ray://"):
        raise ValueError(f"RAY_ADDRESS={address}: {client_refused()}; resources.address=local runs on this machine alone")
    if address.startswith(("http://", "https://")):
        return None, f"RAY_ADDRESS={address} is the address of Ray's job server, not of a cluster to join: Ray starts on this machine."
    if address in ("", "local"):
        return None, None
    return address, f"Joining the Ray cluster at {address}, which RAY_ADDRESS names (resources.address=local starts one on this machine)."


def allowed_cpus() -> int:
    """CPUs that this process may run on (taskset, SLURM, cpusets), where the system says so; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def short_folder(environ: Mapping[str, str]) -> str | None:
    """Folder for Ray's session where its own choice (RAY_TMPDIR, TMPDIR) makes the paths of its sockets too long; None where that fits.

    Raises ValueError where the system's own temporary folder is no way out.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if environ.get(name)), None)
    if name is None or len(os.fsencode(environ[name] + SOCKET)) <= SOCKET_BYTES:
        return None
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK | os.X_OK):
            return f"{folder}/ray"
    raise ValueError(
        f"{name}={environ[name]} is too long: the paths of Ray's sockets inside may have {SOCKET_BYTES} bytes; "
        f"set RAY_TMPDIR to a folder of at most {SOCKET_BYTES - len(SOCKET)} bytes"
    )


def check_home(environ: Mapping[str, str]) -> None:
    """Raise ValueError where Ray, about to start a cluster, could not keep its token: its files are in the home folder."""
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
            f"HOME={environ.get('HOME', '')}: Ray cannot keep its token in ~/.ray ({reason}); set HOME to a folder that can be written to"
        ) from None
