r"""Do two regular expressions of NL-RX describe the same lines?

The dialect, loosest first (as in dk.brics.automaton, which the data set's authors used for comparison):
    a|b          union
    a&b          intersection
    ab           concatenation
    a* a+ a? a{2} a{2,} a{2,5}
    ~a           complement; it binds tighter than a repetition: ~(a)* is (~(a))*
    [a-z] [^a-z] . \d \w \s \D \W \S, a character, \ and a sign, (a), () for the empty string
    \b \B        a word boundary, or none, as in Python's `re`
A line is matched as a whole, over printable ASCII. `^` and `$` are ordinary signs. A quantifier may follow another: a*? is (a*)?.

Both are walked in parallel, by their derivatives, until one accepts and the other does not (Hopcroft and Karp 1971). A library's
automata do the same but complete one operation after another, each possibly exponential and impossible to interrupt. Here states are
built only when the comparison needs them, and every step is counted.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from jepa_ray.evaluation.derivatives import ALPHABET, EVERY, NO_LIMIT, WORD, Budget, BudgetSpent, Term, Terms, mask_of

MAX_LENGTH = 400
"""Most characters of a regex; NL-RX's longest has 54."""
MAX_DEPTH = 30
"""Deepest nesting of parentheses and complements."""
MAX_STEPS = 30_000
"""Step budget of a comparison, and of preparing a reference: the same on every machine."""
MAX_SECONDS = 0.5
"""Safety net for slow machines."""

_DIGIT = mask_of("0123456789")
_SPACE = mask_of(" ")
_CLASSES = {"d": _DIGIT, "w": WORD, "s": _SPACE, "D": EVERY & ~_DIGIT, "W": EVERY & ~WORD, "S": EVERY & ~_SPACE}
_SIGNS = frozenset("|&~*+?{}()[].\\")
"""Characters that are literal only after a backslash."""
_COUNTS = re.compile(r"\{([0-9]{1,9})(,([0-9]{0,9}))?\}")


class _Parser:
    """Recursive descent over one regex. ValueError if it is not a regex, BudgetSpent if it is too large."""

    def __init__(self, regex: str, terms: Terms) -> None:
        self.terms = terms
        self.masks: set[int] = set()
        """All character sets that occur in it."""
        self._regex, self._at, self._depth = regex, 0, 0

    def parse(self) -> Term:
        if len(self._regex) > MAX_LENGTH:
            raise BudgetSpent
        term = self._union()
        if self._at < len(self._regex):
            raise self._wrong("unexpected character")
        return term

    def _wrong(self, what: str) -> ValueError:
        return ValueError(f"{self._regex!r} is not a regular expression: {what} at {self._at}")

    @property
    def _next(self) -> str:
        return self._regex[self._at : self._at + 1]

    def _skip(self, sign: str) -> bool:
        matches = self._next == sign
        self._at += matches
        return matches

    def _union(self) -> Term:
        parts = [self._intersection()]
        while self._skip("|"):
            parts.append(self._intersection())
        return self.terms.either(parts)

    def _intersection(self) -> Term:
        parts = [self._concatenation()]
        while self._skip("&"):
            parts.append(self._concatenation())
        return self.terms.both(parts)

    def _concatenation(self) -> Term:
        parts = [self._repetition()]
        while self._next and self._next not in "|&)":
            parts.append(self._repetition())
        return self.terms.cat(parts)

    def _repetition(self) -> Term:
        term = self._complement()
        while True:
            if self._skip("*"):
                term = self.terms.repeat(term, 0, NO_LIMIT)
            elif self._skip("+"):
                term = self.terms.repeat(term, 1, NO_LIMIT)
            elif self._skip("?"):
                term = self.terms.repeat(term, 0, 1)
            elif self._next == "{":
                counts = _COUNTS.match(self._regex, self._at)
                if counts is None:
                    raise self._wrong("invalid count in braces")
                least = int(counts[1])
                most = least if counts[2] is None else int(counts[3]) if counts[3] else NO_LIMIT
                if least > most:
                    raise self._wrong("minimum count above the maximum")
                self._at = counts.end()
                term = self.terms.repeat(term, least, most)
            else:
                return term

    def _complement(self) -> Term:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BudgetSpent
        term = self.terms.complement(self._complement()) if self._skip("~") else self._atom()
        self._depth -= 1
        return term

    def _atom(self) -> Term:
        if self._skip("("):
            if self._skip(")"):
                return self.terms.cat(())
            term = self._union()
            if not self._skip(")"):
                raise self._wrong("missing closing parenthesis")
            return term
        if self._regex.startswith(("\\b", "\\B"), self._at):
            self._at += 2
            return self.terms.edge(self._regex[self._at - 1] == "b")
        if self._skip("["):
            return self._set(self._class())
        if self._skip("."):
            return self._set(EVERY)
        return self._set(self._character(_SIGNS))

    def _set(self, mask: int) -> Term:
        self.masks.add(mask)
        return self.terms.one_of(mask)

    def _character(self, signs: Iterable[str]) -> int:
        """A character not in `signs`, or an escape."""
        escaped = self._skip("\\")
        character = self._next
        if not character or (not escaped and character in signs) or (escaped and character.isalnum() and character not in _CLASSES):
            raise self._wrong(f"expected a character instead of {character!r}")
        self._at += 1
        return _CLASSES[character] if escaped and character in _CLASSES else mask_of(character)

    def _class(self) -> int:
        """The rest of a class after its `[`, including the `]`."""
        negated = self._skip("^")
        mask = 0
        while not self._skip("]"):
            first = self._character("[]")
            if self._next == "-" and self._regex[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                last = self._character("[]")
                # A range goes from one single character (one bit each) up to another.
                if first.bit_count() > 1 or last.bit_count() > 1 or first > last:
                    raise self._wrong("invalid range of characters")
                first = 2 * last - first
            mask |= first
        if not mask:
            raise self._wrong("empty class")
        return EVERY & ~mask if negated else mask


def _classes(masks: Iterable[int]) -> list[int]:
    """The coarsest partition of the alphabet in which no mask splits a class."""
    classes = [EVERY]
    for mask in sorted(masks):
        classes = [part for whole in classes for part in (whole & mask, whole & ~mask) if part]
    return classes


class Automaton:
    """The states of one regex, built on demand. State 0 is the initial one."""

    def __init__(self, regex: str, budget: Budget) -> None:
        self._budget = budget
        self._terms = Terms(budget)
        parser = _Parser(regex, self._terms)
        start = parser.parse()
        self.masks = frozenset(parser.masks | ({WORD} if self._terms.looks_around[start] else set()))
        self._representative = bytearray(len(ALPHABET))
        """Character -> the lowest character of its class."""
        for whole in _classes(self.masks):
            lowest = (whole & -whole).bit_length() - 1
            for character in range(len(ALPHABET)):
                if whole >> character & 1:
                    self._representative[character] = lowest
        self._states: list[tuple[Term, bool]] = []
        """(the remaining term, whether the last character is a word character)"""
        self._numbers: dict[tuple[Term, bool], int] = {}
        self._steps: dict[tuple[int, int], int] = {}
        self._state(start, False)

    def _state(self, term: Term, before: bool) -> int:
        state = (term, before and self._terms.looks_around[term])
        if state not in self._numbers:
            self._numbers[state] = len(self._states)
            self._states.append(state)
        return self._numbers[state]

    def accepts(self, state: int) -> bool:
        """Whether a line may end here."""
        term, before = self._states[state]
        return self._terms.nullable(term, before, False)

    def step(self, state: int, character: int) -> int:
        """The state after a character (its index in the alphabet)."""
        character = self._representative[character]
        if (state, character) not in self._steps:
            term, before = self._states[state]
            after = bool(WORD >> character & 1)
            self._steps[state, character] = self._state(self._terms.derivative(term, before, character), after)
        return self._steps[state, character]

    def matches(self, line: Iterable[int]) -> bool:
        """Whether the regex matches a whole line, given as indices into the alphabet."""
        state = 0
        for character in line:
            state = self.step(state, character)
        return self.accepts(state)

    def freeze(self) -> Table:
        """The complete table of states. Raises BudgetSpent if there are too many."""
        columns = sorted(set(self._representative))
        rows: list[list[int]] = []
        shortest: list[tuple[int, ...]] = [()]  # shortest line to each state; states are numbered in this order
        while len(rows) < len(self._states):
            self._budget.spend(len(columns))
            row = [self.step(len(rows), character) for character in columns]
            for character, state in zip(columns, row, strict=True):
                if state == len(shortest):
                    shortest.append((*shortest[len(rows)], character))
            rows.append(row)
        accepting = [self.accepts(state) for state in range(len(rows))]
        samples = [(shortest[accepting.index(verdict)], verdict) for verdict in (True, False) if verdict in accepting]
        return Table(self.masks, bytes(map(columns.index, self._representative)), rows, accepting, samples)


@dataclass(frozen=True)
class Table:
    """A complete automaton that takes little memory."""

    masks: frozenset[int]
    column: bytes
    """Column of each character in `rows`."""
    rows: list[list[int]]
    accepting: list[bool]
    samples: list[tuple[tuple[int, ...], bool]]
    """The shortest line that matches and the shortest that does not, if they exist."""

    def accepts(self, state: int) -> bool:
        """Whether a line may end here."""
        return self.accepting[state]

    def step(self, state: int, character: int) -> int:
        """The state after a character (its index in the alphabet)."""
        return self.rows[state][self.column[character]]


@lru_cache(maxsize=4096)
def _prepared(reference: str) -> Table | str:
    """The reference's table, or "invalid" or "large" if there is none. Tables are complete, so that no result depends on earlier
    comparisons."""
    try:
        return Automaton(reference, Budget(MAX_STEPS, MAX_SECONDS)).freeze()
    except ValueError:
        return "invalid"
    except BudgetSpent:
        return "large"


def equivalent(prediction: str, reference: str, *, seconds: float = MAX_SECONDS) -> bool | None:
    """Whether both match the same lines; None if undecided: the comparison is too large, or the reference is not a regex.

    A prediction that is not a regex is not equivalent.
    """
    if prediction == reference:
        return True
    prepared = _prepared(reference)
    if prepared == "invalid":
        return None
    budget = Budget(MAX_STEPS, seconds)
    try:
        ours = Automaton(prediction, budget)
        if not isinstance(prepared, Table):
            return _same(ours, Automaton(reference, budget), budget)
        # Check two lines first: on a wild prediction the walk may spend its budget before it reaches lines as long as these.
        return all(ours.matches(line) == verdict for line, verdict in prepared.samples) and _same(ours, prepared, budget)
    except ValueError:
        return False
    except BudgetSpent:
        return None


def fault_of(regex: str) -> str | None:
    """Why a text is not a regular expression of the dialect: what is wrong, and where. None if it is one, or is too large to tell."""
    try:
        _Parser(regex, Terms(Budget(MAX_STEPS, MAX_SECONDS))).parse()
    except ValueError as error:
        return str(error).rpartition(" is not a regular expression: ")[2]
    except BudgetSpent:
        return None
    return None


def _same(left: Automaton, right: Automaton | Table, budget: Budget) -> bool:
    """Walk the pairs of states that lines lead to, shortest lines first; pairs that follow from earlier ones are skipped."""
    characters = [(whole & -whole).bit_length() - 1 for whole in _classes(left.masks | right.masks)]
    parent: dict[tuple[int, int], tuple[int, int]] = {}

    def root(node: tuple[int, int]) -> tuple[int, int]:
        while node in parent:
            above = parent[node]
            if above in parent:
                parent[node] = parent[above]
            node = above
        return node

    todo = deque([(0, 0)])
    parent[0, 0] = (1, 0)
    while todo:
        ours, theirs = todo.popleft()
        if left.accepts(ours) != right.accepts(theirs):
            return False
        budget.spend(len(characters))
        for character in characters:
            pair = (left.step(ours, character), right.step(theirs, character))
            a, b = root((0, pair[0])), root((1, pair[1]))
            if a != b:
                parent[a] = b
                todo.append(pair)
    return True
