"""Fractions, roots and powers in a text: what takes their place, and in linear time."""

from __future__ import annotations

import time

import pytest

from jepa_ray.evaluation.expressions import NO_NUMBER, without_expressions


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        (r"\frac{1}{2}", "#"),
        (r"\dfrac{1}{2} and \tfrac 1 2 and \frac12", "# and # and #"),
        (r"\frac{\sqrt{3} + 1}{2^{10}} = 5", "# = 5"),
        (r"\frac\pi2", "#"),
        (r"\binom{5}{2} = 10", "# = 10"),
        (r"2\sqrt{3}", "2#"),
        (r"\sqrt[3]{8} = 2", "# = 2"),
        (r"\sqrt 2, \sqrt{2", "#, #"),  # braces that a token cap has cut off
        ("2\u221a3, \u221b(1 + 7), \u221a{9}", "2#, #, #"),
        ("10^2 = 100", "10# = 100"),
        ("10 ^ 2, (1 + 2)^2, [3]^2", "10 #, (1 + 2)#, [3]#"),
        ("10^{-2}, 10^-2, 2^(n + 1), 2^n, 10^1,000.5", "10#, 10#, 2#, 2#, 10#"),
        (r"{10}^2, \frac12^2, \sqrt{2}^2", "{10}#, ##, ##"),
        (r"12 m^2, 12 \text{cm}^{2}, x^{n + 1}, e^2", r"12 m, 12 \text{cm}, x, e"),
        ("x_{10} = 3, 101_{2}, x_2", "x = 3, 101#, x_2"),
        (r"90^\circ, 90^{\circ}", "90\u00b0, 90\u00b0"),
        ("10\u00b2, 10\u207b\u00b2, x\u00b2, m\u00b3", "10#, 10#, x\u00b2, m\u00b3"),
        ("3\u00bd, \u00be, \u2153", "3#, #, #"),
        ("2\\pi, 2 \\pi r, 2\u03c0, \\pi, 2\\pink", "2#, 2# r, 2#, \\pi, 2\\pink"),
        (r"2 \times 9 \cdot 3 \div 2", "2 \u00d7 9 \u00d7 3 \u00d7 2"),
        ("1\u20442", "1/2"),
        (r"\boxed{18}, \text{18 eggs}, \fraction{1}{2}", r"\boxed{18}, \text{18 eggs}, \fraction{1}{2}"),
        ("18[^1] and 18^", "18[] and 18#"),
        ("", ""),
    ],
)
def test_what_takes_the_place_of_an_expression(text: str, replaced: str) -> None:
    assert without_expressions(text) == replaced.replace("#", NO_NUMBER)


@pytest.mark.parametrize("part", [r"\frac", r"\frac{", r"\sqrt[", r"\sqrt  ", "^", "^{", "^(", "2^", "_{", "1  ", "2^(a", "}{", "\u221a"])
def test_time_is_linear(part: str) -> None:
    started = time.perf_counter()
    without_expressions(part * 40_000)
    assert time.perf_counter() - started < 2
