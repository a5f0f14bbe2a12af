"""A packed batch on a device: the tensors that the network reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jepa_ray.data.packing import Packed, Readout, ViewBatch
from jepa_ray.models.attention import Layout
from jepa_ray.models.flex import FlexLayout, Window, padded, row_arrays
from jepa_ray.models.transfer import to_device

Kernel = Literal["bucketed", "flex"]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Placement:
    """Where batches go, and which attention reads them."""

    device: torch.device
    kernel: Kernel = "bucketed"
    windows: tuple[Window, ...] = (None,)
    """The sliding windows among the model's layers; None: no window. Only flex needs them beforehand."""


@dataclass(frozen=True)
class Rows:
    """Packed tokens on a device. Legend: R rows, T tokens per row (flex: padded to whole tiles)."""

    input_ids_RT: Tensor
    position_ids_RT: Tensor
    layout: Layout | FlexLayout | None
    """None: padded rows, one path each, for the model's own attention."""

    @classmethod
    def of(cls, packed: Packed, placement: Placement) -> Rows:
        """Packed rows that are no batch."""
        return _rows(packed, to_device(_row_arrays(packed, placement), placement.device), placement)


@dataclass(frozen=True)
class DeviceReadout:
    """A Readout on a device: E entries, P pairs."""

    index_E: Tensor
    pair_E: Tensor
    weight_E: Tensor | None
    """None: one entry of weight 1 per pair, in order."""
    num_pairs: int

    def read(self, states_XD: Tensor, norm: nn.Module | None = None) -> Tensor:
        """(P, D) embeddings, in fp32; `norm` is applied only to the states that are read."""
        entries_ED = states_XD[self.index_E]
        entries_ED = (norm(entries_ED) if norm is not None else entries_ED).float()
        if self.weight_E is None:
            return entries_ED
        entries_ED = entries_ED * self.weight_E[:, None]
        zeros_PD = entries_ED.new_zeros(self.num_pairs, entries_ED.shape[1])
        return zeros_PD.index_add(0, self.pair_E, entries_ED)


@dataclass(frozen=True)
class DeviceBatch:
    """A ViewBatch on a device. Legend: N labels."""

    rows: Rows
    label_index_N: Tensor
    label_ids_N: Tensor
    source: DeviceReadout
    target: DeviceReadout
    frozen: Rows | None
    """Rows for a separate target encoder; `target` then reads that encoder's states."""

    @classmethod
    def of(cls, batch: ViewBatch, placement: Placement) -> DeviceBatch:
        """All arrays of the batch go to the device together."""
        arrays: Arrays = {"label_index": batch.label_index, "label_ids": batch.label_ids}
        readouts = {"source": batch.source, "target": batch.target}
        packed = {"rows": batch.packed} | ({"frozen": batch.frozen} if batch.frozen is not None else {})
        for name, readout in readouts.items():
            arrays |= _prefixed(name, {"index": readout.index, "pair": readout.pair, "weight": readout.weight})
        for name, rows in packed.items():
            arrays |= _prefixed(name, _row_arrays(rows, placement))
        tensors = to_device(arrays, placement.device)
        on_device = {name: _rows(rows, _named(name, tensors), placement) for name, rows in packed.items()}
        source, target = (_readout(readout, _named(name, tensors)) for name, readout in readouts.items())
        return cls(on_device["rows"], tensors["label_index"], tensors["label_ids"], source, target, on_device.get("frozen"))


def _row_arrays(packed: Packed, placement: Placement) -> Arrays:
    if not _by_flex(packed, placement):
        return {"ids": packed.input_ids, "positions": packed.position_ids}
    ids, depth, end = padded(packed)
    return {"ids": ids[None], "positions": depth[None], **row_arrays(end, depth, placement.windows)}


def _rows(packed: Packed, tensors: Mapping[str, Tensor], placement: Placement) -> Rows:
    layout: Layout | FlexLayout | None = None
    if _by_flex(packed, placement):
        layout = FlexLayout.of(tensors, placement.windows)
    elif packed.backend != "plain":
        layout = Layout(packed, placement.device)
    return Rows(tensors["ids"], tensors["positions"], layout)


def _by_flex(packed: Packed, placement: Placement) -> bool:
    return placement.kernel == "flex" and packed.backend != "plain"


def _readout(readout: Readout, tensors: Mapping[str, Tensor]) -> DeviceReadout:
    return DeviceReadout(tensors["index"], tensors["pair"], None if readout.is_single else tensors["weight"], readout.num_pairs)


def _prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
