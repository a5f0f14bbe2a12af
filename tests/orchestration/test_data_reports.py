"""What has changed since the last run in a folder: compared by digests, never by what an earlier version did not write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jepa_ray.orchestration.data_reports import renew, told

NOW = {"sha": {"train": "a", "val": "b", "test": "c"}, "weights_sha": "w", "sizes": {"train": 1}}


@pytest.mark.parametrize(
    ("before", "changed"),
    [
        (None, []),
        (NOW, []),
        ({**NOW, "sizes": {"train": 2}}, []),
        ({**NOW, "weights_sha": "v"}, ["weights"]),
        ({**NOW, "sha": {**NOW["sha"], "val": "x"}}, ["data"]),  # type: ignore[dict-item]
        ({**NOW, "sha": {}, "weights_sha": "v"}, ["data", "weights"]),
        ({"sha": NOW["sha"]}, []),  # of an earlier version
        ([], []),
    ],
)
def test_what_has_changed(before: Any, changed: list[str], tmp_path: Path) -> None:
    path = tmp_path / "data" / "llama3-nl-rx.json"
    if before is not None:
        path.parent.mkdir()
        path.write_text(json.dumps(before), encoding="utf-8")
    assert renew(tmp_path, "llama3", "nl-rx", NOW) == changed
    assert json.loads(path.read_text(encoding="utf-8")) == NOW and renew(tmp_path, "llama3", "nl-rx", NOW) == []


def test_a_damaged_report_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "data" / "llama3-nl-rx.json"
    path.parent.mkdir()
    path.write_bytes(b'{"sha": "\xff')
    assert renew(tmp_path, "llama3", "nl-rx", NOW) == [] and json.loads(path.read_text(encoding="utf-8")) == NOW


def test_the_sentence() -> None:
    assert told("llama3", ["data"]).startswith("llama3: the data have changed since the last run in this folder. ")
    assert told("llama3", ["data", "weights"]).startswith("llama3: the data and weights have changed since")
