"""Choice by probability: scores are those of separate passes, and the most probable option wins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_ray.data.example import Example
from jepa_ray.data.packing import Backend
from jepa_ray.evaluation.choices import choose, option_scores
from jepa_ray.training.packing_check import separate_pass
from tests import tiny_models

OPTIONS = ["A", "B", "the third of them", "the fourth"]
EXAMPLES = [
    Example(
        f"c{i}",
        "Answer.",
        f"Which {i}? " + "long " * i,
        OPTIONS[i % 4],
        {"options": OPTIONS[: 4 - i % 2]},
        views=(f"which {i}", "that one"),
    )
    for i in range(5)
]


@pytest.mark.parametrize("packing", tiny_models.BACKENDS)
@pytest.mark.parametrize("family", ["llama3", "gemma2"])
def test_scores_are_those_of_each_option_alone(tiny_checkpoints: dict[str, Path], family: str, packing: Backend) -> None:
    checkpoint = tiny_checkpoints[family]
    table = tiny_models.table_of(checkpoint, EXAMPLES, scored=True)
    network = tiny_models.network_of(tiny_models.trial(checkpoint)).eval()
    with torch.inference_mode():
        all_scores = option_scores(network, table, [4, 0, 3], packing)
        for row, scores in zip([4, 0, 3], all_scores, strict=True):
            assert len(scores) == len(EXAMPLES[row].extra["options"])
            prompt = table.prompt(row)
            for option, score in zip(table.options[row], scores, strict=True):
                alone_LD = separate_pass(network, np.concatenate([prompt, option]))
                log_prob_LV = torch.log_softmax(network.logits(alone_LD), dim=-1)
                wanted = sum(float(log_prob_LV[len(prompt) - 1 + i, token]) for i, token in enumerate(option))
                assert score == pytest.approx(wanted, rel=1e-4)
    chosen = choose(network, table, range(5), batch_size=2, packing=packing)
    best = [int(np.argmax(option_scores(network, table, [row])[0])) for row in range(5)]
    assert chosen == best


def test_options_are_what_follows_the_prompt_and_views_are_the_examples_own(tiny_checkpoints: dict[str, Path]) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    table = tiny_models.table_of(checkpoint, EXAMPLES, scored=True)
    tokenizer = tiny_models.load_tokenizer(str(checkpoint), tiny_models.trial(checkpoint).model)
    for row, example in enumerate(EXAMPLES):
        assert [tokenizer.decode(option) for option in table.options[row]] == example.extra["options"]
        assert tokenizer.decode(table.text[row]).endswith(f"which {row}") and tokenizer.decode(table.code[row]).endswith("that one")
        gold = table.lm[row][table.prompt_length[row] : -1]
        if example.code in example.extra["options"]:
            assert list(table.options[row][example.extra["options"].index(example.code)]) == list(gold)
