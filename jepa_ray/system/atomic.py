"""Files and folders that appear whole or not at all: written under a temporary name beside their own, then renamed.

The temporary name begins with a dot, which readers of Parquet folders skip. Imports the standard library only.
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
    """A temporary path to write to; on leaving, what was written is on disk and takes the place of `path` in one step.

    Where the body raises, `path` stays as it was and the temporary file is removed. The parent folder is made if it is missing.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        # A full disk may refuse anything; what counts is the error of the body.
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace the file by this text, UTF-8."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def whole_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty temporary folder to fill; on leaving, it becomes `folder` in one step.

    Where another process was faster and `folder` exists, that one stays, unless `replace` is given. Where the body raises, nothing
    of it remains.
    """
    building = _temporary(folder)
    try:
        building.mkdir()
        yield building
        if replace:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            os.replace(building, folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """Beside `path`, so that the rename stays within one file system; a name that no other process, on any node, uses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
