"""Digests of large files and of checkpoints, over their whole contents."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

SUFFIXES = (".safetensors", ".json", ".jinja", ".py", ".model", ".tiktoken")
NAMES = ("merges.txt", "vocab.txt")
FORMER_SUFFIXES = (".safetensors", ".json", ".jinja")
SAMPLE = 1 << 20
BLOCK = 1 << 26
THREADS = 8
SETTLED_NS = 2 * 10**9
"""A file that was written more recently than this may change again without a change of its times, so its digest is not remembered."""

_known: dict[tuple[str, int, int, int, int], str] = {}


@dataclass(frozen=True)
class Weights:
    """What identifies the checkpoint that a sweep starts from."""

    sha: str = ""
    """`weights_sha`."""
    former_sha: str = ""
    """The digest that earlier versions made of the same folder (`former_weights_sha`)."""
    written: str = ""
    """When the newest of the folder's files was written: UTC, ISO 8601, to the second. Empty for a hub id."""


def weights_of(checkpoint: str, revision: str | None) -> Weights:
    """Both digests of a checkpoint, and when it was written."""
    folder = Path(checkpoint)
    times = [datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in _files(folder)] if folder.is_dir() else []
    written = max(times).isoformat(timespec="seconds") if times else ""
    return Weights(weights_sha(checkpoint, revision), former_weights_sha(checkpoint, revision), written)


def weights_sha(checkpoint: str, revision: str | None) -> str:
    """Digest of a checkpoint: of a folder's files, or the commit of a hub id.

    Of a folder, every byte of what defines the model counts: weights (.safetensors), configuration (.json), chat template (.jinja), code
    (.py) and tokenizer (.json, .model, .tiktoken, merges.txt, vocab.txt). Other files and subfolders do not. A core reads
    about 1.4 GB/s, if the disk is as fast, and up to THREADS cores share the work.
    """
    folder = Path(checkpoint)
    return _digest(_files(folder), file_sha) if folder.is_dir() else revision or ""


def former_weights_sha(checkpoint: str, revision: str | None) -> str:
    """The digest of earlier versions, which took only samples of a folder's weights, configuration and template (`sampled_sha`)."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        return revision or ""
    return _digest([path for path in _files(folder) if path.suffix in FORMER_SUFFIXES], sampled_sha)


def same_weights(checkpoint: str, revision: str | None, sha: str) -> bool:
    """Whether a checkpoint is the one with this digest, which may be one of an earlier version."""
    return weights_sha(checkpoint, revision) == sha or former_weights_sha(checkpoint, revision) == sha


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if (path.suffix in SUFFIXES or path.name in NAMES) and path.is_file()]


def _digest(files: list[Path], sha: Callable[[Path], str]) -> str:
    return hashlib.sha256("\n".join(f"{path.name} {sha(path)}" for path in files).encode()).hexdigest()


def file_sha(path: Path) -> str:
    """Digest of a file's whole contents: of its size and of each block's SHA-256, so that several threads share one file.

    A process remembers it as long as the file keeps its size and times. That of a file of at most two samples is the `sampled_sha` of
    earlier versions, which covers all of it.
    """
    about = path.stat()
    if about.st_size <= 2 * SAMPLE:
        return sampled_sha(path)
    key = (str(path.absolute()), about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    if key not in _known:
        threads = min(THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:  # hashlib works without the interpreter's lock
            blocks = list(pool.map(functools.partial(_block_sha, path), range(0, about.st_size, BLOCK)))
        sha = hashlib.sha256("\n".join([str(about.st_size), *blocks]).encode()).hexdigest()
        if time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) < SETTLED_NS:
            return sha
        _known[key] = sha
    return _known[key]


def _block_sha(path: Path, start: int) -> str:
    sha, left, buffer = hashlib.sha256(), BLOCK, memoryview(bytearray(SAMPLE))
    with path.open("rb", buffering=0) as stream:
        stream.seek(start)
        while left and (read := stream.readinto(buffer[: min(left, SAMPLE)])):
            sha.update(buffer[:read])
            left -= read
    return sha.hexdigest()


def sampled_sha(path: Path, sample: int = SAMPLE) -> str:
    """Digest of a file's size, first and last `sample` bytes. Earlier versions identified files by it."""
    size = path.stat().st_size
    sha = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        sha.update(stream.read(sample))
        stream.seek(max(0, size - sample))
        sha.update(stream.read(sample))
    return sha.hexdigest()
