"""Batched, length-sorted generation against one prompt at a time, as the reference evaluates: same model, same 64 prompts, same texts.

    python -m benchmarks.generation [--json] [--gpu]

It reports seconds one by one over seconds batched, and whether all texts are identical (they must be: greedy decoding of the same
model). The model is the built-in tiny base for NL-RX (trained, so that outputs stop before the cap as they do in a sweep); with
--gpu, random Llama-3.2-1B shapes in bf16, whose outputs all run to the cap.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from benchmarks.step import build
from benchmarks.timing import finish, medians
from jepa_ray.config import DataConfig, ModelConfig, SweepConfig
from jepa_ray.data.datasets import load_splits
from jepa_ray.evaluation.generate import Generation, generate
from jepa_ray.models.families import get_family
from jepa_ray.models.loading import load_network, load_tokenizer
from jepa_ray.preparation.prepare import prepare
from jepa_ray.preparation.tiny_base import base_tokenizer

PROMPTS = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.generation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--gpu", action="store_true", help="Llama-3.2-1B shapes in bf16 on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    family = get_family("llama3")
    if options.gpu:
        examples = load_splits(DataConfig(num_train=PROMPTS)).train
        network, table = build(examples, gpu=True)
        network = network.to(torch.bfloat16)
        tokenizer: Any = base_tokenizer(family, examples)
    else:
        sweep = SweepConfig(name="generation", methods={"baseline": None}, data=DataConfig(num_train=2000, num_val=PROMPTS))
        prepared = prepare(sweep, "llama3", "nl-rx")
        model = ModelConfig(family="llama3", model=prepared.checkpoint)
        tokenizer = load_tokenizer(prepared.checkpoint, model)
        network = load_network(prepared.checkpoint, model, None, k=0, seed=0)
        table = prepared.val
    prompts = [table.prompt(i) for i in range(min(PROMPTS, len(table)))]
    written: dict[int, list[Generation]] = {}

    def run(batch_size: int) -> Any:
        def call() -> None:
            written[batch_size] = generate(
                network, tokenizer, prompts, turn_end=family.turn_end, batch_size=batch_size, max_new_tokens=64, bf16=options.gpu
            )

        return call

    seconds = medians({"one by one": run(1), "batched": run(PROMPTS)}, options.rounds)
    same = sum(a.text == b.text for a, b in zip(written[1], written[PROMPTS], strict=True)) / len(prompts)
    figures = {
        "speed-up over one by one": seconds["one by one"] / seconds["batched"],
        "identical texts": same,
        "prompts per second": len(prompts) / seconds["batched"],
        "mean tokens written": sum(generation.num_tokens for generation in written[PROMPTS]) / len(prompts),
    }
    limits = {"speed-up over one by one": (">=", 5.0), "identical texts": (">=", 1.0)}
    facts = {"device": torch.cuda.get_device_name() if options.gpu else "cpu, one thread", "prompts": len(prompts)}
    finish("generation", figures, {} if options.gpu else limits, options.json, facts)


if __name__ == "__main__":
    main()
