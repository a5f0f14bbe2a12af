"""256 prompts through the evaluations' generation function, with a network that never stops on its own: all outputs run to the cap."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.gpu import data, models
from benchmarks.gpu.form import Findings, Form
from jepa_ray.config import LoraConfig
from jepa_ray.data.packing import Backend
from jepa_ray.evaluation.generate import generate
from jepa_ray.models.evaluation_copy import evaluation_copy
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.loading import uses_bf16

PROMPTS = 256
CAP = 32
KINDS = {"full": None, "lora": LoraConfig()}
TOGETHER = 64
"""Prompts per batch, for our loop and for Transformers' `generate`, which is what trials used before. Our loop also runs at its default."""


def run(form: Form, findings: Findings) -> None:
    """The part: full fine-tuning and LoRA, each with our loop by memory and at a fixed size, and with Transformers' `generate`."""
    count, cap = (8, 4) if form.small else (PROMPTS, CAP)
    sample, source = data.examples("nl-rx", form.data, max(64, count))
    tokenizer, table = models.tokenised("llama3", sample, scored=True)
    prompts = [table.prompt(i) for i in range(min(count, len(table)))]
    findings.note({"data": source, "tokenizer": models.TOKENIZER, "prompts": len(prompts), "max_new_tokens": cap, "skipped": []})
    together = min(TOGETHER, len(prompts))
    contenders: dict[str, tuple[int | None, Backend]] = {
        "by memory": (None, "trie"),
        f"{together} at a time": (together, "trie"),
        f"Transformers, {together} at a time": (together, "plain"),
    }
    headlines = []
    for kind, lora in KINDS.items():
        network = models.network("llama3", form.small, tokenizer, form.device, lora)
        bf16 = uses_bf16(models.trial_config(lora=lora, jepa=False, batch_size=1).model, torch.device(form.device))

        def once(size: int | None, packing: Backend, chosen: Any, cap: int, network: Any = network, bf16: bool = bf16) -> tuple[float, int]:
            began = time.perf_counter()
            written = generate(
                network if packing == "plain" else evaluation_copy(network, bf16),
                tokenizer,
                chosen,
                turn_end=FAMILIES["llama3"].turn_end,
                batch_size=size,
                max_new_tokens=cap,
                bf16=bf16,
                packing=packing,
            )
            if form.device == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - began, sum(generation.num_tokens for generation in written)

        for name, (size, packing) in contenders.items():
            name = f"{kind}, {name}"
            once(4, packing, prompts[:4], 2)  # loads the kernels
            per_token = once(4, packing, prompts[:4], 4)[0] / 4
            if form.left() < per_token * cap * len(prompts) / (size or len(prompts)):
                findings.note({"skipped": [*findings.figures["skipped"], name]})
                continue
            seconds, tokens = once(size, packing, prompts, cap)
            headlines.append(f"{name}: {seconds:.3g} s, {tokens / seconds:.0f} tokens/s")
            findings.note({name: {"seconds": seconds, "tokens": tokens, "tokens_per_s": tokens / seconds}}, "; ".join(headlines))
