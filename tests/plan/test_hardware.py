"""The table of cards, and the card of a GPU by the name that its driver gives."""

from __future__ import annotations

from typing import get_args

import pytest

from jepa_ray.config import Hardware
from jepa_ray.plan.hardware import CARDS, GIB, of_gpu
from jepa_ray.system.gpus import Gpu


def test_every_name_that_a_sweep_file_may_give_has_a_card() -> None:
    assert set(CARDS) == set(get_args(Hardware)) and len(CARDS) >= 10
    assert {name for name, card in CARDS.items() if not card.has_bf16} == {"v100", "t4"}
    for card in CARDS.values():
        assert 10 * GIB < card.memory < 200 * GIB
        assert card.peak is not None and card.bandwidth is not None
        assert 20 < card.peak / card.bandwidth < 500, "operations per byte"
        assert card.peak_fp32 is not None and 1.9 < card.peak / card.peak_fp32 < 31


@pytest.mark.parametrize(
    ("name", "mib", "key"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, "h100"),
        ("NVIDIA H100 PCIe", 81559, "h100-pcie"),
        ("NVIDIA H200", 143771, "h200"),
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80gb"),
        ("NVIDIA A100-PCIE-40GB", 40960, "a100-40gb"),
        ("NVIDIA A10G", 23028, "a10g"),
        ("NVIDIA A10", 23028, "a10"),
        ("NVIDIA L40S", 46068, "l40s"),
        ("NVIDIA GeForce RTX 4090", 24564, "rtx4090"),
    ],
)
def test_a_driver_s_name_names_the_card(name: str, mib: int, key: Hardware) -> None:
    card = of_gpu(Gpu(name, mib * 2**20, 8.6))
    assert (card.name, card.peak) == (CARDS[key].name, CARDS[key].peak)
    assert card.memory == pytest.approx(CARDS[key].memory, rel=0.03), "the table agrees with the driver"


@pytest.mark.parametrize("name", ["NVIDIA RTX A1000", "NVIDIA T400 4GB", "NVIDIA GH200 480GB", "NVIDIA RTX A1000 Laptop GPU"])
def test_a_name_that_contains_another_is_another_card(name: str) -> None:
    assert of_gpu(Gpu(name, 8 * 2**30, 8.6)).peak is None


def test_an_unknown_gpu_has_memory_but_no_speed() -> None:
    card = of_gpu(Gpu("NVIDIA Z1", 10 * 2**30, 7.5))
    assert card.memory < 10 * 2**30 and card.peak is None and card.bandwidth is None and not card.has_bf16
