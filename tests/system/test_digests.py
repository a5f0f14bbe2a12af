"""Digests of checkpoints: any byte of what defines the model changes them, nothing else does, and those of earlier versions are known."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from jepa_ray.system import digests
from jepa_ray.system.digests import SAMPLE, file_sha, former_weights_sha, same_weights, weights_of, weights_sha


def folder_of(path: Path, **files: bytes) -> Path:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_bytes(content)
    return path


def edited(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


BIG = bytes(range(256)) * (5 * SAMPLE // 256)


@pytest.mark.parametrize("at", [0, SAMPLE, 2 * SAMPLE + 7, 5 * SAMPLE - 1])
def test_one_bit_of_a_large_file_changes_the_digest(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is. In the middle, earlier versions did not see it."""
    monkeypatch.setattr(digests, "BLOCK", 2 * SAMPLE)
    before = folder_of(tmp_path / "before", model__safetensors=BIG)
    after = folder_of(tmp_path / "after", model__safetensors=edited(BIG, at))
    assert weights_sha(str(before), None) != weights_sha(str(after), None)
    seen = at < SAMPLE or at >= len(BIG) - SAMPLE
    assert (former_weights_sha(str(before), None) != former_weights_sha(str(after), None)) == seen
    assert weights_sha(str(before), None) == weights_sha(str(folder_of(tmp_path / "copy", model__safetensors=BIG)), None)


def test_a_digest_is_of_the_blocks_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "BLOCK", 2 * SAMPLE)
    (tmp_path / "big").write_bytes(BIG)
    blocks = [hashlib.sha256(BIG[start : start + 2 * SAMPLE]).hexdigest() for start in (0, 2 * SAMPLE, 4 * SAMPLE)]
    assert file_sha(tmp_path / "big") == hashlib.sha256("\n".join([str(len(BIG)), *blocks]).encode()).hexdigest()


def test_which_files_define_a_model(tmp_path: Path) -> None:
    names = ("model.safetensors", "config.json", "chat_template.jinja", "modeling_x.py", "tokenizer.model", "merges.txt", "vocab.txt")
    folder = folder_of(tmp_path / "model", **dict.fromkeys((*names, "x.tiktoken", "README.md", "pytorch_model.bin"), b"one"))
    (folder / "checkpoint-1").mkdir()
    before = weights_sha(str(folder), None)
    for name in (*names, "x.tiktoken"):
        (folder / name).write_bytes(b"two")
        assert weights_sha(str(folder), None) != before, name
        (folder / name).write_bytes(b"one")
    for name in ("README.md", "pytorch_model.bin", "checkpoint-1/config.json"):
        (folder / name).write_bytes(b"two")
    assert weights_sha(str(folder), None) == before
    (folder / "merges.txt").rename(folder / "merges2.txt")
    assert weights_sha(str(folder), None) != before


def test_a_hub_id_is_its_commit() -> None:
    assert weights_sha("org/name", "c0ffee") == former_weights_sha("org/name", "c0ffee") == "c0ffee"
    assert weights_of("org/name", "c0ffee").written == "" and weights_sha("org/name", None) == ""


def test_small_folders_keep_the_digest_of_earlier_versions(tmp_path: Path) -> None:
    """Samples cover them. Recomputed here as those versions did it."""
    content = BIG[: 2 * SAMPLE - 3]
    folder = folder_of(tmp_path / "small", model__safetensors=content, config__json=b"{}")
    lines = []
    for name, data in (("config.json", b"{}"), ("model.safetensors", content)):
        lines.append(f"{name} {hashlib.sha256(str(len(data)).encode() + data[:SAMPLE] + data[-SAMPLE:]).hexdigest()}")
    wanted = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert weights_sha(str(folder), None) == former_weights_sha(str(folder), None) == wanted


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has only just been written is read again: its times may not show the next change."""
    path, read = tmp_path / "big", list[int]()
    path.write_bytes(BIG)
    real = digests._block_sha
    monkeypatch.setattr(digests, "_block_sha", lambda path, start: (read.append(start), real(path, start))[1])
    first = file_sha(path)
    assert file_sha(path) == first and len(read) == 2
    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    assert file_sha(path) == file_sha(path) == first and len(read) == 3
    path.write_bytes(edited(BIG, 3 * SAMPLE))
    os.utime(path, ns=(1, 1))
    assert file_sha(path) != first and len(read) == 4


def test_a_digest_of_an_earlier_version_is_recognised(tmp_path: Path) -> None:
    folder = str(folder_of(tmp_path / "model", model__safetensors=BIG))
    whole, sampled = weights_sha(folder, None), former_weights_sha(folder, None)
    assert whole != sampled and same_weights(folder, None, whole) and same_weights(folder, None, sampled)
    folder_of(tmp_path / "model", model__safetensors=edited(BIG, 3 * SAMPLE))
    assert not same_weights(folder, None, whole)
