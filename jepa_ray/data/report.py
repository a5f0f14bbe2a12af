"""The data report in words: what a sweep trains and tests on, printed before training. Numbers are from `Splits.report` and token tables.

The same numbers are written to `results/<name>/data/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jepa_ray.data.clusters import FEWEST


def labelled(sentences: Sequence[str], task: str, family: str | None = None) -> list[str]:
    """Sentences about a task, or about a family on it, each with what it is about: the same in a plan and in a run."""
    about = task if family is None else f"{family} {task}"
    return [f"{about}: {sentence}" for sentence in sentences]


def of_task(report: Mapping[str, Any]) -> list[str]:
    """Sizes, repeated pairs, contradictions, overlap of test with training, messages that are not used, and references that the task's own
    judge rejects."""
    sizes, repeated = report["sizes"], report["duplicates"]
    formats = report.get("formats", {})
    same = len(set(formats.values())) == 1
    out = [f"{'' if same else f'{name}: '}read as {format_}" for name, format_ in list(formats.items())[: 1 if same else None]]
    out += [
        f"{sizes['train']} train, {sizes['val']} validation, {sizes['test']} test examples; "
        f"repeated pairs: {repeated['train']}, {repeated['val']}, {repeated['test']}"
    ]
    out += fewer_than_asked(report.get("fewer", {}))
    if contradictions := {name: count for name, count in report.get("contradictions", {}).items() if count}:
        parts = ", ".join(f"{count} of {name} ({count / sizes[name]:.1%})" for name, count in contradictions.items())
        out.append(f"examples whose question has another answer elsewhere in the same split: {parts}")
    if sizes["test"]:
        out.append(
            f"of the test examples, {report['overlap_text']} ({report['overlap_text_share']:.1%}) share their text and "
            f"{report['overlap_target']} ({report['overlap_target_share']:.1%}) their answer with train or validation"
            + ("; validation shares none with train, so it is harder than test" if report.get("answers_apart") else "")
        )
    if clusters := report.get("test_clusters"):
        few = f": fewer than {FEWEST}, so there will be no verdict; give a test split of more sources" if clusters < FEWEST else ""
        out.append(
            f"the test examples come from {clusters} clusters, which count as the sample of the verdict; what a plan can detect "
            f"takes examples as independent, so it is too optimistic{few}"
        )
    if unused := {name: count for name, count in report.get("unused_messages", {}).items() if count}:
        parts = ", ".join(f"{count} of {name}" for name, count in unused.items())
        out.append(f"messages after the last answer of their conversation, which are not used: {parts}")
    if unscored := report.get("golds_unscored"):
        out.append(f"{unscored} references of validation and test are rejected by the task's own judge: no output can be correct there")
    if no_regex := report.get("golds_no_regex"):
        out.append(f"no regular expressions, so compared as text only: {no_regex} references of validation and test")
    if short := report.get("golds_short"):
        out.append(
            f"{short} of {sizes['val'] + sizes['test']} references of validation and test have at most 3 characters, which "
            "data.judge=contains finds within other words too (no in I do not know); exact or label compares them as a whole"
        )
    return out


def fewer_than_asked(fewer: Mapping[str, Sequence[int]]) -> list[str]:
    """One sentence for each split that has fewer examples than the sweep asks for. Values: (asked for, left in the data, used)."""
    out = []
    for name, (asked, left, used) in fewer.items():
        why = f"the data have {left:,} left" if used == left else f"no more whole groups of equal examples fit, of {left:,} in the data"
        out.append(f"data.num_{name} is {asked:,}, {why}: {used:,} are used")
    return out


def of_family(report: Mapping[str, Any]) -> list[str]:
    """Token lengths in training; in any split, examples that are dropped for their length or contain the text of special tokens; references
    that the tokenizer cannot reproduce."""
    tokens = report["tokens"]
    lengths = ", ".join(
        f"{name} {table['p50']:.0f} / {table['p95']:.0f} / {table['max']}"
        for name, key in (("sequence", "lm"), ("Text", "text"), ("Code", "code"))
        if (table := tokens["train"].get(key))
    )
    out = [f"tokens in training, median / 95 % / longest: {lengths}"]
    if found := report.get("found"):
        out.insert(0, f"found in the checkpoint: {'; '.join(found)}. Check its network too: {report['conformance']}")
    if model_type := report.get("unknown_memory"):
        out.append(
            f"the memory of {model_type} models cannot be planned; on a GPU a forward pass has 4,096 tokens, unless "
            f"base.optim.tokens_per_forward is set"
        )
    if base := report.get("base_examples"):
        out.append(f"{base} of the training examples pre-train the tiny base; the others are for fine-tuning")
    if dropped := {name: split["dropped"] for name, split in tokens.items() if split["dropped"]}:
        parts = ", ".join(f"{count} of {name}" for name, count in dropped.items())
        out.append(f"dropped because longer than data.max_length = {report['max_length']} tokens: {parts}")
    if left_out := report.get("pretrain_left_out"):
        out.append(f"{left_out} examples are left out of the first stage because they share a text or an answer with validation or test")
    if over := {name: split["over_cap"] for name, split in tokens.items() if split.get("over_cap") and name != "pretrain"}:
        parts = ", ".join(f"{count} of {name}" for name, count in over.items())
        out.append(f"answers longer than max_new_tokens = {report['max_new_tokens']}, so that no output can equal them: {parts}; raise it")
    if lost := report.get("golds_lost"):
        out.append(
            f"{lost} references of validation and test do not survive the tokenizer: encoded and decoded again, they are not correct, "
            "and no output can be"
        )
    if special := {name: split["special"] for name, split in tokens.items() if split["special"]}:
        parts = ", ".join(f"{count} of {name}" for name, count in special.items())
        out.append(f"messages that contain the text of a special token, which is read as ordinary text: {parts}")
    return out
