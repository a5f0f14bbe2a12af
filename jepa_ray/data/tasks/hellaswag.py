"""HellaSwag: a context and four endings, one of which fits; the answer is its letter (Zellers et al. 2019, arXiv 1905.07830).

    prompt   Today Emma is in the kitchen.        answer  C     JEPA views  Today Emma is in the kitchen.
             A. She wants the shadow.                                        She takes the soup.
             B. She finds the horse.
             C. She takes the soup.
             D. She cleans the thunder.

The built-in questions have this form: the place belongs to one of a few scenes, and one ending's object belongs to the same scene.
Most other endings name something that fits no scene at all, the rest something from another scene. So there are two steps to learn:
to drop what never fits, which needs no context and takes a tiny model a few hundred steps, and to match the scene, which takes it
far longer. Results on them say nothing about the real questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from jepa_ray.data.example import Example
from jepa_ray.data.tasks.literals import strings
from jepa_ray.data.tasks.task import Row, Task
from jepa_ray.streams import stream

SYSTEM = "Which ending fits? Answer with its letter."
LETTERS = ("A", "B", "C", "D")

SCENES = {
    "cooking": (("kitchen", "bakery", "cookhouse"), ("soup", "bread", "sauce", "cake")),
    "music": (("concert", "opera", "band room"), ("violin", "drum", "guitar", "flute")),
    "farming": (("farm", "stable", "meadow"), ("horse", "cow", "hay", "sheep")),
    "school": (("school", "library", "classroom"), ("book", "pencil", "chalk", "atlas")),
    "sport": (("stadium", "gym", "tennis court"), ("ball", "racket", "whistle", "net")),
    "sailing": (("harbour", "ship", "beach"), ("sail", "anchor", "oar", "rope")),
}
"""Scene -> (its places, its objects). No object belongs to two scenes."""
NAMES = (
    ("Anna", "She"),
    ("Ben", "He"),
    ("Clara", "She"),
    ("David", "He"),
    ("Emma", "She"),
    ("Felix", "He"),
    ("Grace", "She"),
    ("Hugo", "He"),
)
CONTEXTS = (
    "Today {} is in the {}.",
    "In the morning {} goes to the {}.",
    "{} has come to the {} alone.",
    "We see {} at the {}.",
    "Again {} spends a day at the {}.",
    "{} and a friend meet at the {}.",
)
STRAYS = ("moon", "cloud", "idea", "dream", "shadow", "thunder", "number", "colour")
"""Things that fit no scene."""
STRAY_SHARE = 0.7
"""Share of the wrong endings that name one of these. Dropping them and guessing among the rest is then right 63 % of the time."""
ENDINGS = ("{} takes the {}.", "{} finds the {}.", "{} wants the {}.", "{} cleans the {}.")
"""Equally long, and used with every object: only the object distinguishes endings."""
PATIENCE = 20
"""Draws per requested question after which the forms count as exhausted."""


def generate(n: int, seed: int, split: str = "train", exclude: Iterable[Example] = ()) -> list[Example]:
    """`n` questions with distinct texts, none of which is in `exclude`; deterministic. All letters are equally likely.

    Each split of a seed has its own stream. A shorter list is a prefix of a longer one. Raises ValueError if the forms yield
    fewer than `n` such questions.
    """
    rng = stream(seed, "hellaswag", split)
    texts = {other.text for other in exclude}
    examples: list[Example] = []
    for _ in range(PATIENCE * n):
        if len(examples) == n:
            break
        example = _example(f"hellaswag-{split}:{len(examples) + 1}", SYSTEM, *_draw(rng))
        if example.text not in texts:
            texts.add(example.text)
            examples.append(example)
    if len(examples) < n:
        raise ValueError(
            f"the built-in hellaswag forms gave {len(examples):,} of the {n:,} distinct questions of the {split} split "
            f"in {PATIENCE * n:,} draws: lower data.num_train, data.num_val or data.num_test, or give a file in data.train"
        )
    return examples


def _draw(rng: np.random.Generator) -> tuple[str, list[str], int]:
    """(context, endings, index of the correct one). No two endings have the same object."""
    scenes = [list(SCENES.values())[index] for index in rng.permutation(len(SCENES))[: len(LETTERS)].tolist()]
    strays = [STRAYS[index] for index in rng.permutation(len(STRAYS))[: len(LETTERS)].tolist()]
    right = int(rng.random() * len(LETTERS))
    name, pronoun = _pick(rng, NAMES)
    context = _pick(rng, CONTEXTS).format(name, _pick(rng, scenes[right][0]))
    endings = []
    for index, (_, fitting) in enumerate(scenes):
        thing = strays[index] if index != right and rng.random() < STRAY_SHARE else _pick(rng, fitting)
        endings.append(_pick(rng, ENDINGS).format(pronoun, thing))
    return context, endings, right


def _pick(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    return items[int(rng.random() * len(items))]


def _example(name: str, system: str, context: str, endings: list[str], right: int) -> Example:
    text = "\n".join([context, *(f"{letter}. {ending}" for letter, ending in zip(LETTERS, endings, strict=True))])
    extra = {"options": list(LETTERS), "endings": endings}
    return Example(name, system, text, LETTERS[right], extra, views=(context, endings[right]))


def complete(example: Example) -> Example:
    """Takes the views from the row's `text` and `code` messages, as in the reference's files; the options are the four letters."""
    letter = example.code.strip()
    if letter not in LETTERS:
        raise ValueError(f"the answer is {example.code!r}; expected one of the letters {', '.join(LETTERS)}")
    extra = {key: value for key, value in example.extra.items() if key not in ("text", "code")}
    views = (_content(example.extra, "text", "the context"), _content(example.extra, "code", "the right ending"))
    return replace(example, code=letter, extra={**extra, "options": list(LETTERS)}, views=views)


def _content(extra: dict[str, Any], key: str, meaning: str) -> str:
    """The content of the one message under `key`: a message, or a list of one."""
    entry = extra.get(key)
    message = entry[0] if isinstance(entry, list) and len(entry) == 1 else entry
    content = message.get("content") if isinstance(message, dict) else None
    if not (isinstance(content, str) and content.strip()):
        raise ValueError(f'{meaning} is missing: expected one message {{"role": ..., "content": ...}} under {key}, next to messages')
    return content.strip()


def from_row(row: Row, where: str, name: str) -> list[Example]:
    """A row of the public release: `{"ctx": ..., "endings": [four], "label": 0 to 3}`; the label may be a string."""
    context = row.get("ctx")
    if not (isinstance(context, str) and context.strip()) or "endings" not in row or "label" not in row:
        raise ValueError(f"{where}: expected a context under ctx, four endings under endings and the right one's index under label")
    endings = strings(row["endings"], where, "endings")
    if len(endings) != len(LETTERS):
        raise ValueError(f"{where}: {len(endings)} endings; expected {len(LETTERS)}")
    label = str(row["label"]).strip()
    if label in ("", "-1", "None"):
        raise ValueError(f"{where}: the label is empty: the public test split has none, so use the validation split")
    if label not in ("0", "1", "2", "3"):
        raise ValueError(f"{where}: the label is {row['label']!r}; expected the right ending's index, 0 to 3")
    return [_example(name, "", context.strip(), endings, int(label))]


TASK = Task(
    name="hellaswag",
    views="context -> right ending",
    system=SYSTEM,
    generate=generate,
    from_row=from_row,
    complete=complete,
    judge="choice",
    judged="the most probable of the letters is right",
    max_new_tokens=4,
    chance=1 / len(LETTERS),
    split_by="text",
    # The public test split has no labels; its validation split is what papers report.
    hub=MappingProxyType({"train": "hub:Rowan/hellaswag:train", "test": "hub:Rowan/hellaswag:validation"}),
)
