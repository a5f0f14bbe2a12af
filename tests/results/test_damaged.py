"""Files that cannot be read are named and renamed, never deleted, and the sweep continues."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from jepa_ray import results
from jepa_ray.config import TrialConfig, canonical
from jepa_ray.results import TrialResult, damaged

CONFIG = TrialConfig.model_validate({"model": {"family": "llama3"}})
IDS = ("a" * 16, "b" * 16, "c" * 16)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def garbage(path: Path) -> None:
    path.write_bytes(b"PAR1" + bytes(range(256)) * 8 + b"PAR1")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    """The footer is intact: only reading the columns reveals the damage."""
    raw = path.read_bytes()
    path.write_bytes(raw[:4] + bytes(len(raw) // 8) + raw[4 + len(raw) // 8 :])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "kept").write_text("of value")


def another_table(path: Path) -> None:
    pd.DataFrame({"trial_id": [[1]]}).to_parquet(path)


DAMAGES: tuple[Callable[[Path], None], ...] = (truncated, garbage, empty, overwritten, a_folder, another_table)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three trials with a file in every table."""
    row = {"step": 1, "epoch": 1.0, "split": "val", "name": "val_accuracy", "value": 0.5}
    answers = [{"split": "val", "example_id": str(n), "prediction": f"answer {n}", "correct": True} for n in range(50)]
    vectors = [{"split": "val", "example_id": "1", "view": "text", "vector": [0.5, 0.25]}]
    for number, trial_id in enumerate(IDS, 1):
        done = TrialResult("COMPLETE", None, {"val_accuracy": 0.5}, [row] * 50, answers, vectors)
        results.write_trial(tmp_path, trial_id, CONFIG, "jepa/llama3", "search", done, number)
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("table", damaged.SCHEMAS)
def test_a_damaged_file_is_set_aside_with_the_row_of_its_trial(table: str, damage: Callable[[Path], None], folder: Path) -> None:
    path = folder / table / f"{IDS[1]}.parquet"
    damage(path)
    before = {p.name for p in (folder / table).iterdir()}
    (sentence,) = damaged.mend(folder)
    aside = path.with_name(f"_{path.name}.damaged")
    assert str(path) in sentence and aside.name in sentence and "runs again" in sentence and "\n" not in sentence
    assert aside.exists() and not path.exists()
    if table != "trials":
        assert (folder / "trials" / f"_{path.name}.incomplete").is_file()
    assert len(before) == len([p for p in (folder / table).iterdir() if not p.name.endswith("incomplete")]), "something is gone"
    assert results.read_trials(folder)["trial_id"].tolist() == [IDS[0], IDS[2]]
    assert set(results.read_predictions(folder)["trial_id"]) == set(results.read_metrics(folder)["trial_id"]) == {IDS[0], IDS[2]}
    for name in damaged.SCHEMAS:
        assert len(pd.read_parquet(folder / name)), "a reader of the whole folder fails on a file that was set aside"
    assert damaged.mend(folder) == [], "once is enough"
    results.write_trial(folder, IDS[1], CONFIG, "jepa/llama3", "search", TrialResult("COMPLETE", None, {}, [], []), 2)
    assert damaged.mend(folder) == [] and len(results.read_trials(folder)) == 3


def test_what_is_set_aside_never_overwrites(folder: Path) -> None:
    path = folder / "trials" / f"{IDS[0]}.parquet"
    for number in range(3):
        path.write_bytes(b"%d" % number)
        damaged.mend(folder)
    kept = sorted((folder / "trials").glob("_*.damaged*"))
    assert [p.read_bytes() for p in kept] == [b"0", b"1", b"2"]


def test_a_sound_folder_is_left_alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("copy") / "s")
    (copy / "study.db").touch()
    for table in ("metrics", "predictions", "embeddings"):  # as when somebody copies the trials alone
        assert damaged.mend(folder) == []
        shutil.rmtree(folder / table)
    assert damaged.mend(folder) == [] and len(results.read_trials(folder)) == 3


@pytest.mark.parametrize("table", damaged.ALWAYS)
def test_a_single_missing_file_costs_the_row_of_its_trial(table: str, folder: Path) -> None:
    (folder / table / f"{IDS[2]}.parquet").unlink()
    (sentence,) = damaged.mend(folder)
    assert f"{table}/{IDS[2]}.parquet is missing" in sentence and "runs again" in sentence
    assert results.read_trials(folder)["trial_id"].tolist() == [*IDS[:2]]


def test_a_wrong_number_of_rows_is_not_a_trial(folder: Path) -> None:
    path = folder / "trials" / f"{IDS[0]}.parquet"
    pd.read_parquet(path).head(0).to_parquet(path)
    assert "it contains 0 rows instead of 1" in damaged.mend(folder)[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_what_may_not_be_read_is_not_damaged(folder: Path) -> None:
    path = folder / "trials" / f"{IDS[0]}.parquet"
    path.chmod(0)
    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied\): make it readable"):
        damaged.mend(folder)
    assert path.exists()


def fill(path: Path) -> None:
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE numbers (n INTEGER, t TEXT)")
        database.executemany("INSERT INTO numbers VALUES (?, ?)", [(n, "word " * 50) for n in range(500)])
    database.close()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [cut, garbage, empty, a_folder], ids=lambda damage: damage.__name__)
def test_a_damaged_study_is_set_aside_with_its_journal(damage: Callable[[Path], None], folder: Path) -> None:
    path = folder / "study.db"
    fill(path)
    assert damaged.mend(folder) == []
    damage(path)
    (folder / "study.db-journal").write_bytes(b"of the old one")
    (sentence,) = damaged.mend(folder)
    assert "study.db.damaged" in sentence and "rebuilt from trials/" in sentence
    left = {p.name for p in folder.glob("study*")}
    assert "study.db.damaged" in left and all(name.endswith(".damaged") for name in left)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "\x00", '{"arms": {}}', '{"sweep": "x", "arms": {"a": 1}}', '{"sweep": "x", "arms": []}']
)
def test_a_selection_that_cannot_be_read_is_one_sentence(content: str, tmp_path: Path) -> None:
    good = {"sweep": "0" * 16, "arms": {"jepa/llama3": {"trial_id": "a", "config": canonical(CONFIG)}}}
    (tmp_path / "selection.json").write_text(json.dumps(good))
    assert damaged.selections(tmp_path) == {"selection.json": good}
    (tmp_path / "selection-2.json").write_text(content)
    with pytest.raises(ValueError, match=r"selection-2.json cannot be read \(.*\): restore it .*or rename it to") as caught:
        damaged.selections(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "selection-2.json").rename(tmp_path / "selection-2.json.damaged")
    assert list(damaged.selections(tmp_path)) == ["selection.json"]
