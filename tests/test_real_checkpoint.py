"""A real checkpoint through every layer: SmolLM2-135M-Instruct on NL-RX, against plain Transformers and PEFT.

The folder is written by `python -m benchmarks.smollm2_checkpoint`; JEPA_RAY_SMOLLM2 names another place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.real_step import PlainLoop, our_state, our_step, tokenised
from jepa_ray.config import ModelConfig
from jepa_ray.conformance.network_checks import CHECKS
from jepa_ray.data.datasets import DATASETS
from jepa_ray.data.example import Example
from jepa_ray.data.sources import read
from jepa_ray.data.views import TokenTable
from jepa_ray.evaluation.generate import generate
from jepa_ray.models.auto import family_of
from jepa_ray.models.families import AUTO, FAMILIES, ModelFamily
from jepa_ray.models.loading import load_network, load_tokenizer
from jepa_ray.preparation.text_checks import Subject, run_checks

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
EXAMPLES = 4
RELATIVE = 1e-4


@pytest.fixture
def family(smollm2: Path) -> ModelFamily:
    return family_of(ModelConfig(family=AUTO, model=str(smollm2)), str(smollm2))


def test_what_auto_finds_is_the_published_format(family: ModelFamily) -> None:
    """ChatML without a beginning of sequence; the tokenizer's own BOS opens every turn."""
    assert (family.model_type, family.bos, family.turn_end, family.pad) == ("llama", None, "<|im_end|>", "<|endoftext|>")
    assert family.system_role and set(family.lora_targets) == set(FAMILIES["llama3"].lora_targets) and family.plain_because is None


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Path:
    return shared_data / "synth_train.jsonl"


@pytest.fixture
def examples(data: Path) -> list[Example]:
    return read(DATASETS["nl-rx"], str(data))[:EXAMPLES]


@pytest.fixture
def table(smollm2: Path, family: ModelFamily, data: Path) -> TokenTable:
    return tokenised(smollm2, data, EXAMPLES)


def messages(example: Example) -> list[dict[str, str]]:
    return [{"role": "system", "content": example.system}, {"role": "user", "content": example.text}]


def test_token_ids_are_those_of_the_chat_template(smollm2: Path, table: TokenTable, examples: list[Example]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    after = tokenizer("\n", add_special_tokens=False)["input_ids"]
    for row, example in enumerate(examples):
        asked = tokenizer.apply_chat_template(messages(example), add_generation_prompt=True)["input_ids"]
        answered = [*messages(example), {"role": "assistant", "content": example.code}]
        whole = tokenizer.apply_chat_template(answered)["input_ids"]
        assert table.prompt(row).tolist() == asked
        assert table.lm[row].tolist() + after == whole and tokenizer.decode(table.lm[row][-1:]) == "<|im_end|>"


@pytest.mark.slow
def test_greedy_text_is_that_of_transformers(smollm2: Path, family: ModelFamily, table: TokenTable, examples: list[Example]) -> None:
    plain: Any = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(smollm2)
    expected = []
    for example in examples:
        inputs = tokenizer.apply_chat_template(messages(example), add_generation_prompt=True, return_tensors="pt")
        out = plain.generate(**inputs, max_new_tokens=20, do_sample=False)
        expected.append(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    config = Subject(str(smollm2), family).model()
    network = load_network(str(smollm2), config, None, k=0, seed=0)
    loaded = load_tokenizer(str(smollm2), config)
    prompts = [table.prompt(row) for row in range(len(table))]
    for packing in ("trie", "plain"):
        written = generate(
            network,
            loaded,
            prompts,
            turn_end=family.turn_end,
            batch_size=None,
            max_new_tokens=20,
            packing=packing,
        )
        assert [each.text for each in written] == expected and all(expected)


@pytest.mark.slow
@pytest.mark.parametrize("jepa", [False, True], ids=["baseline", "JEPA"])
@pytest.mark.parametrize("rank", [8, None], ids=["LoRA", "full"])
def test_losses_and_gradients_are_those_of_a_plain_loop(
    smollm2: Path, family: ModelFamily, table: TokenTable, rank: int | None, jepa: bool
) -> None:
    """Packed rows against a padded batch with masked labels, and for the JEPA term two more padded passes."""
    state = our_state(smollm2, table, rank, jepa)
    state.config = state.config.model_copy(update={"optim": state.config.optim.model_copy(update={"max_grad_norm": None})})
    plain = PlainLoop(smollm2, state.network, rank, 1 if jepa else 0)
    expected = plain.backward(table, range(len(table)))
    found = our_step(state)
    assert found == pytest.approx(expected, rel=RELATIVE) and expected[0] > 0.5 and (expected[1] > 1e-3) == jepa

    ours = {name: p.grad for name, p in state.network.named_parameters() if p.requires_grad}
    theirs = {f"lm.{name}": p.grad for name, p in plain.model.named_parameters() if p.requires_grad}
    if plain.predictor is not None:
        theirs["predictor"] = plain.predictor.grad
    assert ours.keys() == theirs.keys() and len(ours) > 100
    norms = {name: float(gradient.norm()) for name, gradient in theirs.items() if gradient is not None}
    assert norms.keys() == theirs.keys()
    largest = max(norms.values())
    errors = {}
    for name, norm in norms.items():
        mine, other = ours[name], theirs[name]
        assert mine is not None and other is not None
        errors[name] = float((mine - other).norm()) / max(norm, 0.01 * largest)
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] < RELATIVE, (worst, errors[worst])


def test_the_texts_pass_conformance(smollm2: Path, family: ModelFamily) -> None:
    checks = {name: CHECKS[name] for name in ("tokenizer", "template", "readouts", "labels")}
    rows = list(run_checks(Subject(str(smollm2), family), checks))
    assert [(row.check, row.result) for row in rows] == [(name, "ok") for name in checks], rows


def test_an_answer_is_labelled_alone(table: TokenTable, examples: list[Example], smollm2: Path) -> None:
    """Labels as text: the regular expression and the end of turn, nothing of the prompt."""
    tokenizer: Any = AutoTokenizer.from_pretrained(smollm2)
    for row, example in enumerate(examples):
        labels = np.asarray(table.lm[row][table.prompt_length[row] :])
        assert tokenizer.decode(labels.tolist()) == f"{example.code}<|im_end|>"
