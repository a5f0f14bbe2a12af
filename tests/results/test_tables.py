"""Tables: every file has one schema, a trial is written whole or not at all, nothing is overwritten, readers are never disturbed."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from jepa_ray import results
from jepa_ray.config import LoraConfig, ModelConfig, ObjectiveConfig, TrialConfig, columns, config_id
from jepa_ray.results import TrialResult
from jepa_ray.results.provenance import _git_sha
from jepa_ray.system import atomic

BASELINE = TrialConfig(model=ModelConfig(family="llama3"))
JEPA = TrialConfig(model=ModelConfig(family="llama3"), objective=ObjectiveConfig(k=2), lora=LoraConfig(r=8))


def result(**summary: Any) -> TrialResult:
    metrics = [{"step": 4, "epoch": 1.0, "split": "val", "name": "exact", "value": 0.5, "train_flops": 1e9, "train_seconds": 2.0}]
    prediction = {"prediction": "a", "reference": "ab", "correct": False, "prefix_correct": False, "contains": False, "stopped": True}
    return TrialResult("COMPLETE", None, summary, metrics, [{"split": "val", "example_id": "f:1", "error": None} | prediction])


def test_config_columns_are_exactly_the_schema() -> None:
    """A leaf added to TrialConfig and forgotten here (or the reverse) would be lost or null forever."""
    for config in (BASELINE, JEPA):
        assert set(columns(config)) == set(results.CONFIG)


def test_a_folder_of_different_trials_reads_as_one_frame(tmp_path: Path) -> None:
    """One file has nulls where another has numbers, and vice versa: with a schema per file, pandas would fail or lose a type."""
    results.write_trial(tmp_path, "a", BASELINE, "none/llama3", "search", TrialResult("FAILED", "loss is NaN at step 3"))
    results.write_trial(tmp_path, "b", JEPA, "jepa/llama3", "search", result(val_accuracy=0.25, train_flops=10**17, epochs_done=4))
    for frame in (pd.read_parquet(tmp_path / "trials"), results.read_trials(tmp_path)):
        frame = frame.set_index("trial_id")
        assert list(frame.loc[["a", "b"], "lambda"]) == [0.0, 1.0]
        assert list(frame.loc[["a", "b"], "method"]) == ["none", "jepa"]
        assert math.isnan(frame.loc["a", "val_accuracy"]) and frame.loc["b", "val_accuracy"] == 0.25
        assert frame.loc["b", "train_flops"] == 1e17  # an int that only rounds to a float must not be refused
        assert math.isnan(frame.loc["a", "lora_r"]) and frame.loc["b", "lora_r"] == 8
        assert frame.loc["a", "error"] == "loss is NaN at step 3" and frame.loc["a", "state"] == "FAILED"
    schemas = [pq.read_schema(tmp_path / "trials" / f"{name}.parquet") for name in "ab"]
    assert schemas[0].equals(results.TRIALS) and schemas[1].equals(results.TRIALS)


def test_metrics_and_predictions_carry_the_trial(tmp_path: Path) -> None:
    results.write_trial(tmp_path, "a", BASELINE, "none/llama3", "search", result())
    results.write_trial(tmp_path, "b", JEPA, "jepa/llama3", "search", result())
    assert list(results.read_metrics(tmp_path)["trial_id"]) == ["a", "b"]
    assert results.read_metrics(tmp_path)["value"].tolist() == [0.5, 0.5]
    only = results.read_predictions(tmp_path, columns=["trial_id", "stopped"], filters=[("trial_id", "==", "b")])
    assert only.to_dict("records") == [{"trial_id": "b", "stopped": True}]


def test_embeddings_are_a_separate_table_if_there_are_any(tmp_path: Path) -> None:
    vector = np.array([0.5, -2.0, 1 / 3], dtype=np.float16)
    lines = [{"split": "val", "example_id": "f:1", "view": view, "vector": vector.tolist()} for view in ("text", "code")]
    results.write_trial(tmp_path, "a", JEPA, "jepa/llama3", "confirm", TrialResult("COMPLETE", None, {}, embeddings=lines))
    results.write_trial(tmp_path, "b", JEPA, "jepa/llama3", "search", result())
    assert [path.name for path in (tmp_path / "embeddings").iterdir()] == ["a.parquet"]
    for frame in (results.read_embeddings(tmp_path), pd.read_parquet(tmp_path / "embeddings")):
        assert frame["view"].tolist() == ["text", "code"] and set(frame["trial_id"]) == {"a"}
        for stored in frame["vector"]:
            assert stored.dtype == np.float16 and stored.tolist() == vector.tolist()
    only = results.read_embeddings(tmp_path, ["example_id", "vector"], [("view", "==", "code")])
    assert only["example_id"].tolist() == ["f:1"]
    (tmp_path / "trials" / "a.parquet").unlink()  # without its row, a trial does not exist
    assert results.read_embeddings(tmp_path).empty and results.read_embeddings(tmp_path / "nowhere").empty
    again = TrialResult.from_json(TrialResult("COMPLETE", embeddings=lines).to_json())
    assert again.embeddings == lines


def test_an_empty_folder_reads_as_an_empty_frame_with_columns(tmp_path: Path) -> None:
    assert list(results.read_trials(tmp_path).columns) == results.TRIALS.names
    assert list(results.read_metrics(tmp_path).columns) == results.METRICS.names
    assert list(results.read_predictions(tmp_path, columns=["split"]).columns) == ["split"]
    assert results.finished(tmp_path) == {}
    with pytest.raises(ValueError, match=r"unknown columns \['val_exakt'\] in trials; available: trial_id"):
        results.read_trials(tmp_path, columns=["val_exakt"])


def test_a_written_trial_is_never_overwritten(tmp_path: Path) -> None:
    results.write_trial(tmp_path, "a", BASELINE, "none/llama3", "search", result(val_accuracy=0.25))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    with pytest.raises(FileExistsError, match="never overwritten"):
        results.write_trial(tmp_path, "a", BASELINE, "none/llama3", "search", result(val_accuracy=0.75))
    assert len(before) == 3 and {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before


@pytest.mark.parametrize("survived", [0, 1, 2])
def test_a_crash_between_the_files_leaves_no_trial_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    replace, done = atomic.os.replace, []

    def crash(source: Any, target: Any) -> None:
        if len(done) == survived:
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        results.write_trial(tmp_path, "a", BASELINE, "none/llama3", "search", result(val_accuracy=0.25))
    assert len(done) == survived
    assert not list(tmp_path.rglob(".*.tmp"))
    # After a power cut an unfinished temporary file may remain: readers ignore it, ours and plain pandas.
    (tmp_path / "trials").mkdir(exist_ok=True)
    (tmp_path / "trials" / ".a.parquet.0123abcd.tmp").write_bytes(b"PAR1 half")
    assert results.read_trials(tmp_path).empty and results.finished(tmp_path) == {}
    assert results.read_metrics(tmp_path).empty and results.read_predictions(tmp_path).empty

    monkeypatch.setattr(atomic.os, "replace", replace)
    results.write_trial(tmp_path, "a", BASELINE, "none/llama3", "search", result(val_accuracy=0.5))
    assert pd.read_parquet(tmp_path / "trials")["val_accuracy"].tolist() == [0.5]
    assert len(results.read_metrics(tmp_path)) == len(results.read_predictions(tmp_path)) == 1


def test_the_row_that_commits_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = atomic.os.replace
    monkeypatch.setattr(atomic.os, "replace", lambda source, target: (order.append(Path(target).parent.name), replace(source, target)))
    results.write_trial(tmp_path, "a", BASELINE, "none/llama3", "search", result())
    assert order == ["metrics", "predictions", "trials"]


def test_what_does_not_fit_the_schema_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"unknown summary key \['val_exakt'\]"):
        results.write_trial(tmp_path, "a", BASELINE, "none/llama3", "search", result(val_exakt=0.5))
    bad_row = TrialResult("COMPLETE", None, {}, [{"steps": 4}])
    with pytest.raises(AssertionError, match=r"unknown column \['steps'\]"):
        results.write_trial(tmp_path, "a", BASELINE, "none/llama3", "search", bad_row)
    with pytest.raises(AssertionError, match="running trial"):
        results.write_trial(tmp_path, "a", BASELINE, "none/llama3", "search", TrialResult("RUNNING"))
    assert not list(tmp_path.iterdir())


def test_the_last_attempt_counts(tmp_path: Path) -> None:
    ids = [results.attempt_id("abc", attempt) for attempt in range(1, 12)]
    assert ids[:2] == ["abc", "abc-2"] and ids[-1] == "abc-11"
    for trial_id in (ids[0], ids[10], ids[1]):  # as text, abc-11 sorts before abc-2
        state = "COMPLETE" if trial_id == "abc-11" else "FAILED"
        results.write_trial(tmp_path, trial_id, BASELINE, "none/llama3", "search", TrialResult(state))
    assert len(results.read_trials(tmp_path)) == 3
    row = results.finished(tmp_path)["abc"]
    assert (row["trial_id"], row["config_id"], row["state"], row["val_accuracy"]) == ("abc-11", "abc", "COMPLETE", None)


def test_progress_round_trips_and_survives_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scratch" / "progress.json"
    assert results.load_progress(path) is None
    first = TrialResult("RUNNING", None, {"val_accuracy": 0.5, "steps": 7}, result().metrics, result().predictions)
    results.save_progress(path, first)
    assert results.load_progress(path) == first

    monkeypatch.setattr(atomic.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        results.save_progress(path, TrialResult("RUNNING", None, {"steps": 8}))
    assert results.load_progress(path) == first


def test_json_keeps_numpy_and_non_finite_numbers() -> None:
    mixed = TrialResult("FAILED", "x", {"train_ce": float("nan"), "steps": np.int64(3), "val_ce": np.float32(0.5)})  # type: ignore[dict-item]
    back = TrialResult.from_json(mixed.to_json()).summary
    assert math.isnan(float(str(back["train_ce"]))) and back["steps"] == 3 and back["val_ce"] == 0.5
    with pytest.raises(TypeError, match="contains a set"):
        TrialResult("FAILED", None, {"x": {1}}).to_json()  # type: ignore[dict-item]


def test_provenance_names_versions_and_fits_the_summary() -> None:
    facts = results.provenance()
    assert set(facts) <= set(results.SUMMARY)
    versions = json.loads(str(facts["versions"]))
    assert set(versions) == {"torch", "ray", "transformers", "peft", "optuna", "python", "jepa_ray"}
    assert versions["python"].startswith("3.") and versions["torch"] and versions["jepa_ray"]
    assert str(facts["started_at"]).endswith("+00:00")


def test_git_sha_only_of_a_checkout_that_holds_the_package(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run(["git", *identity, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / ".gitignore").write_text("venv\n")
    for folder in ("package", "venv"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    sha = _git_sha(tmp_path / "package")
    assert sha is not None and len(sha) == 40
    (tmp_path / "package" / "__init__.py").write_text("x = 2\n")
    assert _git_sha(tmp_path / "package") == f"{sha}-dirty"
    # Installed into an environment inside another repository, whose commit says nothing about the package.
    assert _git_sha(tmp_path / "venv") is None


def test_of_equally_good_trials_the_one_suggested_first_is_best(tmp_path: Path) -> None:
    """Regardless of which started first on a machine that runs several; pruned, failed and unmeasured trials are never best."""
    rows = [
        ("COMPLETE", 0.5, 2, "2026-01-01"),
        ("COMPLETE", 0.5, 1, "2026-01-02"),
        ("PRUNED", 0.9, 0, "2026-01-01"),
        ("COMPLETE", float("nan"), 3, "2026-01-01"),
        ("COMPLETE", 0.4, 4, "2026-01-01"),
    ]
    for place, (state, value, number, started) in enumerate(rows):
        config = TrialConfig.model_validate({"model": {"family": "llama3"}, "seed": place})
        result = TrialResult(state, None, {"val_accuracy": value, "started_at": started})  # type: ignore[arg-type]
        results.write_trial(tmp_path, config_id(config, "d"), config, "jepa/llama3", "search", result, number)
    trials = results.read_trials(tmp_path)
    best = results.best_trial(trials, "val_accuracy", "max")
    assert best is not None and (best["number"], best["val_accuracy"]) == (1, 0.5)
    lowest = results.best_trial(trials, "val_accuracy", "min")
    assert lowest is not None and lowest["number"] == 4
    assert results.best_trial(trials[trials["state"] == "PRUNED"], "val_accuracy", "max") is None
    # Rows of earlier versions have no number: the one that started first wins.
    earlier = results.best_trial(trials.assign(number=None), "val_accuracy", "max")
    assert earlier is not None and earlier["started_at"] == "2026-01-01"


def test_questions_are_one_categorical_column_over_all_trials(tmp_path: Path) -> None:
    """Each trial's file has its own dictionary, and files of earlier versions lack the column."""
    row = {"split": "test", "prediction": "a", "reference": "a", "correct": True}
    for number, questions in enumerate((["p", "q", "p"], ["q", "r"], [None])):
        result = TrialResult("COMPLETE", predictions=[{**row, "example_id": str(i), "question": text} for i, text in enumerate(questions)])
        results.write_trial(tmp_path, f"{number:016d}", BASELINE, "none/llama3", "confirm", result)
    old = tmp_path / "predictions" / f"{2:016d}.parquet"
    pq.write_table(pq.read_table(old).drop_columns(["question", "leaked"]), old)
    read = results.read_predictions(tmp_path)
    assert read["question"].dtype == "category" and read["question"].tolist()[:5] == ["p", "q", "p", "q", "r"]
    assert read["question"].isna().tolist() == [False] * 5 + [True]
    assert read["leaked"].isna().all()
    assert pd.read_parquet(tmp_path / "predictions", columns=["question"])["question"].notna().sum() == 5
