"""Generation: the texts are those of Transformers' `generate` for one prompt at a time, however rows are batched, padded and dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from jepa_ray.config import LoraConfig, ObjectiveConfig
from jepa_ray.data.ragged import Ids
from jepa_ray.data.views import TokenTable
from jepa_ray.evaluation import decode
from jepa_ray.evaluation.generate import Generation, generate
from jepa_ray.models import decoding
from jepa_ray.models.evaluation_copy import evaluation_copy
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.models.network import Network
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.step import train_step
from tests import tiny_models as tiny

Trained = tuple[Network, Any, TokenTable, str]


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Trained:
    """A network that has memorised six answers: most of its outputs stop before the cap, at different lengths."""
    checkpoint = tiny_checkpoints[request.param]
    config = tiny.trial(checkpoint, optim__learning_rate=6e-3, optim__beta2=0.95)
    network, table = tiny.network_of(config), tiny.table_of(checkpoint, tiny.EXAMPLES[:12])
    state = tiny.state_of(network, table, config)
    for step in range(60):
        train_step(state, np.arange(6), step, 60)
    return network, load_tokenizer(str(checkpoint), config.model), table, FAMILIES[request.param].turn_end


def write(trained: Trained, batch_size: int | None, max_new_tokens: int = 40, rows: list[int] | None = None) -> list[Generation]:
    network, tokenizer, table, turn_end = trained
    prompts = [table.prompt(i) for i in (rows if rows is not None else range(len(table)))]
    return generate(network, tokenizer, prompts, turn_end=turn_end, batch_size=batch_size, max_new_tokens=max_new_tokens)


def transformers_alone(trained: Trained, prompts: list[Ids], max_new_tokens: int = 40) -> list[Generation]:
    """What a user would write: one prompt at a time, nothing of ours but the network."""
    network, tokenizer, _, turn_end = trained
    stop = tokenizer.convert_tokens_to_ids(turn_end)
    settings = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=stop, pad_token_id=stop, bos_token_id=None)
    out = []
    network.eval()
    with torch.no_grad(), network.attention(None):
        for prompt in prompts:
            ids = torch.from_numpy(prompt.astype("int64"))[None]
            new = network.causal_lm.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
            new = new[0, len(prompt) :].tolist()
            stopped = stop in new
            new = new[: new.index(stop)] if stopped else new
            out.append(Generation(tokenizer.decode(new, skip_special_tokens=True), stopped, len(new)))
    network.train()
    return out


def greedy_by_hand(trained: Trained, row: int, max_new_tokens: int) -> tuple[list[int], bool]:
    """Token by token, nothing cached, nothing padded."""
    network, tokenizer, table, turn_end = trained
    ids, out = table.prompt(row).tolist(), list[int]()
    with torch.no_grad(), network.attention(None):
        while len(out) < max_new_tokens:
            token = int(network.causal_lm(input_ids=torch.tensor([ids + out]), use_cache=False).logits[0, -1].argmax())
            if token == tokenizer.convert_tokens_to_ids(turn_end):
                return out, True
            out.append(token)
    return out, False


def test_batches_write_what_one_by_one_writes(trained: Trained) -> None:
    alone = write(trained, 1)
    assert {len(trained[2].prompt(i)) for i in range(12)} != {len(trained[2].prompt(0))}, "nothing would be padded"
    assert len({generation.text for generation in alone}) >= 6 and sum(generation.stopped for generation in alone) >= 6
    for size in (2, 5, 64):
        assert write(trained, size) == alone
    assert write(trained, 4, rows=[7, 2, 9]) == [alone[7], alone[2], alone[9]], "not in the order of the prompts"


def test_it_is_greedy_decoding(trained: Trained) -> None:
    network, tokenizer, *_ = trained
    for row, generation in enumerate(write(trained, 64)):
        if row in (0, 3, 8, 11):
            ids, stopped = greedy_by_hand(trained, row, 40)
            wanted = Generation(tokenizer.decode(ids, skip_special_tokens=True), stopped, len(ids))
            assert generation == wanted
    assert network.training, "the mode was not restored"


def test_learnt_answers_come_out_exactly_and_stopped(trained: Trained) -> None:
    table = trained[2]
    found = write(trained, 64)[:6]
    assert [(generation.text, generation.stopped) for generation in found] == [(table.references[i], True) for i in range(6)]


def test_the_cap_counts_as_not_stopped(trained: Trained) -> None:
    whole = write(trained, 64)
    length = min(generation.num_tokens for generation in whole if generation.stopped)
    for cap, wanted in ((length, False), (length + 1, True)):  # the end of turn itself takes one token
        row = next(i for i, generation in enumerate(whole) if generation.num_tokens == length and generation.stopped)
        cut = write(trained, 64, max_new_tokens=cap)
        assert cut[row].stopped is wanted and cut[row].text == whole[row].text
        assert all(generation.num_tokens <= cap for generation in cut)


def test_a_checkpoints_own_generation_settings_do_not_leak_in(trained: Trained) -> None:
    """Instruct models ship with sampling, a repetition penalty and more stop tokens."""
    network = trained[0]
    wanted = write(trained, 64)
    before = network.causal_lm.generation_config
    config = GenerationConfig(do_sample=True, temperature=5.0, repetition_penalty=9.0, suppress_tokens=[300, 301, 302], min_new_tokens=39)
    network.causal_lm.generation_config = config
    try:
        assert write(trained, 64) == wanted
        assert network.causal_lm.generation_config is config
    finally:
        network.causal_lm.generation_config = before


def test_nothing_to_write(trained: Trained) -> None:
    assert write(trained, 4, rows=[]) == []


def test_training_goes_on_after_an_evaluation(trained: Trained) -> None:
    """Generation uses the model's own attention and a cache; the next step must be packed again, without a cache."""
    network, _, table, _ = trained
    config = tiny.trial(Path(network.causal_lm.config._name_or_path))
    frozen = tiny.weights(network)
    gradients = []
    for evaluate in (False, True):
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(frozen[name])
        if evaluate:
            write(trained, 64, max_new_tokens=3)
        tiny.one_step(network, table, config, [0, 7, 8])
        gradients.append(tiny.gradients(network))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(frozen[name])
    assert tiny.largest_error(gradients[0], gradients[1]) == 0


def prompts_of(trained: Trained) -> dict[str, list[Ids]]:
    """Prompts that are hard in different ways. Gemma 2's tiny window is 128 tokens, so long ones exceed it."""
    network, _, table, _ = trained
    rng = np.random.default_rng(2)
    random = [rng.integers(10, network.causal_lm.config.vocab_size, size, dtype=np.int32) for size in (1, 200, 7, 140, 3, 40)]
    learnt = [table.prompt(i) for i in range(12)]
    return {
        "learnt": learnt,
        "one": learnt[3:4],
        "equal": [learnt[2]] * 3,
        "no common prefix": random,
        "very different lengths": [*random, *learnt, np.concatenate([random[1], learnt[0]])],
        "prefixes of each other": [learnt[0], learnt[0][:-3], learnt[0][:2], learnt[0]],
    }


def test_texts_are_those_of_transformers_one_prompt_at_a_time(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    network, tokenizer, _, turn_end = trained
    for name, prompts in prompts_of(trained).items():
        wanted = transformers_alone(trained, prompts)
        for size, checked, packing in ((None, 1, "trie"), (4, 1, "trie"), (64, 8, "trie"), (5, 1, "plain")):
            monkeypatch.setitem(decode.CHECK_EVERY, "cpu", checked)
            found = generate(network, tokenizer, prompts, turn_end=turn_end, batch_size=size, max_new_tokens=40, packing=packing)
            assert found == wanted, (name, size, checked, packing)


@pytest.mark.parametrize("cap", [1, 2, 9])
def test_caps_are_those_of_transformers(trained: Trained, cap: int) -> None:
    prompts = prompts_of(trained)["very different lengths"]
    network, tokenizer, _, turn_end = trained
    wanted = transformers_alone(trained, prompts, cap)
    assert generate(network, tokenizer, prompts, turn_end=turn_end, batch_size=None, max_new_tokens=cap) == wanted


def test_small_buffers_and_small_passes_change_no_text(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = write(trained, 64)
    monkeypatch.setattr(decoding, "GROWTH", 3)
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 100)
    assert write(trained, 64) == wanted


def test_ended_rows_leave_the_batch(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []

    def step(network: Network, cache: Any, token_R: torch.Tensor) -> torch.Tensor:
        rows.append(len(token_R))
        return decoding.step(network, cache, token_R)

    monkeypatch.setattr(decode, "step", step)
    written = write(trained, 64)
    needed = sum(generation.num_tokens + generation.stopped - 1 for generation in written)  # the first token is the prefill's
    assert rows[0] == 12 > rows[-1] and rows == sorted(rows, reverse=True)
    assert needed <= sum(rows) <= needed / decode.KEEP_ABOVE + 12


@pytest.mark.parametrize("family", FAMILIES)
def test_with_adapters_and_predictor_tokens(tiny_checkpoints: dict[str, Path], family: str) -> None:
    """Training moved the adapters; Transformers runs them as PEFT does, we run them on the evaluation copy."""
    checkpoint = tiny_checkpoints[family]
    lora = LoraConfig(r=8, dropout=0.1)
    config = tiny.trial(checkpoint, lora=lora, objective=ObjectiveConfig(k=2), optim__learning_rate=1e-2, optim__beta2=0.95)
    network, table = tiny.network_of(config), tiny.table_of(checkpoint, tiny.EXAMPLES[:12])
    state = tiny.state_of(network, table, config, term=Term.of(config, network))
    for step in range(40):
        train_step(state, np.arange(6), step, 40)
    trained = network, load_tokenizer(str(checkpoint), config.model), table, FAMILIES[family].turn_end
    prompts = prompts_of(trained)["very different lengths"]
    wanted = transformers_alone(trained, prompts, 24)
    assert len({generation.text for generation in wanted}) >= 8
    for evaluated in (network, evaluation_copy(network, bf16=False)):
        assert generate(evaluated, trained[1], prompts, turn_end=trained[3], batch_size=None, max_new_tokens=24) == wanted


def test_rows_follow_memory() -> None:
    """1000 tokens of 2 MB per row and 8 bytes per word of the vocabulary, out of half of the memory."""
    row = 1000 * 2_000_000 + 8 * 100_000
    assert decode.fitting_rows(2 * row * 10, 2_000_000, 1000, 100_000) == 10
    assert decode.fitting_rows(2 * row * 10 - 2, 2_000_000, 1000, 100_000) == 9
    assert decode.fitting_rows(0, 2_000_000, 1000, 100_000) == 1
    assert decode.fitting_rows(10**15, 2_000_000, 1000, 100_000) == decode.GPU_ROWS


def test_a_cpu_takes_64_rows(tiny_checkpoints: dict[str, Path]) -> None:
    network = tiny.network_of(tiny.trial(tiny_checkpoints["llama3"]))
    assert decode.rows_per_batch(network, 100, 100) == 64


@pytest.mark.gpu
def test_on_a_gpu_rows_follow_memory_and_texts_do_not(tiny_checkpoints: dict[str, Path]) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    config = tiny.trial(checkpoint, optim__learning_rate=6e-3, optim__beta2=0.95)
    network, table = tiny.network_of(config), tiny.table_of(checkpoint, tiny.EXAMPLES[:12])
    state = tiny.state_of(network, table, config)
    for step in range(60):
        train_step(state, np.arange(6), step, 60)
    trained = network, load_tokenizer(str(checkpoint), config.model), table, FAMILIES["llama3"].turn_end
    on_cpu = write(trained, 64)
    network.to("cuda")
    assert decode.rows_per_batch(network, 100, 100) == decode.GPU_ROWS
    assert write(trained, None) == on_cpu == write(trained, 4)
