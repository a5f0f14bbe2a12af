"""Learning rates of pretrained models: what a file that leaves them out gets, and which files that concerns."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from jepa_ray.config.rates import ADAPTER_RATE
from jepa_ray.plan.load import dump, load_sweep

LORA = {"lora": {"r": 4}}
WHOLE = 2e-5


@pytest.mark.parametrize(
    ("model", "base", "rate"),
    [
        ("paper", LORA, ADAPTER_RATE),
        ("ORG/NAME", {**LORA, "optim": {"num_epochs": 1}}, ADAPTER_RATE),
        ({"llama3": "paper"}, LORA, ADAPTER_RATE),
        ("paper", {}, WHOLE),
        ("paper", {"lora": "none"}, WHOLE),
        ("paper", {**LORA, "optim": {"learning_rate": 1e-5}}, 1e-5),
        ("paper", {**LORA, "model": {"init": "random"}}, WHOLE),
        ("tiny", LORA, WHOLE),
    ],
)
def test_adapters_of_a_pretrained_model_learn_ten_times_as_fast(model: Any, base: dict[str, Any], rate: float) -> None:
    sweep = load_sweep({"name": "s", "methods": {"baseline": None}, "model": model, "base": base})
    assert sweep.base.optim.learning_rate == pytest.approx(rate) and pytest.approx(10 * WHOLE) == ADAPTER_RATE
    assert load_sweep(yaml.safe_load(dump(sweep))) == sweep, "the file in the results folder is another sweep"


@pytest.mark.parametrize("model", [["a"], {"llama3": ["a"]}, 3])
def test_a_model_that_is_no_name_is_a_sentence(model: Any) -> None:
    with pytest.raises(ValueError, match="model: must be one name for all families"):
        load_sweep({"name": "s", "methods": {"baseline": None}, "model": model, "base": LORA})
