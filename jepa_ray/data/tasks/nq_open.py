"""NQ-Open: question -> accepted answers, joined by `; ` (Lee et al. 2019, arXiv 1906.00300).

The built-in questions are about invented towns. The facts depend on the seed but not on the split, and each can be asked in many
ways: a model answers test questions from facts that it saw in training in other wordings. No question can be answered from its
text alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType

from jepa_ray.data.example import Example
from jepa_ray.data.tasks.literals import strings
from jepa_ray.data.tasks.task import Row, Task
from jepa_ray.streams import stream

SYSTEM = "Answer the question."
SEPARATOR = "; "

_TOWNS = (
    "alder balen borsa cairn corve dorn elmet esker galen garth holm ivel kirn leven lorne mersk nairn oban quill ravel rothes selby tarn"
)
TOWNS = (*_TOWNS.split(), "thirsk", "ulver", "wick", "yarm", "zell")
OPENINGS = (
    "",
    "tell me ",
    "do you know ",
    "i want to know ",
    "can you say ",
    "please say ",
    "once more ",
    "we ask you ",
    "now tell us ",
    "a question ",
    "i forgot ",
)


@dataclass(frozen=True)
class Relation:
    """A kind of fact that every town has."""

    several: float
    """Share of the towns with two accepted answers."""
    answers: tuple[str, ...]
    questions: tuple[str, ...]


RELATIONS = {
    "river": Relation(
        0.0,
        ("amber", "brent", "clyde", "derwent", "esk", "fowey", "isla", "lune", "nadder", "tweed"),
        (
            "which river flows through {}",
            "what is the name of the river in {}",
            "on which river does {} lie",
            "what river runs through {}",
            "the river that {} lies on",
            "what do they call the river of {}",
        ),
    ),
    "mayor": Relation(
        0.0,
        ("adam bell", "clara hunt", "edith moss", "frank lowe", "george pike", "helen cross", "martin shaw", "nora field"),
        (
            "who is the mayor of {}",
            "who was elected mayor of {}",
            "what is the name of the mayor of {}",
            "the mayor of {} is called what",
            "who governs the town of {}",
            "which mayor does {} have",
        ),
    ),
    "animal": Relation(
        0.0,
        ("bear", "deer", "eagle", "fox", "hare", "lion", "otter", "swan", "wolf"),
        (
            "which animal is on the coat of arms of {}",
            "what animal stands on the arms of {}",
            "what is the animal of {}",
            "the arms of {} show which animal",
            "which animal is the sign of {}",
            "what animal do you see on the arms of {}",
        ),
    ),
    "colour": Relation(
        0.3,
        ("black", "blue", "green", "orange", "purple", "red", "white", "yellow"),
        (
            "what colour is the flag of {}",
            "which colour does the flag of {} have",
            "what is the colour of the flag in {}",
            "the flag of {} is what colour",
            "in which colour is the flag of {} painted",
            "what colour of flag flies over {}",
        ),
    ),
    "metal": Relation(
        0.3,
        ("copper", "gold", "iron", "lead", "nickel", "silver", "tin", "zinc"),
        (
            "which metal is mined in {}",
            "what metal do they mine in {}",
            "what comes out of the mines of {}",
            "the mines of {} give which metal",
            "what is dug in the mines of {}",
            "for which metal is {} known",
        ),
    ),
    "food": Relation(
        0.3,
        ("bread", "cheese", "fish", "honey", "jam", "pie", "soup", "stew"),
        (
            "what do people eat at the fair of {}",
            "which food is sold at the fair of {}",
            "what food is {} famous for",
            "what is the best food in {}",
            "which dish is served at the fair of {}",
            "what do guests of {} get to eat",
        ),
    ),
}


def generate(n: int, seed: int, split: str = "train", exclude: Iterable[Example] = ()) -> list[Example]:
    """`n` questions with distinct texts, none of which is in `exclude`; deterministic. Answers repeat.

    All splits of a seed share its facts; which facts are asked, and in which words, is drawn for each split. A shorter list is a
    prefix of a longer one. Raises ValueError if fewer than `n` questions are left.
    """
    questions = _questions(seed)
    taken = {other.text for other in exclude}
    order = stream(seed, "nq-open", split).permutation(len(questions)).tolist()
    free = [questions[index] for index in order if questions[index][0] not in taken]
    if len(free) < n:
        raise ValueError(
            f"the built-in nq-open world has {len(free):,} of its {len(questions):,} questions left for the {n:,} of the {split} split: "
            "lower data.num_train, data.num_val or data.num_test, or give a file in data.train"
        )
    return [
        Example(f"nq-open-{split}:{number}", SYSTEM, text, SEPARATOR.join(golds), {"answers": list(golds)})
        for number, (text, golds) in enumerate(free[:n], start=1)
    ]


def world(seed: int) -> dict[tuple[str, str], tuple[str, ...]]:
    """(town, relation) -> its accepted answers."""
    rng = stream(seed, "nq-open", "world")
    facts = {}
    for town in TOWNS:
        for name, relation in RELATIONS.items():
            count = 2 if rng.random() < relation.several else 1
            chosen = rng.permutation(len(relation.answers))[:count].tolist()
            facts[town, name] = tuple(relation.answers[index] for index in chosen)
    return facts


def _questions(seed: int) -> list[tuple[str, tuple[str, ...]]]:
    """Every possible question with its accepted answers, in a fixed order."""
    return [
        (opening + question.format(town), golds)
        for (town, name), golds in world(seed).items()
        for question in RELATIONS[name].questions
        for opening in OPENINGS
    ]


def complete(example: Example) -> Example:
    """Puts the accepted answers into `extra`: those under `answers` in the row, otherwise `code` split at `; `."""
    if "answers" in example.extra:
        answers = strings(example.extra["answers"], "the row", "answers")
    else:
        answers = [answer.strip() for answer in example.code.split(SEPARATOR) if answer.strip(" ;")]
    if not answers:
        raise ValueError(f"no answer in {example.code!r}; expected one or more, joined by '; '")
    return replace(example, extra={**example.extra, "answers": answers})


def from_row(row: Row, where: str, name: str) -> list[Example]:
    """A row of the public release: `{"question": ..., "answer": [...]}`; the list may be the text of one (CSV)."""
    text = row.get("question")
    if not (isinstance(text, str) and text.strip()) or "answer" not in row:
        raise ValueError(f"{where}: expected a question under question and a list of answers under answer")
    answers = strings(row["answer"], where, "answer")
    return [Example(name, "", text.strip(), SEPARATOR.join(answers), {"answers": answers})]


TASK = Task(
    name="nq-open",
    views="question -> answers joined by ;",
    system=SYSTEM,
    generate=generate,
    from_row=from_row,
    complete=complete,
    judge="answers",
    judged="an accepted answer occurs in the output",
    max_new_tokens=48,
    split_by="text",
    # NQ-Open publishes no test split; its validation split is what papers report.
    hub=MappingProxyType(
        {"train": "hub:google-research-datasets/nq_open:train", "test": "hub:google-research-datasets/nq_open:validation"}
    ),
)
