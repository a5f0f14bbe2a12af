"""Equivalence of regexes: against a naive matcher on short lines, laws of the algebra, the real NL-RX, and attacks."""

from __future__ import annotations

import json
import random
import re
import time
from itertools import pairwise, product
from pathlib import Path

import pytest

from jepa_ray.data.tasks import nlrx
from jepa_ray.evaluation.derivatives import ALPHABET, Budget
from jepa_ray.evaluation.regexes import Automaton, equivalent

LETTERS = "ab-"
"""Two word characters and one that is not."""
LINES = ["".join(line) for length in range(5) for line in product(LETTERS, repeat=length)]

Node = tuple  # type: ignore[type-arg]
"""("set", regex, letters), ("edge", wanted), (operator, nodes...) or ("repeat", node, regex, least, most or None)."""

SETS = (("a", "a"), ("b", "b"), ("-", "-"), (".", LETTERS), ("[ab]", "ab"), ("[^a]", "b-"), (r"\w", "ab"), (r"\-", "-"), ("[a-c]", "ab"))
REPEATS = (("*", 0, None), ("+", 1, None), ("?", 0, 1), ("{2}", 2, 2), ("{2,}", 2, None), ("{1,2}", 1, 2), ("{0,2}", 0, 2))


def random_node(rng: random.Random, depth: int) -> Node:
    kind = rng.choice(["set", "edge", "cat", "cat", "or", "and", "not", "repeat"]) if depth else rng.choice(["set", "set", "set", "empty"])
    if kind == "set":
        return ("set", *rng.choice(SETS))
    if kind == "edge":
        return ("edge", rng.random() < 0.8)
    if kind == "empty":
        return ("cat",)
    if kind == "repeat":
        return ("repeat", random_node(rng, depth - 1), *rng.choice(REPEATS))
    return (kind, *(random_node(rng, depth - 1) for _ in range(1 if kind == "not" else rng.randint(2, 3))))


LOOSEST_FIRST = ("or", "and", "cat", "repeat", "not")


def written(node: Node, rng: random.Random, level: int = 0) -> str:
    """The node as a regex, with parentheses where precedence requires them and, at random, where it does not."""
    kind = node[0]
    if kind == "set":
        text, precedence = node[1], 9
    elif kind == "edge":
        text, precedence = (r"\b" if node[1] else r"\B"), 9
    elif node == ("cat",):
        text, precedence = "()", 9
    else:
        precedence = LOOSEST_FIRST.index(kind)
        if kind == "repeat":
            text = written(node[1], rng, precedence) + node[2]
        elif kind == "not":
            text = "~" + written(node[1], rng, precedence)
        else:
            text = {"or": "|", "and": "&", "cat": ""}[kind].join(written(part, rng, precedence + 1) for part in node[1:])
    return f"({text})" if precedence < level or rng.random() < 0.1 else text


def ends(node: Node, line: str, start: int) -> set[int]:
    """Naive matcher: the positions where matches that begin at `start` may end."""
    kind = node[0]
    if kind == "set":
        return {start + 1} if line[start : start + 1] and line[start] in node[2] else set()
    if kind == "edge":
        around = [0 <= i < len(line) and line[i] in "ab" for i in (start - 1, start)]
        return {start} if (around[0] != around[1]) == node[1] else set()
    if kind == "not":
        return set(range(start, len(line) + 1)) - ends(node[1], line, start)
    if kind == "or":
        return set.union(*(ends(part, line, start) for part in node[1:]))
    if kind == "and":
        return set.intersection(*(ends(part, line, start) for part in node[1:]))
    if kind == "cat":
        reached = {start}
        for part in node[1:]:
            reached = {end for middle in reached for end in ends(part, line, middle)}
        return reached
    _, part, _, least, most = node
    allowed: set[int] = set()
    reached = {start}
    # The minimum plus as many repetitions as the line has places reaches everything that any number of them reaches.
    for count in range((least + len(line) + 1 if most is None else most) + 1):
        if count >= least:
            allowed |= reached
        reached = {end for middle in reached for end in ends(part, line, middle)}
    return allowed


def naive_language(node: Node) -> list[bool]:
    return [len(line) in ends(node, line, 0) for line in LINES]


def language(regex: str, lines: list[str]) -> list[bool]:
    automaton = Automaton(regex, Budget(10**7, 10.0))
    return [automaton.matches(map(ALPHABET.index, line)) for line in lines]


def test_against_a_naive_matcher() -> None:
    """All lines of up to four characters; then no line may contradict a verdict that two regexes are equivalent."""
    rng = random.Random(1)
    cases = []
    for _ in range(300):
        node = random_node(rng, rng.randint(1, 3))
        regex = written(node, rng)
        matches = naive_language(node)
        assert language(regex, LINES) == matches, regex
        cases.append((regex, matches))
    mixed = sum(0 < sum(matches) < len(LINES) for _, matches in cases)
    assert mixed > 150, f"{mixed} of the random regexes match some lines but not all"
    verdicts = []
    for (one, members), (other, others) in zip(cases * 2, cases[7:] + cases[11:], strict=False):
        verdict = equivalent(one, other)
        assert verdict is not None, (one, other)
        assert members == others or not verdict, (one, other)
        verdicts.append((verdict, members == others))
    assert (True, True) in verdicts
    assert (False, False) in verdicts


# Both sides of a law, with placeholders for the operands. The laws hold at every place of a line, with or without \b.
LAWS = (
    ("({0})|({1})", "({1})|({0})"),
    ("({0})&({1})", "({1})&({0})"),
    ("~(({0})&({1}))", "~({0})|~({1})"),
    ("~~({0})", "{0}"),
    ("({0})&~({0})", "~(.*)"),
    ("({0})|~({0})", ".*"),
    ("(({0})|({1}))({2})", "({0})({2})|({1})({2})"),
    ("({0})(({1})({2}))", "(({0})({1}))({2})"),
    ("(({0})|({1}))&({2})", "({0})&({2})|({1})&({2})"),
    ("({0})+", "({0})({0})*"),
    ("({0})*", "()|({0})+"),
    ("(({0})*)*", "({0})*"),
    ("(({0})|({1}))*", "(({0})*({1})*)*"),
    ("({0}){{2,4}}", "({0})({0})(()|({0})(()|({0})))"),
    ("({0}){{3}}({0}){{0,2}}", "({0}){{3,5}}"),
    ("(({0})({1}))*", "()|({0})(({1})({0}))*({1})"),
    (".*({0}){{2,3}}", ".*({0}){{2,9}}"),
)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law[0])
def test_laws_of_the_algebra(law: tuple[str, str]) -> None:
    rng = random.Random(law[0])
    for _ in range(25):
        operands = [written(random_node(rng, rng.randint(0, 2)), rng) for _ in range(3)]
        left, right = (side.format(*operands) for side in law)
        assert equivalent(left, right) is True, (left, right)
        assert equivalent(left, f"({right})&~(a-b)|~(.*)|({right})&(a-b)") is True, (left, right)
        assert equivalent(left, f"({right})&~(a-b)|~({right})&(a-b)") is False, "one line's verdict was turned round"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a|b&c", "a|(b&c)"),
        ("a&b*|c", "(a&(b*))|c"),
        ("~a*", "(~(a))*"),
        ("ab*", "a(b*)"),
        ("~ab", "(~(a))b"),
        ("dog", "(d)(o)(g)"),
        ("a*?", "a*"),
        ("[AEIOUaeiou]", "[aeiou]|[AEIOU]"),
        (r"\d|[a-z]|[A-Z]|_", r"\w"),
        ("[a-]", "a|-"),
        ("[.]", r"\."),
        (".", r"\w|\W"),
        (r"\b(a).*(b).*\b", r"\ba.*b\b|\ba.*b.*\w\b"),
        (r".*\b.*", r".*\w.*"),
        (r"\bdog\b", "dog"),
        (r"(dog).*\b(truck).*", r"dog.*\Wtruck.*"),
        ("(dog)&([0-9])", "(lake)&([0-9])"),
    ],
)
def test_what_is_equal_by_hand(one: str, other: str) -> None:
    assert equivalent(one, other) is True
    assert equivalent(other, one) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a|b&c", "(a|b)&c"),
        ("~a*", "~(a*)"),
        ("dog*", "(dog)*"),
        (".*dog.*", "dog.*"),
        ("(a){2,}", "(a){3,}"),
        ("(.){7,}", "(.){6,}"),
        (r".*\bdog.*", ".*dog.*"),
        (r"\b~(dog)\b", "~(dog)"),
        ("[A-Za-z]", "[A-z]"),
        ("a*+", "a+"),
        # Parts that `.*` at the beginning seems to absorb, but does not.
        (".*abc|-adc", ".*abc"),
        (".*dog|log", ".*dog"),
        (".*(a){2}|-a", ".*(a){2}"),
        (".*(a){1,2}b|-(a){3}c", ".*(a){1,2}b"),
    ],
)
def test_what_is_not_by_hand(one: str, other: str) -> None:
    assert equivalent(one, other) is False
    assert equivalent(other, one) is False


@pytest.mark.parametrize(
    "text", ["", "(a", "a)", "a|", "|a", "&", "*a", "[a", "[]", "[z-a]", "a{2", "a{,2}", "a{3,2}", "~", "a\\", r"\q", "é", "a\nb", "]"]
)
def test_what_is_no_regex(text: str) -> None:
    """As a prediction it is wrong; as a reference the result is undecided."""
    assert equivalent(text, "a") is False
    assert equivalent("a", text) is None


ATTACKS = (
    "(" * 10_000 + "a" + ")" * 10_000,
    "(" * 390,
    "~" * 390 + "a",
    "~(" * 120 + "a" + ")" * 120,
    "a" * 10_000,
    "(a){1000000}",
    "(a){1000000000}",
    "(a){99999999999999999999}",
    ".*a.{40}",
    "(((.{3,9}){3,9}){3,9}){3,9}",
    "((((((a*)*b)*)*c)*)*d)*",
    "a?" * 100 + "a" * 90,
    "(.*a.*b.*c.*){7}&~((.*b.*a.*){3,}.*c.{12}.*)",
    r"(\b.{3}|.{5}\b){9,}",
    "(.*)" * 90,
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda text: text[:20])
def test_wild_predictions_cost_a_bounded_amount(attack: str) -> None:
    """The verdict is never True, comes soon, and is the same in a second run: the budget counts steps, not seconds."""
    for reference in ("((dog).*([0-9]).*){7,}", ".*[a-z].{9}"):
        start = time.perf_counter()
        verdict = equivalent(attack, reference, seconds=30.0)
        assert time.perf_counter() - start < 5.0
        assert verdict is not True
        assert equivalent(attack, reference, seconds=30.0) is verdict


def test_the_clock_is_a_safety_net() -> None:
    assert equivalent(".*a.{40}", ".*b.{40}", seconds=0.0) is None
    assert equivalent("a", "(a)", seconds=0.0) is True, "too small for a look at the clock"


def _references(shared_data: Path) -> list[str]:
    lines = (shared_data / "synth_test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"][2]["content"] for line in lines]


def _rewritten(regex: str) -> str:
    """The same language written differently: redundant parentheses, and swapped operands of a parenthesised & or |."""
    return re.sub(r"\((\([^()]*\))([&|])(\([^()]*\))\)", r"(\3\2\1)", regex).replace("[0-9]", "([0-9])").replace(".*", "(.*)")


def test_rewritten_references_are_recognised(shared_data: Path) -> None:
    references = _references(shared_data)
    assert len(references) == 2000
    verdicts = [equivalent(f"({_rewritten(reference)})", reference) for reference in references]
    assert False not in verdicts
    assert verdicts.count(None) < 0.01 * len(verdicts)


def test_generated_references_are_decided() -> None:
    references = [example.code for example in nlrx.generate(300, 0)]
    verdicts = [equivalent(f"({_rewritten(reference)})", reference) for reference in references]
    assert set(verdicts) == {True}
    others = [equivalent(prediction, reference) for prediction, reference in pairwise(references)]
    assert None not in others and others.count(False) > 200


def test_real_references_without_complement_match_what_python_matches(shared_data: Path) -> None:
    """If a reference has neither & nor ~, Python's `re` reads it the same way, including \\b."""
    rng = random.Random(0)
    plain = [reference for reference in _references(shared_data) if "&" not in reference and "~" not in reference][:400]
    assert sum("\\b" in reference for reference in plain) > 40
    pieces = ("dog", "truck", "ring", "lake", "a", "E", "x", "7", " ", "-", "Q", "_")
    verdicts = []
    for reference in plain:
        lines = ["".join(rng.choices(pieces, k=rng.randint(0, 9))) for _ in range(20)]
        matched = language(reference, lines)
        assert matched == [re.fullmatch(reference, line) is not None for line in lines], reference
        verdicts += matched
    assert 0.1 < sum(verdicts) / len(verdicts) < 0.9
