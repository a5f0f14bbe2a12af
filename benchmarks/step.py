"""The packed step against the reference's layout: three rows per example, each padded to 512, with logits at every position.

Same model, same examples, same optimizer, one run, contenders taking turns. Ratios:

    speed-up over padded rows     examples per second of our step over the reference layout's, both training LLM-JEPA
    cost over plain               seconds of a JEPA step over those of next-token training on the same examples, packed without
                                  prefix sharing (the usual packing); in `both sharing prefixes` the baseline shares them too
    error                         largest difference from separate passes, of both losses and of every gradient, relative to the
                                  largest entry of that gradient

    python -m benchmarks.step [--json] [--gpu]

With --gpu the same batch is repeated too, so kernels have seen its shapes; `benchmarks.gpu` never trains on a batch twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from benchmarks.timing import SHARED, finish, medians
from jepa_ray.config import DataConfig, ModelConfig, ObjectiveConfig, OptimConfig, TrialConfig
from jepa_ray.data.datasets import DATASETS, load_splits
from jepa_ray.data.example import Example
from jepa_ray.data.packing import PREDICTOR_BASE, Backend, make_batch
from jepa_ray.data.sources import read
from jepa_ray.data.views import TokenTable, tokenize_split
from jepa_ray.models.families import FAMILIES, ModelFamily
from jepa_ray.models.loading import new_predictor, uses_bf16
from jepa_ray.models.network import Network
from jepa_ray.models.tiny import tiny_config
from jepa_ray.objectives.distances import cosine
from jepa_ray.preparation.tiny_base import base_tokenizer
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.optimizer import make_optimizer
from jepa_ray.training.packing_check import separate_pass
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import loss_of_sums, losses, train_step

PADDED = 512
K = 1
LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
"""Llama-3.2-1B's shapes (its config.json); weights are random."""


def build(examples: Sequence[Example], gpu: bool) -> tuple[Network, TokenTable]:
    """A Llama 3 with random weights (tiny, or Llama-3.2-1B's shapes on a GPU), and the tokenised examples."""
    family: ModelFamily = FAMILIES["llama3"]
    tokenizer = base_tokenizer(family, examples)
    if gpu:
        family = replace(family, tiny=MappingProxyType({**family.tiny, **LLAMA_1B, "initializer_range": 0.02}))
    shape = tiny_config(family, tokenizer)
    if gpu:
        shape.vocab_size = 128_256
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
    lm.config.use_cache = False
    table = tokenize_split(examples, tokenizer, family, PADDED)
    return Network(lm, new_predictor(lm, K, seed=0)).to("cuda" if gpu else "cpu"), table


def padded_step(network: Network, optimizer: torch.optim.Optimizer, table: TokenTable, rows: Sequence[int], micro: int, bf16: bool) -> None:
    """One optimizer step in the reference's layout: 3 rows of 512 per example, full logits, `micro` examples per forward."""
    device = network.device
    optimizer.zero_grad(set_to_none=True)
    for start in range(0, len(rows), micro):
        chosen = rows[start : start + micro]
        predictors = np.arange(PREDICTOR_BASE, PREDICTOR_BASE + K, dtype=np.int32)
        sequences = (
            [table.lm[i] for i in chosen] + [np.concatenate([table.text[i], predictors]) for i in chosen] + [table.code[i] for i in chosen]
        )
        ids = torch.zeros(len(sequences), PADDED, dtype=torch.long)
        mask = torch.zeros(len(sequences), PADDED, dtype=torch.long)
        labels = torch.full((len(sequences), PADDED), -100)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.from_numpy(sequence.astype(np.int64))
            mask[row, : len(sequence)] = 1
            if row < len(chosen):
                labels[row, table.prompt_length[chosen[row]] : len(sequence)] = ids[row, table.prompt_length[chosen[row]] : len(sequence)]
        ids, mask, labels = ids.to(device), mask.to(device), labels.to(device)
        lasts = torch.tensor([len(sequence) - 1 for sequence in sequences], device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16), network.attention(None):
            hidden = network.causal_lm.base_model(inputs_embeds=network.embed(ids), attention_mask=mask, use_cache=False).last_hidden_state
            logits = network.logits(hidden)
        ce = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        readout = hidden[torch.arange(len(sequences), device=device), lasts]
        n = len(chosen)
        ((ce + cosine(readout[n : 2 * n], readout[2 * n :]).mean()) * (n / len(rows))).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def largest_error(network: Network, table: TokenTable, rows: Sequence[int], backend: Backend, config: TrialConfig) -> float:
    """Largest error of losses and gradients, packed against separate, unpadded passes."""
    network.eval()
    batch = make_batch(table, rows, backend=backend, k=K)
    gradients: list[list[torch.Tensor]] = []
    sums: list[tuple[float, float]] = []
    for packed in (True, False):
        network.zero_grad(set_to_none=True)
        if packed:
            ce, jepa = losses(network, batch, config, network.device, Term.of(config, network))
        else:
            ce, jepa = separate_losses(network, table, rows)
        loss_of_sums(ce, jepa, config.objective, batch.num_labels, len(rows), 1.0).backward()
        sums.append((float(ce.detach()) / batch.num_labels, float(jepa.detach()) / len(rows)))
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    errors = [abs(a - b) for a, b in zip(*sums, strict=True)]
    errors += [float((a - b).abs().max() / b.abs().max()) for a, b in zip(*gradients, strict=True) if float(b.abs().max()) > 0]
    network.train()
    return float(max(errors))


def separate_losses(network: Network, table: TokenTable, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of both losses, from one pass per sequence with the model's own attention."""
    ce: Any = 0.0
    jepa: Any = 0.0
    predictors = np.arange(PREDICTOR_BASE, PREDICTOR_BASE + K, dtype=np.int32)
    for i in rows:
        sequence, prompt = table.lm[i], int(table.prompt_length[i])
        logits = network.logits(separate_pass(network, sequence[:-1])[prompt - 1 :])
        ce = ce + F.cross_entropy(logits, torch.from_numpy(sequence[prompt:].astype(np.int64)).to(logits.device), reduction="sum")
        source = separate_pass(network, np.concatenate([table.text[i], predictors]))[-1:]
        jepa = jepa + cosine(source, separate_pass(network, table.code[i])[-1:]).sum()
    return ce, jepa


def measure(examples: Sequence[Example], gpu: bool, rounds: int) -> dict[str, float]:
    """All ratios on one data set."""
    device = "cuda" if gpu else "cpu"
    network, table = build(examples, gpu)
    size = min(128 if gpu else 32, len(table))
    objective = ObjectiveConfig(k=K)
    config = TrialConfig(model=ModelConfig(family="llama3"), objective=objective, optim=OptimConfig(learning_rate=1e-4, batch_size=size))
    plain = config.model_copy(update={"objective": None})
    bf16 = uses_bf16(config.model, torch.device(device))
    optimizer = make_optimizer(network, config)
    runtime = Runtime(device=device)
    order = np.arange(len(table))
    micro = 4 if gpu else 8

    def ours(settings: TrialConfig, how: Backend) -> Any:
        def call() -> None:
            term = Term.of(settings, network)
            state = TrainState(config=settings, table=table, network=network, optimizer=optimizer, term=term, runtime=runtime, packing=how)
            train_step(state, order[:size], 0, 10)
            if gpu:
                torch.cuda.synchronize()

        return call

    def reference() -> None:
        padded_step(network, optimizer, table, list(range(size)), micro, bf16)
        if gpu:
            torch.cuda.synchronize()

    error = largest_error(network, table, list(range(8)), "trie", config) if not gpu else float("nan")
    seconds = medians(
        {
            "reference": reference,
            "jepa": ours(config, "trie"),
            "plain flat": ours(plain, "flat"),
            "plain trie": ours(plain, "trie"),
        },
        rounds,
    )
    figures = {
        "speed-up over padded rows": seconds["reference"] / seconds["jepa"],
        "cost over plain": seconds["jepa"] / seconds["plain flat"],
        "cost over plain, both sharing prefixes": seconds["jepa"] / seconds["plain trie"],
        "examples per second": size / seconds["jepa"],
        "error": error,
    }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--gpu", action="store_true", help="Llama-3.2-1B shapes in bf16 on a GPU instead of the tiny model on one CPU core")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    facts: dict[str, Any] = {"device": torch.cuda.get_device_name() if options.gpu else "cpu, one thread"}
    real = SHARED / "synth_train.jsonl", SHARED / "gsm8k_test.jsonl"
    for name, path in zip(("nl-rx", "gsm8k"), real, strict=True):
        if path.is_file():
            examples: Sequence[Example] = read(DATASETS[name], str(path))[:1000]
        elif name == "nl-rx":
            examples = load_splits(DataConfig(num_train=1000)).train
        else:
            examples = gsm8k_lengths()
        measured = measure(examples, options.gpu, options.rounds)
        figures |= {f"{name}: {key}": value for key, value in measured.items()}
        facts |= {f"{name} data": path.name if path.is_file() else "generated"}
    limits = {
        "nl-rx: speed-up over padded rows": (">=", 25.0),
        "nl-rx: cost over plain": ("<=", 1.25),
        "gsm8k: speed-up over padded rows": (">=", 3.5),
        "gsm8k: cost over plain": ("<=", 2.1),
    }
    if not options.gpu:
        limits |= {f"{name}: error": ("<=", 1e-5) for name in ("nl-rx", "gsm8k")}
    finish("step", figures, limits if not options.gpu else {}, options.json, facts)


def gsm8k_lengths() -> list[Example]:
    """Stand-in for GSM8K if its file is not next to the checkout: random words with about as many tokens (270, 123, 158)."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwyp"))
    lexicon = ["".join(rng.choice(letters, size=rng.integers(2, 8))) for _ in range(300)]

    def words(characters: float) -> str:
        total = max(40, int(rng.normal(characters, characters / 3)))
        return " ".join(lexicon[int(300 * rng.random() ** 3)] for _ in range(total // 5))

    return [Example(f"generated:{i}", "Answer the math question, show steps.", words(310), words(395)) for i in range(1000)]


if __name__ == "__main__":
    main()
