"""Prepare a family and task once per sweep, before the first trial: splits, starting checkpoint, token tables and the data report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ray.config import DataConfig, ModelConfig, SweepConfig
from jepa_ray.data.datasets import digest, first_stage, load_splits, task_of
from jepa_ray.data.example import Example
from jepa_ray.data.sameness import Seen
from jepa_ray.data.views import TokenTable, tokenize_split
from jepa_ray.evaluation.judges import labels_of
from jepa_ray.models.auto import check_positions, family_of, resolved
from jepa_ray.models.families import AUTO, ModelFamily, get_family
from jepa_ray.models.loading import check_rows, check_weights, commit_of, load_config, load_tokenizer
from jepa_ray.models.structure import refuse_adapters
from jepa_ray.preparation.references import golds_lost, judged_references
from jepa_ray.preparation.text_checks import command, require_text
from jepa_ray.preparation.tiny_base import split_for_base, tiny_base
from jepa_ray.system.digests import file_sha, sampled_sha, weights_of
from jepa_ray.system.heartbeat import HEARTBEAT
from jepa_ray.training.prepared import Prepared


def prepare(sweep: SweepConfig, family: str, task: str) -> Prepared:
    """Splits, checkpoint and token tables of one family and task of a sweep.

    With `model: tiny`, the share `data.base_fraction` of the training split trains the base, and the rest is for fine-tuning. With
    `init: random` as well, nothing is pre-trained or held back: the whole training split is for fine-tuning, and makes the tokenizer.

    Raises:
        ValueError: data or checkpoint cannot be loaded, template cannot be used, no examples left, or databases missing; names the remedy.
    """
    model, data = sweep.model_of(family), sweep.data_of(task)
    config = ModelConfig(family=family, model=model, **sweep.base.model.model_dump())
    HEARTBEAT.enter("read the data")
    splits = load_splits(data)
    HEARTBEAT.enter("judge the references")
    counts = judged_references(data, sweep.base.evaluation, splits)
    labels = labels_of(task_of(data).judge, [example.code for example in splits.train])
    first, left_out = first_stage(sweep.pretrain.data, splits, data) if sweep.pretrain is not None else ((), 0)
    train: Sequence[Example] = splits.train
    base_half: Sequence[Example] = ()
    if model == "tiny" and config.init == "random":
        checkpoint = str(tiny_base(get_family(family), [*train, *first], data.max_length, steps=0))
    elif model == "tiny":
        base_half, train = split_for_base(train, data)
        checkpoint = str(tiny_base(get_family(family), base_half, data.max_length))
    else:
        checkpoint = get_family(family).paper_model if model == "paper" else model
    HEARTBEAT.enter("tokenise")
    shape = load_config(checkpoint, config)
    revision = commit_of(checkpoint, shape)
    tokenizer = load_tokenizer(checkpoint, config, revision)
    check_rows(tokenizer, shape, checkpoint)
    check_weights(checkpoint, config, revision)
    record = usable_family(sweep, config, checkpoint, revision)
    tables = {"train": tokenize_split(train, tokenizer, record, data.max_length)}
    seen = {"val": Seen(splits.train), "test": Seen([*splits.train, *splits.val])}
    for name, examples in (("val", splits.val), ("test", splits.test)):
        if examples:
            tables[name] = tokenize_split(examples, tokenizer, record, data.max_length, scored=True, trained=seen[name])
    judged = [tables[name] for name in ("val", "test") if name in tables]
    lost = golds_lost(task_of(data).judge, data, sweep.base.evaluation, judged, tokenizer)
    first_stage_table = tokenize_split(first, tokenizer, record, sweep.pretrain.data.max_length) if sweep.pretrain is not None else None
    cap = sweep.max_new_tokens_of(task) or task_of(data).max_new_tokens
    check_lengths(record, sweep, [*tables.values(), *([first_stage_table] if first_stage_table is not None else [])], cap)
    HEARTBEAT.enter("digest of data and weights")
    weights, asked = weights_of(checkpoint, revision), [*splits.val, *splits.test]
    parts = (splits.dataset_sha, digest(first) if first else "")
    former = (*parts, databases_sha(data, asked, sampled_sha), weights.former_sha)
    return Prepared(
        train=tables["train"],
        val=tables["val"],
        test=tables.get("test"),
        dataset_sha=splits.dataset_sha,
        identity=_identity(*parts, databases_sha(data, asked), weights.sha),
        former_identity=_identity(*former),
        weights=weights,
        checkpoint=checkpoint,
        revision=revision,
        first_stage_table=first_stage_table,
        first_stage_sha=digest(first) if first else "",
        labels=labels,
        facts={
            **{name: splits.report[name] for name in ("overlap_text", "overlap_target")},
            "dropped_examples": sum(table.dropped for table in tables.values()),
            **{f"{name}_examples": len(table) for name, table in tables.items()},
        },
        report={
            **splits.report,
            "family": family,
            "checkpoint": checkpoint,
            "weights_sha": weights.sha,
            "max_length": data.max_length,
            "base_examples": len(base_half),
            **counts,
            "golds_lost": lost,
            **({"labels": list(labels)} if labels else {}),
            "pretrain_left_out": left_out,
            "max_new_tokens": cap,
            **found_report(record, checkpoint),
            "tokens": {
                name: token_report(table, cap) for name, table in (*tables.items(), ("pretrain", first_stage_table)) if table is not None
            },
        },
        plain_because=record.plain_because,
    )


def usable_family(sweep: SweepConfig, model: ModelConfig, checkpoint: str, revision: str | None) -> ModelFamily:
    """The record of a checkpoint's family. ValueError with one sentence if one that was found does not support what the sweep requires."""
    record = family_of(model, checkpoint, revision)
    if record.name != AUTO:
        return record
    if sweep.base.lora is not None:
        refuse_adapters(record.no_adapters_because)
    resolved(model, record.plain_because)
    require_text(checkpoint, record, revision)
    return record


def check_lengths(record: ModelFamily, sweep: SweepConfig, tables: Sequence[TokenTable], cap: int) -> None:
    """ValueError if a sequence, or a prompt with its answer, is longer than the model's positions reach."""
    searched = sweep.space.get("objective.k")
    ks = [method.k for method in sweep.methods.values() if method is not None]
    ks += [int(value) for value in (searched.int_ or searched.choice or ()) if isinstance(value, int)] if searched is not None else []
    views = [part for table in tables for part in (table.text, table.code)]
    longest = max([max(map(int, part.lengths), default=0) + max(ks, default=0) for part in views], default=0)
    longest = max([longest, *(int(table.lm.lengths.max()) for table in tables if len(table))])
    prompts = [int(table.prompt_length.max()) for table in tables if len(table) and not table.options]
    check_positions(record, longest, max(prompts, default=0), cap)


def found_report(record: ModelFamily, checkpoint: str) -> dict[str, Any]:
    """What was found in the checkpoint of a family that is not in the table, and the command that checks it: parts of the data report."""
    return {"found": list(record.found), "conformance": command(checkpoint)} if record.name == AUTO else {}


def _identity(*parts: str) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def databases_sha(data: DataConfig, examples: Sequence[Example], of: Callable[[Path], str] = file_sha) -> str:
    """Digest of the databases that the examples' queries run on; empty if there are none. `of`: digest of a file."""
    if data.databases is None:
        return ""
    sha = hashlib.sha256()
    for name in sorted({str(example.extra.get("db_id")) for example in examples}):
        for path in sorted((Path(data.databases) / name).glob("*.sqlite")):
            sha.update(f"{path.name} {of(path)}\n".encode())
    return sha.hexdigest()


def token_report(table: TokenTable, cap: int) -> dict[str, Any]:
    """Examples, dropped examples, answers over the token cap, and median, 95th percentile and maximum tokens of each sequence."""
    out: dict[str, Any] = {"examples": len(table), "dropped": table.dropped, "special": table.special}
    out["over_cap"] = int((table.lm.lengths - table.prompt_length > cap).sum()) if not table.options else 0
    for name in ("lm", "text", "code"):
        lengths = getattr(table, name).lengths
        out[name] = {"p50": float(np.median(lengths)), "p95": float(np.percentile(lengths, 95)), "max": int(lengths.max())}
    return out
