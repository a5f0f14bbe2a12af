"""What a sweep will cost, before it: examples, tokens, FLOPs and disk of one trial per arm, from real tokenisation and shapes.

No weights are loaded and nothing is trained: a tiny model's tokenizer is trained on the spot (about a second), a checkpoint's is
read, and the network exists on the meta device only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoModelForCausalLM

from jepa_ray.config import ModelConfig, SweepConfig, TrialConfig
from jepa_ray.data.datasets import Splits, load_splits
from jepa_ray.data.example import Example
from jepa_ray.data.packing import make_batch
from jepa_ray.data.views import TokenTable, tokenize_split
from jepa_ray.models.families import get_family
from jepa_ray.models.loading import add_lora, load_config, load_tokenizer
from jepa_ray.models.network import Network
from jepa_ray.models.tiny import tiny_config
from jepa_ray.plan import Estimate, arms, trial_config
from jepa_ray.training.base import base_tokenizer, split_for_base
from jepa_ray.training.flops import FlopModel
from jepa_ray.training.step import StepTotals, active_objective, attended_pairs, backend_of

SAMPLE = 256
"""Examples that are packed to estimate the tokens per example."""


def estimate(sweep: SweepConfig) -> tuple[dict[str, Estimate], list[str]]:
    """Estimates by arm name, and facts about the data in words. ValueError on data or checkpoints that cannot be used."""
    splits = load_splits(sweep.data)
    tables = {family: _table(sweep, family, splits) for family in sweep.families}
    out = {}
    for arm in arms(sweep):
        config = trial_config(sweep, arm, {})
        table, network = tables[arm.family]
        out[arm.name] = _one(config, table, network)
    return out, data_facts(splits, {family: table for family, (table, _) in tables.items()})


def data_facts(splits: Splits, tables: dict[str, TokenTable]) -> list[str]:
    """Sizes, overlap and what is too long, one sentence each."""
    report = splits.report
    sizes = report["sizes"]
    facts = [
        f"{sizes['train']} train, {sizes['val']} validation, {sizes['test']} test examples; "
        f"{report['duplicates']['train']} repeated pairs in train",
        f"of the test examples {report['overlap_text']} ({report['overlap_text_share']:.1%}) share their text and "
        f"{report['overlap_target']} ({report['overlap_target_share']:.1%}) their answer with train or validation",
    ]
    for family, table in tables.items():
        if table.dropped:
            facts.append(f"{family}: {table.dropped} training examples are longer than data.max_length and are dropped")
    return facts


def _table(sweep: SweepConfig, family: str, splits: Splits) -> tuple[TokenTable, Network]:
    """The fine-tuning split, tokenised, and the network without weights."""
    name = sweep.model if isinstance(sweep.model, str) else sweep.model[family]
    record = get_family(family)
    model = ModelConfig(family=family, model=name, **sweep.base.model.model_dump())
    examples: Sequence[Example] = splits.train
    if name == "tiny":
        base_half, examples = split_for_base(splits.train, sweep.data)
        tokenizer = base_tokenizer(record, base_half)
        shape = tiny_config(record, tokenizer)
    else:
        checkpoint = record.paper_model if name == "paper" else name
        tokenizer = load_tokenizer(checkpoint, model)
        shape = load_config(checkpoint, model)
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(shape)
        if sweep.base.lora is not None:
            lm = add_lora(lm, record, sweep.base.lora, seed=0)
    return tokenize_split(examples, tokenizer, record, sweep.data.max_length), Network(lm)


def _one(config: TrialConfig, table: TokenTable, network: Network) -> Estimate:
    size = min(config.optim.batch_size, len(table))
    objective = active_objective(config)
    count = min(len(table), max(size, SAMPLE))

    def totals(k: int | None) -> StepTotals:
        sums = StepTotals()
        for start in range(0, count, size):
            batch = make_batch(
                table,
                list(range(start, min(start + size, count))),
                backend=backend_of(config),
                k=k,
                loss_on=config.optim.loss_on,
                train_end_of_turn=config.optim.train_end_of_turn,
            )
            sums.add(StepTotals(num_labels=batch.num_labels, tokens=batch.packed.num_tokens, attended=attended_pairs(batch)))
        return sums

    share = (1 - objective.loss_dropout) if objective is not None else 0.0
    flops = FlopModel.of(network)
    parts = [(1 - share, totals(None))] + ([(share, totals(objective.k))] if objective is not None else [])
    scale = config.optim.num_epochs * len(table) / count
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return Estimate(
        train_examples=len(table),
        train_tokens=scale * sum(weight * part.tokens for weight, part in parts),
        train_flops=scale * sum(weight * flops.train_flops(part) for weight, part in parts),
        checkpoint_bytes=3.0 * 4 * trained,  # fp32 weights and two moments
    )
