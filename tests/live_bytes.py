"""Counts the bytes of all live tensors while code runs: the same on every run, and on a CPU what a GPU's allocator would count."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Within the block, `live` and `peak` count the storages of every tensor that an operation returned and that still exists.

    Temporary buffers inside an operation are not seen. `include` adds tensors that exist already, such as weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}

    def include(self, *tensors: torch.Tensor) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._known:
                continue
            size = storage.nbytes()
            self._known[key] = weakref.finalize(storage, self._freed, key, size)
            self.live += size
            self.peak = max(self.peak, self.live)

    def _freed(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.include(*(leaf for leaf in tree_iter(out) if isinstance(leaf, torch.Tensor)))
        return out
