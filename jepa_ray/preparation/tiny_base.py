"""The tiny base: the model that a LoRA sweep on built-in models adapts. Pre-trained once per family and data, cached by digest.

It has the family's own architecture and is trained from random weights with plain next-token loss on the *base half* of the training
split: fine-tuning never sees those examples, and the base never sees validation or test. The result is an ordinary checkpoint
folder, loaded by the same code as any other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from jepa_ray.config import DataConfig, ModelConfig, OptimConfig, TrialConfig
from jepa_ray.data.datasets import digest, split_base, task_of
from jepa_ray.data.example import Example
from jepa_ray.data.views import Renderer, tokenize_split
from jepa_ray.models.families import ModelFamily
from jepa_ray.models.loading import load_network, seeded
from jepa_ray.models.tiny import VOCAB_SIZE, tiny_config, tiny_tokenizer
from jepa_ray.streams import derive_seed
from jepa_ray.system import atomic, full_disk
from jepa_ray.system.heartbeat import HEARTBEAT
from jepa_ray.training.epochs import all_epochs, train_epoch
from jepa_ray.training.optimizer import make_optimizer
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import train_step

SEED = 0
STEPS = 300
OPTIM = OptimConfig(learning_rate=6e-3, num_epochs=1, batch_size=32, schedule="cosine", warmup_ratio=0.05, beta2=0.95)
"""Recipe of the pre-training; part of the cache key. `num_epochs` is replaced by the number that STEPS requires."""


def cache_folder() -> Path:
    """Cache of tiny bases in JEPA_RAY_CACHE, by default ~/.cache/jepa_ray. Created if missing; ValueError if that fails."""
    folder = Path(os.environ.get("JEPA_RAY_CACHE", Path.home() / ".cache" / "jepa_ray")) / "tiny"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if full_disk.is_full(error):
            raise
        raise ValueError(
            f"the cache of tiny bases, {folder}, cannot be created ({error.strerror}); set JEPA_RAY_CACHE to a writable folder"
        ) from error
    return folder


def tiny_base(family: ModelFamily, examples: Sequence[Example], max_length: int, num_threads: int = 1, steps: int | None = None) -> Path:
    """Folder of the family's tiny base for these examples; trained (STEPS steps, about a minute on one core) unless it is in the cache.

    With `steps` 0 it is not trained: its tokenizer comes from the examples, and its weights are random.
    """
    steps = STEPS if steps is None else steps
    folder = cache_folder() / f"{family.name}-{_key(family, examples, max_length, steps)}"
    if (folder / "config.json").is_file():
        return folder
    if not os.access(folder.parent, os.W_OK):  # fail before a base is trained
        raise ValueError(f"the cache of tiny bases, {folder.parent}, is not writable; set JEPA_RAY_CACHE to a writable folder")
    with atomic.whole_folder(folder) as building:  # another process may finish first; its result is the same
        _pretrain(family, examples, max_length, building, num_threads, steps)
    return folder


def split_for_base(train: Sequence[Example], data: DataConfig) -> tuple[Sequence[Example], Sequence[Example]]:
    """(base half, fine-tuning half) of a training split."""
    return split_base(tuple(train), data.base_fraction, data.split_seed, task_of(data).split_by)


def base_tokenizer(family: ModelFamily, examples: Sequence[Example]) -> PreTrainedTokenizerFast:
    """The family's tiny tokenizer, trained on the examples' rendered conversations, so that the template's words become tokens too."""
    renderer = Renderer(tiny_tokenizer(family, []), family)
    return tiny_tokenizer(family, [renderer.conversation(one.system, one.text, one.code, one.history) for one in examples])


def _pretrain(family: ModelFamily, examples: Sequence[Example], max_length: int, folder: Path, num_threads: int, steps: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()
    tokenizer = base_tokenizer(family, examples)
    tokenizer.save_pretrained(folder)
    with seeded(derive_seed(SEED, "tiny base", family.name)):
        model = AutoModelForCausalLM.from_config(tiny_config(family, tokenizer), dtype=torch.float32)
    model.save_pretrained(folder)
    if not steps:
        return

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    table = tokenize_split(examples, tokenizer, family, max_length)
    optim = OPTIM.model_copy(update={"num_epochs": -(-steps * OPTIM.batch_size // len(table))})
    config = TrialConfig(model=ModelConfig(family=family.name, model=str(folder), precision="fp32"), optim=optim, seed=SEED)
    network = load_network(str(folder), config.model, None, k=0, seed=SEED)
    state = TrainState(config=config, table=table, network=network, optimizer=make_optimizer(network, config))
    network.train()
    batches = [rows for steps_of_epoch in all_epochs(len(table), optim, SEED) for rows in steps_of_epoch][:steps]
    HEARTBEAT.plan(len(batches), 0)
    try:
        train_epoch(
            lambda rows, step: train_step(state, rows, step, len(batches)), batches, 0, len(batches), state.runtime, "train the tiny base"
        )
    finally:
        torch.set_num_threads(before)
    network.causal_lm.save_pretrained(folder)


def _key(family: ModelFamily, examples: Sequence[Example], max_length: int, steps: int) -> str:
    """Digest of everything that determines the base's weights."""
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "tokenizers")}
    parts = [
        repr(family),
        digest(examples),
        max_length,
        SEED,
        steps,
        VOCAB_SIZE,
        OPTIM.model_dump_json(),
        versions,
        torch.backends.cpu.get_cpu_capability(),
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
