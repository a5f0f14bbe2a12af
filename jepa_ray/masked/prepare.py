"""Prepare masked encoders once per family and task, before the first trial: passages, labelled splits and starting checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM
from transformers.utils import logging

from jepa_ray.config import MaskedConfig, ModelConfig, SweepConfig, arms
from jepa_ray.data.clusters import cluster_of
from jepa_ray.data.example import Example
from jepa_ray.data.report import labelled, of_family, of_task
from jepa_ray.data.sameness import Seen
from jepa_ray.masked.corpus import Corpus, Passages, corpus_report, load_corpus, tokenize_passages
from jepa_ray.masked.network import (
    TINY_WORDS,
    load_encoder_config,
    load_encoder_tokenizer,
    tiny_encoder_config,
    tiny_wordpiece,
)
from jepa_ray.masked.rows import draw_masked
from jepa_ray.masked.spans import masked_batch
from jepa_ray.masked.step import MaskedFlops, draw_hidden, masked_network
from jepa_ray.models.encoders import EncoderFamily, get_encoder
from jepa_ray.models.loading import check_rows, check_weights, commit_of, seeded
from jepa_ray.plan import Estimate, trial_config
from jepa_ray.preparation.tiny_base import cache_folder
from jepa_ray.streams import derive_seed
from jepa_ray.system import atomic
from jepa_ray.system.digests import Weights, weights_of
from jepa_ray.system.heartbeat import HEARTBEAT
from jepa_ray.training.epochs import epoch_steps
from jepa_ray.training.runtime import StepTotals

SAMPLE = 256
"""Passages that are masked to estimate the hidden tokens per passage."""


@dataclass(frozen=True)
class MaskedPrepared:
    """Inputs that all trials of a family and task share."""

    passages: Passages
    """Training passages, without labels."""
    train: Passages
    """Labelled texts for fitting the probes."""
    val: Passages
    test: Passages | None
    """None during the search: the test split is sealed."""
    labels: tuple[str, ...]
    questions: dict[str, str]
    """Texts of the judged splits by id."""
    clusters: dict[str, str | None]
    """Their sources, if they have any."""
    leaked: frozenset[str]
    """Ids of judged texts that also occur in an earlier split."""
    dataset_sha: str
    identity: str
    """Digest of the inputs that determine a trial's results but are not in its config: data and weights."""
    checkpoint: str
    """Folder or hub id that weights and tokenizer are read from."""
    revision: str | None = None
    """For a hub id: the commit that `identity` includes, loaded by every trial."""
    former_identity: str = ""
    """`identity` as earlier versions made it, from samples of large files."""
    weights: Weights = field(default_factory=Weights)
    """Digests of the starting checkpoint."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Columns of the trials table known before training."""
    report: dict[str, Any] = field(default_factory=dict)
    """The data report."""


def prepare_masked(sweep: SweepConfig, family: str, task: str) -> MaskedPrepared:
    """Passages, splits and checkpoint of one family and task of a sweep.

    With `model: tiny`, the tokenizer has the passages' words, and the weights are random (the same for all trials; with `init: random`
    different for each seed). ValueError with the remedy if data or checkpoint cannot be loaded, or no passage is left.
    """
    masked = sweep.base.masked
    assert masked is not None
    HEARTBEAT.enter("read the data")
    corpus = load_corpus(sweep.data_of(task), masked)
    record, model = get_encoder(family), sweep.model_of(family)
    config = ModelConfig(family=family, model=model, **sweep.base.model.model_dump())
    if model == "tiny":
        checkpoint = str(tiny_encoder(record, corpus.passages))
    else:
        checkpoint = record.paper_model if model == "paper" else model
    HEARTBEAT.enter("tokenise")
    shape = load_encoder_config(checkpoint, config)
    revision = commit_of(checkpoint, shape)
    tokenizer = load_encoder_tokenizer(checkpoint, config, revision)
    check_rows(tokenizer, shape, checkpoint)
    check_weights(checkpoint, config, revision)
    prepared = _prepared(sweep, family, task, corpus, checkpoint=checkpoint, tokenizer=tokenizer, limit=shape.max_position_embeddings)
    weights = weights_of(checkpoint, revision)
    identity, former = (hashlib.sha256((corpus.dataset_sha + sha).encode()).hexdigest() for sha in (weights.sha, weights.former_sha))
    report = {**prepared.report, "weights_sha": weights.sha}
    return replace(prepared, identity=identity, former_identity=former, weights=weights, revision=revision, report=report)


def _prepared(sweep: SweepConfig, family: str, task: str, corpus: Corpus, *, checkpoint: str, tokenizer: Any, limit: int) -> MaskedPrepared:
    """`limit`: the checkpoint's maximum number of tokens per passage."""
    masked, max_length = sweep.base.masked, min(sweep.data_of(task).max_length, limit)
    assert masked is not None
    special = frozenset(tokenizer.all_special_ids)
    index = {label: number for number, label in enumerate(corpus.labels)}

    def tokenize(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(texts, truncation=False, verbose=False, split_special_tokens=True)["input_ids"] if texts else []
        return ids

    def table(name: str, examples: Sequence[Example]) -> Passages:
        classes = [index.get(example.code, -1) for example in examples]
        split = tokenize_passages(
            [example.text for example in examples], classes, [example.id for example in examples], tokenize, special, max_length
        )
        if not len(split):
            raise ValueError(
                f"all {len(examples):,} texts of the {name} split exceed {max_length} tokens or have none; raise data.max_length"
            )
        return split

    splits = corpus.splits
    train, val = table("training", splits.train), table("validation", splits.val)
    test = table("test", splits.test) if splits.test else None
    if masked.corpus is None:
        passages = train
    else:
        names = [f"{Path(masked.corpus).stem}:{number}" for number in range(1, len(corpus.passages) + 1)]
        passages = tokenize_passages(corpus.passages, [-1] * len(names), names, tokenize, special, max_length)
        if not len(passages):
            raise ValueError(f"{masked.corpus}: all {len(names):,} passages exceed {max_length} tokens; split them, one part per line")
    tables = {"train": passages, "val": val} | ({"test": test} if test is not None else {})
    if masked.corpus is not None:
        tables["probe"] = train
    return MaskedPrepared(
        passages=passages,
        train=train,
        val=val,
        test=test,
        labels=corpus.labels,
        questions={example.id: example.text for example in (*splits.val, *splits.test)},
        clusters={example.id: cluster_of(sweep.data_of(task), example.extra) for example in (*splits.val, *splits.test)},
        leaked=frozenset(
            example.id
            for part, before in ((splits.val, Seen(splits.train)), (splits.test, Seen([*splits.train, *splits.val])))
            for example in part
            if example in before
        ),
        dataset_sha=corpus.dataset_sha,
        identity="",
        checkpoint=checkpoint,
        facts={
            **{name: splits.report[name] for name in ("overlap_text", "overlap_target")},
            "dropped_examples": sum(split.dropped for split in tables.values()),
            "chance": chance_of(train, val),
        },
        report={
            **corpus_report(corpus, masked),
            "family": family,
            "checkpoint": checkpoint,
            "max_length": max_length,
            "tokens": {name: _tokens(split) for name, split in tables.items()},
        },
    )


def chance_of(train: Passages, judged: Passages) -> float:
    """Accuracy of always predicting the most frequent training label."""
    counts = np.bincount(train.classes)
    return float((judged.classes == counts.argmax()).mean())


def _tokens(passages: Passages) -> dict[str, Any]:
    lengths = passages.lengths
    lm = {"p50": float(np.median(lengths)), "p95": float(np.percentile(lengths, 95)), "max": int(lengths.max())}
    return {"examples": len(passages), "dropped": passages.dropped, "special": 0, "lm": lm}


def tiny_encoder(family: EncoderFamily, passages: Sequence[str]) -> Path:
    """Folder of the family's tiny instance, with random weights and the passages' words in its tokenizer; created unless it is cached."""
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "tokenizers")}
    parts = [repr(family), hashlib.sha256("\n".join(sorted(set(passages))).encode()).hexdigest(), TINY_WORDS, versions]
    folder = cache_folder() / f"{family.name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"
    if (folder / "config.json").is_file():
        return folder
    with atomic.whole_folder(folder) as building:  # another process may finish first; its result is the same
        write_tiny_encoder(family, passages, building)
    return folder


def write_tiny_encoder(family: EncoderFamily, passages: Sequence[str], folder: Path) -> None:
    """Write the family's tiny instance with random weights as an ordinary checkpoint folder."""
    logging.disable_progress_bar()
    tokenizer = tiny_wordpiece(sorted(set(passages)))
    tokenizer.save_pretrained(folder)
    with seeded(derive_seed(0, "tiny base", family.name)):
        AutoModelForMaskedLM.from_config(tiny_encoder_config(family, tokenizer), dtype=torch.float32).save_pretrained(folder)


def estimate_masked(sweep: SweepConfig) -> tuple[dict[str, Estimate], list[str]]:
    """`estimate.estimate` for a sweep of masked encoders: estimates by arm name, and facts about the data in words."""
    facts: list[str] = []
    refused: list[str] = []
    workloads: dict[tuple[str, str], tuple[MaskedPrepared, Any, Any]] = {}
    for task in sweep.tasks:
        told = False
        for family in sweep.families:
            try:
                workloads[family, task] = _shape(sweep, family, task)
            except ValueError as error:
                refused.append(f"{family} {task} cannot be run: {error}")
                continue
            report = workloads[family, task][0].report
            facts += [*([] if told else labelled(of_task(report), task)), *labelled(of_family(report), task, family)]
            told = True
    if not workloads:
        raise ValueError("\n".join(refused))
    estimates: dict[str, Estimate] = {}
    for arm in arms(sweep):
        if (arm.family, arm.task) not in workloads:
            continue
        prepared, shape, tokenizer = workloads[arm.family, arm.task]
        config = trial_config(sweep, arm, {})
        optim, passages = config.optim, prepared.passages
        with torch.device("meta"):
            lm = AutoModelForMaskedLM.from_config(shape)
        network = masked_network(lm, config)
        rows = epoch_steps(len(passages), optim, config.seed, 0)[0][:SAMPLE]
        batch = masked_batch(passages, rows.tolist(), draw_hidden(passages, rows, config, 0), 0, 0)
        scale = optim.num_epochs * len(passages) / len(rows)
        totals = StepTotals(num_labels=len(batch.index_M), tokens=int(batch.real_RT.sum()), attended=batch.attended)
        trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        target = sum(parameter.numel() for parameter in network.encoder.parameters()) if network.predictor is not None else 0
        estimates[arm.name] = Estimate(
            train_examples=len(passages),
            train_tokens=scale * totals.tokens,
            train_flops=scale * MaskedFlops.of(network).train_flops(totals),
            checkpoint_bytes=4.0 * (3 * trained + target),  # fp32 weights and two moments, and the target encoder
            test_examples=len(prepared.test) if prepared.test is not None else 0,
            rows=tuple(draw_masked(arm.name, config, passages, tokenizer, len(workloads) > 1)) if not estimates else (),
        )
    return estimates, [*refused, *facts]


def _shape(sweep: SweepConfig, family: str, task: str) -> tuple[MaskedPrepared, Any, Any]:
    """Data, Transformers config and tokenizer of a family and task, without reading or creating weights."""
    masked, model, record = sweep.base.masked, sweep.model_of(family), get_encoder(family)
    assert isinstance(masked, MaskedConfig)
    corpus = load_corpus(sweep.data_of(task), masked)
    config = ModelConfig(family=family, model=model, **sweep.base.model.model_dump())
    if model == "tiny":
        checkpoint, tokenizer = "tiny", tiny_wordpiece(sorted(set(corpus.passages)))
        shape = tiny_encoder_config(record, tokenizer)
    else:
        checkpoint = record.paper_model if model == "paper" else model
        shape, tokenizer = load_encoder_config(checkpoint, config), load_encoder_tokenizer(checkpoint, config)
        if Path(checkpoint).is_dir():
            check_weights(checkpoint, config)
    limit = shape.max_position_embeddings
    return _prepared(sweep, family, task, corpus, checkpoint=checkpoint, tokenizer=tokenizer, limit=limit), shape, tokenizer
