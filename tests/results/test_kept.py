"""The models of a results folder: which are there, and facts that are added to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from jepa_ray.results import FACTS, add_facts, kept_models, model_damage, model_folder, read_model, unreadable_models, waiting_folder
from tests.model_cards import facts, put


def test_models_are_found_by_arm_and_seed_without_those_that_wait(tmp_path: Path) -> None:
    assert kept_models(tmp_path) == []
    config = facts()["config"]
    for arm, seed in (("jepa/llama3", 23), ("jepa/llama3", 4), ("baseline/llama3/spider", 82)):
        put(model_folder(tmp_path, arm, seed), facts(arm=arm, config=config | {"seed": seed}))
    put(waiting_folder(tmp_path, "f00d"), facts("f00d"))
    (tmp_path / "models" / "jepa" / "seed-1").mkdir()
    (tmp_path / "models" / "jepa" / "seed-1" / FACTS).write_text("{")
    assert [(model.arm, model.seed) for model in kept_models(tmp_path)] == [
        ("baseline/llama3/spider", 82),
        ("jepa/llama3", 4),
        ("jepa/llama3", 23),
    ]
    waiting = read_model(waiting_folder(tmp_path, "f00d"))
    assert waiting is not None and waiting.trial_id == "f00d" and read_model(tmp_path / "models" / "jepa" / "seed-1") is None


def test_facts_are_added_to_file_and_card_and_unchanged_files_stay(tmp_path: Path) -> None:
    model = put(tmp_path / "seed-82", facts())
    model = add_facts(model, verdict=["better: it is"])
    assert json.loads((model.folder / FACTS).read_text())["verdict"] == ["better: it is"] == model.facts["verdict"]
    assert "- better: it is" in (model.folder / "README.md").read_text()
    before = {path.name: path.stat().st_ino for path in model.folder.iterdir()}
    add_facts(model, verdict=["better: it is"])
    assert {path.name: path.stat().st_ino for path in model.folder.iterdir()} == before


def test_a_model_is_sound_if_all_files_that_it_needs_are(tmp_path: Path) -> None:
    model = put(model_folder(tmp_path, "jepa/llama3", 4), facts(arm="jepa/llama3", adapter=False))
    assert model_damage(model) == "config.json is missing"
    (model.folder / "config.json").write_text('{"model_type": "llama"}')
    assert str(model_damage(model)).startswith("model.safetensors is damaged (")
    (model.folder / "model.safetensors").unlink()
    assert model_damage(model) == "model.safetensors is missing"
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (model.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": np.zeros(4)}, model.folder / "model-1-of-2.safetensors")
    assert model_damage(model) == "model-2-of-2.safetensors is missing"
    save_file({"b": np.zeros(4)}, model.folder / "model-2-of-2.safetensors")
    assert model_damage(model) is None
    (model.folder / "predictor.safetensors").touch()
    assert model_damage(model) == "predictor.safetensors is damaged (it is empty)"
    (model.folder / "tokenizer.json").write_text("{")
    assert str(model_damage(model)).startswith("tokenizer.json is damaged (")


def test_facts_that_make_no_card_are_no_model(tmp_path: Path) -> None:
    for seed, content in enumerate(("[]", "{", '{"trial_id": "0", "config": {"seed": 4}}')):
        folder = model_folder(tmp_path, "jepa/llama3", seed)
        put(folder, facts())
        (folder / FACTS).write_text(content)
        assert read_model(folder) is None
    (model_folder(tmp_path, "jepa/llama3", 8)).mkdir()
    assert [path.name for path in unreadable_models(tmp_path, "jepa/llama3")] == ["seed-0", "seed-1", "seed-2", "seed-8"]
    assert unreadable_models(tmp_path, "jepa") == [] == kept_models(tmp_path)
