"""A disk that is full: recognised wherever it is met, and said in one sentence. It is no trial's own failure, and it stops the sweep.

Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SAID = (*(os.strerror(number) for number in _FULL), "database or disk is full")
"""Texts of the same where libraries (Ray, SQLite) hand on no more than that."""


class DiskFull(OSError):
    """The sweep cannot write: what is finished is safe, the rest has to wait for space."""


def is_full(error: BaseException | None) -> bool:
    """Whether an exception, or what it was raised from, says that a disk is full or a quota is reached."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, DiskFull) or getattr(error, "errno", None) in _FULL or says_full(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def says_full(text: str) -> bool:
    """Whether a text that Ray hands on from another process names a full disk."""
    return any(said in text for said in _SAID)


def probe(folder: Path, size: int = 1 << 18) -> bool:
    """Whether `folder` has no room for `size` bytes more, tried by writing them."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(bytes(size))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return is_full(error)
    return False


def free(folder: Path) -> str:
    """Free space of the file system of a folder, in megabytes."""
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB free"
    except OSError:
        return "no folder"


def leave_output() -> None:
    """Drop what the standard output could not take: Python would try once more at its exit, and fail."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
