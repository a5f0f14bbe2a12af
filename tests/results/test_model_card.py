"""A model card says what the model is, how good it is, and how to load it, and parses as the hub's does."""

from __future__ import annotations

import ast
import re
from typing import Any

import yaml

from jepa_ray.config import ModelConfig, TrialConfig, canonical
from jepa_ray.results.model_card import NO_VERDICT, asking, loading, model_card
from tests.model_cards import facts


def front_of(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)  # type: ignore[no-any-return]


def test_the_card_of_adapters() -> None:
    known = facts(
        arm="jepa/llama3",
        why="Its test accuracy is the median of 5 seeds.",
        scores={"val_accuracy": 0.25, "test_accuracy": 0.5, "test_stopped": 1.0},
        dataset_sha="d1gest",
        sizes={"train": 100, "val": 20, "test": 30},
        verdict=["better: jepa/llama3 against baseline/llama3: +3.00 points", "    equal FLOPs: +1.00 points"],
    )
    card = model_card(known)
    assert front_of(card) == {
        "base_model": "org/model",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["jepa_ray", "llm-jepa", "lora", "nl-rx"],
    }
    for said in (
        "# jepa/llama3, seed 82",
        "revision `abc`",
        "by jepa_ray 1.2.3",
        "- better: jepa/llama3 against baseline/llama3: +3.00 points\n- equal FLOPs: +1.00 points",
        "median of 5 seeds",
        "| validation | 0.2500 | - |",
        "| test | 0.5000 | 1.0000 |",
        "SHA-256: `d1gest`",
        "test: `generated`, 30 examples",
        "They go after the Text view.",
        "https://huggingface.co/org/model",
    ):
        assert said in card, said
    configuration = re.search(r"```yaml\n(.*?)```", card, re.DOTALL)
    assert configuration is not None and TrialConfig.model_validate(yaml.safe_load(configuration[1])) == TrialConfig.model_validate(
        known["config"]
    )
    assert NO_VERDICT not in card and NO_VERDICT in model_card(facts())


def test_a_whole_model_on_the_tiny_base_needs_neither_peft_nor_the_base() -> None:
    config = canonical(TrialConfig(model=ModelConfig(family="gemma2")))
    known = facts(
        adapter=False, base="/cache/tiny/x", base_name="tiny", local=True, hub=False, revision=None, config=config, predictor=None
    )
    card = model_card(known)
    assert front_of(card)["library_name"] == "transformers" and "base_model" not in front_of(card)
    assert front_of(card)["tags"] == ["jepa_ray", "nl-rx"] and "without a JEPA term" in card and "Predictor" not in card
    assert "peft" not in loading(known) and "/cache" not in card and "huggingface.co" not in card


def test_a_folder_as_base_has_its_path_and_no_name_on_the_hub() -> None:
    card = model_card(facts(base="/models/mine", base_name="/models/mine", local=True, hub=False, revision=None))
    assert not {"base_model", "base_model_relation"} & front_of(card).keys() and front_of(card)["library_name"] == "peft"
    assert "LoRA adapters on `/models/mine`," in card and 'from_pretrained("/models/mine"' in card and "huggingface.co" not in card


def test_adapters_on_a_first_stage_say_that_their_base_is_temporary() -> None:
    """As earlier versions kept them."""
    config = facts()["config"] | {"pretrain": {"data": {"task": "gsm8k"}}}
    card = model_card(facts(config=config, base="/results/x/scratch/pretrained/1f", local=True))
    assert "These adapters belong to its result, a temporary checkpoint: `/results/x/scratch/pretrained/1f`." in card
    assert "export" in card and "--merge" in card
    whole = model_card(facts(config=config, first_stage=True, adapter=False))
    assert "from `org/model`. These weights contain both stages." in whole and "scratch" not in whole
    assert "first stage" not in model_card(facts())


def test_a_baseline_is_not_compared_with_itself() -> None:
    assert "baseline?" not in model_card(facts(kind="baseline")) and NO_VERDICT not in model_card(facts(kind="baseline"))
    card = model_card(facts(kind="baseline", verdict=["better: jepa/llama3 against base/llama3"]))
    assert "## How the other arms compare\n\n- better: jepa/llama3 against base/llama3" in card and "baseline?" not in card
    for kind in ("claim", "control"):
        assert "## Better than its baseline?" in model_card(facts(kind=kind))


def test_the_code_of_every_kind_of_prompt_parses_and_is_short() -> None:
    prompt = facts()["prompt"]
    for changes in ({}, {"own": False}, {"front": "<bos>"}, {"system_role": False, "template_kwargs": {"enable_thinking": False}}):
        known = facts(prompt=prompt | changes, model_type="openelm")
        for code in (loading(known), asking(known)):
            ast.parse(code)
    for role, shown in ((True, ['    {"role": "system", "content": "Say \\"a\\"."},']), (False, ['"content": "Say \\"a\\".\\n\\n..."},'])):
        code = asking(facts(prompt=prompt | {"system": 'Say "a".', "system_role": role}))
        ast.parse(code)
        assert all(line in code for line in shown), code
    assert "import jepa_ray.models.openelm" in loading(facts(model_type="openelm")) and "jepa_ray" not in loading(facts())
    assert len([line for line in loading(facts()).splitlines() if line and "import" not in line]) == 3
    assert "date_string='26 Jul 2024'" in asking(facts()) and '"<bos>"' not in asking(facts())
