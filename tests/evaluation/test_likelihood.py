"""Log-probability of references: that of separate passes, of the answer's tokens alone, in any batch; and a probability it is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_ray.config import LoraConfig
from jepa_ray.data.packing import Backend
from jepa_ray.evaluation import likelihood
from jepa_ray.evaluation.choices import option_scores
from jepa_ray.evaluation.likelihood import reference_logprobs
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.training.evaluate import evaluate
from jepa_ray.training.packing_check import separate_pass
from jepa_ray.training.runtime import Runtime
from tests import tiny_models as tiny


@pytest.mark.parametrize("packing", tiny.BACKENDS)
@pytest.mark.parametrize("family", ["llama3", "gemma2"])
def test_they_are_those_of_each_answer_alone(tiny_checkpoints: dict[str, Path], family: str, packing: Backend) -> None:
    checkpoint = tiny_checkpoints[family]
    config = tiny.trial(checkpoint)
    network, table = tiny.network_of(config), tiny.table_of(checkpoint, tiny.EXAMPLES[:7], scored=True)
    tokenizer = load_tokenizer(str(checkpoint), config.model)
    found = reference_logprobs(network, table, [6, 0, 3, 5], batch_size=3, packing=packing)
    assert network.training
    network.eval()
    for row, (logprob, tokens) in zip([6, 0, 3, 5], found, strict=True):
        start, whole = int(table.prompt_length[row]), table.lm[row]
        assert tokenizer.decode(whole[start : start + tokens]).strip() == table.references[row]
        assert tokenizer.decode(whole[start + tokens :]) == table.turn_end
        with torch.inference_mode():
            log_prob_LV = torch.log_softmax(network.logits(separate_pass(network, whole)), dim=-1)
        wanted = sum(float(log_prob_LV[at - 1, whole[at]]) for at in range(start, start + tokens))
        assert logprob == pytest.approx(wanted, rel=1e-4)


def test_options_have_the_same_scores(tiny_checkpoints: dict[str, Path]) -> None:
    """A choice task scores its options by the same sum."""
    options = ["A", "B"]
    examples = [replace(one, code=options[i % 2], extra={"options": options}) for i, one in enumerate(tiny.EXAMPLES[:4])]
    table = tiny.table_of(tiny_checkpoints["llama3"], examples, scored=True)
    network = tiny.network_of(tiny.trial(tiny_checkpoints["llama3"])).eval()
    with torch.inference_mode():
        scores = option_scores(network, table, range(4))
    found = [logprob for logprob, _ in reference_logprobs(network, table, range(4), batch_size=4)]
    assert found == pytest.approx([scores[i][i % 2] for i in range(4)], rel=1e-4)


def test_the_end_of_turn_does_not_count(tiny_checkpoints: dict[str, Path]) -> None:
    """The same weights have the same log-probability in an arm that trains the end of turn and in one that does not."""
    checkpoint = tiny_checkpoints["llama3"]
    means = []
    for trained in (True, False):
        config = tiny.trial(checkpoint, lora=LoraConfig(r=4), optim__train_end_of_turn=trained, evaluation__batch_size=2)
        network, table = tiny.network_of(config), tiny.table_of(checkpoint, tiny.EXAMPLES[:5])
        scores, rows = evaluate(network, load_tokenizer(str(checkpoint), config.model), table, "test", config, Runtime())
        assert scores["test_logprob"] == pytest.approx(np.mean([row["reference_logprob"] for row in rows]))
        assert all(row["reference_tokens"] > 0 > row["reference_logprob"] for row in rows)
        means.append(scores["test_logprob"])
    assert means[0] == means[1]


def test_batches_have_a_bounded_number_of_tokens(tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    table = tiny.table_of(tiny_checkpoints["llama3"], tiny.EXAMPLES[:9])
    longest = int(table.lm.lengths.max())
    monkeypatch.setattr(likelihood, "TOKENS", 2 * longest)
    batches = list(likelihood._batches(range(9), table, 5))
    assert [i for batch in batches for i in batch] == list(range(9)) and max(map(len, batches)) > 1
    assert all(table.lm.lengths[batch].sum() <= 2 * longest for batch in batches)
    monkeypatch.setattr(likelihood, "TOKENS", 1)
    assert list(likelihood._batches([3, 1], table, 5)) == [[3], [1]]


def test_a_uniform_model_gives_every_token_one_in_v(tiny_checkpoints: dict[str, Path]) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    network, table = tiny.network_of(tiny.trial(checkpoint)), tiny.table_of(checkpoint, tiny.EXAMPLES[:3])
    with torch.no_grad():
        network.causal_lm.get_output_embeddings().weight.zero_()
    for logprob, tokens in reference_logprobs(network, table, range(3), batch_size=2):
        assert logprob == pytest.approx(-tokens * math.log(network.causal_lm.config.vocab_size))
