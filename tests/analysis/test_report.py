"""The page: self-contained, every number from the tables, rendered by a real browser without errors, usable on a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import report
from analysis.inputs.sweep import read
from analysis.protocol.claims import gather
from analysis.verdict import judge
from jepa_ray import results
from tests.analysis import sweeps
from tests.analysis.sweeps import SEEDS

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """Collects tags that are not closed in order, ids, and everything that the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.faults: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        self.loaded += [str(found[name]) for name in ("src", "xlink:href") if found.get(name)]
        self.loaded += [str(found["href"])] if tag == "link" else []
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> out of order")


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = sweeps.full(tmp_path_factory.mktemp("results") / "full")
    assert report.main([str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report" / "index.html").read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_loads_nothing(page: str) -> None:
    found = outline(page)
    assert not found.faults and not found.open and found.scripts == 1
    assert len(found.ids) == len(set(found.ids)) > 50
    assert found.loaded and all(address.startswith(("#", "data:")) for address in found.loaded), found.loaded
    assert not re.search(r"@import|url\((?!#)", page)
    links = re.findall(r'<a href="([^"]+)"', page)
    assert links and all(link.startswith(("#", "..")) for link in links)
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    anchors = [link[1:] for link in links if link.startswith("#")]
    assert set(anchors) <= set(found.ids)


def test_the_outline_sees_faults() -> None:
    assert outline("<p><b>x</p></b>").faults and outline("<script></script>").scripts == 1
    assert outline('<img src="https://example.org/x.png">').loaded == ["https://example.org/x.png"]


def test_every_colour_of_a_figure_follows_light_and_dark(page: str) -> None:
    from analysis.figures import style

    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    used = set(re.findall(r"var\((--c[0-9a-f]{6})\)", drawn))
    assert len(used) > 5 and all(f"{name}: #" in page for name in used)
    assert not [colour for colour in (style.INK, style.FAINT, *style.GREYS, *style.METHODS) if colour in drawn]


def test_the_numbers_are_those_of_the_tables(page: str) -> None:
    text = re.sub(r"<[^>]+>", " ", page)
    assert "27: 15 search, 12 confirmation" in text and "24 complete, 2 cut early, 1 failed" in text
    assert "55.00 ± 5.00" in text  # JEPA over seeds 0.50, 0.60, 0.55
    assert "+6.00 ± 3.61" in text  # the paired difference 5, 10, 3
    assert "RuntimeError: out of memory" in text
    assert "&lt;x&gt;&amp;" in page and "<x>" not in page, "answers are escaped"


def test_each_plot_has_its_table_command_and_data(folder: Path, page: str) -> None:
    figures = re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL)
    assert len(figures) == 14
    drawn = [figure for figure in figures if "<svg" in figure]
    assert len(drawn) == 13, "all except the importance of knobs, which needs more trials"
    for figure in drawn:
        assert "<details>" in figure and re.search(r"python -m analysis\.(paper|figures\.forest) ", figure) and 'href="../' in figure
        for name in re.findall(r'href="\.\./([^"]+)"', figure):
            assert (folder / name).exists()


def test_each_table_has_its_command_and_data_behind_it(page: str) -> None:
    outside = re.sub(r"<(figure|article).*?</\1>", "", page, flags=re.DOTALL)
    tables = outside.split("</table></div>")
    assert len(tables) > 6
    for rest in tables[1:]:
        assert re.match(r'\s*<p class="origin"><code>python -m analysis\.\w+ .*?</code> · data: <a href="\.\./', rest), rest[:200]


def test_markdown_shows_its_images(folder: Path) -> None:
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    images = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(images) == 13 and all((folder / "report" / name).stat().st_size > 3000 for name in images)
    assert "55.00 ± 5.00" in text and "## Why this verdict" in text
    assert not set(text) & {"\ue000", "\ue001", "\ue002", "\ue003"}, "contains marks that are meant for the page"


def test_a_running_sweep_and_damaged_files_are_said_first(tmp_path: Path) -> None:
    folder = sweeps.full(tmp_path / "full")
    (folder / "scratch" / "abc").mkdir(parents=True)
    (folder / "scratch" / "abc" / "progress.json").write_text("{}")
    for table in ("trials", "metrics", "predictions"):
        for path in sorted((folder / table).glob("*.parquet"))[:2]:
            path.write_bytes(path.read_bytes()[:100])
    text = report_of(folder)
    warning = text[text.index('<ul class="warning">') :]
    assert text.index('<ul class="warning">') < text.index("<h1>") < text.index('<section id="seeds">')
    assert "the sweep is running or was interrupted" in warning and "2 of 27 files in trials/ cannot be read" in warning


def test_rows_of_single_steps_reach_no_figure_and_no_verdict(tmp_path: Path) -> None:
    """They depend on the clock, so nothing that is compared may read them."""
    folder = sweeps.full(tmp_path / "full")

    def shown() -> tuple[pd.DataFrame, str]:
        return read(folder).metrics, str([vars(verdict) for verdict in judge(gather(folder)).verdicts])

    before = shown()
    for path in (folder / "metrics").glob("*.parquet"):
        table = pq.read_table(path)
        steps = [
            {**table.to_pylist()[0], "step": 10**6, "epoch": 99.0, "split": "step", "name": name, "value": 1e9}
            for name in ("step_ce", "step_jepa")
        ]
        pq.write_table(pa.concat_tables([table, pa.Table.from_pylist(steps, schema=table.schema)]), path)
    after = shown()
    assert len(results.read_metrics(folder, filters=[("split", "==", "step")])) == 54
    pd.testing.assert_frame_equal(before[0], after[0])
    assert before[1] == after[1] and "verdict" in after[1]


def test_missing_tables_are_sentences(tmp_path: Path) -> None:
    folder = sweeps.full(tmp_path / "full")
    shutil.rmtree(folder / "metrics")
    shutil.rmtree(folder / "predictions")
    (folder / "sweep.yaml").unlink()
    text = report_of(folder)
    assert "metrics/ is missing" in text and "predictions/ contains no answers" in text and "sweep.yaml is missing" in text


def test_one_seed_and_no_trial_make_a_page(tmp_path: Path) -> None:
    for method in ("baseline", "jepa"):
        sweeps.add(tmp_path / "one", method, "confirm", 0.4, seed=SEEDS[0])
    assert "one seed only" in report_of(tmp_path / "one")
    (tmp_path / "none" / "trials").mkdir(parents=True)
    assert "No trial has ended yet." in report_of(tmp_path / "none")


def report_of(folder: Path) -> str:
    (index,) = report.write(folder, markdown=False)
    text = index.read_text(encoding="utf-8")
    assert not outline(text).faults
    return text


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_an_unknown_folder_is_one_sentence(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as ended:
        report.main([str(tmp_path / name)])
    assert ended.value.code == 2 and "name the folder of a sweep" in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (tmp_path / name / "report").exists()


# A real browser.

MEASURE = """<script>
addEventListener('load', () => {
  const drawings = [...document.querySelectorAll('figure svg')].filter(svg => svg.getClientRects().length).map(svg => {
    const box = svg.getBBox(), shapes = svg.querySelectorAll('path, use, rect, image').length;
    const area = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    const beyond = [...svg.querySelectorAll('text')].filter(text => {
      const one = text.getBoundingClientRect();
      return one.right > area.right + 1 || one.left < area.left - 1 || one.bottom > area.bottom + 1;
    }).map(text => text.textContent);
    return {shapes, texts: svg.querySelectorAll('text').length, filled: box.width / view.width, width: area.width, beyond,
      narrow: Boolean(svg.closest('.narrow'))};
  });
  const found = {drawings, page: document.documentElement.scrollWidth, window: innerWidth,
    ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor};
  parent.postMessage(JSON.stringify(found), '*');
});
</script>"""
WRAPPER = """<!doctype html><iframe src="measured.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe><pre id="out"></pre>
<script>addEventListener('message', event => { document.getElementById('out').textContent = event.data; });</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    pytest.skip("needs a Chromium (Debian: apt-get install chromium), and there is none")


def headless(browser: str, profile: Path, address: Path, *options: str) -> subprocess.CompletedProcess[str]:
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={profile}"]
    command = [browser, *fixed, "--virtual-time-budget=4000", *options, address.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def measured(browser: str, folder: Path, page: str, width: int, *options: str) -> dict[str, Any]:
    open_to_all = re.sub(r"<meta http-equiv=[^>]*>", "", page)  # the policy would refuse this script, too
    (folder / "measured.html").write_text(open_to_all.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    (folder / "wrapper.html").write_text(WRAPPER.replace("WIDTH", str(width)), encoding="utf-8")
    done = headless(browser, folder / "profile", folder / "wrapper.html", "--dump-dom", "--window-size=1400,1000", *options)
    assert not console(done), console(done)
    text = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert text and text.group(1), done.stderr[-2000:]
    found = json.loads(text.group(1))
    assert isinstance(found, dict) and found["window"] == width
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_renders_in_a_browser(browser: str, page: str, folder: Path, tmp_path: Path) -> None:
    done = headless(browser, tmp_path / "profile", folder / "report" / "index.html", "--dump-dom", "--window-size=1200,900")
    assert done.returncode == 0 and not console(done), done.stderr[-2000:]
    assert done.stdout.count("<svg") == 14, "the forest plot is drawn for both widths"
    shown = measured(browser, tmp_path, page, 1200)
    assert len(shown["drawings"]) == 13
    for drawing in shown["drawings"]:
        assert drawing["shapes"] > 10 and drawing["texts"] > 4 and drawing["filled"] > 0.7 and drawing["width"] > 500
        assert not drawing["beyond"], "the figure cuts off text"
    assert shown["page"] <= 1200


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_is_whole_on_a_phone_and_dark(browser: str, page: str, tmp_path: Path) -> None:
    phone = measured(browser, tmp_path, page, 360)
    assert phone["page"] <= 360, "the page itself must not scroll sideways"
    assert [drawing["narrow"] for drawing in phone["drawings"]].count(True) == 1, "the first screen has a drawing of its own"
    assert all(drawing["narrow"] or drawing["width"] >= 500 for drawing in phone["drawings"]), "the others scroll in their own box"
    dark = measured(browser, tmp_path, page, 360, "--blink-settings=preferredColorScheme=0")
    light = [brightness(phone[part]) for part in ("ink", "paper")]
    night = [brightness(dark[part]) for part in ("ink", "paper")]
    assert light[0] < 0.3 < 0.9 < light[1] and night[1] < 0.2 < 0.8 < night[0]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_browser_check_sees_a_planted_error(browser: str, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<!doctype html><script>console.error('planted')</script>")
    assert any("planted" in line for line in console(headless(browser, tmp_path / "profile", tmp_path / "bad.html", "--dump-dom")))


def brightness(colour: str) -> float:
    red, green, blue = (int(part) for part in re.findall(r"\d+", colour)[:3])
    return (red + green + blue) / 3 / 255
