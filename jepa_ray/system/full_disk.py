"""Full disks: recognised wherever they occur, reported in one sentence. They are not the failure of one trial; they stop the sweep.

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
_MESSAGES = (*(os.strerror(number) for number in _FULL), "database or disk is full")
"""Texts of the same errors, for libraries (Ray, SQLite) that pass on only the text."""


class DiskFull(OSError):
    """The sweep cannot write: finished trials are safe, the rest has to wait for space."""


def is_full(error: BaseException | None) -> bool:
    """Whether an exception, or one that it was raised from, reports a full disk or a reached quota."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, DiskFull) or getattr(error, "errno", None) in _FULL or says_full(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def says_full(text: str) -> bool:
    """Whether a text that Ray passes on from another process reports a full disk."""
    return any(message in text for message in _MESSAGES)


def probe(folder: Path, size: int = 1 << 18) -> bool:
    """Whether `folder` has no room for another `size` bytes, tested by writing them."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(bytes(size))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return is_full(error)
    return False


def free(folder: Path) -> str:
    """Free space of the file system of a folder, in megabytes, as text."""
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


def stopped(folder: Path) -> str:
    """Sentence on a run that stopped because a disk is full: the room left in `folder` and for temporary files."""
    temporary = tempfile.gettempdir()
    return f"Stopped: a disk is full ({free(folder)} in {folder}, {free(Path(temporary))} in {temporary})."
