"""Files and folders that appear whole or not at all: written under a temporary name in the same folder, then renamed.

The temporary name begins with a dot, so readers of Parquet folders skip it. Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on exit, the written file is flushed to disk and replaces `path` in one step.

    If the body raises, `path` is unchanged and the temporary file is removed. A missing parent folder is created.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        # On a full disk anything may fail; the error to report is that of the body.
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace the file by this text, encoded as UTF-8."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def whole_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty temporary folder to fill; on exit, it becomes `folder` in one step.

    If another process was faster and `folder` exists, the existing one stays unless `replace` is True. If the body raises, nothing
    remains.
    """
    building = _temporary(folder)
    try:
        building.mkdir()
        yield building
        if replace:
            move_folder(building, folder)
            return
        try:
            os.replace(building, folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def move_folder(source: Path, target: Path) -> None:
    """Rename a folder, on one file system. A folder in its place is deleted once the new one is there; nobody sees half of either."""
    target.parent.mkdir(parents=True, exist_ok=True)
    before = _temporary(target)
    if target.exists():
        os.replace(target, before)
    os.replace(source, target)
    shutil.rmtree(before, ignore_errors=True)


def discard(folder: Path) -> None:
    """Delete a folder: it disappears in one step, whatever a kill leaves of its files (`sweep_up` deletes that)."""
    hidden = _temporary(folder)
    os.replace(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def sweep_up(folder: Path) -> None:
    """Delete the temporary folders and files that killed processes have left below `folder`."""
    for left in list(folder.rglob(".*.tmp")) if folder.is_dir() else ():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A path next to `path`, so the rename stays within one file system, with a name that no other process on any node uses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
