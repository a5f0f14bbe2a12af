"""The checks of a checkpoint: a sound one passes all, and each planted fault fails its own row while the other checks continue."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jepa_ray.config import SweepConfig
from jepa_ray.conformance import network_checks
from jepa_ray.conformance.network_checks import CHECKS
from jepa_ray.data.packing import Packed, ViewBatch
from jepa_ray.data.views import TokenTable
from jepa_ray.models import attention, device_batch, network
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.loading import load_config, load_tokenizer
from jepa_ray.preparation import text_checks
from jepa_ray.preparation.estimate import estimate
from jepa_ray.preparation.prepare import prepare
from jepa_ray.preparation.text_checks import Found, Row, Skip, Subject, bound, run_checks

PINNED = next(family for family in FAMILIES.values() if "date_string" in family.template_kwargs)
WINDOWED = next(family for family in FAMILIES.values() if "sliding_window" in family.tiny)
TEXT = ("tokenizer", "template", "readouts", "labels")


@pytest.fixture
def subject(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Subject:
    """A copy of a tiny checkpoint that a test may damage."""
    shutil.copytree(tiny_checkpoints[PINNED.name], tmp_path / "checkpoint")
    return Subject(str(tmp_path / "checkpoint"), PINNED)


def results(subject: Subject, *names: str) -> dict[str, Row]:
    """Rows of some checks, by name."""
    rows = {row.check: row for row in run_checks(subject, {name: CHECKS[name] for name in names or CHECKS})}
    assert all(bool(row.remedy) == (row.result == "FAILED") and row.found for row in rows.values()), rows
    return rows


def failed(rows: dict[str, Row]) -> set[str]:
    return {name for name, row in rows.items() if row.result == "FAILED"}


@pytest.mark.parametrize("name", [PINNED.name, WINDOWED.name])
def test_a_sound_checkpoint_passes_everything(tiny_checkpoints: dict[str, Path], name: str) -> None:
    rows = results(Subject(str(tiny_checkpoints[name]), FAMILIES[name]))
    assert list(rows) == list(CHECKS) and {row.result for row in rows.values()} == {"ok"}, rows
    assert {name for name, row in rows.items() if row.bound} == {"packing", "gradients", "LoRA targets"}
    window = FAMILIES[name].tiny.get("sliding_window")
    assert all(
        (f"also beyond the sliding window of {window} tokens" in rows[row].found) is bool(window) for row in ("packing", "gradients")
    )


def rewrite(subject: Subject, template: str) -> None:
    (Path(subject.checkpoint) / "chat_template.jinja").write_text(template, encoding="utf-8")


TEMPLATE = PINNED.template
THINKS = "<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' }}"
TEMPLATES = {
    "BOS twice": ("{{- bos_token }}" + TEMPLATE, "appears 2 times"),
    "BOS again in front of the answer": (TEMPLATE.replace("{% generation %}", "{{- bos_token }}{% generation %}"), "appears 2 times"),
    "no end of turn": (TEMPLATE.replace("{{- '<|eot_id|>' }}{% endgeneration %}", "{% endgeneration %}"), "does not end the answer with"),
    "today's date": (TEMPLATE.replace("date_string", "strftime_now('%d %b %Y')"), "changes with the date"),
    "a filled thinking block": (TEMPLATE.replace(THINKS, THINKS + "{{- '<think>hm</think>' }}"), "filled <think> block"),
    "an open thinking block": (TEMPLATE.replace(THINKS, THINKS + "{{- '<think>\\n' }}"), "open or filled <think> block"),
    "no system text": (TEMPLATE.replace("{{- system +", "{{- ''  +"), "does not show the system message"),
    "no user turn": ("{{ raise_exception('tools only') }}", "tools only"),
}


@pytest.mark.parametrize("fault", TEMPLATES)
def test_a_wrong_template(subject: Subject, fault: str) -> None:
    template, sentence = TEMPLATES[fault]
    assert template != TEMPLATE
    rewrite(subject, template)
    rows = results(subject, *TEXT)
    assert failed(rows) == {"template"} and sentence in rows["template"].found, rows
    assert "chat_template.jinja" in rows["template"].remedy
    assert rows["tokenizer"].result == "ok"
    assert {rows[name].result for name in ("readouts", "labels")} <= {"ok", "skipped"}


@pytest.mark.parametrize(
    ("bos", "front", "result"),
    [
        ("<|im_start|>", "", "ok"),  # as in SmolLM2 and many other ChatML checkpoints
        ("<|im_start|>", "{{- '<|im_start|>' }}", "FAILED"),
        ("<|endoftext|>", "{{- bos_token }}", "FAILED"),
    ],
)
def test_a_bos_that_marks_turns(tiny_checkpoints: dict[str, Path], tmp_path: Path, bos: str, front: str, result: str) -> None:
    """ChatML's checkpoints may call the token in front of every turn BOS; nothing is added to the sequence."""
    family = next(family for family in FAMILIES.values() if "<|im_start|>" in family.extra_special_tokens)
    assert family.bos is None
    shutil.copytree(tiny_checkpoints[family.name], tmp_path / "checkpoint")
    subject = Subject(str(tmp_path / "checkpoint"), family)
    settings = tmp_path / "checkpoint" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text(encoding="utf-8")) | {"bos_token": bos}), encoding="utf-8")
    rewrite(subject, front + family.template)
    row = results(subject, "template")["template"]
    assert row.result == result and (result == "ok" or f"BOS {bos!r} appears" in row.found), row


def test_an_empty_thinking_block_and_a_template_of_its_own_are_sound(subject: Subject) -> None:
    rewrite(subject, TEMPLATE.replace(THINKS, THINKS + "{{- '<think>\\n\\n</think>\\n\\n' if turn['role'] == 'assistant' else '' }}"))
    rows = results(subject, *TEXT)
    assert not failed(rows) and rows["template"].found.startswith("its own;")
    (Path(subject.checkpoint) / "chat_template.jinja").unlink()
    assert results(Subject(subject.checkpoint, subject.family), "template")["template"].found.startswith(f"that of {PINNED.name};")


def test_a_tokenizer_that_does_not_know_the_end_of_turn(subject: Subject) -> None:
    for path in Path(subject.checkpoint).glob("*token*.json"):
        path.write_text(path.read_text(encoding="utf-8").replace(PINNED.turn_end, "<|other|>"), encoding="utf-8")
    rows = results(subject)
    assert failed(rows) == {"tokenizer"} and repr(PINNED.turn_end) in rows["tokenizer"].found
    assert {row.found for name, row in rows.items() if name != "tokenizer"} == {"for the same reason as tokenizer"}


def test_an_end_of_turn_of_several_tokens(subject: Subject) -> None:
    path = Path(subject.checkpoint) / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != PINNED.turn_end]
    path.write_text(json.dumps(content), encoding="utf-8")
    settings = Path(subject.checkpoint) / "tokenizer_config.json"
    kept = {key: value for key, value in json.loads(settings.read_text(encoding="utf-8")).items() if value != PINNED.turn_end}
    settings.write_text(json.dumps(kept), encoding="utf-8")
    row = results(subject, "tokenizer")["tokenizer"]
    assert row.result == "FAILED" and "tokens instead of one" in row.found and "special token" in row.remedy


def test_a_tokenizer_with_more_tokens_than_rows(subject: Subject) -> None:
    """The additional tokens occur in no example here, but with a user's data every trial would end in an IndexError."""
    tokenizer = load_tokenizer(subject.checkpoint, subject.model())
    rows = load_config(subject.checkpoint, subject.model()).vocab_size
    tokenizer.add_tokens([f"token number {i}" for i in range(8)])
    tokenizer.save_pretrained(subject.checkpoint)
    row = results(Subject(subject.checkpoint, subject.family), "tokenizer")["tokenizer"]
    assert row.result == "FAILED" and f"{rows} rows of embeddings" in row.found and str(rows + 7) in row.found
    sweep = {"name": "rows", "families": [PINNED.name], "model": subject.checkpoint, "task": "nl-rx", "methods": {"baseline": None}}
    sweep |= {"data": {"num_train": 40, "num_val": 8, "num_test": 8}}
    with pytest.raises(ValueError, match=f"{rows} rows of embeddings.*resize_token_embeddings"):
        prepare(SweepConfig.model_validate(sweep), PINNED.name, "nl-rx")
    with pytest.raises(ValueError, match=f"{rows} rows of embeddings"):
        estimate(SweepConfig.model_validate(sweep))


def test_missing_weights(subject: Subject) -> None:
    """Checks that need no weights still run."""
    (Path(subject.checkpoint) / "model.safetensors").unlink()
    rows = results(subject)
    assert failed(rows) == {"packing"} and {name for name, row in rows.items() if row.result == "ok"} == set(TEXT)
    assert "safetensors" in rows["packing"].found + rows["packing"].remedy


BATCHES: dict[str, tuple[Callable[[ViewBatch], dict[str, Any]], str]] = {
    "Text one token early": (lambda batch: {"source_index": batch.source_index - 1}, "readouts"),
    "Code one token early": (lambda batch: {"target_index": batch.target_index - 1}, "readouts"),
    "pairs exchanged": (lambda batch: {"target_index": batch.target_index[::-1]}, "readouts"),
    "pairs left out": (lambda batch: {"source_index": batch.source_index[1:], "target_index": batch.target_index[1:]}, "readouts"),
    "no end of turn": (lambda batch: {"label_ids": batch.label_ids[:-1], "label_index": batch.label_index[:-1]}, "labels"),
    "another token": (lambda batch: {"label_ids": np.concatenate([batch.label_ids[:-2], [9], batch.label_ids[-1:]])}, "labels"),
    "shifted by one": (lambda batch: {"label_index": np.roll(batch.label_index, 1)}, "labels"),
    "predicted from Code": (lambda batch: {"label_index": np.repeat(batch.target_index[:1], batch.num_labels)}, "labels"),
}


@pytest.mark.parametrize("fault", BATCHES)
def test_wrong_readouts_and_labels(subject: Subject, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    change, row = BATCHES[fault]
    right = text_checks.make_batch
    single = row == "labels"  # labels are checked example by example

    def wrong(table: TokenTable, rows: Any, **options: Any) -> ViewBatch:
        batch = right(table, rows, **options)
        return replace(batch, **change(batch)) if (len(rows) == 1) is single else batch

    monkeypatch.setattr(text_checks, "make_batch", wrong)
    assert failed(results(subject, *TEXT)) == {row}


def test_a_template_that_writes_into_the_answer_fails_its_labels(subject: Subject) -> None:
    rewrite(subject, TEMPLATE.replace("{{- '<|eot_id|>' }}{% endgen", "{{- '!<|eot_id|>' }}{% endgen"))
    rows = results(subject, *TEXT)
    assert failed(rows) == {"labels"} and "template" in rows["labels"].remedy


class TestPacking:
    def test_a_leak_across_segments(self, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        def leaky(packed: Packed, device: torch.device) -> attention.Layout:
            row = replace(packed, nodes=(np.arange(packed.num_tokens),), shared=np.zeros(1, dtype=np.int64))
            return attention.Layout(row, device)

        monkeypatch.setattr(device_batch, "Layout", leaky)
        rows = results(subject)
        assert failed(rows) == {"packing", "gradients"} and "packing=plain" in rows["packing"].remedy + rows["gradients"].remedy

    def test_a_sliding_window_that_is_ignored(self, tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        monkeypatch.setitem(
            ALL_ATTENTION_FUNCTIONS._global_mapping,
            attention.NAME,
            lambda *args, sliding_window=None, **kwargs: attention.packed_attention(*args, **kwargs),
        )
        subject = Subject(str(tiny_checkpoints[WINDOWED.name]), WINDOWED)
        assert failed(results(subject, "packing", "gradients", "stop token")) == {"packing", "gradients"}

    @pytest.mark.parametrize("term", [0, 1], ids=["cross-entropy", "JEPA"])
    @pytest.mark.parametrize("fault", [lambda term: 1.01 * term, lambda term: term.detach() + 0 * term], ids=["value", "gradient"])
    def test_a_wrong_loss(self, subject: Subject, monkeypatch: pytest.MonkeyPatch, term: int, fault: Any) -> None:
        right = network_checks.losses

        def wrong(*args: Any) -> tuple[torch.Tensor, ...]:
            return tuple(fault(value) if number == term else value for number, value in enumerate(right(*args)))

        monkeypatch.setattr(network_checks, "losses", wrong)
        assert failed(results(subject, "packing", "gradients")) == {"gradients"}

    @pytest.mark.parametrize(("lora", "recompute"), [(True, False), (False, True)], ids=["LoRA only", "with gradient checkpointing only"])
    def test_every_way_of_training_is_looked_at(
        self, subject: Subject, monkeypatch: pytest.MonkeyPatch, lora: bool, recompute: bool
    ) -> None:
        right = network_checks.losses

        def wrong(model: Any, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
            ce, jepa = right(model, *args)
            found = hasattr(model.lm, "peft_config"), any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
            return (1.01 * ce, jepa) if found == (lora, recompute) else (ce, jepa)

        monkeypatch.setattr(network_checks, "losses", wrong)
        row = results(subject, "gradients")["gradients"]
        assert row.result == "FAILED" and ("LoRA" if lora else "full") in row.found and ("with " if recompute else "without ") in row.found

    def test_no_gradient_at_all_in_one_tensor(self, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        """As when reentrant checkpointing cuts the graph."""
        right = network.Network.embed
        calls = 0

        def embed(self: Any, ids: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return right(self, ids).detach() if calls == 1 else right(self, ids)

        monkeypatch.setattr(network.Network, "embed", embed)
        assert failed(results(subject, "gradients")) == {"gradients"}


def test_a_lora_target_too_few_and_one_too_many(subject: Subject) -> None:
    few = replace(subject.family, lora_targets=subject.family.lora_targets[1:])
    many = replace(subject.family, lora_targets=(*subject.family.lora_targets, "no_such_proj"))
    for family, sentence in ((few, f"have no adapter, such as model.layers.0.self_attn.{PINNED.lora_targets[0]}"), (many, "no_such_proj")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(FAMILIES, family.name, family)
            rows = results(replace(subject, family=family), "packing", "LoRA targets", "predictor tokens")
        assert failed(rows) == {"LoRA targets"} and sentence in rows["LoRA targets"].found
        assert "families.py" in rows["LoRA targets"].remedy


def test_matrices_that_are_no_linear_layers_count_as_left_out(subject: Subject) -> None:
    lm = subject.network(network_checks.LORA).causal_lm
    adapted = {name for name, module in lm.named_modules() if hasattr(module, "lora_A")}
    assert not list(network_checks._without_adapter(lm, adapted))
    lm.model.layers[0].mlp.experts = torch.nn.Parameter(torch.zeros(2, 3, 4))
    assert list(network_checks._without_adapter(lm, adapted)) == ["model.layers.0.mlp.experts"]


def test_predictor_tokens_that_stay(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    right = network_checks.make_optimizer

    def forgetful(model: Any, optim: Any) -> torch.optim.Optimizer:
        model.predictor.requires_grad_(False)
        return right(model, optim)

    monkeypatch.setattr(network_checks, "make_optimizer", forgetful)
    row = results(subject, "predictor tokens")["predictor tokens"]
    assert row.result == "FAILED" and "0 of 2 predictor tokens move" in row.found


def test_generation_that_runs_on(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    right = network_checks.generate
    monkeypatch.setattr(network_checks, "generate", lambda *args, **options: right(*args, **options | {"turn_end": PINNED.pad}))
    row = results(subject, "stop token")["stop token"]
    assert row.result == "FAILED" and "[12, 12, 12] tokens long" in row.found


def test_reloaded_weights_that_differ(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Subject.network

    def network_of(self: Subject, *args: Any, source: str = "", **options: Any) -> Any:
        loaded = right(self, *args, source=source, **options)
        if source:
            with torch.no_grad():
                next(p for name, p in loaded.named_parameters() if name.endswith("down_proj.weight"))[0, 0] += 10
        return loaded

    monkeypatch.setattr(Subject, "network", network_of)
    rows = results(subject, "LoRA targets", "save and reload", "stop token")
    assert failed(rows) == {"LoRA targets", "save and reload"} and "down_proj" in rows["save and reload"].found


def test_whatever_a_check_does_the_others_go_on(subject: Subject) -> None:
    def raising(error: BaseException) -> Callable[[Subject], Found]:
        def check(_: Subject) -> Found:
            raise error

        return check

    checks = {
        "law": raising(ValueError("x is 3; make it\n 4")),
        "again": raising(ValueError("x is 3; make it 4")),
        "bug": raising(KeyError("h")),
        "none": raising(Skip("does not apply")),
        "memory": raising(torch.OutOfMemoryError("CUDA")),
        "fine": lambda _: Found("yes", 3e-4),
    }
    rows = list(run_checks(subject, checks))
    assert rows[0] == Row("law", "FAILED", "x is 3", "make it 4")
    assert rows[1] == Row("again", "skipped", "for the same reason as law")
    assert rows[2].result == "FAILED" and "KeyError" in rows[2].found and rows[2].remedy
    assert rows[3] == Row("none", "skipped", "does not apply")
    assert rows[4].result == "FAILED" and "memory" in rows[4].found
    assert rows[5] == Row("fine", "ok", "yes", bound="< 1e-3")
    assert [bound(error) for error in (0.0, 9e-5, 1e-4, 0.05, 0.2, float("nan"))] == [
        "< 1e-4",
        "< 1e-4",
        "< 1e-3",
        "< 1e-1",
        ">= 0.1",
        ">= 0.1",
    ]


def test_no_room_for_the_weights_is_no_fault(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    assert results(subject, "save and reload")["save and reload"].result == "skipped"
