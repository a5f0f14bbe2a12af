"""Offline runs of Weights & Biases, read back from their files with its own records. (The package itself no longer has a reader.)"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.orchestration.trackers import scenario

pytest.importorskip("wandb", reason="Weights & Biases is not installed: pip install 'jepa-ray[wandb]'")
pytestmark = pytest.mark.timeout(180)
BLOCK, WHOLE, LAST = 32768, 1, 4


def records(path: Path) -> list[Any]:
    """The records of a file in the format of LevelDB's log, after a header of 7 bytes: checksum, length, and kind (whole, first, ...)."""
    from wandb.proto import wandb_internal_pb2

    data, at, part, out = path.read_bytes(), 7, b"", []
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # the rest of a block is too small for a record
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (WHOLE, LAST):
            out.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    assert part == b"" and at == len(data)
    return out


def read(folder: Path) -> list[list[Any]]:
    """The records of each offline run, in the order of their creation."""
    paths = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_ctime_ns)
    return [records(path) for path in paths]


def test_a_resumed_trial_continues_its_run_without_a_step_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    track = {"project": "jepa", "mode": "offline"}
    assert scenario.interrupted_and_resumed(tmp_path, scenario.opened(tmp_path, wandb=track)) == []
    files = read(tmp_path / "shown")
    assert len(files) == 2, "one per process"
    runs = [record.run for file in files for record in file if record.WhichOneof("record_type") == "run"]
    assert len({run.run_id for run in runs}) == 1
    run = runs[0]
    assert (run.project, run.display_name, run.run_group, run.job_type) == ("jepa", "jepa/llama3 seed 82", "jepa/llama3", "confirm")
    assert set(run.tags) == {"a1b2", "confirm", "seed 82"}
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {name: config[name] for name in scenario.settings_of(tmp_path)} == scenario.settings_of(tmp_path)

    curves: dict[str, list[tuple[int, float]]] = {}
    for record in (record for file in files for record in file if record.WhichOneof("record_type") == "history"):
        items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for name in scenario.CURVE.keys() & items.keys():
            curves.setdefault(name, []).append((items["_step"], items[name]))
    assert curves == {name: list(points.items()) for name, points in scenario.CURVE.items()}
    summary = {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
        for record in files[-1]
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }
    assert (
        summary["state"] == "COMPLETE"
        and summary["test_accuracy"] == 0.375
        and summary["device"] == "cpu"
        and summary["wall_seconds"] == 12.5
    )
    assert [record.exit.exit_code for record in files[-1] if record.WhichOneof("record_type") == "exit"] == [0]


def test_without_an_api_key_runs_are_kept_offline_and_nothing_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    from jepa_ray.config import WandbConfig
    from jepa_ray.orchestration.trackers.wandb import WeightsAndBiases
    from jepa_ray.orchestration.tracking import tracked

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    opened: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **arguments: opened.append(arguments))
    said: list[str] = []
    tracker = WeightsAndBiases(WandbConfig(project="jepa"), tmp_path, said.append)
    for name in ("a", "b"):
        tracker.open(tracked("shown", scenario.job_of(tmp_path, name)), None)
    assert [arguments["mode"] for arguments in opened] == ["offline", "offline"]
    assert len(said) == 1 and "no API key" in said[0] and "wandb sync" in said[0]
    assert opened[0]["id"] != opened[1]["id"]
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    WeightsAndBiases(WandbConfig(project="jepa"), tmp_path, said.append).open(tracked("shown", scenario.job_of(tmp_path, "c")), None)
    assert opened[-1]["mode"] == "online" and len(said) == 1
