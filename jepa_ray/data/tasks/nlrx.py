"""NL-RX-like pairs of English and regular expression: any number, generated from a grammar and a seed.

Source: the forms of NL-RX-SYNTH (Locascio et al. 2016, arXiv 1608.03000); wording and frequencies
follow it. Each rule is synchronous: its English and its regex have the same slots.

    set      ->  <atom> or <atom:2>                        (<atom>)|(<atom:2>)
    ending   ->  ending with <group>                       (.*)(<group>)
    line     ->  lines <verb> before <operand>             (<verb>).*(<operand>).*

One deliberate difference: in the real data a sentence may have two readings, and about 9 % of the pairs are not the usual reading of
their sentence. Here the English determines the regex, by the real data's common readings: `before` binds loosest (but `words with`
spans it), then a preposition and its whole group, then a repetition and its whole group, then `or` and `and`, then `followed by`.
As in the real data, the regex is a target string, not a careful program: `|` appears unparenthesised next to `.*`, and `&` and `~`
are the paper's "and" and "not".
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from jepa_ray.data.example import Example
from jepa_ray.data.tasks.task import Row, Task
from jepa_ray.streams import stream

SYSTEM = "Convert natural language to regular expression."

CLASSES = {
    "a vowel": "[AEIOUaeiou]",
    "a number": "[0-9]",
    "a letter": "[A-Za-z]",
    "a capital letter": "[A-Z]",
    "a lower-case letter": "[a-z]",
    "a character": ".",
}
STRINGS = ("dog", "truck", "ring", "lake")
"""The strings of a line are named in this order; no class occurs twice in a line either."""
STRING_SHARE = 0.38
"""Share of strings among the atoms drawn; rejecting repeated lines brings it near the real data's 0.31."""

# Weights are relative within a symbol. `<atom>` and `<count>` are filled in last; `<x:2>` is a second slot of symbol x.
GRAMMAR: dict[str, tuple[tuple[float, str, str], ...]] = {
    "line": (
        (80, "lines with <repeated>", "<repeated>"),
        (3, "lines with <pair>", "<pair>"),
        (125, "lines <positive>", "<positive>"),
        (66, "lines <negative>", "<negative>"),
        (150, "lines with <atom> before <operand>", "(<atom>).*(<operand>).*"),
        (95, "lines with <compound> before <atom>", "(<compound>).*(<atom>).*"),
        (54, "lines having <list> before <atom>", "(<list>).*(<atom>).*"),
        (30, "lines with <compound> before <brief>", "(<compound>).*(<brief>).*"),
        (40, "lines <positive-brief> before <brief>", "(<positive-brief>).*(<brief>).*"),
        (12, "lines not having <brief> before <brief:2>", "(~(<brief>)).*(<brief:2>).*"),
        (5, "lines not having <brief> or <marked>", "(~(<brief>))|(<marked>)"),
        (24, "lines with <once> or <second>", "(<once>)|(<second>)"),
        (20, "lines with <once> and <second>", "(<once>)&(<second>)"),
        (6, "lines with <pair> or <marked>", "(<pair>)|(<marked>)"),
        (6, "lines with <pair> and <marked>", "(<pair>)&(<marked>)"),
        (15, "lines <positive-brief> or <marked>", "(<positive-brief>)|(<marked>)"),
        (15, "lines <positive-brief> and <marked>", "(<positive-brief>)&(<marked>)"),
        (135, "lines with <words>", "<words>"),
        (9, "lines not <words>", "~(<words>)"),
        (6, "lines containing <words>", ".*<words>.*"),
        (8, "lines starting with <words>", "(<words>)(.*)"),
        (12, "lines ending with <words>", "(.*)(<words>)"),
    ),
    # Verb phrases after "lines". After "or" and "and" they are `marked`: the preposition shows where a new operand begins.
    "positive": (
        (32, "containing <group>", ".*<group>.*"),
        (24, "containing <list>", ".*<list>.*"),
        (22, "starting with <group>", "(<group>)(.*)"),
        (30, "ending with <group>", "(.*)(<group>)"),
        (8, "ending with containing <group>", "(.*)(.*<group>.*)"),
        (2, "starting with not <group>", "(~(<group>))(.*)"),
        (2, "ending with not <group>", "(.*)(~(<group>))"),
        (3, "containing only <group>", "<group>"),
    ),
    "negative": (
        (30, "not having <negated>", "~(<negated>)"),
        (18, "not having <group>", "~(<group>)"),
        (5, "not containing <group>", "~(.*<group>.*)"),
        (3, "not starting with <group>", "~((<group>)(.*))"),
        (4, "not ending with <group>", "~((.*)(<group>))"),
        (1, "not containing only <group>", "~(<group>)"),
    ),
    "positive-brief": (
        (4, "containing <brief>", ".*<brief>.*"),
        (3, "starting with <brief>", "(<brief>)(.*)"),
        (4, "ending with <brief>", "(.*)(<brief>)"),
        (1, "containing only <brief>", "<brief>"),
    ),
    "marked": (
        (3, "containing <brief>", ".*<brief>.*"),
        (3, "starting with <brief>", "(<brief>)(.*)"),
        (3, "ending with <brief>", "(.*)(<brief>)"),
        (3, "not <brief>", "~(<brief>)"),
    ),
    # A repetition also ends the first operand, so the second one needs no preposition.
    "second": (
        (20, "<marked>", "<marked>"),
        (5, "<pair>", "<pair>"),
        (8, "<atom> or <atom:2>", "(<atom>)|(<atom:2>)"),
        (8, "<atom> and <atom:2>", "(<atom>)&(<atom:2>)"),
        (5, "<list>", "<list>"),
    ),
    # The right side of "before" (`operand`), and the left (`compound`).
    "operand": (
        (4, "<atom>", "<atom>"),
        (24, "<once>", "<once>"),
        (15, "<pair>", "<pair>"),
        (28, "<set>", "<set>"),
        (21, "<list>", "<list>"),
        (6, "containing <brief>", ".*<brief>.*"),
        (6, "ending with <brief>", "(.*)(<brief>)"),
        (6, "not <brief>", "~(<brief>)"),
        (3, "<words>", "<words>"),
    ),
    "compound": (
        (40, "<once>", "<once>"),
        (25, "<pair>", "<pair>"),
        (50, "<set>", "<set>"),
    ),
    # "words" spans a "before" on its right: \b(a).*(b).*\b
    "words": (
        (20, "words with <group>", r"\b<group>\b"),
        (36, "words with <list>", r"\b<list>\b"),
        (8, "words with <atom> before <brief>", r"\b(<atom>).*(<brief>).*\b"),
        (3, "words with <compound> before <brief>", r"\b(<compound>).*(<brief>).*\b"),
        (3, "words with <once> or <atom>", r"\b(<once>)|(<atom>)\b"),
        (3, "words with <once> and <atom>", r"\b(<once>)&(<atom>)\b"),
        (2, "words with starting with <brief> before <atom>", r"\b((<brief>)(.*)).*(<atom>).*\b"),
        (2, "words with ending with <brief> before <atom>", r"\b((.*)(<brief>)).*(<atom>).*\b"),
        (8, "words with starting with <brief>", r"\b(<brief>)(.*)\b"),
        (8, "words with ending with <brief>", r"\b(.*)(<brief>)\b"),
        (2, "words with not <brief>", r"\b~(<brief>)\b"),
        (8, "words that contain <group>", r"\b.*<group>.*\b"),
        (5, "words that contain only <group>", r"\b<group>\b"),
        (4, "words that don't have <group>", r"\b~(<group>)\b"),
    ),
    # Content of a single place: an atom, a repeated one, two or three joined.
    "negated": (
        (14, "<atom>, not <atom:2>, and not <atom:3>", "(<atom>)&(<atom:2>)&(<atom:3>)"),
        (14, "<list-or>", "<list-or>"),
        (3, "<atom> and not <atom:2>", "(<atom>)&(<atom:2>)"),
        (3, "<once> and not <atom>", "(<once>)&(<atom>)"),
    ),
    "list-or": ((1, "<atom>, <atom:2>, or <atom:3>", "(<atom>)|(<atom:2>)|(<atom:3>)"),),
    "group": (
        (3, "<atom>", "<atom>"),
        (4, "<once>", "<once>"),
        (3, "<repeated>", "<repeated>"),
        (5, "<pair>", "<pair>"),
        (8, "<set>", "<set>"),
    ),
    "brief": (
        (9, "<atom>", "<atom>"),
        (3, "<once>", "<once>"),
        (1, "<pair>", "<pair>"),
        (1, "<set>", "<set>"),
    ),
    "list": (
        (1, "<atom>, <atom:2>, and <atom:3>", "(<atom>)&(<atom:2>)&(<atom:3>)"),
        (1, "either <list-or>", "<list-or>"),
    ),
    "set": (
        (20, "<atom> and <atom:2>", "(<atom>)&(<atom:2>)"),
        (24, "<atom> or <atom:2>", "(<atom>)|(<atom:2>)"),
        (1, "<pair> or <atom>", "(<pair>)|(<atom>)"),
        (1, "<atom> or <pair>", "(<atom>)|(<pair>)"),
        (1, "<pair> and <atom>", "(<pair>)&(<atom>)"),
        (1, "<atom> and <pair>", "(<atom>)&(<pair>)"),
    ),
    "pair": ((1, "<atom> followed by <atom:2>", "<atom>.*<atom:2>.*"),),
    # A repetition applies to the whole group before it.
    "repeated": (
        (1, "<once>", "<once>"),
        (5, "<atom> or <atom:2><times>", "((<atom>)|(<atom:2>))<times>"),
        (5, "<pair><times>", "(<pair>)<times>"),
    ),
    "once": ((1, "<atom><times>", "(<atom>)<times>"),),
    "times": (
        (6, ", <count> or more times", "{<count>,}"),
        (2, ", zero or more times", "*"),
        (2, " at least once", "+"),
    ),
}
COUNTS = "234567"
PATIENCE = 20
"""Draws per requested pair after which the grammar counts as exhausted (10,000 pairs take 1.8 each, 50,000 take 4.8)."""

_SLOT = re.compile(r"(<[a-z-]+(?::\d)?>)")


@dataclass(frozen=True)
class _Rule:
    """One right-hand side, split at its slots: literal text and slots alternate."""

    text: tuple[str, ...]
    regex: tuple[str, ...]


def _compile() -> dict[str, tuple[list[float], list[_Rule]]]:
    table = {}
    for symbol, rules in GRAMMAR.items():
        cumulated = list(accumulate(weight for weight, _, _ in rules))
        table[symbol] = (
            [total / cumulated[-1] for total in cumulated],
            [_Rule(tuple(_SLOT.split(text)), tuple(_SLOT.split(regex))) for _, text, regex in rules],
        )
    return table


_RULES = _compile()


def generate(n: int, seed: int, split: str = "train", exclude: Iterable[Example] = ()) -> list[Example]:
    """`n` examples with distinct texts and distinct regexes, none of which is in `exclude`; deterministic.

    Each split of a seed has its own stream; pass one split as `exclude` of the next to keep them disjoint. A shorter list is a
    prefix of a longer one. Raises ValueError if the grammar yields fewer than `n` such pairs.
    """
    rng = stream(seed, "nl-rx", split)
    texts, codes = set(), set()
    for other in exclude:
        texts.add(other.text)
        codes.add(other.code)
    examples: list[Example] = []
    for _ in range(PATIENCE * n):
        if len(examples) == n:
            break
        text, code = _fill(*_expand("line", rng), rng)
        if text not in texts and code not in codes:
            texts.add(text)
            codes.add(code)
            examples.append(Example(f"nl-rx-{split}:{len(examples) + 1}", SYSTEM, text, code))
    if len(examples) < n:
        raise ValueError(
            f"the built-in nl-rx grammar gave {len(examples):,} of the {n:,} distinct pairs of the {split} split "
            f"in {PATIENCE * n:,} draws: lower data.num_train, data.num_val or data.num_test, or give a file in data.train"
        )
    return examples


def _expand(symbol: str, rng: np.random.Generator) -> tuple[str, str]:
    """One random derivation; atoms and counts are still slots, named "<atom>" and "<count>"."""
    thresholds, rules = _RULES[symbol]
    rule = rules[bisect(thresholds, rng.random())]
    filled = {}
    for slot in rule.text[1::2]:
        name = slot[1:-1].partition(":")[0]
        filled[slot] = _expand(name, rng) if name in _RULES else (f"<{name}>", f"<{name}>")
    return (
        "".join(filled[part][0] if part in filled else part for part in rule.text),
        "".join(filled[part][1] if part in filled else part for part in rule.regex),
    )


def _fill(text: str, regex: str, rng: np.random.Generator) -> tuple[str, str]:
    """Draw the atoms and counts. Both sides have their slots in the same order (tested), so filling from left to right is consistent."""
    classes, strings = list(CLASSES), list(STRINGS)
    for _ in range(text.count("<atom>")):
        if strings and (not classes or rng.random() < STRING_SHARE):
            word = strings.pop(0)
            english, pattern = f"the string '{word}'", word
        else:
            english = classes.pop(int(rng.random() * len(classes)))
            pattern = CLASSES[english]
        text, regex = text.replace("<atom>", english, 1), regex.replace("<atom>", pattern, 1)
    for _ in range(text.count("<count>")):
        digit = COUNTS[int(rng.random() * len(COUNTS))]
        text, regex = text.replace("<count>", digit, 1), regex.replace("<count>", digit, 1)
    return text, regex


def from_row(row: Row, where: str, name: str) -> list[Example]:
    """A row of the public NL-RX release: a line of `src.txt` and the same line of `targ.txt`, under these keys."""
    text, code = row.get("src"), row.get("targ")
    if not (isinstance(text, str) and text.strip() and isinstance(code, str) and code.strip()):
        raise ValueError(f"{where}: expected a sentence under src and a regular expression under targ")
    return [Example(name, "", text.strip(), code.strip())]


TASK = Task(
    name="nl-rx",
    views="English -> regex",
    system=SYSTEM,
    generate=generate,
    from_row=from_row,
    judge="regex",
    judged="the text equals the regex",
    max_new_tokens=128,
)
