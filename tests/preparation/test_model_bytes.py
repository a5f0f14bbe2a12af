"""The size that a model is planned with is that of the files it is saved in."""

from __future__ import annotations

from pathlib import Path

from jepa_ray.config import SweepConfig
from jepa_ray.models.loading import load_network, load_tokenizer
from jepa_ray.orchestration.recipes import model_size
from jepa_ray.preparation.model_bytes import BYTES_PER_TOKEN, model_bytes
from jepa_ray.training.keeping import save_model
from tests import tiny_models as tiny


def test_planned_and_written_sizes_agree(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints["gemma2"]
    prepared = tiny.prepared_of(checkpoint)
    for name, lora in (("lora", {"r": 8}), ("full", None)):
        tree = {"name": "x", "families": ["gemma2"], "model": str(checkpoint), "methods": {"base": "none"}, "base": {"lora": lora}}
        sweep = SweepConfig.model_validate(tree)
        config = tiny.trial(checkpoint, lora=sweep.base.lora)
        network = load_network(str(checkpoint), config.model, config.lora, k=0, seed=1)
        (tmp_path / name).mkdir()
        save_model(tmp_path / name, network, load_tokenizer(str(checkpoint), config.model), prepared, config, "0")
        (weights,) = (tmp_path / name).glob("*model.safetensors")
        planned = model_bytes(sweep, "gemma2", prepared)
        vocabulary = network.causal_lm.config.vocab_size
        assert 0.95 < (planned - BYTES_PER_TOKEN * vocabulary) / weights.stat().st_size <= 1.01, name
        searched = sweep.model_copy(update={"space": SweepConfig.model_validate(tree | {"space": {"lora.r": {"choice": [2, 16]}}}).space})
        doubled = model_bytes(searched, "gemma2", prepared)
        staged = SweepConfig.model_validate(tree | {"pretrain": {"data": {"task": "nl-rx", "num_train": 9}}})
        whole = sum(weight.numel() for key, weight in network.causal_lm.named_parameters() if "lora_" not in key)
        assert model_bytes(staged, "gemma2", prepared) == 4 * whole + BYTES_PER_TOKEN * vocabulary, (
            "adapters are merged after a first stage"
        )
        assert doubled == planned if lora is None else doubled > 1.5 * planned - BYTES_PER_TOKEN * vocabulary


def test_nothing_is_planned_where_nothing_is_kept(tiny_checkpoints: dict[str, Path]) -> None:
    prepared = tiny.prepared_of(tiny_checkpoints["llama3"])
    tree = {"name": "x", "model": str(tiny_checkpoints["llama3"]), "methods": {"base": "none"}}
    for confirm in ({"keep": "none"}, {"seeds": []}):
        assert model_size(SweepConfig.model_validate(tree | {"confirm": confirm}), "llama3", prepared) == 0
    assert model_size(SweepConfig.model_validate(tree), "llama3", prepared) > 0
