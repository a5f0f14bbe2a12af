"""Public data and checkpoints can be planned without having them; nothing else can, and no run starts without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jepa_ray.config import DataConfig, ModelConfig
from jepa_ray.data.datasets import load_splits
from jepa_ray.data.public_sizes import PUBLIC_SIZES
from jepa_ray.data.sources import NotReachable
from jepa_ray.plan.load import ConfigError, load_sweep
from jepa_ray.preparation.stand_ins import lengthened, planned_checkpoint, planned_data
from jepa_ray.sweep import main
from tests.test_layers import ROOT
from tests.tiny_models import EXAMPLES

PAPER = sorted((ROOT / "search_spaces" / "paper").glob("*.yaml"))


def test_there_are_files_of_the_paper() -> None:
    assert len(PAPER) > 20


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_every_file_of_the_paper_plans_offline(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(path), "--dry-run", f"output={tmp_path}"]) == 0
    plan = capsys.readouterr().out
    assert "a run needs the data" in plan and "a run needs the checkpoint" in plan
    assert "cannot run" not in plan and plan.count("computed FLOPs a trial") >= 2


def test_generated_examples_stand_in_for_public_data_only(tmp_path: Path) -> None:
    planned = planned_data(DataConfig(task="gsm8k", train="paper", test="paper", num_val=512))
    assert (planned.num_train, planned.num_val, planned.num_test) == (7473 - 512, 512, 1319)
    assert planned.note is not None and "openai/gsm8k" in planned.note and "generated" in planned.note
    known = PUBLIC_SIZES["hub:openai/gsm8k@main:train"]
    train = planned.splits.train
    assert sum(len(one.text) for one in train) / len(train) == pytest.approx(known.text, rel=0.02)
    assert sum(len(one.code) for one in train) / len(train) == pytest.approx(known.code, rel=0.02)
    fewer = planned_data(DataConfig(task="yelp", train="paper", test="paper", num_train=1000, num_test=10))
    assert (fewer.num_train, fewer.num_test) == (1000, 10)
    assert fewer.note is not None and "are used" not in fewer.note
    more = planned_data(DataConfig(task="gsm8k", train="paper", test="paper", num_val=512, num_train=7000, num_test=1320))
    assert more.note is not None and more.note.count("are used") == 2
    assert "data.num_train is 7,000, the data have 6,961 left: 6,961 are used" in more.note
    with pytest.raises(NotReachable, match="hub:some/data:train: cannot be loaded"):
        planned_data(DataConfig(task="gsm8k", train="hub:some/data:train", test="paper"))
    rows = [{"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"}]} for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    real = planned_data(DataConfig(train=str(tmp_path / "mine.jsonl"), num_val=8))
    assert real.note is None and real.num_train == len(real.splits.train) <= 32


def test_lengthened_examples_keep_their_spread() -> None:
    longer = lengthened(EXAMPLES, 300, 10)
    assert len({len(one.text) for one in longer}) > 10
    assert sum(len(one.code) for one in longer) / len(longer) == pytest.approx(10, rel=0.05)
    assert longer[0].text.startswith(EXAMPLES[0].text)


def test_a_known_shape_stands_in_for_its_checkpoint_only() -> None:
    model = ModelConfig(family="llama3", model="paper")
    tokenizer, shape, note = planned_checkpoint("meta-llama/Llama-3.2-1B-Instruct", model, EXAMPLES)
    assert shape.hidden_size == 2048 and len(tokenizer) < 1000
    assert note is not None and "stand-in tokenizer" in note
    for unknown in ("some/checkpoint", "google/gemma-2-2b-it"):  # the second is of another family
        with pytest.raises(ValueError, match=f"cannot load {unknown}"):
            planned_checkpoint(unknown, model, EXAMPLES)


def test_a_run_still_needs_the_files(tmp_path: Path) -> None:
    path = ROOT / "search_spaces" / "paper" / "t12-synth.yaml"
    assert load_sweep(path, planning=True).data.train == "datasets/synth_train.jsonl"
    with pytest.raises(ConfigError, match=r"datasets/synth_train\.jsonl does not exist"):
        load_sweep(path)
    with pytest.raises(ConfigError, match=r"other\.jsonl does not exist"):
        load_sweep(path, ["data.train=other.jsonl"], planning=True)
    with pytest.raises(NotReachable, match="openai/gsm8k"):
        load_splits(DataConfig(task="gsm8k", train="paper", test="paper"))
