"""The rows that a plan shows are those that training builds: views with their readouts, prompt and labels, in every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jepa_ray.config import ModelConfig, ObjectiveConfig, OptimConfig, SweepConfig, TrialConfig, arms
from jepa_ray.data.example import Example
from jepa_ray.data.views import tokenize_split
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.plan.describe import describe
from jepa_ray.preparation.estimate import estimate
from jepa_ray.preparation.rows import HEAD, MARKS, ROWS, TAIL, draw, printable, shortened
from jepa_ray.streams import stream

EXAMPLES = [
    Example(f"own:{i}", "be brief", f"lines with {i}\nends", f"[{i}] é", history=(("user", "hi"), ("assistant", "yes?"))) for i in range(5)
]
OPEN, CLOSE = MARKS


def drawn(family: str, tiny_checkpoints: dict[str, Path], objective: ObjectiveConfig | None, **optim: Any) -> tuple[list[str], Any]:
    folder = str(tiny_checkpoints[family])
    tokenizer = load_tokenizer(folder, ModelConfig(family=family, model=folder))
    table = tokenize_split(EXAMPLES, tokenizer, FAMILIES[family], 512)
    config = TrialConfig(model=ModelConfig(family=family), objective=objective, optim=OptimConfig(**optim))
    return draw("jepa/x", config, table, tokenizer), (table, tokenizer)


def line(lines: list[str], name: str, number: int = 0) -> str:
    return [each.strip().removeprefix(name).lstrip(" ") for each in lines if each.strip().startswith(name)][number]


@pytest.mark.parametrize("family", FAMILIES)
def test_views_prompt_and_labels_of_every_family(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    lines, (table, tokenizer) = drawn(family, tiny_checkpoints, ObjectiveConfig(k=2))
    assert len(lines) == 1 + 5 * ROWS and [each.strip() for each in lines[1::5]] == ["own:0", "own:1", "own:2"]
    text, code = line(lines, "Text view", 1), line(lines, "Code view", 1)
    assert text.endswith(f"ends<p1>{OPEN}<p2>{CLOSE}") and "lines with 1\\nends" in text and "hi" not in text and "brief" not in text
    assert code.endswith(CLOSE) and code.replace(OPEN, "").replace(CLOSE, "").endswith("[1] é") and code.count(OPEN) == 1
    prompt = line(lines, "prompt", 1)
    whole = printable(tokenizer.decode(table.prompt(1), skip_special_tokens=False))
    assert prompt in (whole, shortened(whole)) and "lines with 1\\nends" in whole and "yes?" in whole
    assert line(lines, "labels", 1) == f"[1] é{FAMILIES[family].turn_end}"


def test_other_layouts_mark_what_they_read(tiny_checkpoints: dict[str, Path]) -> None:
    reverse, _ = drawn("llama3", tiny_checkpoints, ObjectiveConfig(k=1, layout="reverse"))
    assert line(reverse, "Code view").endswith(f"[0] é{OPEN}<p1>{CLOSE}") and line(reverse, "Text view").endswith(CLOSE)
    mean, _ = drawn("llama3", tiny_checkpoints, ObjectiveConfig(k=0, readout="mean"))
    assert f"{OPEN}[0] é{CLOSE}" in line(mean, "Code view")
    average, _ = drawn("llama3", tiny_checkpoints, ObjectiveConfig(k=1, target="ema"))
    assert line(average, "Code view").endswith(CLOSE) and line(average, "Text view").endswith(f"{OPEN}<p1>{CLOSE}")
    tube, _ = drawn("llama3", tiny_checkpoints, ObjectiveConfig(k=0, layout="tube"))
    assert OPEN in line(tube, "sequence") and OPEN not in line(tube, "Text view")
    baseline, _ = drawn("llama3", tiny_checkpoints, None)
    assert not any(OPEN in each for each in baseline) and "it reads no views" in baseline[0]


@pytest.mark.parametrize(("layout", "view"), [("append", "Code"), ("reverse", "Text")])
def test_the_shuffled_control_shows_the_partner(layout: Any, view: str, tiny_checkpoints: dict[str, Path]) -> None:
    """As the first epoch pairs them: each batch of 2 exchanges its targets, and the fifth example is alone in its own."""
    lines, _ = drawn("llama3", tiny_checkpoints, ObjectiveConfig(k=1, layout=layout, control="shuffled"), batch_size=2)
    order = stream(TrialConfig(model=ModelConfig(family="llama3")).seed, "data order", 0).permutation(5).tolist()
    wanted = dict(zip(order[:4], (order[1], order[0], order[3], order[2]), strict=True)) | {order[4]: order[4]}
    assert any(wanted[row] != row for row in range(ROWS))
    for row in range(ROWS):
        heading, other = lines[1 + 5 * row].strip(), wanted[row]
        assert heading.startswith(f"own:{row}")
        assert heading.endswith(f"its {view} view is that of own:{other})") == (other != row)
        code, text = (line(lines, f"{name} view", row).replace(OPEN, "").replace(CLOSE, "") for name in ("Code", "Text"))
        of = (other, row) if view == "Code" else (row, other)
        assert f"[{of[0]}] é" in code and f"lines with {of[1]}\\nends" in text and line(lines, "labels", row).startswith(f"[{row}]")


def test_labels_follow_the_tokens_of_the_loss(tiny_checkpoints: dict[str, Path]) -> None:
    stops, _ = drawn("llama3", tiny_checkpoints, None, train_end_of_turn=False)
    assert line(stops, "labels") == "[0] é"
    everything, _ = drawn("llama3", tiny_checkpoints, None, loss_on="all")
    assert line(everything, "labels").startswith("<|start_header_id|>system") and line(everything, "labels").endswith("[0] é<|eot_id|>")


def test_nothing_reaches_the_terminal_unescaped_and_long_texts_are_cut_in_the_middle() -> None:
    assert printable("a\n\t\x1b[31m\u2028\ud83d é⟦") == "a\\n\\t\\x1b[31m\\u2028\\ud83d é⟦"
    text = "a" * 200 + "b" * 200
    assert shortened(text) == f"{'a' * HEAD} ... (200 characters) ... {'b' * TAIL}" and shortened("a" * 240) == "a" * 240


def test_stand_ins_are_called_so() -> None:
    data = {"train": "datasets/synth_train.jsonl", "test": "datasets/synth_test.jsonl", "num_train": 60, "num_val": 20}
    estimates, _ = estimate(SweepConfig.model_validate({"name": "x", "methods": {"baseline": None}, "data": data}))
    (row, *_) = estimates["baseline/llama3"].rows
    assert row.endswith("(it reads no views); generated in place of the data")


def test_an_estimate_shows_training_examples_of_the_first_workload_only() -> None:
    sweep = SweepConfig.model_validate(
        {
            "name": "x",
            "families": ["llama3", "gemma2"],
            "methods": {"baseline": None, "jepa": {"k": 1}},
            "data": {"num_train": 60, "num_val": 20, "num_test": 20},
        }
    )
    estimates, _ = estimate(sweep)
    assert {arm: bool(one.rows) for arm, one in estimates.items()} == {
        "baseline/llama3": False,
        "jepa/llama3": True,
        "baseline/gemma2": False,
        "jepa/gemma2": False,
    }
    plan = describe(sweep, arms(sweep), estimates)
    rows = estimates["jepa/llama3"].rows
    assert plan.endswith("\n".join(f"  {row}" for row in rows))
    assert "as jepa/llama3 sees them" in rows[0] and "other families and tasks are not shown" in rows[0]
    assert all(each.strip().startswith("nl-rx-train:") for each in rows[1::5]) and len(rows) == 1 + 5 * ROWS
