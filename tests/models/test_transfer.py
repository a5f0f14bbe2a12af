"""Arrays on their way to a device: one buffer, every array in it unchanged."""

from __future__ import annotations

import numpy as np
import torch

from jepa_ray.models.transfer import joined, parted, to_device

ARRAYS = {
    "ids": np.arange(7, dtype=np.int64)[None],
    "weights": np.array([0.5, -1, 3], dtype=np.float32),
    "nothing": np.empty(0, dtype=np.int64),
    "ends": np.arange(5, dtype=np.int32),
    "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
    "flags": np.array([[True, False]]),
}


def test_one_buffer_holds_every_array() -> None:
    buffer, places = joined(ARRAYS)
    assert all(start % 16 == 0 for start in places.values())
    for name, tensor in parted(buffer, ARRAYS, places).items():
        expected = torch.from_numpy(np.ascontiguousarray(ARRAYS[name]))
        assert tensor.dtype == expected.dtype and tensor.shape == expected.shape and torch.equal(tensor, expected), name
        assert tensor.numel() == 0 or tensor.untyped_storage().data_ptr() == buffer.untyped_storage().data_ptr()


def test_on_a_cpu_nothing_is_copied() -> None:
    tensors = to_device(ARRAYS, torch.device("cpu"))
    for name, array in ARRAYS.items():
        assert torch.equal(tensors[name], torch.from_numpy(array))
        assert array.size == 0 or tensors[name].data_ptr() == array.ctypes.data
