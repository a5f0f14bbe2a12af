r"""Regular expressions with `&`, `~` and `\b` as terms, and their derivatives: the term that must match after a character is read.

Source: Brzozowski (J. ACM 1964); Owens, Reppy, Turon (J. Functional Programming 2009). `&` and `~` cost nothing extra. `\b` looks
around, so a language here is the set of places (line, from, to) that a term matches, and a derivative depends on whether the preceding
character is a word character. Every step is counted, because terms may grow exponentially. Imports nothing from the package.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

ALPHABET = "".join(map(chr, range(32, 127)))
"""The characters of a line: printable ASCII. A character is an index into it, a set of characters a bit mask."""
EVERY = (1 << len(ALPHABET)) - 1
NO_LIMIT = 1 << 60
"""Maximum number of repetitions of a* and a+, and maximum length."""


def mask_of(characters: Iterable[str]) -> int:
    """The set as a bit mask. ValueError for a character outside the alphabet."""
    out = 0
    for character in characters:
        if character not in ALPHABET:
            raise ValueError(f"{character!r} is not printable ASCII")
        out |= 1 << ALPHABET.index(character)
    return out


WORD = mask_of(c for c in ALPHABET if c.isalnum() or c == "_")


class BudgetSpent(Exception):
    """The work would exceed its budget."""


class Budget:
    """Counts steps, the same on every machine. The clock is only a safety net, checked about every thousand steps."""

    def __init__(self, steps: int, seconds: float) -> None:
        self.left = steps
        self._deadline = time.monotonic() + seconds
        self._next_look = steps - 1000

    def spend(self, steps: int) -> None:
        """Raises BudgetSpent once the steps or the time are used up."""
        self.left -= steps
        if self.left < self._next_look:
            self._next_look = self.left - 1000
            if self.left < 0 or time.monotonic() > self._deadline:
                raise BudgetSpent


Term = int
"""Terms are numbered; equal ones have the same number."""
SET, EMPTY_STRING, CAT, OR, AND, NOT, REPEAT, EDGE = range(8)
NOTHING, EMPTY, ANYTHING = range(3)
"""The terms that match no line, only the empty line, and every line."""


class Terms:
    """The terms of one regex.

    Brzozowski's theorem, that a regex has finitely many derivatives, requires `|` and `&` to be sets. All other rewriting preserves the
    language and reduces the number of derivatives.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._nodes: list[tuple[int, tuple[int, ...]]] = []
        """(operator, operands). SET: a mask; REPEAT: term, least, most; EDGE: 1 for \\b, 0 for \\B; otherwise terms."""
        self._numbers: dict[tuple[int, tuple[int, ...]], Term] = {}
        self._lengths: list[tuple[int, int]] = []
        """(Minimum, maximum) number of characters that match."""
        self.looks_around: list[bool] = []
        """Whether the term contains a \\b or \\B."""
        self._nullable: dict[tuple[Term, bool, bool], bool] = {}
        self._derivatives: dict[tuple[Term, bool, int], Term] = {}
        self._make(SET, (0,), (0, 0))
        self._make(EMPTY_STRING, (), (0, 0))
        self._make(NOT, (NOTHING,), (0, NO_LIMIT))

    def _make(self, operator: int, operands: tuple[int, ...], lengths: tuple[int, int], looks_around: bool = False) -> Term:
        node = (operator, operands)
        if node not in self._numbers:
            self._budget.spend(1 + len(operands))
            self._numbers[node] = len(self._nodes)
            self._nodes.append(node)
            self._lengths.append(lengths)
            self.looks_around.append(looks_around)
        return self._numbers[node]

    def _parts(self, term: Term, operator: int) -> tuple[Term, ...]:
        """Operands of the term if it has this operator, otherwise the term itself."""
        actual, operands = self._nodes[term]
        return operands if actual == operator else (term,)

    def one_of(self, mask: int) -> Term:
        """One character of a set."""
        return self._make(SET, (mask,), (1, 1)) if mask else NOTHING

    def edge(self, wanted: bool) -> Term:
        r"""\b, or \B if not `wanted`."""
        return self._make(EDGE, (int(wanted),), (0, 0), True)

    def cat(self, terms: Iterable[Term]) -> Term:
        """Concatenation."""
        kept: list[Term] = []
        for part in (part for term in terms for part in self._parts(term, CAT)):
            if part == NOTHING:
                return NOTHING
            if part == ANYTHING:  # absorbs neighbours that may be empty
                while kept and self._may_always_be_empty(kept[-1]):
                    kept.pop()
            if part != EMPTY and not (kept and kept[-1] == ANYTHING and self._may_always_be_empty(part)):
                kept.append(part)
        if len(kept) < 2:
            return kept[0] if kept else EMPTY
        least = min(sum(self._lengths[part][0] for part in kept), NO_LIMIT)
        most = min(sum(self._lengths[part][1] for part in kept), NO_LIMIT)
        return self._make(CAT, tuple(kept), (least, most), any(self.looks_around[part] for part in kept))

    def either(self, terms: Iterable[Term]) -> Term:
        """Union."""
        mask = 0
        members: set[Term] = set()
        for part in (part for term in terms for part in self._parts(term, OR)):
            operator, operands = self._nodes[part]
            if operator == SET:
                mask |= operands[0]
            else:
                members.add(part)
        if mask:
            members.add(self.one_of(mask))
        if ANYTHING in members or self._opposites(members):
            return ANYTHING
        if EMPTY in members and any(part != EMPTY and self._may_always_be_empty(part) for part in members):
            members.discard(EMPTY)
        kept = self._without(members, lambda part, other: self._covers(other, part))
        if len(kept) < 2:
            return kept[0] if kept else NOTHING
        lengths = [self._lengths[part] for part in kept]
        bounds = (min(least for least, _ in lengths), max(most for _, most in lengths))
        return self._make(OR, tuple(kept), bounds, any(self.looks_around[part] for part in kept))

    def both(self, terms: Iterable[Term]) -> Term:
        """Intersection."""
        mask: int | None = None
        members: set[Term] = set()
        for part in (part for term in terms for part in self._parts(term, AND)):
            operator, operands = self._nodes[part]
            if operator == SET:
                mask = operands[0] if mask is None else mask & operands[0]
            elif part != ANYTHING:
                members.add(part)
        if mask is not None:
            members.add(self.one_of(mask))
        if NOTHING in members or self._opposites(members):
            return NOTHING
        kept = self._without(members, lambda part, other: self._covers(part, other))
        if len(kept) < 2:
            return kept[0] if kept else ANYTHING
        least, most = max(self._lengths[part][0] for part in kept), min(self._lengths[part][1] for part in kept)
        if least > most:
            return NOTHING
        if EMPTY in kept and all(self._may_always_be_empty(part) for part in kept):
            return EMPTY
        return self._make(AND, tuple(kept), (least, most), any(self.looks_around[part] for part in kept))

    def complement(self, term: Term) -> Term:
        """All places that do not match."""
        operator, operands = self._nodes[term]
        return operands[0] if operator == NOT else self._make(NOT, (term,), (0, NO_LIMIT), self.looks_around[term])

    def repeat(self, term: Term, least: int, most: int) -> Term:
        """Repetition from `least` to `most` times."""
        operator, operands = self._nodes[term]
        if self._may_always_be_empty(term) or (operator == REPEAT and operands[1:] == (0, NO_LIMIT)):
            least = 0
        if most == 0 or term == EMPTY or (term == NOTHING and least == 0):
            return EMPTY
        if term in (NOTHING, ANYTHING) or (least, most) == (1, 1) or (operator == REPEAT and operands[1:] == (0, NO_LIMIT)):
            return term
        if term == self.one_of(EVERY) and (least, most) == (0, NO_LIMIT):
            return ANYTHING
        bounds = (min(self._lengths[term][0] * least, NO_LIMIT), min(self._lengths[term][1] * most, NO_LIMIT))
        return self._make(REPEAT, (term, least, most), bounds, self.looks_around[term])

    def _may_always_be_empty(self, term: Term) -> bool:
        """Whether the empty string matches in every context."""
        if not self.looks_around[term]:
            return self.nullable(term, False, False)
        return all(self.nullable(term, before, after) for before in (False, True) for after in (False, True))

    def _without(self, members: set[Term], superfluous: Callable[[Term, Term], bool]) -> list[Term]:
        """Members, in order, without those made superfluous by another that is kept: of two equal languages, one is kept."""
        self._budget.spend(len(members) ** 2)
        kept = sorted(members)
        for part in sorted(members):
            if any(other != part and superfluous(part, other) for other in kept):
                kept.remove(part)
        return kept

    def _opposites(self, members: set[Term]) -> bool:
        return any(self._numbers.get((NOT, (part,))) in members for part in members)

    def _covers(self, larger: Term, smaller: Term) -> bool:
        """A sufficient test of inclusion, part by part from the end; `.*` at the beginning of `larger` covers everything before."""
        outer, inner = self._parts(larger, CAT), self._parts(smaller, CAT)
        if outer[0] != ANYTHING:
            return len(outer) == len(inner) and all(map(self._covers_part, outer, inner))
        outer = outer[1:]
        inner = inner[len(inner) - len(outer) :] if len(outer) <= len(inner) else ()
        if not inner or not all(map(self._covers_part, outer[1:], inner[1:])):
            return False
        return self._covers_part(outer[0], inner[0], after_anything=True)

    def _covers_part(self, outer: Term, inner: Term, after_anything: bool = False) -> bool:
        if outer in (inner, ANYTHING):
            return True
        (operator, operands), (other, others) = self._nodes[outer], self._nodes[inner]
        if operator == SET and other == SET:
            return others[0] & ~operands[0] == 0
        if operator != REPEAT:
            return False
        term, least, most = operands
        term_of_inner, inner_least, inner_most = others if other == REPEAT else (inner, 1, 1)
        if term != term_of_inner:
            return False
        # After .*, the first repetitions may count as part of the .*: a{3,9} is included in .*a{1,2}.
        return inner_least >= least and (after_anything or inner_most <= most)

    def nullable(self, term: Term, before: bool, after: bool) -> bool:
        """Whether the empty string matches, given whether a word character comes before and after."""
        if not self.looks_around[term]:
            before = after = False
        key = (term, before, after)
        if key not in self._nullable:
            operator, operands = self._nodes[term]
            if operator in (SET, EMPTY_STRING):
                value = operator == EMPTY_STRING
            elif operator == EDGE:
                value = (before != after) == bool(operands[0])
            elif operator == NOT:
                value = not self.nullable(operands[0], before, after)
            elif operator == REPEAT:
                value = operands[1] == 0 or self.nullable(operands[0], before, after)
            else:
                value = (any if operator == OR else all)(self.nullable(part, before, after) for part in operands)
            self._nullable[key] = value
        return self._nullable[key]

    def derivative(self, term: Term, before: bool, character: int) -> Term:
        """The term that must match after `character`, given whether a word character comes before it."""
        if not self.looks_around[term]:
            before = False
        key = (term, before, character)
        if key not in self._derivatives:
            self._budget.spend(1)
            self._derivatives[key] = self._derive(term, before, character)
        return self._derivatives[key]

    def _derive(self, term: Term, before: bool, character: int) -> Term:
        operator, operands = self._nodes[term]
        after = bool(WORD >> character & 1)
        if operator == SET:
            return EMPTY if operands[0] >> character & 1 else NOTHING
        if operator in (EMPTY_STRING, EDGE):
            return NOTHING
        if operator == NOT:
            return self.complement(self.derivative(operands[0], before, character))
        if operator == REPEAT:
            # The first non-empty repetition reads the character. If empty repetitions match here, they may make up the minimum number;
            # later ones are checked in their own context.
            part, least, most = operands
            least = 0 if self.nullable(part, before, after) else max(least - 1, 0)
            most = most if most == NO_LIMIT else most - 1
            first = self.derivative(part, before, character)
            return NOTHING if first == NOTHING else self.cat((first, self.repeat(part, least, most)))
        if operator == CAT:
            derivatives = []
            for i, part in enumerate(operands):
                self._budget.spend(len(operands))
                derivatives.append(self.cat((self.derivative(part, before, character), *operands[i + 1 :])))
                if not self.nullable(part, before, after):
                    break
            return self.either(derivatives)
        return (self.either if operator == OR else self.both)(self.derivative(part, before, character) for part in operands)
