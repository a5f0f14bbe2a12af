"""Paths that can be no checkpoint, each refused in one sentence with its remedy."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from jepa_ray import export
from jepa_ray.config import ModelConfig
from jepa_ray.models.folders import fault_of
from jepa_ray.models.loading import load_config
from jepa_ray.results import model_folder
from tests.model_cards import facts


def adapter(folder: Path, **trial: object) -> Path:
    """Adapters as PEFT saves them, without weights; `trial`: facts of a kept model."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    if trial:
        (folder / "trial.json").write_text(json.dumps(trial))
    return folder


def test_what_may_be_a_checkpoint_is_left_to_the_libraries(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny_checkpoints["llama3"]
    (tmp_path / "link").symlink_to(folder)
    for name in (str(folder), str(tmp_path / "link"), "some/repository", str(tmp_path / "missing"), str(tmp_path)):
        assert fault_of(name) is None


def test_files_links_and_empty_names(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    (tmp_path / "model.safetensors").touch()
    faults = {name: fault_of(str(tmp_path / name)) or "" for name in ("loop", "dead", "model.safetensors")}
    assert "link that leads back to itself" in faults["loop"]
    assert f"link to {tmp_path / 'nowhere'}, which does not exist" in faults["dead"]
    assert (
        "is a file; give the path of a folder with config.json" in faults["model.safetensors"]
        and "such as" not in faults["model.safetensors"]
    )
    (tmp_path / "config.json").touch()
    assert (fault_of(str(tmp_path / "model.safetensors")) or "").endswith(f"such as {tmp_path}")
    for empty in ("", " "):
        assert "the name of the model is empty; give" in (fault_of(empty) or "")
    assert "is no path" in (fault_of("a\0b") or "")


def test_kept_adapters_name_the_command_that_merges_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "my results"
    folder = model_folder(results, "jepa/auto", 82)
    adapter(folder, **facts("abc", arm="jepa/auto", config=facts()["config"] | {"seed": 82}, adapter=True))
    (results / "sweep.yaml").touch()
    monkeypatch.chdir(results)
    for path, source in ((str(folder), str(results)), (str(folder.relative_to(results)), ".")):
        fault = fault_of(path) or ""
        command = shlex.split(fault.partition("`")[2].partition("`")[0])
        assert command[:3] == ["python", "-m", "jepa_ray.export"] and command[3] == source and command[-3:] == ["--merge", "--to", "DIR"]
        # The command finds the model that was meant.
        chosen = export.choose(Path(command[3]), command[command.index("--arm") + 1], int(command[command.index("--seed") + 1]))
        assert chosen.folder.absolute() == folder
    moved = folder.rename(tmp_path / "moved")
    assert "jepa_ray.export RESULTS --arm jepa/auto --seed 82 --merge" in (fault_of(str(moved)) or "")
    with pytest.raises(ValueError, match=r"adapters without the model that they belong to .* use the folder DIR"):
        load_config(str(moved), ModelConfig(family="auto", model=str(moved)))


def test_adapters_from_elsewhere_name_their_base(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "lora")
    assert "merge them into their base (some/base) with PEFT's merge_and_unload" in (fault_of(str(folder)) or "")
    (folder / "adapter_config.json").write_text("[")
    assert "merge them into their base with PEFT" in (fault_of(str(folder)) or "")
    (folder / "config.json").touch()
    assert fault_of(str(folder)) is None
