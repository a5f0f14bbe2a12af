"""Judges: when an answer is correct, task by task. One function each, named in JUDGES; tasks refer to them by name.

Every judge compares as text, too (exact, prefix, contains). Where the paper's own script has another rule, its verdict is `paper_correct`.

May import: config, and evaluation/ metrics, numbers, regexes, sql. Not torch.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from jepa_ray.config import DataConfig, EvaluationConfig
from jepa_ray.evaluation.metrics import Score, compare_text
from jepa_ray.evaluation.numbers import loose_number_after_mark, number_after_mark
from jepa_ray.evaluation.regexes import equivalent

Judge = Callable[[str, str, Mapping[str, Any]], Score]
"""(prediction, reference, the example's `extra`) -> judgement."""


def _score(prediction: str, reference: str, correct: bool | None = None, paper_correct: bool | None = None) -> Score:
    """`correct` (None: equality as text) beside the comparisons of the text."""
    exact, prefix, contains = compare_text(prediction, reference)
    return Score(exact if correct is None else correct, exact, prefix, contains, paper_correct=paper_correct)


def judge_text(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    """Correct when equal as text."""
    return _score(prediction, reference)


def judge_regex(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    """Correct when equal as text, which is the paper's rule; whether both describe the same language is reported beside it."""
    same = equivalent(prediction.strip(), reference.strip())
    return replace(_score(prediction, reference), equivalent=same, undecided=same is None)


_PAPER_NUMBER = re.compile(r"\n#### (.+)$")


def judge_number(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    r"""Correct when the numbers after `####` are equal (GSM8K); what counts as one is `numbers.py`.

    The paper's rule: what stands after `\n#### ` in the last line is equal as a string. ValueError where the reference has no number.
    """
    wanted = loose_number_after_mark(reference)
    if wanted is None:
        raise ValueError(f"the reference has no number after ####: {reference[-60:]!r}; remove the example")
    ours, theirs = (_PAPER_NUMBER.search(text.strip()) for text in (prediction, reference))
    paper = ours is not None and theirs is not None and ours[1] == theirs[1]
    return _score(prediction, reference, number_after_mark(prediction) == wanted, paper_correct=paper)


_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> list[str]:
    """Words in lower case without punctuation and articles, in the order of SQuAD's evaluation script (Rajpurkar et al. 2016)."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def judge_answers(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    """Correct when an accepted answer (`extra["answers"]`) occurs in the output, as whole words after `normalise` (NQ-Open).

    The paper's script looks the other way round: whether a part of the output, cut at "; ", occurs in the reference. So the output
    "e", or none at all, counts there (REFERENCE.md, defect 10).
    """
    said = f" {' '.join(normalise(prediction))} "
    # A gold of articles or punctuation only normalises to nothing, which occurs everywhere; it is compared as it is.
    found = any(
        f" {' '.join(words)} " in said if (words := normalise(gold)) else gold.strip() == prediction.strip() for gold in extra["answers"]
    )
    paper = any(part in reference.strip() for part in prediction.strip().split("; "))
    return _score(prediction, reference, found, paper_correct=paper)


def judge_label(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    """Correct when the output starts with the label (Rotten Tomatoes, Yelp)."""
    return _score(prediction, reference, prediction.strip().startswith(reference.strip()))


def judge_choice(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    """Correct when the option is the right one (HellaSwag). Which option a model finds most probable is asked in `choices.py`."""
    return _score(prediction, reference)


def _make_sql(data: DataConfig, evaluation: EvaluationConfig) -> Judge:
    from jepa_ray.evaluation.sql import make_judge

    return make_judge(data, evaluation)


JUDGES: dict[str, Callable[[DataConfig, EvaluationConfig], Judge]] = {
    "text": lambda data, evaluation: judge_text,
    "regex": lambda data, evaluation: judge_regex,
    "number": lambda data, evaluation: judge_number,
    "sql": _make_sql,
    "answers": lambda data, evaluation: judge_answers,
    "label": lambda data, evaluation: judge_label,
    "choice": lambda data, evaluation: judge_choice,
}
"""Name -> maker of the judge. Making it raises ValueError, one sentence with the remedy, where it lacks something (databases)."""


def judge_of(name: str, data: DataConfig, evaluation: EvaluationConfig) -> Judge:
    """The judge called `name`, or text comparison where `evaluation.judge` asks for that."""
    return JUDGES["text" if evaluation.judge == "text" else name](data, evaluation)
