"""Event files, read back with TensorBoard's own EventAccumulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.orchestration.trackers import scenario

pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'jepa-ray[tensorboard]'")


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return events


def test_a_resumed_trial_continues_its_run_without_a_step_twice(tmp_path: Path) -> None:
    said = scenario.interrupted_and_resumed(tmp_path, scenario.opened(tmp_path, tensorboard=True))
    assert said == []
    folder = tmp_path / "shown" / "tensorboard" / "jepa" / "llama3" / "a1b2"
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2, "one per process"
    events = read(folder)
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    final = {tag: curves.pop(tag) for tag in list(curves) if tag.startswith("final/")}
    assert curves == {name: list(points.items()) for name, points in scenario.CURVE.items()}
    assert final == {f"final/{name}": [(6, value)] for name, value in scenario.FINAL.items() if isinstance(value, (int, float))}
    (note,) = events.Tensors("trial/text_summary")
    assert b"| state | COMPLETE |" in note.tensor_proto.string_val[0] and b"| device | cpu |" in note.tensor_proto.string_val[0]


def test_the_settings_are_hyperparameters(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import metadata

    scenario.interrupted_and_resumed(tmp_path, scenario.opened(tmp_path, tensorboard=True))
    events = read(tmp_path / "shown" / "tensorboard" / "jepa" / "llama3" / "a1b2")
    content = events.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(content)
    shown = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    wanted = scenario.settings_of(tmp_path)
    assert {name: shown[name] for name in wanted} == wanted
    assert (shown["arm"], shown["stage"], shown["sweep"]) == ("jepa/llama3", "confirm", "shown")
    assert metadata.SESSION_END_INFO_TAG in events.summary_metadata
