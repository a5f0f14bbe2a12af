"""Masked encoders: tiny instances, loading, and which parameters are trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM

from jepa_ray.config import MaskedConfig, ModelConfig, ObjectiveConfig, TrialConfig
from jepa_ray.masked.network import MaskedNetwork, load_encoder_config, load_encoder_tokenizer, load_masked_lm, states, tiny_wordpiece
from jepa_ray.masked.prepare import write_tiny_encoder
from jepa_ray.masked.step import masked_network
from jepa_ray.models.encoders import ENCODERS, get_encoder

TEXTS = ("the plot was good.", "the acting was not dull, but the music was.", "we found the ending superb!")


@pytest.fixture(params=ENCODERS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> ModelConfig:
    write_tiny_encoder(get_encoder(request.param), TEXTS, tmp_path)
    return ModelConfig(family=request.param, model=str(tmp_path))


def network_of(model: ModelConfig, objective: ObjectiveConfig | None, seed: int = 1) -> MaskedNetwork:
    config = TrialConfig(model=model, masked=MaskedConfig(), objective=objective, seed=seed)
    return masked_network(load_masked_lm(model.model, model, seed), config)


def jepa(**changes: float) -> ObjectiveConfig:
    return ObjectiveConfig(**{"target": "ema", "predictor": "mlp", "k": 0, "gamma": 0.0, **changes})  # type: ignore[arg-type]


def test_the_tiny_tokenizer_does_not_depend_on_order_and_loses_nothing() -> None:
    tokenizer, other = tiny_wordpiece(TEXTS), tiny_wordpiece(reversed(TEXTS))
    assert tokenizer.get_vocab() == other.get_vocab()
    ids = tokenizer("The plot was superb.")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "the", "plot", "was", "superb", ".", "[SEP]"]
    assert tokenizer.unk_token_id not in tokenizer("not bad")["input_ids"], "a new word of known letters is split into them"
    assert tokenizer.unk_token_id in tokenizer("q")["input_ids"]
    assert (tokenizer.pad_token_id, tokenizer.mask_token) == (0, "[MASK]")


def test_the_head_gives_the_logits_of_transformers_own_model(model: ModelConfig) -> None:
    network, tokenizer = network_of(model, None), load_encoder_tokenizer(model.model, model)
    reference = AutoModelForMaskedLM.from_pretrained(model.model).eval()
    batch = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = reference(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        index = torch.tensor([2, 9, 17])
        ours, source = network.eval()(batch["input_ids"], batch["attention_mask"], index)
    assert source is None and torch.allclose(ours, logits.flatten(0, 1)[index], atol=1e-6)


def test_without_its_head_and_predictor_neither_is_trained(model: ModelConfig) -> None:
    alone, both, mlm = (network_of(model, objective) for objective in (jepa(), jepa(gamma=1.0), None))

    def trained(network: MaskedNetwork) -> set[str]:
        return {name for name, parameter in network.named_parameters() if parameter.requires_grad}

    encoder = {name for name in trained(mlm) if name.startswith(f"lm.{mlm.lm.base_model_prefix}.")}
    predictor = {name for name in trained(both) if name.startswith("predictor.")}
    assert predictor and trained(alone) == encoder | predictor and trained(mlm) | predictor == trained(both)
    assert trained(mlm) > encoder, "the head has its own parameters"
    zero = network_of(model, ObjectiveConfig(target="ema", predictor="mlp", k=0, **{"lambda": 0.0}))  # type: ignore[arg-type]
    assert trained(zero) == trained(mlm) and zero.predictor is None


def test_initial_weights_are_the_seeds_own(model: ModelConfig) -> None:
    scratch = model.model_copy(update={"init": "random"})
    first, again, other = (network_of(scratch, jepa(), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["predictor.weight_HD"], other["predictor.weight_HD"])
    name = next(name for name in first if name.endswith("word_embeddings.weight"))
    assert not torch.equal(first[name], other[name])
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    network_of(scratch, jepa(), 1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_checkpoint_of_the_encoder_alone_gets_a_head_from_the_seed(model: ModelConfig, tmp_path: Path) -> None:
    encoder = AutoModel.from_pretrained(model.model)
    encoder.save_pretrained(tmp_path / "bare")
    bare = model.model_copy(update={"model": str(tmp_path / "bare")})
    first, again, other = (load_masked_lm(bare.model, bare, seed).state_dict() for seed in (1, 1, 2))
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    differing = {name for name in first if not torch.equal(first[name], other[name])}
    assert differing and not any(name.startswith(f"{ENCODERS[model.family].model_type}.") for name in differing)


def test_padding_is_seen_by_nobody(model: ModelConfig) -> None:
    network = network_of(model, None).eval()
    ids = torch.tensor([[5, 6, 7, 8, 0, 0]])
    real = torch.tensor([[1, 1, 1, 1, 0, 0]])
    with torch.no_grad():
        padded, alone = states(network.encoder, ids, real)[:, :4], states(network.encoder, ids[:, :4], real[:, :4])
        leaking = states(network.encoder, ids, torch.ones_like(real))[:, :4]
    assert torch.allclose(padded, alone, atol=1e-6) and not torch.allclose(leaking, alone, atol=1e-3)


def test_what_cannot_be_loaded_says_why(model: ModelConfig, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    causal = str(tiny_checkpoints["llama3"])
    with pytest.raises(ValueError, match=r"contains a 'llama' model, but family .* is the masked encoder"):
        load_encoder_config(causal, model)
    with pytest.raises(ValueError, match="has no mask token"):
        load_encoder_tokenizer(causal, model)
    with pytest.raises(ValueError, match=r"the folder .* does not exist"):
        load_encoder_config(str(tmp_path / "none" / "such"), model)
    with pytest.raises(ValueError, match="known: distilbert, bert"):
        get_encoder("roberta")
