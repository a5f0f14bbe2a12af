"""Paraphrase: one wording of a sentence -> the next. For pretraining; the only score is reproducing the next wording.

The built-in sentences say who did what to what, when and where, in six wordings in a fixed order. Each wording therefore determines
the next, and a small model can learn the task.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from types import MappingProxyType

from jepa_ray.data.example import Example
from jepa_ray.data.tasks.literals import strings
from jepa_ray.data.tasks.task import Row, Task
from jepa_ray.streams import stream

SYSTEM = "Say it in other words."

PEOPLE = (
    "baker",
    "doctor",
    "driver",
    "farmer",
    "gardener",
    "judge",
    "king",
    "nurse",
    "painter",
    "pilot",
    "queen",
    "sailor",
    "singer",
    "smith",
)
VERBS = (
    ("bought", "purchased"),
    ("built", "constructed"),
    ("found", "discovered"),
    ("broke", "smashed"),
    ("hid", "concealed"),
    ("repaired", "mended"),
    ("sold", "traded"),
    ("wanted", "desired"),
)
"""Two words for each action. Wordings alternate between them."""
PARTICIPLES = {"broke": "broken", "hid": "hidden"}
"""Participles that differ from the past tense."""
THINGS = ("a boat", "a bell", "a bridge", "a cart", "a chair", "a clock", "a drum", "a fence", "a gate", "a kite", "a lamp", "a ring")
TIMES = ("in spring", "in summer", "in winter", "at noon", "at night", "on monday", "on friday", "last week", "last year", "yesterday")
PLACES = (
    "in the city",
    "in the garden",
    "in the village",
    "on the island",
    "at the market",
    "at the harbour",
    "by the river",
    "by the road",
)
WORDINGS = (
    "the {person} {past} {thing} {place} {time}.",
    "{time}, the {person} {past} {thing} {place}.",
    "{thing} was {participle} by the {person} {place} {time}.",
    "it was the {person} who {past} {thing} {time} {place}.",
    "{place}, {thing} was {participle} {time} by the {person}.",
    "what the {person} {past} {time} {place} was {thing}.",
)
PATIENCE = 20
"""Draws per requested pair after which the sentences count as exhausted."""


def generate(n: int, seed: int, split: str = "train", exclude: Iterable[Example] = ()) -> list[Example]:
    """`n` pairs, each about a statement that occurs in no other pair and not in `exclude`, in any wording; deterministic.

    Each split of a seed has its own stream. A shorter list is a prefix of a longer one. Raises ValueError if there are fewer than
    `n` such pairs.
    """
    rng = stream(seed, "paraphrase", split)
    used = {sentence for other in exclude for sentence in (other.text, other.code)}
    examples: list[Example] = []
    for _ in range(PATIENCE * n):
        if len(examples) == n:
            break
        lists = (PEOPLE, VERBS, THINGS, TIMES, PLACES, range(len(WORDINGS) - 1))
        person, verb, thing, time, place, first = (int(rng.random() * len(choices)) for choices in lists)
        wordings = _wordings(PEOPLE[person], VERBS[verb], THINGS[thing], TIMES[time], PLACES[place])
        if used.isdisjoint(wordings):
            used.update(wordings)
            examples.append(Example(f"paraphrase-{split}:{len(examples) + 1}", SYSTEM, wordings[first], wordings[first + 1]))
    if len(examples) < n:
        raise ValueError(
            f"the built-in sentences gave {len(examples):,} of the {n:,} distinct pairs of the paraphrase {split} split "
            f"in {PATIENCE * n:,} draws: lower data.num_train, data.num_val or data.num_test, or give a file in data.train"
        )
    return examples


def _wordings(person: str, verbs: tuple[str, str], thing: str, time: str, place: str) -> list[str]:
    """All wordings of one statement, in order."""
    sentences = []
    for number, wording in enumerate(WORDINGS):
        past = verbs[number % 2]
        sentence = wording.format(person=person, past=past, participle=PARTICIPLES.get(past, past), thing=thing, time=time, place=place)
        sentences.append(sentence[0].upper() + sentence[1:])
    return sentences


def from_row(row: Row, where: str, name: str) -> list[Example]:
    """`{"text": ..., "paraphrases": [...]}`: a pair for each two neighbours of the text and its paraphrases, with ids `name.1` etc.
    Or `{"sentence1": ..., "sentence2": ...}`: one pair, or none if a `label` other than 1 says that they differ in meaning.
    """
    if "sentence1" in row or "sentence2" in row:
        text, code = row.get("sentence1"), row.get("sentence2")
        if not (isinstance(text, str) and text.strip() and isinstance(code, str) and code.strip()):
            raise ValueError(f"{where}: expected a sentence under sentence1 and its paraphrase under sentence2")
        return [Example(name, "", text.strip(), code.strip())] if str(row.get("label", 1)) in ("1", "True") else []
    text = row.get("text")
    if not (isinstance(text, str) and text.strip()) or "paraphrases" not in row:
        raise ValueError(f"{where}: expected a sentence under text and a list under paraphrases, or a pair under sentence1 and sentence2")
    chain = [text.strip(), *strings(row["paraphrases"], where, "paraphrases")]
    return [Example(f"{name}.{step}", "", *pair) for step, pair in enumerate(pairwise(chain), start=1)]


TASK = Task(
    name="paraphrase",
    views="paraphrase i -> paraphrase i+1",
    system=SYSTEM,
    generate=generate,
    from_row=from_row,
    judge="text",
    judged="the text equals the next paraphrase (for pretraining; no score of a published task)",
    max_new_tokens=96,
    hub=MappingProxyType({"train": "hub:humarin/chatgpt-paraphrases:train"}),
)
