"""Copies a batch's arrays to a device: to a GPU in one transfer from pinned memory, for which the host does not wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT = 16
"""Bytes; every array starts at a multiple of this, which suits every dtype and vectorised loads."""


def to_device(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """The arrays as tensors, by name. On a CPU they share the arrays' memory; on a GPU all of them lie in one buffer."""
    if device.type == "cpu":
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    buffer, places = joined(arrays)
    return parted(buffer.pin_memory().to(device, non_blocking=True), arrays, places)


def joined(arrays: Mapping[str, NDArray[Any]]) -> tuple[Tensor, dict[str, int]]:
    """One buffer of bytes with all arrays, and where each starts in it."""
    places, size = {}, 0
    for name, array in arrays.items():
        places[name] = size
        size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    buffer = np.zeros(size, dtype=np.uint8)
    for name, array in arrays.items():
        buffer[places[name] : places[name] + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return torch.from_numpy(buffer), places


def parted(buffer: Tensor, arrays: Mapping[str, NDArray[Any]], places: Mapping[str, int]) -> dict[str, Tensor]:
    """The arrays' tensors as views of the buffer."""
    out = {}
    for name, array in arrays.items():
        start = places[name]
        out[name] = buffer[start : start + array.nbytes].view(torch.from_numpy(array[:0].copy()).dtype).view(array.shape)
    return out
