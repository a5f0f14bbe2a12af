"""Whether the references can be judged at all, found before anything is trained.

An answer that the judge does not accept as its own reference makes every output wrong; if there is only one label, any output is right that
repeats it. A sweep on such data measures nothing, so it is refused; where only some references are affected, the data report counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_ray.config import DataConfig, EvaluationConfig
from jepa_ray.data.datasets import OWN, Splits, task_of
from jepa_ray.data.example import Example
from jepa_ray.data.views import TokenTable
from jepa_ray.evaluation import regexes
from jepa_ray.evaluation.judges import judge_of
from jepa_ray.evaluation.metrics import plain
from jepa_ray.evaluation.sql import missing_databases

SHORT = 3
"""Characters of a reference that almost any answer contains."""
REMEDIES = {
    "any_number": "set data.judge=exact or contains, or name the column with the numbers by data.text and data.code",
    "regex": "set data.judge=exact, which compares them as text, or name the column with the regexes by data.text and data.code",
    "label": "give data with at least two labels",
    "sql": "correct the queries or data.databases, or set data.judge=exact, which compares them as text",
}
"""Judge -> what to do if it can do nothing with own data."""


def judged_references(data: DataConfig, evaluation: EvaluationConfig, splits: Splits) -> dict[str, int]:
    """Parts of the data report: how many references of validation and test are not scored correct, are no regexes, and are so short that
    the judge `contains` finds them almost anywhere.

    ValueError with one sentence if that is true of a whole split, if all answers are one label, or if databases are missing.
    """
    judge = task_of(data).judge if evaluation.judge == "task" else "text"
    scored = {"validation": splits.val, "test": splits.test}
    if judge == "sql" and (missing := missing_databases([*splits.val, *splits.test], data)):
        raise ValueError("; ".join(missing))
    if judge == "label":
        _require_labels(data, [*splits.train, *splits.val, *splits.test])
    counts = {"golds_unscored": 0, "golds_no_regex": 0, "golds_short": 0}
    for name, examples in scored.items():
        counts["golds_unscored"] += _unscored(data, evaluation, judge, name, examples)
        if judge == "regex" and data.task == OWN:
            counts["golds_no_regex"] += _no_regex(data, name, examples)
        if judge == "contains":
            counts["golds_short"] += sum(len(plain(example.code)) <= SHORT for example in examples)
    return counts


def golds_lost(judge: str, data: DataConfig, evaluation: EvaluationConfig, tables: Sequence[TokenTable], tokenizer: Any) -> int:
    """Number of examples whose reference is scored correct, but no longer after it was encoded as an answer and decoded as an output."""
    score, lost = judge_of(judge, data, evaluation), 0
    for table in tables:
        stop = tokenizer.convert_tokens_to_ids(table.turn_end)
        for i, (reference, extra) in enumerate(zip(table.references, table.extras, strict=True)):
            ids = table.lm[i][table.prompt_length[i] :]
            ids = ids[: next(iter(np.flatnonzero(ids == stop)), len(ids))]
            output = tokenizer.decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
            if output.strip() != reference.strip() and not table.options:
                lost += score(reference, reference, extra).correct and not score(output, reference, extra).correct
    return lost


def _require_labels(data: DataConfig, examples: Sequence[Example]) -> None:
    labels = {example.code.strip() for example in examples}
    if len(labels) == 1:
        raise ValueError(
            f"all {len(examples):,} answers are the same label, {_short(labels.pop())}, so any model is right that repeats it "
            f"({_judge(data)}); {REMEDIES['label']}"
        )


def _unscored(data: DataConfig, evaluation: EvaluationConfig, judge: str, split: str, examples: Sequence[Example]) -> int:
    """Number of examples whose own reference is not scored correct, so that no output can be. ValueError if that is all of them."""
    score = judge_of(judge, data, evaluation)
    bad = [(example, result) for example in examples if not (result := score(example.code, example.code, example.extra)).correct]
    if bad and len(bad) == len(examples):
        example, result = bad[0]
        raise ValueError(
            f"{_judge(data)} scores none of the {len(examples):,} references of the {split} split correct, so no output could be; "
            f"{example.id}: {result.error or _short(example.code)}{_remedy(data, judge)}"
        )
    return len(bad)


def _no_regex(data: DataConfig, split: str, examples: Sequence[Example]) -> int:
    """Number of references that are no regular expressions. ValueError if that is all of them."""
    faults = [(example, fault) for example in examples if (fault := regexes.fault_of(example.code.strip()))]
    if faults and len(faults) == len(examples):
        example, fault = faults[0]
        raise ValueError(
            f"none of the {len(examples):,} references of the {split} split is a regular expression of the dialect that {_judge(data)} "
            f"compares (jepa_ray/evaluation/regexes.py); {example.id}: {_short(example.code)}, {fault}{_remedy(data, 'regex')}"
        )
    return len(faults)


def _judge(data: DataConfig) -> str:
    return f"data.judge={data.judge or 'exact'}" if data.task == OWN else f"the judge of {data.task}"


def _remedy(data: DataConfig, judge: str) -> str:
    return f"; {REMEDIES[judge]}" if data.task == OWN and judge in REMEDIES else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
