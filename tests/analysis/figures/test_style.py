"""What every figure gets from `style`: words on marks, bands over seeds, colours that follow the page."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from analysis.figures import style
from analysis.figures.style import Look, Plot
from analysis.text_tables import Table

LOOK = Look("#0072b2", "--", "s")
TABLE = Table("t", ["a"], [["1"]], "None.")


def test_marks_say_their_words_and_have_no_id() -> None:
    figure, (axis,) = style.panels([""])
    (dot,) = axis.plot([1], [2], "o", color="#0072b2")
    style.told(dot, 'trial a-2, seed 4: 50.00 % <&>"')
    drawn = style.svg(Plot("p", "t", "c", TABLE, figure))
    found = re.findall(r'<g class="mark"><title>([^<]*)</title>', drawn)
    assert found == ["trial a-2, seed 4: 50.00 % &lt;&amp;&gt;'"] and "told:" not in drawn
    assert "#0072b2" not in drawn and "var(--c0072b2)" in drawn


def test_a_band_is_one_sd_around_the_mean_and_absent_without_a_spread() -> None:
    rows = pd.DataFrame({"epoch": [1, 1, 1, 2, 2, 2], "value": [0.1, 0.2, 0.3, 0.4, 0.4, 0.4]})
    _, (axis, other) = style.panels(["a", "b"])
    style.band(axis, rows.groupby("epoch")["value"], LOOK, scale=100)
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [20, 40])
    (band,) = axis.collections
    heights = band.get_paths()[0].vertices[:, 1]  # type: ignore[index]
    np.testing.assert_allclose([heights.min(), heights.max()], [10, 40])
    style.band(other, rows[:1].groupby("epoch")["value"], LOOK)
    assert not other.collections and len(other.lines) == 1
