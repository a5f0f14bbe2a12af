"""Rotten Tomatoes and Yelp: review -> its sentiment in two or five classes (Pang and Lee 2005; Zhang et al. 2015, arXiv 1509.01626).

The built-in reviews are two or three clauses about aspects of a film or a shop. Each clause expresses a mood
by a word, or denies the opposite ("was not dull"). Three things make them harder: denials, clauses of opposite mood, and a fixed share
of reviews whose label is one step off, as with human raters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from jepa_ray.data.example import Example
from jepa_ray.data.tasks.task import Generate, Row, Task
from jepa_ray.streams import stream

T = TypeVar("T")

MOODS: dict[int, tuple[str, ...]] = {
    2: ("superb", "wonderful", "brilliant", "perfect", "outstanding", "excellent"),
    1: ("good", "pleasant", "nice", "solid", "decent", "fine"),
    0: ("average", "ordinary", "acceptable", "passable", "standard", "so-so"),
    -1: ("weak", "dull", "bland", "poor", "tired", "flat"),
    -2: ("awful", "terrible", "horrible", "dreadful", "miserable", "disgusting"),
}
"""Mood, from -2 to 2 -> the words that express it."""
CLAUSES = (
    "{aspect} was {word}",
    "{aspect} seemed {word}",
    "we found {aspect} {word}",
    "{aspect} felt {word}",
    "i thought {aspect} was {word}",
)
DENIALS = ("{aspect} was not {word}", "{aspect} was never {word}", "nobody could call {aspect} {word}")
"""With a word of the opposite mood. Only moods 1 and -1 use denials: what is not superb need not be awful."""
JOINTS = (", and ", " and ", "; ", ". also, ")
"""Between clauses of similar mood. TURNS: between clauses of opposite mood."""
TURNS = (", but ", ", yet ", "; still, ", ", though ")
PATIENCE = 20
"""Draws per requested review after which the forms count as exhausted."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What distinguishes the built-in reviews of the two tasks."""

    name: str
    system: str
    labels: tuple[str, ...]
    """Label index of the public source -> its word or words."""
    moods: tuple[tuple[tuple[int, ...], ...], ...]
    """Label -> the possible moods of its clauses, in any order."""
    aspects: tuple[str, ...]
    denied: float
    """Share of the clauses of mood 1 and -1 that deny the opposite."""
    noise: float
    """Share of reviews written as if for a neighbouring label."""
    openings: tuple[str, ...]


ROTTEN_TOMATOES = Kind(
    name="rotten-tomatoes",
    system="Is this film review negative or positive?",
    labels=("negative", "positive"),
    moods=(
        ((-2, -1), (-1, -1), (-2, 1), (-1, -2), (-2, -1, 1), (-1, -1, 0)),
        ((2, 1), (1, 1), (2, -1), (1, 2), (2, 1, -1), (1, 1, 0)),
    ),
    aspects=("the plot", "the acting", "the ending", "the music", "the lead", "the script", "the humour", "the pacing", "the dialogue"),
    denied=0.2,
    noise=0.05,
    openings=("", "", "in this film ", "as a whole, ", "for a debut, "),
)
YELP = Kind(
    name="yelp",
    system="How does the writer of this review feel: very negative, negative, neutral, positive or very positive?",
    labels=("very negative", "negative", "neutral", "positive", "very positive"),
    moods=(
        ((-2, -2), (-2, -2, -1), (-2, -1, -2)),
        ((-1, -1), (-1, -2, 0), (-2, 0), (-1, -1, 1)),
        ((0, 0), (1, -1), (0, 1, -1), (2, -2)),
        ((1, 1), (1, 2, 0), (2, 0), (1, 1, -1)),
        ((2, 2), (2, 2, 1), (2, 1, 2)),
    ),
    aspects=("the food", "the service", "the staff", "the room", "the coffee", "the price", "the wait", "the menu", "our table"),
    denied=0.1,
    noise=0.1,
    openings=("", "", "on our visit ", "last week ", "as before, "),
)


def generator(kind: Kind) -> Generate:
    """The `generate` of a kind of review."""

    def generate(n: int, seed: int, split: str = "train", exclude: Iterable[Example] = ()) -> list[Example]:
        """`n` reviews with distinct texts, none of which is in `exclude`; deterministic. Labels alternate, so their shares are equal.

        Each split of a seed has its own stream. A shorter list is a prefix of a longer one. Raises ValueError if the forms yield
        fewer than `n` such reviews.
        """
        rng = stream(seed, kind.name, split)
        texts = {other.text for other in exclude}
        examples: list[Example] = []
        labels: list[int] = []
        for _ in range(PATIENCE * n):
            if len(examples) == n:
                break
            # Rounds of all labels in random order: every prefix is balanced, and the next label is hard to guess.
            if not labels:
                labels = rng.permutation(len(kind.labels)).tolist()
            text = _review(kind, labels[-1], rng)
            if text not in texts:
                texts.add(text)
                examples.append(Example(f"{kind.name}-{split}:{len(examples) + 1}", kind.system, text, kind.labels[labels.pop()]))
        if len(examples) < n:
            raise ValueError(
                f"the built-in {kind.name} forms gave {len(examples):,} of the {n:,} distinct reviews of the {split} split "
                f"in {PATIENCE * n:,} draws: lower data.num_train, data.num_val or data.num_test, or give a file in data.train"
            )
        return examples

    return generate


def _review(kind: Kind, label: int, rng: np.random.Generator) -> str:
    if rng.random() < kind.noise:
        step = 1 if rng.random() < 0.5 else -1
        label += step if 0 <= label + step < len(kind.labels) else -step
    form = _pick(rng, kind.moods[label])
    moods = [form[index] for index in rng.permutation(len(form)).tolist()]
    aspects = [kind.aspects[index] for index in rng.permutation(len(kind.aspects))[: len(moods)].tolist()]
    text = _pick(rng, kind.openings)
    for index, (mood, aspect) in enumerate(zip(moods, aspects, strict=True)):
        if index:
            text += _pick(rng, TURNS if mood * moods[index - 1] < 0 else JOINTS)
        denied = abs(mood) == 1 and rng.random() < kind.denied
        text += _pick(rng, DENIALS if denied else CLAUSES).format(aspect=aspect, word=_pick(rng, MOODS[-mood if denied else mood]))
    return f"{text}."


def _pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.random() * len(items))]


def reader(kind: Kind) -> Callable[[Row, str, str], list[Example]]:
    """The `from_row` of a kind of review."""

    def from_row(row: Row, where: str, name: str) -> list[Example]:
        """A row of the public release: `{"text": ..., "label": index}`; the label may be a string of its digits (CSV)."""
        text, label = row.get("text"), str(row.get("label")).strip()
        if not (isinstance(text, str) and text.strip()):
            raise ValueError(f"{where}: expected a review under text and its label under label")
        indices = [str(index) for index in range(len(kind.labels))]
        if label not in indices:
            raise ValueError(
                f"{where}: the label is {row.get('label')!r}; expected {indices[0]} to {indices[-1]} ({', '.join(kind.labels)})"
            )
        return [Example(name, "", text.strip(), kind.labels[int(label)])]

    return from_row


def _task(kind: Kind, hub: str) -> Task:
    return Task(
        name=kind.name,
        views="review -> label",
        system=kind.system,
        generate=generator(kind),
        from_row=reader(kind),
        judge="label",
        judged="the output starts with the label, as a whole word",
        max_new_tokens=8,
        chance=1 / len(kind.labels),
        split_by="text",
        hub=MappingProxyType({"train": f"hub:{hub}:train", "test": f"hub:{hub}:test"}),
    )


TASKS = (_task(ROTTEN_TOMATOES, "cornell-movie-review-data/rotten_tomatoes"), _task(YELP, "Yelp/yelp_review_full"))
