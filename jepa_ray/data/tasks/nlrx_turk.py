"""NL-RX-TURK: the regexes of NL-RX with English reworded by crowd workers (Locascio et al. 2016, arXiv 1608.03000).

The built-in pairs are those of nl-rx's grammar for the same seed and split, with the sentence reworded by the tables below:

    lines with a vowel before the string 'dog'              (the synthetic sentence)
    find any string where the word 'dog' comes after a vowel

A sentence is an opening, a noun, a verb phrase that agrees with it, and the rest. Each part is reworded, and the two sides
of "before" may change places. No wording has two meanings, so a reworded sentence still has one regex: inverting the tables restores
the synthetic sentence (tested). Real workers reword more freely, and are sometimes wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from jepa_ray.data.example import Example
from jepa_ray.data.tasks import nlrx
from jepa_ray.data.tasks.task import Task
from jepa_ray.streams import stream

OPENINGS = ("", "", "", "", "find ", "match ", "show me ", "look for ")
PLURAL = ("lines", "strings", "items", "all lines", "all strings")
SINGULAR = ("a line", "a string", "any line", "any string", "each item")

VERBS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "with": (("with", "that have", "which have", "featuring"), ("with", "that has", "which has", "featuring")),
    "having": (("having", "possessing"), ("having", "possessing")),
    "containing": (
        ("containing", "that contain", "which contain", "that include", "including"),
        ("containing", "that contains", "which contains", "that includes", "including"),
    ),
    "containing only": (
        ("containing only", "that contain only", "made up only of"),
        ("containing only", "that contains only", "made up only of"),
    ),
    "starting with": (
        ("starting with", "that start with", "which begin with", "beginning with"),
        ("starting with", "that starts with", "which begins with", "beginning with"),
    ),
    "ending with": (
        ("ending with", "that end with", "which end in", "ending in"),
        ("ending with", "that ends with", "which ends in", "ending in"),
    ),
    "not having": (
        ("without", "that do not have", "which don't have", "lacking"),
        ("without", "that does not have", "which doesn't have", "lacking"),
    ),
    "not containing": (
        ("not containing", "that do not contain", "which don't contain", "that do not include"),
        ("not containing", "that does not contain", "which doesn't contain", "that does not include"),
    ),
    "not containing only": (
        ("not containing only", "that do not contain only", "which don't contain only"),
        ("not containing only", "that does not contain only", "which doesn't contain only"),
    ),
    "not starting with": (
        ("not starting with", "that do not start with", "which don't begin with"),
        ("not starting with", "that does not start with", "which doesn't begin with"),
    ),
    "not ending with": (
        ("not ending with", "that do not end with", "which don't end in"),
        ("not ending with", "that does not end with", "which doesn't end in"),
    ),
    "not": (("that are not", "which are not"), ("that is not", "which is not")),
}
"""Verb phrase after "lines" in the synthetic sentence -> (wordings after a plural noun, wordings after a singular one)."""

TURNED = (
    "where {earlier} comes before {later}",
    "where {later} comes after {earlier}",
    "in which {earlier} is somewhere before {later}",
    "in which {later} is somewhere after {earlier}",
)
"""Wordings of "with {earlier} before {later}"."""
TURNED_SHARE = 0.6

PHRASES: dict[str, tuple[str, ...]] = {
    "a vowel": ("a vowel", "any vowel", "some vowel"),
    "a number": ("a number", "a digit", "any digit", "a numeral"),
    "a letter": ("a letter", "any letter", "a letter of the alphabet"),
    "a capital letter": ("a capital letter", "an uppercase letter", "an upper case letter"),
    "a lower-case letter": ("a lower-case letter", "a lowercase letter", "a small letter"),
    "a character": ("a character", "any character", "some character"),
    "the string": ("the string", "the word", "the text"),
    " before ": (" before ", " ahead of ", " preceding ", " prior to "),
    " followed by ": (" followed by ", " and then ", " followed later by "),
    "either ": ("either ", "one of ", "any of "),
    ", zero or more times": (", zero or more times", " any number of times", " repeated zero or more times"),
    " at least once": (" at least once", ", one or more times", " repeated once or more"),
    "containing only": ("containing only", "made up only of"),
    "containing": ("containing", "including"),
    "starting with": ("starting with", "beginning with"),
    "ending with": ("ending with", "ending in", "finishing with"),
    "words with": ("words with", "words having", "words that have"),
    "words with starting with": ("words that start with", "words that begin with"),
    "words with ending with": ("words that end with", "words that end in"),
    "words with not": ("words with not", "words that have not"),
    "words that contain": ("words that contain", "words that include", "words holding"),
    "words that contain only": ("words that contain only", "words made up only of"),
    "words that don't have": ("words that don't have", "words without", "words lacking"),
}
"""Phrase in the rest of the synthetic sentence -> its wordings."""
COUNTED = (", {} or more times", " at least {} times", " {} times or more", " repeated {} or more times")
"""Wordings of ", 3 or more times"."""
PATIENCE = 50
"""Wordings tried per sentence; each has hundreds."""

_COUNT = re.compile(r", (\d) or more times")
_VERB = re.compile(f"lines ({'|'.join(sorted(VERBS, key=len, reverse=True))}) ")
_PHRASE = re.compile("|".join(sorted(map(re.escape, PHRASES), key=len, reverse=True)))


def generate(n: int, seed: int, split: str = "train", exclude: Iterable[Example] = ()) -> list[Example]:
    """`n` examples with distinct texts and distinct regexes, none of which is in `exclude`; deterministic.

    The regexes are those that nl-rx generates for these arguments. A shorter list is a prefix of a longer one. Raises ValueError
    if nl-rx's grammar yields fewer than `n` such pairs, or a sentence has no wording left.
    """
    taken = list(exclude)
    rng = stream(seed, "nl-rx-turk", split)
    texts = {other.text for other in taken}
    examples = []
    for number, plain in enumerate(nlrx.generate(n, seed, split, taken), start=1):
        wordings = (reword(plain.text, rng) for _ in range(PATIENCE))
        text = next((wording for wording in wordings if wording != plain.text and wording not in texts), None)
        if text is None:
            raise ValueError(
                f"the built-in nl-rx-turk rules found no wording of {plain.text!r} in {PATIENCE} draws that is not in use: "
                "lower data.num_train, data.num_val or data.num_test, or give a file in data.train"
            )
        texts.add(text)
        examples.append(replace(plain, id=f"nl-rx-turk-{split}:{number}", text=text))
    return examples


def reword(text: str, rng: np.random.Generator) -> str:
    """A synthetic sentence in other words or, by chance, unchanged."""
    head = _VERB.match(text)
    assert head, f"not a sentence of nl-rx's grammar: {text!r}"
    verb, rest = head[1], text[head.end() :]
    singular = rng.random() < 0.5
    lead = _pick(rng, OPENINGS) + _pick(rng, SINGULAR if singular else PLURAL)
    # "words with" spans a "before" to its right, and with two, the first binds: such sentences keep their order.
    if verb == "with" and rest.count(" before ") == 1 and "words" not in rest and rng.random() < TURNED_SHARE:
        earlier, later = (_rephrase(part, rng) for part in rest.split(" before "))
        return f"{lead} {_pick(rng, TURNED).format(earlier=earlier, later=later)}"
    return f"{lead} {_pick(rng, VERBS[verb][singular])} {_rephrase(rest, rng)}"


def _rephrase(part: str, rng: np.random.Generator) -> str:
    part = _COUNT.sub(lambda match: _pick(rng, COUNTED).format(match[1]), part)
    return _PHRASE.sub(lambda match: _pick(rng, PHRASES[match[0]]), part)


def _pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    return items[int(rng.random() * len(items))]


TASK = Task(
    name="nl-rx-turk",
    views="English -> regex",
    system=nlrx.SYSTEM,
    generate=generate,
    from_row=nlrx.from_row,
    judge="regex",
    judged="the text equals the regex",
    max_new_tokens=128,
)
