"""The default size of a forward pass: as many tokens as a GPU's memory allows, by the estimate that the plan prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_ray.config import LoraConfig, ObjectiveConfig
from jepa_ray.models.footprint import footprint
from jepa_ray.models.shapes import Shape
from jepa_ray.training import memory
from jepa_ray.training.runtime import Runtime
from tests import tiny_models as tiny

GPU = Runtime(device="cuda")


@pytest.mark.parametrize("family", ["llama3", "openelm", "gemma2"])
@pytest.mark.parametrize("lora", [None, LoraConfig(r=4)], ids=["full", "lora"])
def test_the_peak_of_a_pass_of_that_size_is_just_below_the_memory(
    tiny_checkpoints: dict[str, Path], family: str, lora: LoraConfig | None
) -> None:
    config = tiny.trial(tiny_checkpoints[family], lora=lora, objective=ObjectiveConfig(k=1), model__precision="bf16")
    network, table = tiny.network_of(config), tiny.table_of(tiny_checkpoints[family], tiny.EXAMPLES[:20])
    made = footprint(Shape.of(network.causal_lm.config.to_dict()), memory.training_of(network, config, GPU, sharded=False))
    tokens = [memory.within(made.state + room, network, config, table, GPU, sharded=False) for room in (0, 5e6, 2e7, 1e12)]
    assert tokens == sorted(tokens) and tokens[0] == 1 and tokens[-1] == memory.MOST_TOKENS
    fitting = tokens[1]
    assert made.peak(fitting, 0) <= made.state + 5e6 < made.peak(2 * fitting + 2, 2 * fitting)


def test_shards_and_recomputation_leave_room_for_more(tiny_checkpoints: dict[str, Path]) -> None:
    config = tiny.trial(tiny_checkpoints["llama3"], model__precision="bf16")
    network, table = tiny.network_of(config), tiny.table_of(tiny_checkpoints["llama3"], tiny.EXAMPLES[:20])
    two = Runtime(device="cuda", world_size=2)
    room = 6e6
    whole = memory.within(room, network, config, table, two, sharded=False)
    assert whole < memory.within(room, network, config, table, two, sharded=True)
    recomputed = config.model_copy(update={"model": config.model.model_copy(update={"gradient_checkpointing": True})})
    assert whole < memory.within(room, network, recomputed, table, two, sharded=False)


def test_copies_fit_if_the_longest_example_alone_does(tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan decides by the same rule, see `plan/requirements.py`."""
    config = tiny.trial(tiny_checkpoints["llama3"], objective=ObjectiveConfig(k=1), model__precision="bf16")
    network, table = tiny.network_of(config), tiny.table_of(tiny_checkpoints["llama3"], tiny.EXAMPLES[:20])
    two = Runtime(device="cuda", world_size=2)
    longest = int((table.lm.lengths + table.text.lengths + table.code.lengths).max())
    state = footprint(Shape.of(network.causal_lm.config.to_dict()), memory.training_of(network, config, two, sharded=False)).state
    enough = next(m for m in range(int(state), 1 << 30, 1 << 16) if memory.fits(m, network, config, table, two))
    assert memory.within(enough, network, config, table, two, sharded=False) >= longest
    assert memory.within(enough - (1 << 16), network, config, table, two, sharded=False) < longest

    monkeypatch.setattr(memory, "ARCHITECTURES", {})  # unknown: weight, gradient, its copy and two moments of 4 bytes each
    whole = 20 * sum(p.numel() for p in network.parameters())
    assert memory.fits(whole, network, config, table, two) and not memory.fits(whole - 1, network, config, table, two)


def test_on_a_cpu_a_step_is_one_pass(tiny_checkpoints: dict[str, Path]) -> None:
    config = tiny.trial(tiny_checkpoints["llama3"])
    table = tiny.table_of(tiny_checkpoints["llama3"], tiny.EXAMPLES[:4])
    assert memory.fitting(tiny.network_of(config), config, table, Runtime(), sharded=False) is None


def test_an_unknown_architecture_gets_a_modest_size(tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.trial(tiny_checkpoints["llama3"])
    monkeypatch.setattr(memory, "ARCHITECTURES", {})
    table = tiny.table_of(tiny_checkpoints["llama3"], tiny.EXAMPLES[:4])
    assert memory.within(1e12, tiny.network_of(config), config, table, GPU, sharded=False) == memory.UNKNOWN


def test_a_worker_uses_its_share_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (60e9, 80e9))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 5e9)
    assert memory.available(GPU) == pytest.approx(0.9 * 65e9)
    assert memory.available(Runtime(device="cuda", gpu_share=0.5)) == pytest.approx(0.9 * 40e9)
