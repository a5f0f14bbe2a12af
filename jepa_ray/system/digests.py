"""Digests of large files and of checkpoints, by samples of their contents."""

from __future__ import annotations

import hashlib
from pathlib import Path


def weights_sha(checkpoint: str, revision: str | None) -> str:
    """Digest of a checkpoint: of a folder's files (size, first and last megabyte of each), or the commit of a hub id."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        return revision or ""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".json", ".jinja")]
    return hashlib.sha256("\n".join(f"{path.name} {sampled_sha(path)}" for path in files).encode()).hexdigest()


def sampled_sha(path: Path, sample: int = 1 << 20) -> str:
    """Digest of a file's size, first and last megabyte: detects a retrained or edited file without reading gigabytes."""
    size = path.stat().st_size
    sha = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        sha.update(stream.read(sample))
        stream.seek(max(0, size - sample))
        sha.update(stream.read(sample))
    return sha.hexdigest()
