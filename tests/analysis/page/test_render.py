"""The page's HTML: its script is allowed and small, its tables say how they are aligned, and nothing of a sweep becomes markup."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace

from analysis.answer_diff import spans
from analysis.page import First, Grid, Page, Ruling, Section, Sentences, diff, html
from analysis.page.render import TEMPLATES, columns, prose
from analysis.text_tables import Table

WIDE = Table("Wide", ["arm", "value", "why"], [["a<b", "+1.5", "x" * 30], ["total", "-2", "y" * 70]], "Nothing.")
PAGE = Page("t", First("Is <it> better?", (("better", "by `1` & more"),), None, (("model", "a & b"),)), [], "python -m x", "..")


def page(*blocks: object) -> str:
    return html(replace(PAGE, sections=[Section("Is it so?", list(blocks), name="so")]))  # type: ignore[arg-type]


def test_the_policy_allows_the_script_and_no_other() -> None:
    text = page(Grid(WIDE))
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text and "default-src 'none'" in text
    assert 1000 < len((TEMPLATES / "script.js").read_bytes()) <= 5 * 1024
    assert not re.search(r"https?://|import\(|fetch|XMLHttp|innerHTML|eval", script), "loads nothing, and makes no markup of text"


def test_text_of_a_sweep_stays_text() -> None:
    text = page(Sentences(("<b>x</b> `a<b`",)), Ruling("worse", "<i>", WIDE, ("<u>",)), Grid(WIDE, folded=True, kinds=("k<", "l")))
    assert "Is &lt;it&gt; better?" in text and "by <code>1</code> &amp; more" in text
    assert "<code>a&lt;b</code>" in text and 'data-kind="k&lt;"' in text and ">a&lt;b</td>" in text
    assert not re.search(r"<(b|i|u|it)>", text)


def test_marks_of_an_answer_become_spans_after_escaping() -> None:
    table = Table("Answers", ["answer"], [[diff(spans("<a> b", "<c> b d"))]], "None.")
    assert '<code>&lt;<span class="missing">a</span><span class="wrong">c</span>&gt; b<span class="extra"> d</span></code>' in page(
        Grid(table, code=True)
    )


def test_columns_are_aligned_by_their_cells() -> None:
    assert [str(column["classes"]) for column in columns(WIDE)] == ["", ' class="r"', ' class="w long"']
    assert [str(column["head"]) for column in columns(WIDE)] == ["", ' class="r"', ""]


def test_an_empty_table_is_its_sentence_and_a_fold_says_how_many_rows() -> None:
    assert '<p class="empty">Nothing.</p>' in page(Grid(replace(WIDE, rows=[])))
    assert "<summary>Wide (2 rows)</summary>" in page(Grid(WIDE, folded=True))
    assert str(prose("`a` and `b`")) == "<code>a</code> and <code>b</code>"


def test_a_print_shows_every_fold() -> None:
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    printed = style[style.index("@media print") :]
    assert "details::details-content { content-visibility: visible" in printed and "display: none; }" in printed
    assert "details { display: none" not in style and "max-height" not in style, "no row is hidden in a box of its own"
    assert "beforeprint" in (TEMPLATES / "script.js").read_text(encoding="utf-8"), "for browsers without ::details-content"
