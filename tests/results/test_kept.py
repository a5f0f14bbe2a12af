"""The models of a results folder: which are there, and facts that are added to them."""

from __future__ import annotations

import json
from pathlib import Path

from jepa_ray.results import FACTS, add_facts, kept_models, model_folder, read_model, waiting_folder
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
