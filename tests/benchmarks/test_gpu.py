"""The runner of the GPU benchmark's parts: one that fails, crashes or hangs is recorded, the next one runs, and the table names it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import data
from benchmarks.gpu.form import Form
from benchmarks.gpu.parts import BUDGET_S, PARTS, Part
from benchmarks.gpu.runner import run_parts
from benchmarks.gpu.table import table

command = importlib.import_module("benchmarks.gpu.__main__")

KEYS = {"part", "state", "form", "device", "seconds", "limit_s", "headline", "error", "stderr", "figures"}


def fakes(*names: str, limit_s: float = 30) -> dict[str, Part]:
    return {name: Part(name, f"tests.fake_gpu_parts:{name}", limit_s) for name in names}


def on_disk(folder: Path, name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return record


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "device_of_this_machine", lambda: "cpu")


def test_whatever_a_part_does_it_is_recorded_and_the_next_one_runs(
    tmp_path: Path, without_cuda: None, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = fakes("raises", "crashes", "exits", "skips", "fine")
    assert command.main(["--out", str(tmp_path), "--data", str(tmp_path)], parts) == 1
    records = {name: on_disk(tmp_path, name) for name in parts}
    assert {name: record["state"] for name, record in records.items()} == {
        "raises": "failed", "crashes": "failed", "exits": "failed", "skips": "skipped", "fine": "ok",
    }  # fmt: skip
    assert all(record.keys() == KEYS and record["form"] == "small" and record["device"] == "cpu" for record in records.values())
    errors = {name: record["error"] for name, record in records.items()}
    assert errors == {
        "raises": "RuntimeError: unlucky number", "crashes": "killed by SIGSEGV", "exits": "gave up",
        "skips": "there is no such thing here", "fine": None,
    }  # fmt: skip
    assert any("fake_gpu_parts.py" in line for line in records["raises"]["stderr"]), "the traceback is kept"
    assert records["raises"]["figures"] == {"before": 2}, "figures from before the failure are kept"
    assert records["fine"]["figures"] == {"one": 1.0, "none": None, "small": True, "data": str(tmp_path)}
    assert "===== raises" in (tmp_path / "log.txt").read_text() and "unlucky number" in (tmp_path / "log.txt").read_text()
    shown = capsys.readouterr().out
    assert shown.startswith("No CUDA here") and shown.splitlines()[1] == f"raises: failed after {records['raises']['seconds']:.1f} s"
    assert shown.endswith((tmp_path / "table.txt").read_text()), "the table is printed last"
    rows = [line.split() for line in (tmp_path / "table.txt").read_text().splitlines()]
    assert [row[:2] for row in rows[1:-1]] == [[name, record["state"]] for name, record in records.items()]
    assert "1 ok, 3 failed, 1 skipped" in shown.splitlines()[-1]


def test_nothing_outlives_its_limit(tmp_path: Path) -> None:
    began = time.monotonic()
    hung, after = run_parts([*fakes("hangs", limit_s=4).values(), *fakes("fine").values()], Form(tmp_path))
    assert hung["state"] == "timed out" and hung["error"] == "ran over its limit of 4 s" and hung["stderr"] == ["waiting for nothing"]
    assert 2 < hung["seconds"] < 10 and time.monotonic() - began < 30
    assert 0 < hung["figures"]["left"] < 3, "its own deadline is before the SIGTERM"
    stat = Path(f"/proc/{hung['figures']['child']}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z", "its child process is still running"
    assert after["state"] == "ok"
    assert "timed out" in table([hung, after]) and "ran over its limit of 4 s; started" in table([hung, after])


def test_a_part_that_measures_more_with_more_time_gets_what_others_left(tmp_path: Path) -> None:
    parts = [*fakes("fine", "skips").values(), Part("more", "tests.fake_gpu_parts:fine", 10, takes_spare=True)]
    for small in (False, True):
        records = run_parts([*parts, *fakes("raises").values()], Form(tmp_path, small=small))
        spare = 2 * 30 - records[0]["seconds"] - records[1]["seconds"]
        assert [record["limit_s"] for record in records] == [30, 30, 10 if small else pytest.approx(10 + spare, abs=0.1), 30]


def test_the_exit_code_is_0_where_none_failed(tmp_path: Path, without_cuda: None, capsys: pytest.CaptureFixture[str]) -> None:
    parts = fakes("skips", "fine", "raises")
    assert command.main(["--out", str(tmp_path), "--only", "fine", "skips"], parts) == 0
    assert not (tmp_path / "raises.json").exists(), "it was not requested"
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 ok, 1 skipped")


def test_a_part_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--out", str(tmp_path), "--only", "nothing"])
    assert ended.value.code == 2 and "step-nlrx-lora" in capsys.readouterr().err


def test_on_a_gpu_the_form_is_full_unless_the_small_one_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "device_of_this_machine", lambda: "cuda")
    for arguments, wanted in (([], "full"), (["--small"], "small")):
        assert command.main(["--out", str(tmp_path), "--only", "fine", *arguments], fakes("fine")) == 0
        record = on_disk(tmp_path, "fine")
        assert (record["form"], record["device"]) == (wanted, "cuda")
        assert record["limit_s"] == 30 or arguments, "limits are raised only for the small form"


def test_all_parts_together_stay_under_eight_minutes() -> None:
    assert sum(part.limit_s for part in PARTS.values()) <= BUDGET_S == 8 * 60
    assert {"card", "selfcheck", "reference", "generation", "trial", "ray"} <= PARTS.keys()
    assert sum(name.startswith("step-") for name in PARTS) == 4


@pytest.mark.slow
def test_every_part_is_there_and_none_needs_ray_to_be_imported(repository: Path) -> None:
    targets = [part.target.split(":") for part in PARTS.values()]
    program = (
        "import importlib, sys\nsys.modules['ray'] = None\n"
        f"assert all(callable(getattr(importlib.import_module(module), name)) for module, name in {targets!r})"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=repository, env=os.environ | {"PYTHONPATH": str(repository)})


def test_data_come_from_the_folder_where_one_is_given(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"synth_train\.jsonl; put one there, or leave out --data"):
        data.examples("nl-rx", tmp_path, 3)
    rows = [{"messages": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": str(i)}]} for i in range(5)]
    (tmp_path / "synth_train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples, source = data.examples("nl-rx", tmp_path, 3)
    assert [example.text for example in examples] == ["question 0", "question 1", "question 2"] and source == "synth_train.jsonl"


def test_made_examples_are_the_same_every_time() -> None:
    for task in ("nl-rx", "gsm8k"):
        one, other = (data.examples(task, None, 20)[0] for _ in range(2))
        assert one == other and len({example.text for example in one}) == 20


def test_made_problems_have_the_lengths_of_gsm8k() -> None:
    from benchmarks.gpu import models

    sample = data.gsm8k_like(400)
    _, table = models.tokenised("llama3", sample)
    for name, mean, spread in (("text", 123, 39), ("code", 158, 57)):
        lengths = getattr(table, name).lengths
        assert abs(lengths.mean() / mean - 1) < 0.1 and abs(lengths.std() / spread - 1) < 0.25
