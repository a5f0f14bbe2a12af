"""The packed network against separate passes: hidden states, both losses and every gradient; and the predictor tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jepa_ray.config import LoraConfig, ObjectiveConfig, TrialConfig
from jepa_ray.data.packing import PREDICTOR_BASE, Backend, make_batch
from jepa_ray.data.views import TokenTable
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.network import Network
from jepa_ray.objectives.distances import DISTANCES
from jepa_ray.training.packing_check import separate_pass
from jepa_ray.training.step import losses
from tests import tiny_models as tiny

CPU = torch.device("cpu")
LORA = LoraConfig(r=2, dropout=0.0)
STRUCTURES = ("llama3", "gemma2", "openelm")
"""Families whose attention differs are run with every backend. The others call it as Llama does and run only with the hardest one."""
COMBINATIONS = pytest.mark.parametrize(
    ("checkpoint", "backend"),
    [(family, backend) for family in FAMILIES for backend in tiny.BACKENDS if backend == "trie" or family in STRUCTURES],
    indirect=["checkpoint"],
)


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints[request.param]


def separate_losses(
    network: Network, table: TokenTable, rows: list[int], k: int | None, distance: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The objective from its definition: three separate passes per example through the model's own forward and head."""

    def states(ids: np.ndarray) -> torch.Tensor:
        return separate_pass(network, ids)

    ce, jepa = torch.zeros(()), torch.zeros(())
    for i in rows:
        sequence, prompt = torch.from_numpy(table.lm[i].astype("int64")), int(table.prompt_length[i])
        with network.attention(None):
            logits = network.causal_lm(input_ids=sequence[None], use_cache=False).logits[0]  # Transformers' own full forward pass
        ce = ce + F.cross_entropy(logits[prompt - 1 : -1].float(), sequence[prompt:], reduction="sum")
        if k is not None:
            source = states(np.concatenate([table.text[i], np.arange(PREDICTOR_BASE, PREDICTOR_BASE + k)]))[-1]
            jepa = jepa + DISTANCES[distance](source[None], states(table.code[i])[-1][None]).sum()
    return ce, jepa


def compare(checkpoint: Path, table: TokenTable, rows: list[int], backend: Backend, config: TrialConfig) -> None:
    """Losses and all gradients within 1e-5."""
    objective = config.objective
    k = objective.k if objective else None
    packed_network, wanted = (
        tiny.network_of(config),
        tiny.network_of(config.model_copy(update={"model": config.model.model_copy(update={"gradient_checkpointing": False})})),
    )
    ce, jepa = losses(packed_network, make_batch(table, rows, backend=backend, k=k), config, CPU)
    (ce + 50 * jepa).backward()  # type: ignore[no-untyped-call]
    ce_wanted, jepa_wanted = separate_losses(wanted, table, rows, k, objective.distance if objective else "cosine")
    (ce_wanted + 50 * jepa_wanted).backward()  # type: ignore[no-untyped-call]
    assert float(ce.detach()) == pytest.approx(float(ce_wanted.detach()), rel=1e-5)
    assert float(jepa.detach()) == pytest.approx(float(jepa_wanted.detach()), rel=1e-5, abs=1e-6)
    assert k is None or float(jepa.detach()) > 1e-3
    assert tiny.largest_error(tiny.gradients(packed_network), tiny.gradients(wanted)) < 1e-5
    trained = {name for name, p in packed_network.named_parameters() if p.requires_grad}
    assert tiny.gradients(packed_network).keys() == trained
    for name, value in tiny.gradients(wanted).items():  # each tensor on its own scale too, so that a small one cannot hide
        error = float((tiny.gradients(packed_network)[name] - value).abs().max())
        assert error <= 1e-4 * float(value.abs().max()) + 1e-7, name


@COMBINATIONS
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("k", [None, 0, 2])
def test_packed_equals_separate_passes(checkpoint: Path, backend: Backend, lora: LoraConfig | None, k: int | None) -> None:
    objective = ObjectiveConfig(k=k) if k is not None else None
    config = tiny.trial(checkpoint, lora=lora, objective=objective)
    compare(checkpoint, tiny.table_of(checkpoint, tiny.EXAMPLES[:5]), [3, 0, 4, 1], backend, config)


@COMBINATIONS
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_gradient_checkpointing_changes_nothing(checkpoint: Path, backend: Backend, lora: LoraConfig | None) -> None:
    config = tiny.trial(checkpoint, lora=lora, objective=ObjectiveConfig(k=2), model__gradient_checkpointing=True)
    assert any(getattr(module, "gradient_checkpointing", False) for module in tiny.network_of(config).modules()), "it is off"
    compare(checkpoint, tiny.table_of(checkpoint, tiny.EXAMPLES[:4]), [0, 1, 2, 3], backend, config)


@COMBINATIONS
def test_sequences_longer_than_a_sliding_window(checkpoint: Path, backend: Backend) -> None:
    table = tiny.table_of(checkpoint, tiny.long_examples(3, words=120))
    config = tiny.trial(checkpoint, objective=ObjectiveConfig(k=2, distance="mse"))
    window = getattr(tiny.network_of(config).causal_lm.config, "sliding_window", None) or 128
    assert min(sequences.lengths.min() for sequences in (table.lm, table.text, table.code)) > window
    compare(checkpoint, table, [0, 1, 2], backend, config)


@COMBINATIONS
def test_equal_examples_in_one_batch(checkpoint: Path, backend: Backend) -> None:
    """A trie merges them to one path; their gradients must still add up."""
    table = tiny.table_of(checkpoint, tiny.EXAMPLES[:2])
    compare(checkpoint, table, [0, 1, 0, 0], backend, tiny.trial(checkpoint, objective=ObjectiveConfig(k=1)))


def test_other_examples_in_the_batch_do_not_matter(checkpoint: Path) -> None:
    """With every backend, a state depends only on its own path, up to the kernels' rounding."""
    table, config = tiny.table_of(checkpoint, tiny.EXAMPLES[:8]), tiny.trial(checkpoint, objective=ObjectiveConfig(k=1))
    network = tiny.network_of(config).eval()
    for backend in tiny.BACKENDS:
        states = []
        for rows in ([0], [0, 1, 2, 3, 4, 5, 6, 7]):
            batch = make_batch(table, rows, backend=backend, k=1)
            with torch.no_grad():
                hidden = network.encode(network.place(batch))
            states.append(hidden[torch.from_numpy(batch.packed.nodes[0])])
        torch.testing.assert_close(states[0], states[1], rtol=1e-4, atol=1e-5)


def test_a_predictor_token_equal_to_a_word_acts_as_that_word(checkpoint: Path) -> None:
    """In every family, even if embeddings are scaled: the parameter is in the space of the embedding table."""
    network = tiny.network_of(tiny.trial(checkpoint, objective=ObjectiveConfig(k=2))).eval()
    assert network.predictor is not None
    with torch.no_grad():
        network.predictor.copy_(network.causal_lm.get_input_embeddings().weight[[40, 50]])
        ids = torch.tensor([[7, 40, 8, 50]])
        torch.testing.assert_close(network.embed(torch.tensor([[7, PREDICTOR_BASE, 8, PREDICTOR_BASE + 1]])), network.embed(ids))
        torch.testing.assert_close(network.embed(ids), network.causal_lm.get_input_embeddings()(ids))


def test_logits_are_the_models_own(checkpoint: Path) -> None:
    """Soft-capping included."""
    network = tiny.network_of(tiny.trial(checkpoint)).eval()
    ids = np.array([5, 9, 200, 300])
    with torch.no_grad():
        expected = network.causal_lm(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0]
        scale = 40.0  # large states, so that capping matters
        torch.testing.assert_close(network.logits(separate_pass(network, ids)), expected, rtol=1e-5, atol=1e-5)
        cap: Any = getattr(network.causal_lm.config, "final_logit_softcapping", None)
        raw = network.causal_lm.get_output_embeddings()(scale * separate_pass(network, ids))
        torch.testing.assert_close(network.logits(scale * separate_pass(network, ids)), raw if cap is None else cap * torch.tanh(raw / cap))


def test_bf16_autocast_is_close_and_gives_fp32_losses(checkpoint: Path) -> None:
    table = tiny.table_of(checkpoint, tiny.EXAMPLES[:4])
    out = {}
    for precision in ("fp32", "bf16"):
        config = tiny.trial(checkpoint, objective=ObjectiveConfig(k=1), model__precision=precision)
        network = tiny.network_of(config)
        assert all(p.dtype == torch.float32 for p in network.parameters() if p.requires_grad)
        ce, jepa = losses(network, make_batch(table, [0, 1, 2, 3], backend="trie", k=1), config, CPU)
        assert ce.dtype == jepa.dtype == torch.float32
        out[precision] = float(ce.detach()), float(jepa.detach())
    assert out["bf16"] == pytest.approx(out["fp32"], rel=0.05) and out["bf16"] != out["fp32"]


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_logits_in_parts_change_nothing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    """The head and the cross-entropy, computed part by part and again in the backward pass."""
    table, found = tiny.table_of(checkpoint, tiny.EXAMPLES[:6]), []
    config = tiny.trial(checkpoint, objective=ObjectiveConfig(k=1), model__precision="bf16" if bf16 else "fp32")
    batch = make_batch(table, list(range(6)), backend="trie", k=1)
    for size in (10**6, 7):
        network = tiny.network_of(config)
        monkeypatch.setattr("jepa_ray.models.footprint.LOGIT_BYTES", 4 * network.causal_lm.config.vocab_size * size)
        head = network.causal_lm.get_output_embeddings()
        seen: list[int] = []
        head.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(len(output)))
        ce, jepa = losses(network, batch, config, CPU)
        (ce + jepa).backward()  # type: ignore[no-untyped-call]
        assert max(seen) == min(size, batch.num_labels)
        found.append((float(ce.detach()), tiny.gradients(network)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert tiny.largest_error(found[0][1], found[1][1]) < (2e-2 if bf16 else 1e-5)
