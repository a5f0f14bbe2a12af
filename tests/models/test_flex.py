"""FlexAttention: its tiles against PyTorch's own, the kernel against its stand-in on a CPU, and both against bucketed attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from jepa_ray.config import LoraConfig, ObjectiveConfig
from jepa_ray.data.packing import Packed, make_batch, pack
from jepa_ray.models import attention, flex
from jepa_ray.models.families import FAMILIES
from jepa_ray.training.step import losses
from tests import tiny_models as tiny

CPU = torch.device("cpu")
WINDOWS = (None, 30, 100, 400)


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints[request.param]


def a_row(seed: int, longest: int = 300) -> Packed:
    """A trie of 20 paths that share prefixes of all lengths."""
    draw = np.random.default_rng(seed)
    common = draw.integers(0, 50, longest)
    ends = (draw.integers(0, 5, draw.integers(1, longest)) for _ in range(20))
    return pack([np.concatenate([common[: draw.integers(1, longest)], end]).astype(np.int32) for end in ends], "trie")


def layout_of(packed: Packed) -> flex.FlexLayout:
    _, depth, end = flex.padded(packed)
    arrays = {name: torch.from_numpy(array) for name, array in flex.row_arrays(end, depth, WINDOWS).items()}
    return flex.FlexLayout.of(arrays, WINDOWS)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("seed", range(3))
def test_the_mask_is_the_rule_of_packed_rows(seed: int, window: int | None) -> None:
    """From the paths themselves: a token sees its path up to itself, as far back as the window reaches."""
    packed = a_row(seed)
    count = packed.num_tokens
    wanted = np.zeros((count, count), dtype=bool)
    for path in packed.nodes:
        for at in range(len(path)):
            wanted[path[at], path[max(0, at + 1 - window) if window is not None else 0 : at + 1]] = True
    mask = layout_of(packed).mask(window).numpy()
    np.testing.assert_array_equal(mask[:count, :count], wanted)
    padding = mask[count:]
    np.testing.assert_array_equal(padding, np.eye(len(mask), dtype=bool)[count:], "padding sees only itself")
    assert not mask[:count, count:].any()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("seed", range(3))
def test_tiles_from_the_ends_alone_are_those_of_the_mask(seed: int, window: int | None) -> None:
    packed = a_row(seed)
    ids, depth, end = flex.padded(packed)
    layout = layout_of(packed)
    wanted = create_block_mask(
        flex.rule(layout.end_T, layout.depth_T, window), None, None, len(ids), len(ids), device="cpu", BLOCK_SIZE=flex.TILE
    )
    tiled = layout.mask(window).numpy().reshape(len(ids) // flex.TILE, flex.TILE, len(ids) // flex.TILE, flex.TILE)
    some, every = tiled.any((1, 3)), tiled.all((1, 3))
    partial, full = flex.tiles(end, depth, window)
    assert not (partial & full).any()
    assert not (full & ~every).any(), "a tile is said to need no mask, but it does"
    assert not (some & ~(partial | full)).any(), "a tile that has something to see is not visited"
    made = layout.block_mask(window)
    if window is None:  # exact; with a window depths bound the distances only
        np.testing.assert_array_equal(partial | full, some)
        np.testing.assert_array_equal(full, every)
        for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
            torch.testing.assert_close(getattr(made, name), getattr(wanted, name))
        for name in ("kv_indices", "full_kv_indices", "q_indices", "full_q_indices"):
            counts = getattr(made, f"{name.removesuffix('indices')}num_blocks")[0, 0]
            for mine, theirs, count in zip(getattr(made, name)[0, 0], getattr(wanted, name)[0, 0], counts, strict=True):
                assert mine[:count].tolist() == theirs[:count].tolist()


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_kernel_equals_its_stand_in(groups: int, window: int | None, softcap: float | None) -> None:
    layout = layout_of(a_row(7))
    length = layout.end_T.shape[0]
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, length, 16) for heads in (4, groups, groups))
    kernel = flex.fused(query, key, value, 0.25, softcap, window, layout)
    torch.testing.assert_close(kernel, flex.dense(query, key, value, 0.25, softcap, window, layout), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 127, 128, 129, 256, 257])
def test_rows_are_padded_to_whole_tiles_and_two_at_least(length: int) -> None:
    ids, depth, end = flex.padded(pack([np.arange(length, dtype=np.int32)], "flat"))
    assert len(ids) == len(depth) == len(end) == max(256, -(-length // 128) * 128)
    assert (end[:length] == length).all() and (end[length:] == np.arange(length, len(ids)) + 1).all()


@pytest.mark.parametrize("backend", ["trie", "flat"])
@pytest.mark.parametrize("lora", [None, LoraConfig(r=2, dropout=0.0)], ids=["full", "lora"])
@pytest.mark.parametrize("long", [False, True], ids=["short", "longer than a window"])
def test_flex_equals_bucketed(checkpoint: Path, backend: str, lora: LoraConfig | None, long: bool) -> None:
    """Losses and all gradients, in every family."""
    config = tiny.trial(checkpoint, lora=lora, objective=ObjectiveConfig(k=2))
    table = tiny.table_of(checkpoint, tiny.long_examples(3, words=120) if long else tiny.EXAMPLES[:6])
    batch = make_batch(table, list(range(len(table))), backend=backend, k=2)  # type: ignore[arg-type]
    found = []
    for kernel in ("bucketed", "flex"):
        network = tiny.network_of(config)
        network.kernel = kernel  # type: ignore[assignment]
        ce, jepa = losses(network, batch, config, CPU)
        (ce + 50 * jepa).backward()  # type: ignore[no-untyped-call]
        found.append((float(ce.detach()), float(jepa.detach()), tiny.gradients(network)))
    (ce_wanted, jepa_wanted, wanted), (ce_flex, jepa_flex, by_flex) = found
    assert ce_flex == pytest.approx(ce_wanted, rel=1e-5) and jepa_flex == pytest.approx(jepa_wanted, rel=1e-5)
    assert tiny.largest_error(by_flex, wanted) < 1e-5


def test_the_kernel_itself_in_every_family(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward only, since FlexAttention has no backward pass on a CPU."""
    network = tiny.network_of(tiny.trial(checkpoint), k=2).eval()
    table = tiny.table_of(checkpoint, [*tiny.EXAMPLES[:3], *tiny.long_examples(1, words=120)])
    batch = make_batch(table, [0, 1, 2, 3], backend="trie", k=2)
    with torch.no_grad():
        wanted = network.encode(network.place(batch))
        network.kernel = "flex"
        calls = []

        def kernel(*args: object) -> torch.Tensor:
            calls.append(args[5])
            return flex.fused(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(flex, "dense", kernel)
        states = network.encode(network.place(batch))[: batch.packed.num_tokens]
    torch.testing.assert_close(states, wanted, rtol=1e-4, atol=1e-5)
    assert len(calls) == network.causal_lm.config.num_hidden_layers
    assert (getattr(network.causal_lm.config, "sliding_window", None) in calls) or calls == [None] * len(calls)


def test_queries_and_keys_get_the_dtype_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under autocast rotations leave queries and keys in fp32."""
    layout = layout_of(a_row(1))
    length = layout.end_T.shape[0]
    query, key = torch.randn(1, 4, length, 16), torch.randn(1, 2, length, 16)
    out, _ = attention.packed_attention(torch.nn.Module(), query, key, key.bfloat16(), None, layout=layout)
    assert out.dtype == torch.bfloat16 and out.shape == (1, length, 4, 16)
