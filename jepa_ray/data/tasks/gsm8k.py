"""GSM8K: word problem -> worked solution, whose last line is `#### ` and the number (Cobbe et al. 2021, arXiv 2110.14168).

The built-in problems have one or two steps with small numbers, from the forms below. Their solutions follow GSM8K's style,
including calculator annotations `<<3+4=7>>`, but are far easier: results on them say nothing about the real problems.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType

import numpy as np

from jepa_ray.data.example import Example
from jepa_ray.data.tasks.task import Row, Task
from jepa_ray.streams import stream

SYSTEM = "Answer the math question, show steps."
GOLD = re.compile(r"^#### *\$?-?\$?(?:\d|\.\d)", re.MULTILINE)
"""Matches the start of the line with the answer's number; a unit may follow."""

NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jack", "Karen", "Leo", "Mia", "Noah", "Olga", "Paul")
ITEMS = ("apples", "books", "cards", "coins", "eggs", "flowers", "marbles", "pens", "plates", "ribbons", "shells", "stamps")
SMALL, LARGE = (2, 9), (11, 25)
"""Ranges of the numbers: of factors and of what is added or removed, and of the initial amount. No result is below 2."""


@dataclass(frozen=True)
class Form:
    """A kind of problem. `{a}` is drawn from LARGE, `{b}`, `{c}`, `{d}` from SMALL; `{p}` is c times d."""

    weight: int
    text: str
    steps: tuple[tuple[str, str, str, str], ...]
    """(left, operation, right, sentence with `{sum}`); `x` is the result of the step before."""


FORMS = (
    Form(
        3,
        "{name} has {a} {items} and buys {b} more. How many {items} does {name} have now?",
        (("a", "+", "b", "{name} has {sum} {items}."),),
    ),
    Form(
        3,
        "There are {a} {items} on the table. {name} adds {b} {items}. How many {items} are there?",
        (("a", "+", "b", "With those of {name} there are {sum} {items}."),),
    ),
    Form(
        3,
        "{name} had {a} {items} and lost {b} of them. How many {items} does {name} have left?",
        (("a", "-", "b", "{name} has {sum} {items} left."),),
    ),
    Form(
        3,
        "{name} needs {a} {items} and has {b}. How many {items} are missing?",
        (("a", "-", "b", "{name} still needs {sum} {items}."),),
    ),
    Form(3, "{name} has {c} bags with {d} {items} in each. How many {items} is that?", (("c", "*", "d", "{name} has {sum} {items}."),)),
    Form(
        3,
        "{name} shares {p} {items} equally among {c} friends. How many {items} does each friend get?",
        (("p", "/", "c", "Each friend of {name} gets {sum} {items}."),),
    ),
    Form(
        2,
        "{name} has {a} {items}, buys {b} more and then gives away {c}. How many {items} does {name} have left?",
        (("a", "+", "b", "{name} first has {sum} {items}."), ("x", "-", "c", "Then {name} has {sum} {items} left.")),
    ),
    Form(
        2,
        "{name} had {a} {items}, lost {b} of them and found {c} others. How many {items} does {name} have now?",
        (("a", "-", "b", "{name} first has {sum} {items} left."), ("x", "+", "c", "Then {name} has {sum} {items}.")),
    ),
    Form(
        2,
        "{name} has {c} bags with {d} {items} in each and {b} {items} more. How many {items} is that in all?",
        (("c", "*", "d", "In bags {name} has {sum} {items}."), ("x", "+", "b", "In all {name} has {sum} {items}.")),
    ),
    Form(
        2,
        "{name} has {b} {items}. A friend has {c} more than {name}. How many {items} do they have together?",
        (("b", "+", "c", "The friend of {name} has {sum} {items}."), ("b", "+", "x", "Together they have {sum} {items}.")),
    ),
)
PATIENCE = 20
"""Draws per requested problem after which the forms count as exhausted."""


def generate(n: int, seed: int, split: str = "train", exclude: Iterable[Example] = ()) -> list[Example]:
    """`n` problems with distinct texts and distinct solutions, none of which is in `exclude`; deterministic.

    Each split of a seed has its own stream. A shorter list is a prefix of a longer one. Raises ValueError if the forms yield
    fewer than `n` such problems.
    """
    rng = stream(seed, "gsm8k", split)
    texts, codes = set(), set()
    for other in exclude:
        texts.add(other.text)
        codes.add(other.code)
    thresholds = list(accumulate(form.weight for form in FORMS))
    examples: list[Example] = []
    for _ in range(PATIENCE * n):
        if len(examples) == n:
            break
        form = FORMS[bisect(thresholds, rng.random() * thresholds[-1])]
        text, code = _fill(form, rng)
        if text not in texts and code not in codes:
            texts.add(text)
            codes.add(code)
            examples.append(Example(f"gsm8k-{split}:{len(examples) + 1}", SYSTEM, text, code))
    if len(examples) < n:
        raise ValueError(
            f"the built-in gsm8k problems gave {len(examples):,} of the {n:,} distinct problems of the {split} split "
            f"in {PATIENCE * n:,} draws: lower data.num_train, data.num_val or data.num_test, or give a file in data.train"
        )
    return examples


def _fill(form: Form, rng: np.random.Generator) -> tuple[str, str]:
    """One random problem of a form, with its solution."""
    words = {"name": NAMES[int(rng.random() * len(NAMES))], "items": ITEMS[int(rng.random() * len(ITEMS))]}
    a, b, c, d = (low + int(rng.random() * (high - low + 1)) for low, high in (LARGE, SMALL, SMALL, SMALL))
    values = {"a": a, "b": b, "c": c, "d": d, "p": c * d}
    lines = []
    for left, operation, right, sentence in form.steps:
        x, y = values[left], values[right]
        values["x"] = {"+": x + y, "-": x - y, "*": x * y, "/": x // y}[operation]
        worked = f"{x} {operation} {y} = <<{x}{operation}{y}={values['x']}>>{values['x']}"
        lines.append(sentence.format(sum=worked, **words))
    return form.text.format(**words, **values), "\n".join([*lines, f"#### {values['x']}"])


def complete(example: Example) -> Example:
    """The example unchanged. Raises ValueError if its solution does not end in a number."""
    if not GOLD.search(example.code):
        raise ValueError(f"the solution has no number to compare with: expected a last line such as #### 18, not {_last(example.code)!r}")
    return example


def _last(code: str) -> str:
    line = code.strip().splitlines()[-1]
    return line if len(line) <= 60 else f"...{line[-60:]}"


def from_row(row: Row, where: str, name: str) -> list[Example]:
    """A row of the public release: `{"question": ..., "answer": ...}`."""
    text, code = row.get("question"), row.get("answer")
    if not (isinstance(text, str) and text.strip() and isinstance(code, str) and code.strip()):
        raise ValueError(f"{where}: expected a problem under question and its worked solution under answer")
    try:
        return [complete(Example(name, "", text.strip(), code.strip()))]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


TASK = Task(
    name="gsm8k",
    views="problem -> worked solution",
    system=SYSTEM,
    generate=generate,
    from_row=from_row,
    complete=complete,
    judge="number",
    judged="the number after #### is equal",
    max_new_tokens=512,
    hub=MappingProxyType({"train": "hub:openai/gsm8k@main:train", "test": "hub:openai/gsm8k@main:test"}),
)
