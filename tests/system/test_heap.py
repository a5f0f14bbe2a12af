"""Memory that is freed, but that the C library keeps because something behind it is still in use, goes back to the system."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import pytest

from jepa_ray.system import heap

BLOCK, NUMBER = 100_000, 2_000
"""Bytes of a block, too small for pages of its own, and number of blocks: 200 MB."""


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_freed_memory_goes_back() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("this C library is not glibc: it manages its heap in another way")
    blocks = [bytearray(BLOCK) for _ in range(NUMBER)]
    full = resident()
    last = blocks.pop()
    blocks.clear()
    heap.give_back()
    assert full - resident() > 0.8 * BLOCK * NUMBER and len(last) == BLOCK


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    heap.give_back()
