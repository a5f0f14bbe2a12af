"""Table 2 in its small form on a CPU: it runs, stops when its time is up, continues, and writes an ordinary results folder."""

from __future__ import annotations

import base64
import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest

from analysis import paper, verdict
from benchmarks import paper_t2
from benchmarks.llama3_checkpoint import SHAPE, SPECIAL
from jepa_ray import results
from jepa_ray.config import ModelConfig
from jepa_ray.data.datasets import DATASETS
from jepa_ray.models.footprint import Training, footprint
from jepa_ray.models.loading import load_config, load_tokenizer
from jepa_ray.models.shapes import Shape
from jepa_ray.training import fine_tuning
from jepa_ray.training.step import train_step

WORDS = (" lines", " with", " containing", " string", "Cutting", " Knowledge", " Date", "December", "regular", " expression", "assistant")
STEPS = 5


@pytest.fixture(scope="module")
def tiktoken_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer in tiktoken's format: all bytes, and some words with their beginnings."""
    tokens = [bytes([value]) for value in range(256)]
    for word in WORDS:
        tokens += [word[:end].encode() for end in range(2, len(word) + 1) if word[:end].encode() not in tokens]
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    file.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)))
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, split, count in ((paper_t2.TRAIN, "train", 150), (paper_t2.TEST, "test", 20)):
        examples = DATASETS["nl-rx"].generate(count, 0, split, ())
        roles = [[("system", one.system), ("user", one.text), ("assistant", one.code)] for one in examples]
        rows = [{"messages": [{"role": role, "content": content} for role, content in turns]} for turns in roles]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: Path, tiktoken_file: Path) -> Path:
    made = tmp_path_factory.mktemp("prepared")
    assert paper_t2.main(["prepare", str(made), "--data", str(data), "--tokenizer", str(tiktoken_file)]) == 0
    return made


def test_the_folder_is_a_checkpoint_without_weights(folder: Path) -> None:
    model = ModelConfig(family="llama3", model=str(folder), init="random")
    tokenizer, config = load_tokenizer(str(folder), model), load_config(str(folder), model)
    assert len(SPECIAL) == len(set(SPECIAL)) == 256
    assert tokenizer.convert_tokens_to_ids(SPECIAL[-1]) == len(tokenizer) - 1
    for text in (" lines with 'dog' containing ÿ😀", "  \n\n12345"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.tokenize(" lines with") == ["Ġlines", "Ġwith"] and tokenizer.tokenize("<|eot_id|>") == ["<|eot_id|>"]
    assert (
        config.vocab_size == 128256 and config.rope_parameters["rope_type"] == "llama3" and config.rope_parameters["rope_theta"] == 500000
    )
    assert Shape.of(config.to_dict()).num_parameters == 1_235_814_400  # the model card's 1.23B
    assert footprint(Shape.of(SHAPE), Training()).state == 16 * 1_235_814_400
    assert sum(path.stat().st_size for path in folder.iterdir()) < 32e6


def test_bad_input_is_refused(tmp_path: Path, data: Path, tiktoken_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "tokenizer.model"
    text.write_text("not a tokenizer\n")
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (["prepare", str(tmp_path / "x"), "--data", str(data), "--tokenizer", str(text)], "is not in tiktoken's format"),
        (["prepare", str(tmp_path / "x"), "--data", str(data), "--tokenizer", str(tmp_path / "none")], "cannot be read"),
        (["prepare", str(tmp_path / "x"), "--data", str(tmp_path), "--tokenizer", str(tiktoken_file)], "contains no synth_train.jsonl"),
        (["run", str(tmp_path / "empty"), "--results", str(tmp_path / "r")], "contains no config.json"),
        (["run", str(tmp_path), "--results", str(tmp_path / "r"), "--seeds", "0"], "both must be positive"),
    ):
        assert paper_t2.main(arguments) == 2
        assert words in capsys.readouterr().err


def test_the_last_checkpoint_is_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_t2.time, "monotonic", lambda: 1000.0)
    assert paper_t2.Limit(1600.0, 60.0).checkpoint_minutes(5.0) == 5.0
    assert paper_t2.Limit(1240.0, 60.0).checkpoint_minutes(5.0) == 3.0
    assert paper_t2.Limit(1030.0, 60.0).checkpoint_minutes(5.0) == 0.0 and paper_t2.Limit(1030.0, 60.0).left() < 0
    assert paper_t2.Limit().checkpoint_minutes(5.0) == 5.0 and paper_t2.Limit().left() == math.inf


def test_it_stops_when_the_time_is_up_and_continues(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[tuple[int, bool, int]] = []
    stop_at, handler = (1, True, 3), signal.getsignal(signal.SIGTERM)

    def counted(state: Any, rows: Any, step: int, *others: Any) -> Any:
        steps.append((state.config.seed, state.config.objective is not None, step))
        if steps.count(stop_at) == 1 and steps[-1] == stop_at:
            signal.raise_signal(signal.SIGTERM)
        return train_step(state, rows, step, *others)

    monkeypatch.setattr(fine_tuning, "train_step", counted)
    monkeypatch.setattr(paper_t2.Limit, "checkpoint_minutes", lambda limit, usual: 0.0)  # after every step
    output = tmp_path / "t2"
    command = ["run", str(folder), "--results", str(output), "--seeds", "2", "--small", "--minutes", "60"]
    assert paper_t2.main(command) == 1
    shown = capsys.readouterr().out
    assert "Stopped. 1 of 4 trials are complete." in shown and "The same command continues." in shown
    assert signal.getsignal(signal.SIGTERM) == handler
    assert steps == [(1, False, step) for step in range(STEPS)] + [(1, True, step) for step in range(4)]

    steps.clear()
    stop_at = (0, False, 0)
    assert paper_t2.main([*command, "--json"]) == 0
    shown = capsys.readouterr().out
    assert steps[:2] == [(1, True, 3), (1, True, 4)], "the stopped trial continues with its checkpoint"
    assert steps[2:] == [(2, jepa, step) for jepa in (False, True) for step in range(STEPS)]
    assert "Done. 4 of 4 trials are complete." in shown and "54.38 ± 1.70" in shown and "60.59 ± 1.01" in shown
    told = json.loads(shown.splitlines()[-1])
    assert [(one["method"], one["seed"], one["steps"]) for one in told["trials"]] == [
        (method, seed, STEPS) for seed in (1, 2) for method in ("baseline", "jepa")
    ]

    rows = results.read_trials(output)
    assert set(rows["stage"]) == {"confirm"} and set(rows["init"]) == {"random"} and rows["test_prefix"].notna().all()
    assert len(results.read_predictions(output, filters=[("split", "==", "test")])) == 4 * 16
    assert paper.main(["T2", str(output)]) == 0 and "jepa/llama3" in capsys.readouterr().out
    assert verdict.main([str(output), "--metric", "test_prefix"]) == 0
    assert "2 of 2 planned seeds" in capsys.readouterr().out

    assert paper_t2.main([*command[:-4], "1", "--small"]) == 0
    assert "Done. 2 of 2 trials are complete." in capsys.readouterr().out
    assert paper_t2.main(["run", str(folder), "--results", str(output)]) == 2
    assert "name another folder" in capsys.readouterr().err

    whole = tmp_path / "whole"
    assert paper_t2.main(["run", str(folder), "--results", str(whole), "--seeds", "1", "--small"]) == 0
    for name in ("train_ce", "train_jepa", "val_prefix", "test_prefix", "train_flops"):
        of = [table[table["seed"] == 1].set_index("method")[name].to_dict() for table in (rows, results.read_trials(whole))]
        assert of[0] == pytest.approx(of[1], rel=0, abs=0, nan_ok=True), name


def test_no_time_at_all(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert paper_t2.main(["run", str(folder), "--results", str(tmp_path / "t2"), "--small", "--minutes", "1e-6"]) == 1
    shown = capsys.readouterr().out
    assert "0 of 6 trials are complete" in shown and "no confirmed baseline and method" in shown
