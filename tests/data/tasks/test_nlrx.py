"""The grammar is reproducible, unambiguous, consistent on both sides, and close to the data that it models."""

from __future__ import annotations

import itertools
import json
import re
import statistics
import time
from functools import cache
from pathlib import Path

import pytest

from jepa_ray.data.tasks import nlrx
from jepa_ray.data.tasks.nlrx import GRAMMAR, generate

SLOT = re.compile(r"<([a-z-]+)(?::\d)?>")


@cache
def derivations(symbol: str) -> tuple[tuple[str, str], ...]:
    """All (text, regex) pairs of a symbol, with atoms and counts left as slots. Finite, as the grammar has no recursion."""
    if symbol not in GRAMMAR:
        return ((f"<{symbol}>", f"<{symbol}>"),)
    pairs = []
    for _, text, regex in GRAMMAR[symbol]:
        slots = [match.group(0) for match in SLOT.finditer(text)]
        for choice in itertools.product(*(derivations(match.group(1)) for match in SLOT.finditer(text))):
            sides = []
            for side, form in enumerate((text, regex)):
                # "<" is masked in the inserted text, so that a later slot of the same name is not filled inside it.
                for slot, pair in zip(slots, choice, strict=True):
                    form = form.replace(slot, pair[side].replace("<", "\x01"), 1)
                sides.append(form.replace("\x01", "<"))
            pairs.append((sides[0], sides[1]))
    return tuple(pairs)


def test_every_rule_has_the_same_slots_in_the_same_order_on_both_sides() -> None:
    """`generate` fills both sides from left to right, so the order matters, and a slot named twice would be filled once."""
    rules = [rule for alternatives in GRAMMAR.values() for rule in alternatives]
    assert len(rules) > 80
    for weight, text, regex in rules:
        slots = [match.group(0) for match in SLOT.finditer(text)]
        assert weight > 0
        assert slots == [match.group(0) for match in SLOT.finditer(regex)], text
        assert len(slots) == len(set(slots)), text
        assert all(match.group(1) in {*GRAMMAR, "atom", "count"} for match in SLOT.finditer(text)), text


def test_the_english_determines_the_regex() -> None:
    """No sentence form of the grammar has two readings. (In the real data about 9 % of pairs have another one.)"""
    readings: dict[str, set[str]] = {}
    for text, regex in derivations("line"):
        readings.setdefault(text, set()).add(regex)
    assert len(readings) > 5000
    assert {text: regexes for text, regexes in readings.items() if len(regexes) > 1} == {}


def test_reading_by_hand() -> None:
    """Derived by hand from the precedence rules in the module's docstring; each form also occurs in the real data."""
    forms = dict(derivations("line"))
    assert forms["lines with <atom> before <atom> or <atom>"] == "(<atom>).*((<atom>)|(<atom>)).*"
    assert forms["lines with <atom> or <atom> before <atom>"] == "((<atom>)|(<atom>)).*(<atom>).*"
    assert forms["lines with <atom> or <atom>, <count> or more times"] == "((<atom>)|(<atom>)){<count>,}"
    assert forms["lines with <atom> before <atom>, <count> or more times"] == "(<atom>).*((<atom>){<count>,}).*"
    assert forms["lines with <atom> followed by <atom> at least once"] == "(<atom>.*<atom>.*)+"
    assert forms["lines starting with <atom> before <atom>"] == "((<atom>)(.*)).*(<atom>).*"
    assert forms["lines ending with <atom> or <atom>"] == "(.*)((<atom>)|(<atom>))"
    assert forms["lines with words with <atom> before <atom>"] == r"\b(<atom>).*(<atom>).*\b"
    assert forms["lines not having <atom>, not <atom>, and not <atom>"] == "~((<atom>)&(<atom>)&(<atom>))"
    assert forms["lines having either <atom>, <atom>, or <atom> before <atom>"] == "((<atom>)|(<atom>)|(<atom>)).*(<atom>).*"


def test_pairs_are_distinct_and_the_sides_name_the_same_atoms_in_the_same_order() -> None:
    examples = generate(3000, seed=5)
    assert len({example.text for example in examples}) == len({example.code for example in examples}) == 3000
    assert len({example.id for example in examples}) == 3000
    names = {**nlrx.CLASSES, **{f"the string '{word}'": word for word in nlrx.STRINGS}}
    english = re.compile("|".join(sorted(map(re.escape, names), key=len, reverse=True)))
    pattern = re.compile("|".join([*(re.escape(code) for name, code in nlrx.CLASSES.items() if code != "."), *nlrx.STRINGS, r"\.(?!\*)"]))
    for example in examples:
        spoken = english.findall(example.text)
        assert spoken and len(set(spoken)) == len(spoken), example
        # "..*" is the class "." followed by ".*": replace the operator first, so that "." is left for the class.
        written = pattern.findall(example.code.replace(".*", "_"))
        assert [names[name] for name in spoken] == written, example
        assert re.findall(r"(\d) or more", example.text) == re.findall(r"\{(\d),\}", example.code)
        assert example.code.count("(") == example.code.count(")")
        assert "<" not in example.text + example.code
        assert example.system == "Convert natural language to regular expression."


def test_the_same_arguments_give_the_same_pairs_and_others_give_others() -> None:
    assert generate(50, seed=1) == generate(50, seed=1)
    assert generate(200, seed=1)[:50] == generate(50, seed=1)
    assert generate(50, seed=1) != generate(50, seed=2)
    assert {e.text for e in generate(50, seed=1, split="train")} != {e.text for e in generate(50, seed=1, split="test")}


def test_excluded_texts_and_regexes_do_not_come_back() -> None:
    plain, first = generate(500, 0, "train"), generate(500, 0, "test")
    assert {e.code for e in plain} & {e.code for e in first}, "the streams share no regex, so excluding is not tested"
    second = generate(500, 0, "train", exclude=first)
    assert not {e.text for e in second} & {e.text for e in first}
    assert not {e.code for e in second} & {e.code for e in first}
    assert len(second) == 500


def test_an_exhausted_grammar_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nlrx._RULES, "line", nlrx._RULES["pair"])
    with pytest.raises(ValueError, match=r"gave \d+ of the 500 distinct pairs of the val split in 10,000 draws: lower data.num_train"):
        generate(500, 0, "val")


def test_ten_thousand_take_seconds() -> None:
    """0.9 s on a busy core; the limit is loose, so that only a change in complexity (quadratic in n) fails."""
    start = time.process_time()
    assert len(generate(10_000, 0)) == 10_000
    assert time.process_time() - start < 5


WORDS = (
    "before",
    "followed",
    "or",
    "zero",
    "least",
    "and",
    "either",
    "not",
    "containing",
    "starting",
    "ending",
    "having",
    "words",
    "string",
)


def test_frequencies_are_near_the_real_data(shared_data: Path) -> None:
    """Lengths within 15 %, and each operator's share of lines within a factor of 1.5, of NL-RX-SYNTH."""
    rows = [json.loads(line)["messages"] for line in (shared_data / "synth_train.jsonl").open(encoding="utf-8")]
    real = [(row[1]["content"], row[2]["content"]) for row in rows]
    ours = [(example.text, example.code) for example in generate(4000, 0)]
    for side in (0, 1):
        lengths = [statistics.mean(len(pair[side]) for pair in pairs) for pairs in (real, ours)]
        assert lengths[1] == pytest.approx(lengths[0], rel=0.15)
    for word in WORDS:
        pattern = re.compile(rf"\b{word}\b")
        shares = [sum(len(pattern.findall(text)) for text, _ in pairs) / len(pairs) for pairs in (real, ours)]
        assert 1 / 1.5 < shares[1] / shares[0] < 1.5, (word, shares)


def test_most_real_pairs_can_be_derived(shared_data: Path) -> None:
    """The others are the real data's second readings and rarer forms (`containing containing only`)."""
    atoms = re.compile("|".join([r"the string '\w+'", *sorted(nlrx.CLASSES, key=len, reverse=True)]))
    codes = re.compile("|".join([*(re.escape(code) for code in nlrx.CLASSES.values() if code != "."), *nlrx.STRINGS, r"\.(?!\*)"]))
    forms = set(derivations("line"))
    covered, total = 0, 0
    for line in (shared_data / "synth_train.jsonl").open(encoding="utf-8"):
        _, text, regex = (message["content"] for message in json.loads(line)["messages"])
        form = re.sub(r"\d or more", "<count> or more", atoms.sub("<atom>", text))
        code = re.sub(r"\{\d,", "{<count>,", codes.sub("<atom>", regex.replace(".*", "_")).replace("_", ".*"))
        covered += (form, code) in forms
        total += 1
    assert total == 8000
    assert covered / total > 0.7
