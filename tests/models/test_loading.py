"""Loading: one path for all checkpoints, new weights from streams of their own, and one clear sentence when it cannot be done."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_ray.config import LoraConfig, ModelConfig, ObjectiveConfig
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.loading import load_config, load_network, load_tokenizer, new_predictor, seeded, uses_bf16
from tests import tiny_models as tiny


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints[request.param]


def load(checkpoint: Path, *, k: int = 0, seed: int = 1, lora: LoraConfig | None = None, **model: Any) -> dict[str, torch.Tensor]:
    config = ModelConfig(family=checkpoint.name, model=str(checkpoint), **model)
    return tiny.weights(load_network(str(checkpoint), config, lora, k=k, seed=seed))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("init", ["pretrained", "random"])
def test_new_weights_depend_on_the_seed_and_on_nothing_else(checkpoint: Path, init: str) -> None:
    options: dict[str, Any] = {"k": 2, "lora": LoraConfig(r=2), "init": init}
    torch.manual_seed(1)
    first = load(checkpoint, **options)
    torch.manual_seed(2)
    torch.rand(100)
    assert equal(first, load(checkpoint, **options)), "the global generator has a say"
    other = load(checkpoint, **options, seed=2)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    new = {name for name in first if "lora_A" in name or name == "predictor"}
    assert new and (changed == new if init == "pretrained" else changed > new)


def test_one_stream_does_not_move_another(checkpoint: Path) -> None:
    """k changes neither adapters nor random weights, and k tokens begin with the k - 1 of a smaller k."""
    options: dict[str, Any] = {"lora": LoraConfig(r=2), "init": "random"}
    few, many = load(checkpoint, k=1, **options), load(checkpoint, k=3, **options)
    none = load(checkpoint, k=0, **options)
    predictor = few.pop("predictor")
    assert torch.equal(many.pop("predictor")[:1], predictor)
    assert equal(few, many) and equal(few, none)


def test_adapters_start_as_the_zero_map_at_twice_the_rank(checkpoint: Path) -> None:
    network = load_network(str(checkpoint), ModelConfig(family=checkpoint.name, model=str(checkpoint)), LoraConfig(r=4), k=0, seed=1)
    assert all(not p.any() for name, p in network.named_parameters() if "lora_B" in name)
    scalings = {module.scaling["default"] for module in network.modules() if hasattr(module, "lora_A")}
    assert scalings == {2.0}  # alpha / r = 2r / r
    explicit = load_network(
        str(checkpoint), ModelConfig(family=checkpoint.name, model=str(checkpoint)), LoraConfig(r=4, alpha=1), k=0, seed=1
    )
    assert {module.scaling["default"] for module in explicit.modules() if hasattr(module, "lora_A")} == {0.25}


def test_predictor_tokens_look_like_words(checkpoint: Path) -> None:
    network = tiny.network_of(tiny.trial(checkpoint))
    table = network.causal_lm.get_input_embeddings().weight.detach()
    drawn = new_predictor(network.causal_lm, 5000, seed=3)
    # 5,000 draws: the standard error of a mean is sd / 71, of a standard deviation sd / 100.
    assert float((drawn.mean(0) - table.mean(0)).abs().max()) < 0.1 * float(table.std())
    assert float((drawn.std(0) / table.std(0) - 1).abs().max()) < 0.1


def test_vocabulary_and_tying_are_those_of_the_checkpoint(checkpoint: Path) -> None:
    for lora in (None, LoraConfig(r=2)):
        network = tiny.network_of(tiny.trial(checkpoint, lora=lora, objective=ObjectiveConfig(k=3)))
        lm = network.causal_lm
        assert (
            lm.get_input_embeddings().num_embeddings
            == lm.config.vocab_size
            == len(load_tokenizer(str(checkpoint), tiny.trial(checkpoint).model))
        )
        assert lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
        assert not lm.config.use_cache


def test_seeded_leaves_the_generator_as_it_was() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(KeyError), seeded(7):
        inside = torch.rand(3)
        raise KeyError
    assert torch.equal(torch.rand(3), wanted) and not torch.equal(inside, wanted)


def test_precision_follows_the_device() -> None:
    auto, forced = ModelConfig(family="llama3"), ModelConfig(family="llama3", precision="bf16")
    assert not uses_bf16(auto, torch.device("cpu")) and uses_bf16(auto, torch.device("cuda")) and uses_bf16(forced, torch.device("cpu"))


def test_errors_name_the_remedy(checkpoint: Path, tmp_path: Path) -> None:
    model = ModelConfig(family=checkpoint.name, model="x")
    with pytest.raises(ValueError, match=r"neither a local folder nor reachable on the hub.*give the folder's path"):
        load_config("nobody/no-such-model", model)
    with pytest.raises(ValueError, match="no loadable checkpoint"):
        load_config(str(tmp_path), model)
    for other in FAMILIES:
        if FAMILIES[other].model_type != FAMILIES[checkpoint.name].model_type:
            with pytest.raises(ValueError, match="but family"):
                load_config(str(checkpoint), ModelConfig(family=other, model="x"))
            with pytest.raises(ValueError, match="is the family right"):
                load_tokenizer(str(checkpoint), ModelConfig(family=other, model="x"))


def test_pickled_weights_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / checkpoint.name
    shutil.copytree(checkpoint, folder)
    state = {name: torch.zeros(1) for name in ("a", "b")}
    for path in folder.glob("*.safetensors"):
        path.unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        load(folder)


def test_the_families_template_serves_a_checkpoint_without_one(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / checkpoint.name
    shutil.copytree(checkpoint, folder)
    (folder / "chat_template.jinja").unlink()
    model = ModelConfig(family=checkpoint.name, model=str(folder))
    assert load_tokenizer(str(folder), model).chat_template == FAMILIES[checkpoint.name].template
    (folder / "chat_template.jinja").write_text("its own")
    assert load_tokenizer(str(folder), model).chat_template == "its own"
