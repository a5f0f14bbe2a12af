"""Judges decide whether an answer is correct, one function per kind of task. Tasks refer to them by their names in JUDGES.

Every judge also compares the text (exact, prefix, contains). If the paper's own script has another rule, its verdict is `paper_correct`.
"""

from __future__ import annotations

import itertools
import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jepa_ray.config import DataConfig, EvaluationConfig
from jepa_ray.evaluation.metrics import Score, compare_text, plain
from jepa_ray.evaluation.numbers import answer_number, loose_number_after_mark, number_after_mark
from jepa_ray.evaluation.regexes import equivalent

Judge = Callable[[str, str, Mapping[str, Any]], Score]
"""(prediction, reference, the example's `extra`) -> judgement."""


def _score(prediction: str, reference: str, correct: bool | None = None, paper_correct: bool | None = None) -> Score:
    """A Score of `correct` (None: equality as text) and the comparisons of the text."""
    exact, prefix, contains = compare_text(prediction, reference)
    return Score(exact if correct is None else correct, exact, prefix, contains, paper_correct=paper_correct)


def judge_text(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    """Correct if equal as text."""
    return _score(prediction, reference)


def judge_regex(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    """Correct if equal as text, which is the paper's rule. Also reports whether both describe the same language."""
    same = equivalent(prediction.strip(), reference.strip())
    return replace(_score(prediction, reference), equivalent=same, undecided=same is None)


_PAPER_NUMBER = re.compile(r"\n#### (.+)$")


def judge_number(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    r"""Correct if the numbers after `####` are equal (GSM8K); `numbers.py` defines what counts as a number.

    The paper's rule: the text after `\n#### ` in the last line is equal as a string. ValueError if the reference has no number.
    """
    wanted = loose_number_after_mark(reference)
    if wanted is None:
        raise ValueError(f"the reference has no number after ####: {reference[-60:]!r}; remove the example")
    ours, theirs = (_PAPER_NUMBER.search(text.strip()) for text in (prediction, reference))
    paper = ours is not None and theirs is not None and ours[1] == theirs[1]
    return _score(prediction, reference, number_after_mark(prediction) == wanted, paper_correct=paper)


def judge_contains(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    """Correct if the reference occurs in the output, as a case-sensitive string (own data)."""
    score = _score(prediction, reference)
    return replace(score, correct=score.contains)


def judge_any_number(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    """Correct if the numbers are equal (own data): of each text the one alone on the line of the last `####`, or else the last one.

    A reference without a number is an error: no output can be correct.
    """
    wanted = answer_number(reference)
    if wanted is None:
        return replace(_score(prediction, reference, False), error=f"the reference has no number: {reference[-60:]!r}")
    return _score(prediction, reference, answer_number(prediction) == wanted)


_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TYPOGRAPHY = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"')
)
_SEPARATORS = re.compile(r"[-\u2010-\u2015\u2212/\u2044]+")
"""Hyphens, dashes, the minus and slashes."""


def normalise(text: str) -> list[str]:
    """Words in lower case without punctuation, then without articles: the order of SQuAD's evaluation script (Rajpurkar et al. 2016)."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def readings(text: str) -> list[list[str]]:
    """The words of a text under SQuAD's rule, which joins words separated by a hyphen or slash, and with spaces in place of those.

    Before both, characters that look alike are unified: Unicode form (NFKC), curly quotes, dashes (1914-18 and 1914\u201318).
    """
    plain = unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)
    return [normalise(re.sub(r"[\u2010-\u2015\u2212]", "-", plain)), normalise(_SEPARATORS.sub(" ", plain))]


def _occurs(gold: str, prediction: str) -> bool:
    """Whether a gold answer occurs as whole words in either reading."""
    if not normalise(gold):  # only articles or punctuation, which occur everywhere, so the texts are compared unchanged
        return gold.strip() == prediction.strip()
    pairs = zip(readings(gold), readings(prediction), strict=True)
    occurs = any(f" {' '.join(wanted)} " in f" {' '.join(words)} " for wanted, words in pairs if wanted)
    return occurs and not _lost_its_article(gold, prediction)


def _lost_its_article(gold: str, prediction: str) -> bool:
    """Whether a name made of an article and one capitalised word ("The Who", "The Band") occurs with neither the article nor the capital
    in a longer answer: "who knows" and "a rock band" are about something else."""
    words = unicodedata.normalize("NFKC", gold).split()
    if len(words) != 2 or not _ARTICLES.fullmatch(words[0].lower()) or words[1] == words[1].lower():
        return False
    predicted = [word.strip(string.punctuation) for word in unicodedata.normalize("NFKC", prediction).translate(_TYPOGRAPHY).split()]
    name, alone = words[1].strip(string.punctuation), [word for word in predicted if not _ARTICLES.fullmatch(word.lower())]
    with_article = any(a.lower() == words[0].lower() and b.lower() == name.lower() for a, b in itertools.pairwise(predicted))
    return not (with_article or name in predicted or len(alone) == 1)


def judge_answers(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    """Correct if an accepted answer (`extra["answers"]`) occurs in the output, as whole words in one of its `readings` (NQ-Open).

    The paper's script checks the reverse: whether a part of the output, split at "; ", occurs in the reference. By that rule the
    output "e", or an empty output, is correct.
    """
    correct = any(_occurs(gold, prediction) for gold in extra["answers"])
    paper = any(part in reference.strip() for part in prediction.strip().split("; "))
    return _score(prediction, reference, correct, paper_correct=paper)


_GOES_ON = re.compile(r"\w|['\u2010\u2011\u2019]\w|[.,][0-9]|[+#\u2212]|-(?!-)")
"""After a label: what makes it only the start of a word, of a number, or of a grade or name such as A+ and C#."""


def labels_of(judge: str, references: Iterable[str]) -> tuple[str, ...]:
    """The label set of a task, sorted: the references of its training split. Empty if the judge is not `label`."""
    return tuple(sorted({plain(reference) for reference in references})) if judge == "label" else ()


def make_label_judge(labels: Iterable[str]) -> Judge:
    """The judge of a label set (Rotten Tomatoes, Yelp): the longest label that the output starts with is its answer. A word must end
    there: "Badly" is not the label "Bad", nor "10" or "1.5" the label "1", nor "A+" the label "A". A reference that is not in the set
    is added for its example. The paper's script only requires that the output starts with the reference."""
    known = {plain(label) for label in labels}
    lengths = {len(label) for label in known}

    def judge_label(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
        answer, label = plain(prediction), plain(reference)
        correct = answer.startswith(label) and not _GOES_ON.match(answer, len(label))
        if correct:
            longer = (length for length in lengths if len(label) < length <= len(answer))
            correct = not any(answer[:length] in known and not _GOES_ON.match(answer, length) for length in longer)
        return _score(prediction, reference, correct, paper_correct=prediction.strip().startswith(reference.strip()))

    return judge_label


def judge_choice(prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
    """Correct if the option is the right one (HellaSwag). `choices.py` determines the option that a model finds most probable."""
    return _score(prediction, reference)


def _make_sql(data: DataConfig, evaluation: EvaluationConfig, labels: Sequence[str]) -> Judge:
    from jepa_ray.evaluation.sql import make_judge

    return make_judge(data, evaluation)


JUDGES: dict[str, Callable[[DataConfig, EvaluationConfig, Sequence[str]], Judge]] = {
    "text": lambda data, evaluation, labels: judge_text,
    "contains": lambda data, evaluation, labels: judge_contains,
    "regex": lambda data, evaluation, labels: judge_regex,
    "number": lambda data, evaluation, labels: judge_number,
    "any_number": lambda data, evaluation, labels: judge_any_number,
    "sql": _make_sql,
    "answers": lambda data, evaluation, labels: judge_answers,
    "label": lambda data, evaluation, labels: make_label_judge(labels),
    "choice": lambda data, evaluation, labels: judge_choice,
}
"""Name -> factory of the judge; only that of `label` reads the labels. It raises ValueError, one sentence with the remedy, if something is
missing (databases)."""


def judge_of(name: str, data: DataConfig, evaluation: EvaluationConfig, labels: Sequence[str] = ()) -> Judge:
    """The judge called `name`, or text comparison if `evaluation.judge` is `text`. `labels`: the task's `labels_of`."""
    return JUDGES["text" if evaluation.judge == "text" else name](data, evaluation, labels)
