"""The shapes that plans use are those of the checkpoints: their parameter counts are the published ones."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from jepa_ray.models import openelm  # noqa: F401 - registers itself with the Auto classes
from jepa_ray.models.checkpoint_configs import CHECKPOINT_CONFIGS
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.shapes import Shape

PUBLISHED = {
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "google/gemma-2-2b-it": 2_614_341_888,
    "apple/OpenELM-270M-Instruct": 271_527_168,
    "apple/OpenELM-450M-Instruct": 457_179_136,
    "apple/OpenELM-1_1B-Instruct": 1_079_891_456,
    "apple/OpenELM-3B-Instruct": 3_036_647_424,
    "allenai/OLMo-2-0425-1B-Instruct": 1_484_916_736,
    "allenai/OLMo-2-1124-7B-Instruct": 7_298_617_344,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "microsoft/phi-1_5": 1_418_270_720,
}
"""Parameters as counted in the repositories' weight files, tied matrices once."""


def test_every_checkpoint_of_a_family_has_a_shape() -> None:
    for family in FAMILIES.values():
        for name in (family.paper_model, *family.other_models):
            assert CHECKPOINT_CONFIGS[name]["model_type"] == family.model_type
    assert CHECKPOINT_CONFIGS.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_number(name: str) -> None:
    keys = dict(CHECKPOINT_CONFIGS[name])
    config = AutoConfig.for_model(keys.pop("model_type"), **keys)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]
    shape = Shape.of(CHECKPOINT_CONFIGS[name])
    assert shape.num_parameters == PUBLISHED[name]
    assert shape == Shape.of(config.to_dict()), "the shipped keys and Transformers' own say the same"
