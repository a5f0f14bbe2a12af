r"""Fractions, roots and powers in a text, whose digits are no numbers of their own: one character in place of each.

    \frac{1}{2}  \sqrt{3}  \binom{5}{2}  √3  ½          NO_NUMBER
    10^2  (1 + 2)^{10}  10²  2\pi  101_{2}              NO_NUMBER in place of the exponent, pi or base, directly after the number
    x^2  12 m^2  \text{cm}^{2}  x_{10}                  nothing in place of an exponent or index of a name
    90^\circ  2 \times 9  1⁄2                           90°  2 × 9  1/2

Time is linear. Imports nothing from the package.
"""

from __future__ import annotations

import re

NO_NUMBER = "\ue000"
"""A character without a meaning (Unicode's private use area). In a text that has it, it is no number either."""

_FOUND = re.compile(
    r"""\\(?P<two>(?:[cdst]|nice)?frac|[dt]?binom)(?![a-zA-Z])
    | (?P<one>\\sqrt)(?![a-zA-Z])
    | (?P<degree>\^[ ]*\{?[ ]*\\circ(?![a-zA-Z])[ ]*\}?)
    | (?P<power>\^) | (?P<index>_(?=\{)) | (?P<root>[\u221a-\u221c])
    | (?P<none>[\u00bc-\u00be\u2150-\u215f\u2189] | (?<=[0-9])(?:[\u00b2\u00b3\u00b9\u2070-\u207f]+|[ ]*(?:\\pi(?![a-zA-Z])|\u03c0)))
    | (?P<times>\\(?:cdot|times|div)(?![a-zA-Z])) | (?P<slash>[\u2044\u2215])""",
    re.VERBOSE,
)
_INSTEAD = {"degree": "\u00b0", "none": NO_NUMBER, "times": "\u00d7", "slash": "/"}
_BRACE = re.compile(r"[{}]")
_SPACES = re.compile(r"[ ]*")
_TOKEN = re.compile(r"\{|\\[a-zA-Z]+|(?s:.)|\Z")
_ROOT_OF = re.compile(r"\[[^\]]{0,20}\]")
_EXPONENT = re.compile(r"[ ]*(?:\{|\((?:[^()]*\))?|[-+]?[0-9]+(?:[.,][0-9]+)*|\\[a-zA-Z]+|\w)?")
_NUMERIC = re.compile(r"(?:[0-9]\}?|[)\]\ue000])[ ]*\Z")


def without_expressions(text: str) -> str:
    r"""The text with its fractions, roots and powers replaced.

    >>> without_expressions(r"90^\circ, 12 m^2, 2 \times 9")
    '90°, 12 m, 2 × 9'
    """
    out: list[str] = []
    at = 0
    for found in _FOUND.finditer(text):
        if found.start() < at:  # inside one that has been replaced
            continue
        kind, before = str(found.lastgroup), text[at : found.start()]
        out.append(before)
        at = found.end()
        if kind == "two":
            at = _after_argument(text, _after_argument(text, at))
        elif kind == "one":
            degree = _ROOT_OF.match(text, at)
            at = _after_argument(text, degree.end() if degree else at)
        elif kind in ("power", "index", "root"):
            at = _after_exponent(text, at)
        if kind in ("power", "index"):
            follows = _NUMERIC.search(text, max(0, found.start() - 4), found.start()) if before else out[-2:-1] == [NO_NUMBER]
            out.append(NO_NUMBER if follows else "")
        else:
            out.append(_INSTEAD.get(kind, NO_NUMBER))
    return "".join([*out, text[at:]])


def _after_argument(text: str, at: int) -> int:
    """The end of a LaTeX argument: braces and what is between them, a command, or one character."""
    spaces = _SPACES.match(text, at)
    assert spaces is not None
    token = _TOKEN.match(text, spaces.end())
    assert token is not None
    return _after_braces(text, token.end()) if token.group() == "{" else token.end()


def _after_exponent(text: str, at: int) -> int:
    """The end of an exponent, as LaTeX or people write it: 10^{-2}, 10^-2, 2^(n + 1), 2^n."""
    exponent = _EXPONENT.match(text, at)
    assert exponent is not None
    return _after_braces(text, exponent.end()) if exponent.group().endswith("{") else exponent.end()


def _after_braces(text: str, at: int) -> int:
    """The end of the braces that have opened before `at`; the end of the text if they do not close."""
    depth = 1
    for brace in _BRACE.finditer(text, at):
        depth += 1 if brace.group() == "{" else -1
        if not depth:
            return brace.end()
    return len(text)
