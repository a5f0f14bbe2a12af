"""Event files, read back with TensorBoard's own EventAccumulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jepa_ray.orchestration.trackers.tensorboard import TensorBoard
from jepa_ray.orchestration.tracking import tracked
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
    folder = tmp_path / "shown" / "tensorboard" / "jepa" / "llama3" / "seed-82"
    assert [path.name for path in folder.parent.iterdir()] == ["seed-82"]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2, "one per process"
    events = read(folder)
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    final = {tag: curves.pop(tag) for tag in scenario.ONLY_FINAL}
    assert curves == {name: list(points.items()) for name, points in scenario.CURVE.items()}
    assert final == {name: [(6, value)] for name, value in scenario.ONLY_FINAL.items()}
    (note,) = events.Tensors("trial/text_summary")
    assert b"| state | COMPLETE |" in note.tensor_proto.string_val[0] and b"| device | cpu |" in note.tensor_proto.string_val[0]


def test_the_settings_are_hyperparameters(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import metadata

    scenario.interrupted_and_resumed(tmp_path, scenario.opened(tmp_path, tensorboard=True))
    events = read(tmp_path / "shown" / "tensorboard" / "jepa" / "llama3" / "seed-82")
    content = events.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(content)
    shown = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    wanted = scenario.settings_of(tmp_path)
    assert {name: shown[name] for name in wanted} == wanted
    assert (shown["arm"], shown["stage"], shown["sweep"], shown["trial"]) == ("jepa/llama3", "confirm", "shown", "a1b2")
    assert metadata.SESSION_END_INFO_TAG in events.summary_metadata


def test_trials_of_one_name_have_folders_of_their_own_that_may_move(tmp_path: Path) -> None:
    tracker, shown = scenario.opened(tmp_path, tensorboard=True)(), tmp_path / "shown" / "tensorboard"
    jobs = [scenario.job_of(tmp_path, "a1"), scenario.job_of(tmp_path, "b2"), scenario.job_of(tmp_path, "c3", "matched")]
    jobs += [scenario.job_of(tmp_path, "d4", "search", 7), scenario.job_of(tmp_path, "e5", "search")]
    runs = [tracker.open(tracked("shown", job), None) for job in jobs]
    assert [run.id for run in runs] == [
        f"jepa/llama3/{name}" for name in ("seed-82", "seed-82-2", "seed-82-equal-FLOPs", "trial-7", "trial-e5")
    ]
    for run in runs:
        assert run.new
        run.log([(1, {"step_ce": 2.0})])
        run.leave()
    shown.parent.rename(tmp_path / "moved")
    moved = TensorBoard(tmp_path / "moved" / "tensorboard")
    again = moved.open(tracked("shown", jobs[1]), runs[1].id)
    assert not again.new and again.id == runs[1].id and moved.where == tracker.where
    again.leave()
