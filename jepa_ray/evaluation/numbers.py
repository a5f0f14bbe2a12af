r"""The number at the end of a solution: after `####` (GSM8K), or of any text (own data).

GSM8K: the first mark with a number counts, as in the data set's own script (Cobbe et al. 2021) and in common harnesses: a solution
ends there, and a model that was not taught to stop continues with another problem and its answer. The rules for the number:

    skipped before it       white space, a line end (then the number is alone on its line), a label (`Answer:`, `x =`), a currency
                            ($, US$, Rs.), markdown and LaTeX (`**`, `\boxed{`)
    its sign                + or -, also the Unicode minus, before or after the currency
    its form                18  1,000  1 000  12,34,567  0.5  .5
    skipped after it        a unit, %, a full stop, anything else that does not turn it into another number
    an expression           5 + 13 = 18 is 18: the result is after the `=`
    not a number            1/2, 5 / 6, 3 1/2 (fractions), 20-30, 20 to 30 (ranges), 3:30, 1e3, 10^2, 1,5 (15 or 1.5?), 2 * 9 (no result)

A part of a number never counts as a number. Time is linear in the text: after a mark and white space, `READ` characters are read.

Own data: `####` is also a heading in Markdown, so the last mark counts, and only if the number is alone on its line. Otherwise the last
number of the text counts, by the same rules: if a fraction, a range or the like comes last, there is none. Fractions, roots and powers
are also read in LaTeX and Unicode (`expressions.py`), and an en dash is a minus if no digit is directly before it.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from jepa_ray.evaluation.expressions import NO_NUMBER, without_expressions

MAX_DIGITS = 200
"""A longer number is not read, because a model may write anything."""
READ = 400
"""Number of characters read after a mark and the white space that follows it."""

_MARK = re.compile(r"#{4,}\s*+")
_ALONE = re.compile(r"[^\w\n]*+(?:\n|\Z)")
_PLAIN = str.maketrans({"\u2212": "-", "\u00a0": " ", "\u2009": " ", "\u202f": " "})
"""Unicode minus; no-break, thin and narrow no-break space."""
_BEFORE = re.compile(
    r"""[\s*_`~(\[{"'\u201c]++
    | \\(?:boxed|text|textbf|mathbf|mathrm|[(\[$,!;])
    | (?:US|CA|AU|NZ|HK|A|C|S)?\$ | [\u20ac\u00a3\u00a5\u20b9] | (?:Rs|USD|EUR|GBP|INR|CAD|AUD)\b\.?
    | [^\W\d_]++(?:[ '][^\W\d_]++){0,5}[ *]*+[:=]""",
    re.VERBOSE,
)
_SIGN = re.compile(r"[-+]")
_INTEGER = r"""[0-9]{1,3}(?:,[0-9]{3})++(?![0-9]) | [0-9]{1,3}(?:[ ][0-9]{3})++(?![0-9])
    | [0-9]{1,2}(?:,[0-9]{2}){1,9},[0-9]{3}(?![0-9]) | [0-9]++"""
_NUMBER = re.compile(rf"(?:{_INTEGER})(?:\.[0-9]++)? | \.[0-9]++", re.VERBOSE)
_JOINED = r"""[.,]?[0-9]
    | [eE][-+]?[0-9]
    | :[0-9]
    | [ ]+[0-9]+[ ]*/[ ]*[0-9]
    | [ ]*(?:[-+/^\u2013\u2014\u00d7\u00f7\u00b7]|\*{1,2}|[xX]|to[ ])[ ]*[$\u20ac\u00a3]?[ ]*[0-9]"""
_MORE = re.compile(_JOINED, re.VERBOSE)
"""After a number: text that makes it only a part of a number or of an expression."""
_START = re.compile(
    rf"""(?P<none>{NO_NUMBER}+)
    | (?P<divides>/|(?<=[ ])/[ ]+)?
      (?:(?<![\w)\]%])(?P<sign>[-+]))?(?:(?:(?:US)?\$|[\u20ac\u00a3\u00a5\u20b9])(?P<later>[-+]?))?(?<!\w)(?<!\w[-.,])(?=\.?[0-9])""",
    re.VERBOSE,
)
"""What is no number; or the place of one in a text, after a fraction's slash, its sign and its currency: not inside a word, and not after
a word's hyphen (GPT-4)."""
_GOES_ON = re.compile(rf"{_JOINED} | {NO_NUMBER}+", re.VERBOSE)
_REST = re.compile(r"[0-9]*+(?:[.,][0-9]++)*+")
_EN_DASH = re.compile(r"(?<![0-9])\u2013")
_ALONE_HERE = re.compile(rf"[^\w\n{NO_NUMBER}]*+\Z")


def number_after_mark(text: str) -> Fraction | None:
    """The exact number after the first `####` that has one; None if there is none."""
    for mark in _MARK.finditer(text):
        number = _number(
            text[mark.end() : mark.end() + READ].translate(_PLAIN).replace("{,}", ",").replace("\\,", " "), "\n" in mark.group()
        )
        if number is not None:
            return number
    return None


def loose_number_after_mark(text: str) -> Fraction | None:
    """The same, or else the digits after the mark without their commas, wherever those are: for a data set's own answers."""
    number = number_after_mark(text)
    plain = re.search(r"####\s*+[$\u20ac\u00a3]?([-+]?[0-9][0-9,]{0,200}(?:\.[0-9]+)?)", text) if number is None else None
    return Fraction(Decimal(plain[1].replace(",", ""))) if plain is not None else number


def answer_number(text: str) -> Fraction | None:
    """The number after the last `####` of a text if it is alone on that line, or else the last number of the text; None if there is none.

    >>> [str(answer_number(text)) for text in ("2 boxes of 9 make 18 eggs.", "18 eggs\\n#### 9", "#### Step 1\\n18 eggs", "It is 5/6.")]
    ['18', '9', '18', 'None']
    """
    _, mark, rest = text.rpartition("####")
    alone = _alone(_readable(rest.partition("\n")[0][:READ])) if mark else None
    return last_number(text) if alone is None else alone


def last_number(text: str) -> Fraction | None:
    """The last number of a text; None if there is none, or if it is part of something else (5/6, 20-30, 3:30, x^2). Digits in words (B12)
    do not count."""
    text = _readable(text)
    last: Fraction | None = None
    at = 0
    while start := _START.search(text, at):
        number = _NUMBER.match(text, start.end()) if start["none"] is None else None
        at = number.end() if number is not None else start.end()
        whole = number is not None and len(number.group()) <= MAX_DIGITS and start["divides"] is None
        while more := _GOES_ON.match(text, at):  # all that belongs to one expression
            rest = _REST.match(text, more.end())
            assert rest is not None
            at, whole = rest.end(), False
        last = _value(number, "-" in (start["sign"], start["later"])) if number is not None and whole else None
    return last


def _readable(text: str) -> str:
    """A text of own data with one character for each sign, and without what is no number."""
    text = _EN_DASH.sub("-", text.translate(_PLAIN)).replace("{,}", ",").replace("\\,", " ")
    return without_expressions(text)


def _value(number: re.Match[str], negative: bool) -> Fraction:
    value = Fraction(Decimal(number.group().replace(",", "").replace(" ", "")))
    return -value if negative else value


def _skipped(text: str) -> tuple[int, bool]:
    """Where the number begins that `text` begins with, after skipped text and signs; whether it is negative."""
    at, negative, signs = 0, False, 0
    while True:
        if before := _BEFORE.match(text, at):
            at = before.end()
        elif signs < 2 and (sign := _SIGN.match(text, at)):
            at, negative, signs = sign.end(), negative != (sign.group() == "-"), signs + 1
        else:
            return at, negative


def _alone(line: str) -> Fraction | None:
    """The number of a line that has nothing else but skipped text before it, and signs after it."""
    at, negative = _skipped(line)
    number = _NUMBER.match(line, at)
    if number is None or len(number.group()) > MAX_DIGITS or not _ALONE_HERE.match(line, number.end()):
        return None
    return _value(number, negative)


def _number(text: str, on_next_line: bool = False) -> Fraction | None:
    """The number that `text` begins with, after skipped text; for an expression, its result. On a later line than the mark, the number
    must be alone, because a sentence there may begin with a number."""
    at, negative = _skipped(text)
    number = _NUMBER.match(text, at)
    if number is None or len(number.group()) > MAX_DIGITS or number.end() >= READ:  # may be cut off
        return None
    if _MORE.match(text, number.end()):
        line = text[number.end() :].partition("\n")[0]
        _, equals, result = line.rpartition("=")
        return _number(result) if equals else None
    if (on_next_line or "\n" in text[:at]) and not _ALONE.match(text, number.end()):
        return None
    return _value(number, negative)
