"""The start-up check: attention of packed rows by every kernel, and the head, on models that differ from Llama there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_ray.config import ModelConfig
from jepa_ray.conformance.forms import FORMS
from jepa_ray.data.views import TokenTable, tokenize_split
from jepa_ray.models.auto import family_of
from jepa_ray.models.families import AUTO
from jepa_ray.models.loading import load_network, load_tokenizer
from jepa_ray.models.network import Network
from jepa_ray.training.packing_check import PackingError, attention_error, check_head
from tests import tiny_models as tiny


def form(name: str, folder: Path) -> tuple[Network, TokenTable]:
    FORMS[name].write(folder, [text for pair in tiny.EXAMPLES for text in (pair.system, pair.text, pair.code)])
    model = ModelConfig(family=AUTO, model=str(folder))
    table = tokenize_split(tiny.EXAMPLES[:6], load_tokenizer(str(folder), model), family_of(model, str(folder)), 512)
    return load_network(str(folder), model, None, k=2, seed=0), table


@pytest.mark.parametrize("name", ["Mistral", "Phi 3", "Gemma 3", "OLMo 3", "SmolLM3", "Pythia"])
def test_flex_attends_within_each_architectures_windows(name: str, tmp_path: Path) -> None:
    """Some keep their window in the config only, so its tiles must be prepared from there."""
    network, table = form(name, tmp_path)
    window = FORMS[name].config.get("sliding_window")
    assert window is None or int(table.lm.lengths.max()) > window
    network.kernel = "flex"
    assert attention_error(network, table, "trie", k=2, bf16=False) < 1e-4


@pytest.mark.parametrize(("name", "scale"), [("Granite", "logits_scaling"), ("Gemma 2", "final_logit_softcapping")])
def test_a_head_whose_logits_are_scaled_elsewhere_is_refused(name: str, scale: str, tmp_path: Path) -> None:
    network, table = form(name, tmp_path)
    check_head(network, table, bf16=False)
    assert network.training  # as before
    original = network.logits

    def unscaled(hidden_ND: torch.Tensor) -> torch.Tensor:
        kept = getattr(network.causal_lm.config, scale)
        setattr(network.causal_lm.config, scale, 1.0)
        logits = original(hidden_ND)
        setattr(network.causal_lm.config, scale, kept)
        return logits

    network.logits = unscaled  # type: ignore[method-assign]
    with pytest.raises(PackingError, match=r"logits of this model are not its head's output.*not supported, report it"):
        check_head(network, table, bf16=False)


def test_weights_that_are_not_finite_are_named_as_the_cause(tmp_path: Path) -> None:
    network, table = form("SmolLM2", tmp_path)
    with torch.no_grad():
        next(iter(network.causal_lm.base_model.layers[0].parameters())).fill_(torch.nan)
    with pytest.raises(PackingError, match=r"states are not finite before any training: its weights contain NaN"):
        attention_error(network, table, "trie", k=2, bf16=False)
