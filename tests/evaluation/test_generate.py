"""Generation: batching changes nothing, the end of turn stops it, reaching the cap does not count as stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from jepa_ray.data.views import TokenTable
from jepa_ray.evaluation.generate import Generation, generate
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.models.network import Network
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


def write(trained: Trained, batch_size: int, max_new_tokens: int = 40, rows: list[int] | None = None) -> list[Generation]:
    network, tokenizer, table, turn_end = trained
    prompts = [table.prompt(i) for i in (rows if rows is not None else range(len(table)))]
    return generate(network, tokenizer, prompts, turn_end=turn_end, batch_size=batch_size, max_new_tokens=max_new_tokens)


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
