"""A `model` that can be no checkpoint is one message at its place, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jepa_ray.plan.load import ConfigError, load_sweep

SWEEP: dict[str, Any] = {"name": "a", "methods": {"base": "none"}}


def messages(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_sweep({**SWEEP, **changes})
    return caught.value.messages


def test_a_model_that_is_no_folder_is_refused_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (message,) = messages(model=str(tmp_path / "weights.bin"))
    assert message.startswith(f"model: {tmp_path / 'weights.bin'} is a file; give ")
    (message,) = messages(model={"llama3": "tiny", "qwen3": str(tmp_path / "loop")}, families=["llama3", "qwen3"])
    assert message.startswith("model.qwen3: ") and "leads back to itself" in message
    (message,) = messages(model="")
    assert message.startswith("model: the name of the model is empty; give ")


def test_names_of_the_package_are_not_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").touch()
    (tmp_path / "paper").touch()
    for model in ("tiny", "paper", "some/repository"):
        assert load_sweep({**SWEEP, "model": model}).model == model
