"""The cache of generation: it holds what separate passes compute, whatever shares, pads, grows or leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_ray.models import decoding
from jepa_ray.models.decoding import NAME, bytes_per_token, decoding_attention, prefill, step
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.network import Network, Rows
from jepa_ray.training.packing_check import separate_pass
from tests import tiny_models as tiny

LENGTHS = (150, 1, 37, 150)
"""Gemma 2's tiny window is 128 tokens. The first and last prompt differ in their last token only."""


def prompts_of(network: Network) -> list[np.ndarray]:
    ids = np.random.default_rng(0).integers(10, network.causal_lm.config.vocab_size, max(LENGTHS), dtype=np.int32)
    prompts = [ids[:length].copy() for length in LENGTHS]
    prompts[3][-1] += 1 if prompts[3][-1] < network.causal_lm.config.vocab_size - 1 else -1
    return prompts


@pytest.fixture(params=FAMILIES)
def network(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Network:
    return tiny.network_of(tiny.trial(tiny_checkpoints[request.param]), k=2).eval()


@pytest.mark.parametrize("chunk", [8192, 40], ids=["one pass", "a pass per prompt"])
def test_logits_are_those_of_separate_passes(network: Network, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefill, steps beyond the room at hand, a row that leaves, and steps after that."""
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", chunk)
    monkeypatch.setattr(decoding, "GROWTH", 2)
    prompts = prompts_of(network)
    forced = np.random.default_rng(1).integers(10, 50, (7, len(prompts)))
    rows = list(range(len(prompts)))

    def compare(logits_RV: torch.Tensor, written: int) -> None:
        assert len(logits_RV) == len(rows)
        for logits_V, row in zip(logits_RV, rows, strict=True):
            alone = network.logits(separate_pass(network, np.concatenate([prompts[row], forced[:written, row]]))[-1])
            assert float((logits_V - alone).abs().max()) <= 1e-4 * float(alone.abs().max())

    with torch.inference_mode():
        cache, logits_RV = prefill(network, prompts)
        compare(logits_RV, 0)
        for number in range(len(forced)):
            if number == 4:
                rows = [0, 2, 3]
                cache.select(torch.tensor(rows))
            with network.attention(NAME):
                logits_RV = step(network, cache, torch.from_numpy(forced[number, rows]))
            compare(logits_RV, number + 1)


def test_a_common_prefix_is_computed_once(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def states(self: Network, rows: Rows, *rest: Any) -> Any:
        computed.append(rows.input_ids_RT.numel())
        return original(self, rows, *rest)

    original = Network.states
    monkeypatch.setattr(Network, "states", states)
    with torch.inference_mode():
        prefill(network, prompts_of(network))
    assert computed == [151], "the short prompts are prefixes of the long ones, which differ in one token"


def test_bytes_per_token_are_those_of_the_shapes(network: Network) -> None:
    config = network.causal_lm.config
    heads = config.num_key_value_heads
    total = sum(heads) if isinstance(heads, list) else heads * config.num_hidden_layers
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    with torch.inference_mode():
        assert bytes_per_token(network) == 2 * total * size * 4
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert bytes_per_token(network) == 2 * total * size * 2


class Waits(TorchDispatchMode):
    """Counts the operations that make a host wait for its device: their result, or its shape, is needed to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = "index" in func.name() and any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in _flat(args[1:]))
        self.count += masked or func.name() in ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal")
        return func(*args, **(kwargs or {}))


def _flat(args: Any) -> list[Any]:
    return [item for arg in args for item in (_flat(arg) if isinstance(arg, (list, tuple)) else [arg])]


def test_a_step_never_makes_the_host_wait(network: Network) -> None:
    with torch.no_grad():  # inference mode shows other operations
        cache, logits_RV = prefill(network, prompts_of(network))
        with network.attention(NAME), Waits() as waits:
            step(network, cache, logits_RV.argmax(-1))
        assert waits.count == 0
        with waits:
            float(logits_RV[0, 0])
            logits_RV[logits_RV > 0]
        assert waits.count >= 2, "waits are not seen"


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 3, 50])
def test_attention_is_that_of_repeated_heads_under_a_mask(softcap: float | None, window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, tokens, 8, generator=generator) for heads, tokens in ((6, 1), (2, 9), (2, 9)))
    visible_RL = torch.arange(9) >= torch.tensor([[0], [4]])
    bias_R11L = torch.zeros(2, 9).masked_fill(~visible_RL, float("-inf"))[:, None, None]
    out, _ = decoding_attention(
        torch.nn.Module(), query, key, value, None, scaling=0.3, softcap=softcap, sliding_window=window, bias_R11L=bias_R11L
    )
    scores = query @ key.repeat_interleave(3, dim=1).transpose(2, 3) * 0.3
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    seen = visible_RL & (8 - torch.arange(9) < (window or 9))
    wanted = F.softmax(scores.masked_fill(~seen[:, None, None], float("-inf")), dim=-1) @ value.repeat_interleave(3, dim=1)
    assert torch.allclose(out, wanted.transpose(1, 2), atol=1e-6)
