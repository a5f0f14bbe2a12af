"""Adapters merged into their base compute what base and adapters compute together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jepa_ray.config import LoraConfig
from jepa_ray.models.merging import merged
from tests import tiny_models as tiny


def test_merged_weights_give_the_same_logits(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    network = tiny.network_of(tiny.trial(checkpoint, lora=LoraConfig(r=4, dropout=0.0))).eval()
    network.lm.save_pretrained(tmp_path, save_embedding_layers=False)
    ids = torch.from_numpy(tiny.table_of(checkpoint, tiny.EXAMPLES[:1]).lm[0].astype("int64"))[None]
    one, half = (merged(str(checkpoint), None, tmp_path, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16} and not any(
        "lora" in name for name, _ in one.named_parameters()
    )
    with torch.no_grad():
        wanted, plain = network.lm(ids).logits, tiny.network_of(tiny.trial(checkpoint)).eval().lm(ids).logits
        assert torch.allclose(one(ids).logits, wanted, atol=1e-4) and not torch.allclose(plain, wanted, atol=1e-2)


def test_a_base_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone does not exist; pass the path"):
        merged(str(tmp_path / "gone"), None, tmp_path, dtype="float32")


def test_adapters_of_another_shape_or_without_a_layer_are_one_sentence(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    tiny.network_of(tiny.trial(checkpoint, lora=LoraConfig(r=4))).lm.save_pretrained(tmp_path, save_embedding_layers=False)
    weights = tmp_path / "adapter_model.safetensors"
    sound = load_file(weights)
    for planted, reason in (
        ({name: weight[:2].contiguous() for name, weight in sound.items()}, "size mismatch"),
        (dict(list(sound.items())[:-1]), "Found missing adapter keys"),
    ):
        save_file(planted, weights)
        with pytest.raises(ValueError) as refused:
            merged(str(checkpoint), None, tmp_path, dtype="float32")
        assert f"the adapters in {tmp_path} cannot be added to {checkpoint} (" in str(refused.value)
        assert reason in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 600
