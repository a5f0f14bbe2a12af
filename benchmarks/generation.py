"""Generation as evaluations do it, against what one would use instead: same model, same prompts, same texts.

    python -m benchmarks.generation [--json] [--gpu]

    speed-up over one by one        seconds of Transformers' `generate` for one prompt at a time, as the reference evaluates
    speed-up over padded batches    seconds of Transformers' `generate` in batches of 64 prompts of similar length
    ... , LoRA                      the same with adapters, which the padded batches run as PEFT does

All texts must be identical (greedy decoding of the same model). The model is the built-in tiny base for NL-RX (trained, so that outputs
stop before the cap, at different lengths, as they do in a sweep); with --gpu, random Llama-3.2-1B shapes in bf16, whose outputs all run
to the cap.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.step import build
from benchmarks.timing import finish, medians
from jepa_ray.config import DataConfig, LoraConfig, ModelConfig, SweepConfig
from jepa_ray.data.datasets import load_splits
from jepa_ray.data.packing import Backend
from jepa_ray.evaluation.generate import Generation, generate
from jepa_ray.models.evaluation_copy import evaluation_copy
from jepa_ray.models.families import ModelFamily, get_family
from jepa_ray.models.loading import add_lora, load_network, load_tokenizer
from jepa_ray.models.network import Network
from jepa_ray.preparation.prepare import prepare
from jepa_ray.preparation.tiny_base import base_tokenizer

PROMPTS = 256
ALONE = 32
"""Prompts that run one by one; their seconds are scaled to all prompts."""


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
    networks = {"": network, ", LoRA": adapted(network, family)}
    written: dict[str, list[Generation]] = {}

    def run(name: str, batch_size: int | None, packing: Backend, kind: str = "") -> Callable[[], None]:
        def call() -> None:
            evaluated = networks[kind] if packing == "plain" else evaluation_copy(networks[kind], options.gpu)
            written[name + kind] = generate(
                evaluated,
                tokenizer,
                prompts[:ALONE] if batch_size == 1 else prompts,
                turn_end=family.turn_end,
                batch_size=batch_size,
                max_new_tokens=64,
                bf16=options.gpu,
                packing=packing,
            )

        return call

    contenders = {"one by one": run("one by one", 1, "plain")}
    for kind in networks:
        contenders |= {f"padded{kind}": run("padded", 64, "plain", kind), f"ours{kind}": run("ours", None, "trie", kind)}
    seconds = medians(contenders, options.rounds)
    pairs = [("one by one", "ours"), ("padded", "ours"), ("padded, LoRA", "ours, LoRA")]
    same = [a.text == b.text for x, y in pairs for a, b in zip(written[x], written[y], strict=False)]
    figures = {
        "speed-up over one by one": seconds["one by one"] / len(written["one by one"]) * len(prompts) / seconds["ours"],
        "speed-up over padded batches": seconds["padded"] / seconds["ours"],
        "speed-up over padded batches, LoRA": seconds["padded, LoRA"] / seconds["ours, LoRA"],
        "identical texts": sum(same) / len(same),
        "prompts per second": len(prompts) / seconds["ours"],
        "mean tokens written": sum(generation.num_tokens for generation in written["ours"]) / len(prompts),
        "most tokens written": max(generation.num_tokens for generation in written["ours"]),
    }
    limits = {
        "speed-up over one by one": (">=", 10.0),
        "speed-up over padded batches": (">=", 1.2),
        "speed-up over padded batches, LoRA": (">=", 1.2),
        "identical texts": (">=", 1.0),
    }
    facts = {"device": torch.cuda.get_device_name() if options.gpu else "cpu, one thread", "prompts": len(prompts)}
    finish("generation", figures, {} if options.gpu else limits, options.json, facts)


def adapted(network: Network, family: ModelFamily) -> Network:
    """A copy of the network with adapters that change it a little, as after some training."""
    lm = add_lora(copy.deepcopy(network.causal_lm), family, LoraConfig(), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if "lora_B" in name:
                parameter.copy_(1e-3 * torch.randn(parameter.shape, generator=generator))
    return Network(lm).to(network.device)


if __name__ == "__main__":
    main()
