"""A whole trial: its reports, seamless resuming after an interruption, and failures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jepa_ray.config import DataConfig, LoraConfig, ObjectiveConfig, SweepConfig, TrialConfig, arms
from jepa_ray.data.datasets import load_splits
from jepa_ray.evaluation.metrics import without_leaked
from jepa_ray.models.families import FAMILIES
from jepa_ray.plan import trial_config
from jepa_ray.preparation.prepare import prepare
from jepa_ray.results import SUMMARY, TrialResult, load_progress, read_predictions, write_trial
from jepa_ray.training import checkpoint as checkpoints
from jepa_ray.training import fine_tuning, trial
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.runtime import Runtime
from tests import tiny_models as tiny

DROPOUT = LoraConfig(r=2, dropout=0.3)
TIMES = {"train_seconds", "val_seconds", "test_seconds", "wall_seconds", "peak_memory_bytes", "started_at", "finished_at"}


class Interrupted(BaseException):
    """Stands for Ctrl-C or the scheduler, as a trial sees them."""


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints[request.param]


@pytest.fixture(autouse=True)
def _no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit between two trials of a test would appear as a difference; `tests/results/test_tables.py` tests provenance."""
    monkeypatch.setattr(trial, "provenance", lambda: {"git_sha": None, "versions": "{}", "started_at": "then"})


@pytest.fixture
def llama(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["llama3"]


def run(config: TrialConfig, prepared: Prepared, scratch: Path, report: Any = lambda _: None, minutes: float = 5.0) -> TrialResult:
    return trial.run_trial(config, prepared, Runtime(checkpoint_minutes=minutes), report, scratch)


def numbers(result: TrialResult) -> dict[str, Any]:
    """Everything that must not depend on the clock."""
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in result.metrics if row["split"] != "step"]
    summary = {key: value for key, value in result.summary.items() if key not in TIMES}
    return {"state": result.state, "summary": summary, "metrics": rows, "predictions": result.predictions}


def config_of(checkpoint: Path, **changes: Any) -> TrialConfig:
    objective = ObjectiveConfig(k=2, loss_dropout=0.5)
    return tiny.trial(
        checkpoint, **{"lora": DROPOUT, "objective": objective, "optim__num_epochs": 3, "optim__learning_rate": 1e-2, **changes}
    )


def test_the_result_fits_the_tables_and_reports_every_epoch_but_the_last(checkpoint: Path, tmp_path: Path) -> None:
    reports: list[dict[str, float]] = []
    config, prepared = config_of(checkpoint, evaluation__test=True), tiny.prepared_of(checkpoint, test=5)
    result = run(config, prepared, tmp_path / "scratch", reports.append)
    assert result.state == "COMPLETE" and result.error is None and result.summary.keys() <= SUMMARY.keys()
    assert [report["epoch"] for report in reports] == [1, 2] and [report["step"] for report in reports] == [3, 6]
    names = {(row["split"], row["name"]) for row in result.metrics}
    wanted = {(split, f"{split}_{name}") for split in ("val", "test") for name in ("exact", "prefix", "contains", "stopped")}
    assert wanted | {("train", "train_ce")} <= names
    assert sorted({row["epoch"] for row in result.metrics}) == [1, 2, 3]
    assert [row["example_id"] for row in result.predictions if row["split"] == "val"] == list(prepared.val.example_ids)
    assert prepared.test is not None
    assert [row["example_id"] for row in result.predictions if row["split"] == "test"] == list(prepared.test.example_ids)
    curve = [row["value"] for row in result.metrics if row["name"] == "train_ce"]
    assert curve[0] > curve[1] > curve[2], "it does not learn"
    write_trial(tmp_path, "0" * 16, config, "jepa/x", "confirm", result)


def test_the_test_split_stays_shut_while_searching(llama: Path, tmp_path: Path) -> None:
    result = run(tiny.trial(llama), tiny.prepared_of(llama, test=5), tmp_path)
    assert not any(name.startswith("test_") for name in result.summary)
    assert {row["split"] for row in result.predictions} == {"val"}
    opened = run(tiny.trial(llama, evaluation__test=True), tiny.prepared_of(llama), tmp_path / "2")
    assert opened.state == "FAILED" and opened.error is not None and "no test split" in opened.error


def test_embeddings_are_kept_of_confirmed_trials_alone_and_change_no_number(llama: Path, tmp_path: Path) -> None:
    prepared = tiny.prepared_of(llama, test=5)
    plain = run(tiny.trial(llama, evaluation__test=True), prepared, tmp_path / "plain")
    kept = run(tiny.trial(llama, evaluation__test=True, evaluation__embeddings=3), prepared, tmp_path / "kept")
    searched = run(tiny.trial(llama, evaluation__embeddings=3), prepared, tmp_path / "searched")
    assert numbers(kept) == numbers(plain) and plain.embeddings == searched.embeddings == []
    pairs = [line["example_id"] for line in kept.embeddings if line["view"] == "text"]
    assert len(pairs) == 3 and set(pairs) <= set(prepared.val.example_ids) and len(kept.embeddings) == 6
    other = tiny.trial(llama, evaluation__test=True, evaluation__embeddings=3, objective=ObjectiveConfig(k=2), seed=9)
    moved = run(other, prepared, tmp_path / "other").embeddings
    assert [line["example_id"] for line in moved] == [line["example_id"] for line in kept.embeddings]
    assert moved[0]["vector"] != kept.embeddings[0]["vector"]
    write_trial(tmp_path, "0" * 16, other, "jepa/x", "confirm", kept)


def test_lambda_zero_is_the_baseline_bit_for_bit(checkpoint: Path, tmp_path: Path) -> None:
    """Also if loss dropout skips every step; with k > 0 and LoRA dropout."""
    prepared = tiny.prepared_of(checkpoint)
    baseline = numbers(run(config_of(checkpoint, objective=None), prepared, tmp_path / "a"))
    zero = ObjectiveConfig(k=3, loss_dropout=0.25, **{"lambda": 0.0})  # type: ignore[arg-type]
    assert numbers(run(config_of(checkpoint, objective=zero), prepared, tmp_path / "b")) == baseline
    skipped = numbers(run(config_of(checkpoint, objective=ObjectiveConfig(k=3, loss_dropout=1 - 1e-9)), prepared, tmp_path / "c"))
    for result in (skipped, baseline):  # here predictor tokens exist, and the self-check covers views
        for name in ("num_parameters", "num_trainable", "attention_error", "lambda_used"):
            result["summary"].pop(name)
    assert skipped == baseline
    assert numbers(run(config_of(checkpoint), prepared, tmp_path / "d"))["metrics"] != baseline["metrics"]


def test_the_objective_does_not_change_the_data(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    real = fine_tuning.train_step

    def spy(state: Any, rows: np.ndarray, *rest: Any) -> Any:
        seen.append(rows.tolist())
        return real(state, rows, *rest)

    monkeypatch.setattr(fine_tuning, "train_step", spy)
    orders = []
    for number, objective in enumerate((None, ObjectiveConfig(k=4, loss_dropout=0.7), ObjectiveConfig(**{"lambda": 8.0}))):  # type: ignore[arg-type]
        seen.clear()
        run(config_of(llama, objective=objective), tiny.prepared_of(llama), tmp_path / str(number))
        orders.append(list(seen))
    assert orders[0] == orders[1] == orders[2] and len(orders[0]) == 9 and orders[0][:3] != orders[0][3:6]


@pytest.mark.parametrize("lora", [DROPOUT, None], ids=["lora with dropout", "full"])
def test_interrupted_after_an_epoch_it_ends_as_if_it_had_not_been(checkpoint: Path, tmp_path: Path, lora: LoraConfig | None) -> None:
    config, prepared = config_of(checkpoint, lora=lora), tiny.prepared_of(checkpoint)
    whole = run(config, prepared, tmp_path / "whole")

    def interrupt(metrics: dict[str, float]) -> None:
        raise Interrupted

    for _ in range(2):
        with pytest.raises(Interrupted):
            run(config, prepared, tmp_path / "cut", interrupt, minutes=0)
    reached = load_progress(tmp_path / "cut" / "progress.json")
    assert reached is not None and reached.summary["epochs_done"] == 2
    torch.rand(7)
    assert numbers(run(config, prepared, tmp_path / "cut")) == numbers(whole)


@pytest.mark.parametrize("moment", ["before the checkpoint", "before the progress", "in the test split", "in the middle of an epoch"])
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    config, prepared = config_of(llama, evaluation__test=True), tiny.prepared_of(llama, test=4)
    whole = run(config, prepared, tmp_path / "whole")
    calls = 0

    def second_call_dies(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == (5 if moment == "in the middle of an epoch" else 1 if moment == "in the test split" else 2):
                raise Interrupted
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        name = {"before the progress": "save_progress", "in the test split": "score_test", "in the middle of an epoch": "train_step"}.get(
            moment
        )
        owner, name = (fine_tuning, name) if name else (checkpoints, "snapshot")
        patch.setattr(owner, name, second_call_dies(getattr(owner, name)))
        with pytest.raises(Interrupted):
            run(config, prepared, tmp_path / "cut", minutes=0)
    assert numbers(run(config, prepared, tmp_path / "cut")) == numbers(whole)


def test_a_non_finite_loss_fails_the_trial_with_its_step_and_the_last_finite_values(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, prepared = config_of(llama), tiny.prepared_of(llama)
    whole = run(config, prepared, tmp_path / "whole")
    real = fine_tuning.train_step

    def poisoned(at: int) -> Any:
        def step(state: Any, rows: Any, number: int, *rest: Any) -> Any:
            if number == at:
                next(p for p in state.network.parameters() if p.requires_grad and p.ndim == 2).data.fill_(float("inf"))
            return real(state, rows, number, *rest)

        return step

    monkeypatch.setattr(fine_tuning, "train_step", poisoned(4))  # the second step of the second epoch
    failed = run(config, prepared, tmp_path / "bad")
    assert failed.state == "FAILED" and failed.error is not None
    assert "step 5" in failed.error and "mean cross-entropy" in failed.error
    first = next(row["value"] for row in whole.metrics if row["name"] == "train_ce")
    assert failed.summary["epochs_done"] == 1 and failed.summary["train_ce"] == first
    assert str(first) in failed.error and failed.summary["alarms"] == "non-finite"
    write_trial(tmp_path, "1" * 16, config, "jepa/x", "search", failed)

    monkeypatch.setattr(fine_tuning, "train_step", poisoned(1))
    early = run(config, prepared, tmp_path / "early")
    assert early.state == "FAILED" and early.error is not None and "step 2" in early.error and "mean cross-entropy" in early.error

    monkeypatch.setattr(fine_tuning, "train_step", real)  # its checkpoint is from before the failure, so a retry equals a whole run
    assert numbers(run(config, prepared, tmp_path / "bad")) == numbers(whole)


def test_a_learning_rate_far_too_high_raises_an_alarm(llama: Path, tmp_path: Path) -> None:
    """All losses stay finite, so the trial is COMPLETE, but it has learnt nothing."""
    config = tiny.trial(llama, evaluation__diagnostic_pairs=6, optim__learning_rate=1e12, lora=LoraConfig(r=2))
    result = run(config, tiny.prepared_of(llama), tmp_path / "high")
    assert result.state == "COMPLETE" and "diverged" in str(result.summary["alarms"]).split(";")
    found = {row["name"]: row["value"] for row in result.metrics if row["name"] in ("diag_val_ce", "diag_uniform_ce")}
    assert found["diag_val_ce"] > 0.95 * found["diag_uniform_ce"] > 3
    sound = run(tiny.trial(llama, evaluation__diagnostic_pairs=6, optim__learning_rate=1e-2), tiny.prepared_of(llama), tmp_path / "low")
    assert sound.state == "COMPLETE" and "diverged" not in str(sound.summary["alarms"])


def test_a_model_that_packing_does_not_fit_is_refused(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jepa_ray.training import packing_check

    monkeypatch.setitem(packing_check.TOLERANCE, torch.float32, -1.0)
    result = run(config_of(llama), tiny.prepared_of(llama), tmp_path)
    assert result.state == "FAILED" and result.error is not None and "packing=plain" in result.error and result.metrics == []


def test_validation_every_other_epoch_and_always_at_the_end(llama: Path, tmp_path: Path) -> None:
    reports: list[dict[str, float]] = []
    result = run(config_of(llama, evaluation__every=2), tiny.prepared_of(llama), tmp_path, reports.append)
    assert [row["epoch"] for row in result.metrics if row["name"] == "val_accuracy"] == [2, 3]
    assert [row["epoch"] for row in result.metrics if row["name"] == "train_ce"] == [1, 2, 3]
    assert [report["epoch"] for report in reports] == [2]


@pytest.mark.parametrize("packing", ["flat", "plain"])
def test_packings_agree(llama: Path, tmp_path: Path, packing: str) -> None:
    """Without LoRA's dropout, whose mask is per token and therefore depends on the layout."""
    options: dict[str, Any] = {"lora": LoraConfig(r=2, dropout=0.0), "optim__learning_rate": 1e-3}
    prepared = tiny.prepared_of(llama)
    result_of_packing = run(config_of(llama, **options, model__packing=packing), prepared, tmp_path / packing)
    wanted = run(config_of(llama, **options), prepared, tmp_path / "auto")
    assert result_of_packing.summary["packing_used"] == packing
    for name in ("train_ce", "train_jepa"):
        values = [[row["value"] for row in result.metrics if row["name"] == name] for result in (result_of_packing, wanted)]
        assert values[0] == pytest.approx(values[1], rel=1e-3) and values[0]


def test_diagnostics_are_in_the_tables_and_change_no_number(llama: Path, tmp_path: Path) -> None:
    """At the start and at the end, also for the baseline; training is the same as without diagnostics."""
    for objective in (None, ObjectiveConfig(k=1)):
        config, prepared = config_of(llama, objective=objective), tiny.prepared_of(llama)
        plain = numbers(run(config, prepared, tmp_path / f"plain {objective is None}"))
        watched = numbers(
            run(config_of(llama, objective=objective, evaluation__diagnostic_pairs=4), prepared, tmp_path / f"watched {objective is None}")
        )
        diagnostics = [row for row in watched["metrics"] if row["split"] == "diag"]
        assert {row["epoch"] for row in diagnostics} >= {0, 3} and {"diag_val_ce", "diag_r1", "diag_grad_cosine"} <= {
            row["name"] for row in diagnostics
        }
        assert [row for row in watched["metrics"] if row["split"] != "diag"] == plain["metrics"]
        assert watched["predictions"] == plain["predictions"]
        assert watched["summary"].pop("val_ce") > 0 and watched["summary"].pop("val_jepa") > 0
        for name in ("alarms", "diag_seconds"):
            watched["summary"].pop(name, None)
        assert watched["summary"] == plain["summary"]


def test_leaked_test_examples_are_marked_and_left_out_of_a_second_score(llama: Path, tmp_path: Path) -> None:
    """Of 6 test questions, 2 are in training and 1 is in validation, regardless of their answers."""

    def written(name: str, pairs: list[tuple[str, str]]) -> str:
        turns = [[{"role": "user", "content": text}, {"role": "assistant", "content": code}] for text, code in pairs]
        (tmp_path / name).write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
        return str(tmp_path / name)

    pool = [(f"lines with {i} words", f"({chr(97 + i)})+") for i in range(20)]
    files = {"train": written("train.jsonl", pool), "num_val": 4}
    base = {"optim": {"num_epochs": 1, "batch_size": 4}, "evaluation": {"max_new_tokens": 4, "diagnostic_pairs": 0}}
    parts: dict[str, Any] = {"families": ["llama3"], "model": str(llama), "task": "nl-rx", "methods": {"baseline": None}, "base": base}
    splits = load_splits(DataConfig(task="nl-rx", **files))
    asked = [(splits.train[0].text, "(x)"), (splits.train[1].text, splits.train[1].code), (splits.val[0].text, "(y)")]
    files["test"] = written("test.jsonl", [*asked, *((f"new {i}", "(z)") for i in range(3))])
    sweep = SweepConfig(name="leak", data=files, **parts)
    prepared = prepare(sweep, "llama3", "nl-rx")
    (arm,) = arms(sweep)
    config = trial_config(sweep, arm, {})
    result = run(config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"test": True})}), prepared, tmp_path / "s")
    rows = [row for row in result.predictions if row["split"] == "test"]
    assert [row["leaked"] for row in rows] == [True, True, True, False, False, False] and prepared.facts["overlap_text"] == 3
    assert [row["question"] for row in rows[:3]] == [text for text, _ in asked]
    assert not any(row["leaked"] for row in result.predictions if row["split"] == "val")
    assert result.summary["test_clean_examples"] == 3 and result.summary["test_accuracy_clean"] == 0.0
    write_trial(tmp_path / "out", "0" * 16, config, "baseline/llama3", "confirm", result)
    read = read_predictions(tmp_path / "out", filters=[("split", "==", "test")])
    assert read["leaked"].tolist() == [row["leaked"] for row in rows] and read["question"].tolist() == [row["question"] for row in rows]


def test_the_score_without_leaked_examples_by_hand() -> None:
    rows = [{"correct": correct, "leaked": leaked} for correct, leaked in ((True, True), (True, False), (False, False), (None, False))]
    assert without_leaked(rows) == {"clean_examples": 3, "accuracy_clean": 1 / 3}
    assert without_leaked(rows[:1]) == {"clean_examples": 0}, "without examples there is no score"


def test_chance_is_measured_on_the_labels_that_are_there(llama: Path, tmp_path: Path) -> None:
    """A file with four labels for a task whose public data has two."""
    examples = [replace(example, code=f"label {min(i % 6, 3)}") for i, example in enumerate(tiny.EXAMPLES[:36])]  # half are label 3
    tables = [tiny.table_of(llama, part, scored=True) for part in (examples[:24], examples[24:33], [*examples[24:30], *examples[27:30]])]
    prepared = Prepared(*tables, dataset_sha="0" * 64, checkpoint=str(llama))
    config = tiny.trial(llama, data=DataConfig(task="rotten-tomatoes"), optim__num_epochs=1)
    assert run(config, prepared, tmp_path / "search").summary["chance"] == 3 / 9
    tested = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"test": True})})
    assert run(tested, prepared, tmp_path / "confirm").summary["chance"] == 6 / 9
    regex = config.model_copy(update={"data": DataConfig(task="nl-rx")})
    assert run(regex, prepared, tmp_path / "open").summary["chance"] == 0.0, "answers that are not labels cannot be guessed"
