"""A training step on a real checkpoint, against the loop that one would write with Transformers and PEFT: SmolLM2-135M on NL-RX.

    python -m benchmarks.real_step [FOLDER] [--data FILE] [--full] [--examples 16] [--steps 2] [--rounds 3]
        [--arms baseline JEPA] [--threads 2] [--json]

Same checkpoint, same examples, same initial adapters, same AdamW, no gradient accumulation. The plain loop pads each batch to its longest
sequence (not to 512) and lets the model compute its loss; its JEPA step makes three padded passes, as the reference does: conversation,
Text with its predictor token, Code. Contenders take turns; the ratios are of median seconds.

    baseline, JEPA      seconds of our step over those of the plain loop's; in brackets the same in CPU seconds
    error               largest relative difference of the losses over the first steps, each loop on its own weights

FOLDER is what `benchmarks.smollm2_checkpoint` writes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from benchmarks.smollm2_checkpoint import default_folder
from benchmarks.timing import SHARED, finish
from jepa_ray.config import LoraConfig, ModelConfig, ObjectiveConfig, OptimConfig, TrialConfig
from jepa_ray.data.datasets import DATASETS
from jepa_ray.data.sources import read
from jepa_ray.data.views import TokenTable, tokenize_split
from jepa_ray.models.auto import family_of
from jepa_ray.models.families import AUTO
from jepa_ray.models.loading import load_network, load_tokenizer
from jepa_ray.models.network import Network
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.optimizer import make_optimizer
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import train_step

RANK, K, WEIGHT = 8, 1, 1.0
RATE, MAX_NORM = 1e-4, 1.0
STEPS = 2
ARMS = ("baseline", "JEPA")
IGNORED = -100
Losses = tuple[float, float]
"""Mean cross-entropy of the labels, mean JEPA term of the pairs."""


class PlainLoop:
    """Transformers and PEFT without anything of this package but the token ids and the initial weights."""

    def __init__(self, folder: Path, start: Network, rank: int | None, k: int) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model.config.use_cache = False
        if rank is not None:
            from peft import LoraConfig as PeftLoraConfig
            from peft import get_peft_model

            targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
            settings: Any = {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "target_modules": targets, "task_type": "CAUSAL_LM"}
            model = get_peft_model(model, PeftLoraConfig(**settings))
        model.load_state_dict(start.lm.state_dict())
        self.model = model.train()
        self.predictor = nn.Parameter(start.predictor.detach().clone()) if start.predictor is not None and k else None
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        trained += [self.predictor] if self.predictor is not None else []
        self.trained = trained
        self.optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)

    def losses(self, table: TokenTable, rows: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """The model's own loss on a padded batch; with predictor tokens, the mean JEPA term from two more passes."""
        ids, mask = padded([table.lm[i] for i in rows])
        labels = ids.masked_fill(mask == 0, IGNORED)
        for at, row in enumerate(rows):
            labels[at, : table.prompt_length[row]] = IGNORED
        ce: Tensor = self.model(input_ids=ids, attention_mask=mask, labels=labels).loss
        if self.predictor is None:
            return ce, None
        source = self.read([table.text[i] for i in rows], self.predictor)
        target = self.read([table.code[i] for i in rows])
        return ce, (1 - F.cosine_similarity(source, target, dim=-1)).mean()

    def read(self, sequences: Sequence[np.ndarray], appended: Tensor | None = None) -> Tensor:
        """(P, D) last states of padded sequences, after `appended` embeddings."""
        extra = 0 if appended is None else len(appended)
        ids, mask = padded([np.concatenate([each, np.zeros(extra, dtype=each.dtype)]) for each in sequences])
        at, last = torch.arange(len(ids)), mask.sum(1) - 1
        embedded = self.model.get_input_embeddings()(ids)
        if appended is not None:
            for number in range(extra):
                place = torch.zeros_like(mask, dtype=torch.bool)
                place[at, last - extra + 1 + number] = True
                embedded = torch.where(place[..., None], appended[number], embedded)
        states: Tensor = self.model(inputs_embeds=embedded, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
        return states[at, last]

    def backward(self, table: TokenTable, rows: Sequence[int]) -> Losses:
        """Losses, with the gradients in place."""
        self.optimizer.zero_grad(set_to_none=True)
        ce, jepa = self.losses(table, rows)
        (ce if jepa is None else ce + WEIGHT * jepa).backward()
        return float(ce.detach()), 0.0 if jepa is None else float(jepa.detach())

    def step(self, table: TokenTable, rows: Sequence[int]) -> Losses:
        found = self.backward(table, rows)
        nn.utils.clip_grad_norm_(self.trained, MAX_NORM)
        self.optimizer.step()
        return found


def padded(sequences: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right to the longest sequence, and their attention mask."""
    width = max(map(len, sequences))
    ids, mask = torch.zeros(len(sequences), width, dtype=torch.long), torch.zeros(len(sequences), width, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.from_numpy(sequence.astype(np.int64))
        mask[row, : len(sequence)] = 1
    return ids, mask


def our_state(folder: Path, table: TokenTable, rank: int | None, jepa: bool) -> TrainState:
    """The training state of a trial on the checkpoint, with adapters that are not the zero map."""
    config = TrialConfig(
        model=ModelConfig(family=AUTO, model=str(folder), precision="fp32"),
        lora=LoraConfig(r=rank, dropout=0.0) if rank is not None else None,
        objective=ObjectiveConfig(k=K, **{"lambda": WEIGHT}) if jepa else None,
        optim=OptimConfig(learning_rate=RATE, batch_size=len(table), max_grad_norm=MAX_NORM, schedule="constant"),
    )
    network = load_network(str(folder), config.model, config.lora, k=K if jepa else 0, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.01 * torch.randn(parameter.shape, generator=generator))
    network.train()
    return TrainState(config=config, table=table, network=network, optimizer=make_optimizer(network, config), term=Term.of(config, network))


def our_step(state: TrainState, step: int = 0) -> Losses:
    """One optimizer step on the whole table."""
    totals = train_step(state, np.arange(len(state.table)), step, 1000)
    return totals.ce_sum / totals.num_labels, totals.jepa_sum / max(1, totals.num_pairs)


def tokenised(folder: Path, data: Path, count: int) -> TokenTable:
    """The first examples of a file."""
    model = ModelConfig(family=AUTO, model=str(folder))
    examples = read(DATASETS["nl-rx"], str(data))[:count]
    return tokenize_split(examples, load_tokenizer(str(folder), model), family_of(model, str(folder)), 512)


def relative(ours: Losses, theirs: Losses) -> float:
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(ours, theirs, strict=True))


def measure(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median (wall seconds, CPU seconds) of each, taking turns."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            seen[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: (statistics.median(w for w, _ in each), statistics.median(c for _, c in each)) for name, each in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="default: where the recipe writes it")
    parser.add_argument("--data", type=Path, default=SHARED / "synth_train.jsonl", metavar="FILE", help="NL-RX as JSON lines")
    parser.add_argument("--full", action="store_true", help="full fine-tuning instead of LoRA")
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--steps", type=int, default=STEPS, help="first steps, whose losses are compared; they also warm up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    options = parser.parse_args()
    folder = options.folder if options.folder is not None else default_folder()
    for path, remedy in ((folder / "config.json", "run python -m benchmarks.smollm2_checkpoint"), (options.data, "pass --data FILE")):
        if not path.is_file():
            print(f"{path} does not exist; {remedy}", file=sys.stderr)
            sys.exit(2)
    torch.set_num_threads(options.threads)
    rank = None if options.full else RANK
    table = tokenised(folder, options.data, options.examples)
    rows = list(range(len(table)))
    figures: dict[str, float] = {}
    limits: dict[str, tuple[str, float]] = {}
    load = os.getloadavg()[0]
    for name in options.arms:
        state = our_state(folder, table, rank, name == "JEPA")
        plain = PlainLoop(folder, state.network, rank, K if name == "JEPA" else 0)
        ours, theirs = partial(our_step, state), partial(plain.step, table, rows)
        error = max(relative(ours(), theirs()) for _ in range(options.steps))
        seconds = measure({"ours": ours, "plain": theirs}, options.rounds)
        figures[name] = seconds["ours"][0] / seconds["plain"][0]
        figures[f"{name} (CPU seconds)"] = seconds["ours"][1] / seconds["plain"][1]
        figures[f"{name}: error"] = error
        for who, (wall, cpu) in seconds.items():
            figures |= {f"{name}: seconds, {who}": wall, f"{name}: CPU seconds, {who}": cpu}
        limits |= {name: ("<=", 0.6), f"{name}: error": ("<=", 1e-4)}
        del state, plain, ours, theirs
    how = "full fine-tuning" if rank is None else f"LoRA r = {rank}"
    loads = f"{load:.1f} before, {os.getloadavg()[0]:.1f} after"
    facts = {"training": how, "examples": len(table), "threads": options.threads, "load": loads}
    finish("real step", figures, limits, options.json, facts)


if __name__ == "__main__":
    main()
