"""The page of a report in a real browser: it renders, sorts, filters and copies, and nothing complains."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from sklearn_source import GradientSimilarity
from sklearn_source.inspection import attribution_report
from tests.inspection._reports import classes

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium or Chrome on the path")

# What a reader would do, with the keyboard's events; what came of it becomes the title of the page.
READER = """
<script>
addEventListener("load", () => {
  const found = {evil: window.evil ?? null};
  const table = document.getElementById("issue-table");
  const shown = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
  const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.includes("Its loss"));
  const values = () => shown().map((row) => Number(row.cells[column].dataset.value));
  const button = table.tHead.rows[0].cells[column].querySelector("button");
  button.focus();
  found.focused = document.activeElement === button;
  button.click(); found.falling = values(); found.aria = button.parentElement.getAttribute("aria-sort");
  button.click(); found.rising = values();
  const form = document.querySelector("form[data-filters]"), select = form.elements.suggestion;
  select.value = select.options[1].value;
  form.dispatchEvent(new Event("input"));
  found.wanted = select.value; found.kinds = [...new Set(shown().map((row) => row.dataset.suggestion))];
  found.count = form.querySelector("output").textContent; found.n = shown().length;
  form.elements.words.value = "no such words anywhere"; form.dispatchEvent(new Event("input"));
  found.none = shown().length;
  const copy = document.querySelector(".code button");
  found.copyable = !copy.hidden; copy.click();
  const box = document.querySelector("main").getBoundingClientRect();
  found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.drawn = box.height > 1000; found.back = getComputedStyle(document.body).backgroundColor;
  found.pictures = [...document.images].every((image) => image.complete && image.naturalWidth > 0);
  document.title = "FOUND" + JSON.stringify(found) + "DNUOF";
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    net, X, y, X_query, y_query = classes()
    names = ["red", "<script>window.evil = 1</script>", "<img src=x onerror='window.evil = 2'>"]
    report = attribution_report(
        GradientSimilarity().fit(net, X, y),
        X_query,
        y_query,
        kind="image",
        target_names=names,
        title=names[1],
        n_shown=3,
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.to_html().replace("</body>", f"{READER}</body>"), encoding="utf-8")
    return path


def visit(page, profile, *options):
    """What the reader found, and what the browser's console said."""
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--virtual-time-budget=3000", f"--user-data-dir={profile}", *options, "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    title = re.search(r"FOUND(\{.*?\})DNUOF", done.stdout)
    assert title, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(title[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")), [
        line for line in done.stderr.splitlines() if "CONSOLE" in line
    ]


def test_it_renders_sorts_filters_and_runs_nothing_foreign(page, tmp_path):
    found, console = visit(page, tmp_path, "--window-size=1100,900")
    assert console == []
    assert found["evil"] is None
    assert found["focused"]
    assert found["falling"] == sorted(found["falling"], reverse=True)
    assert found["rising"] == sorted(found["rising"])
    assert len(set(found["rising"])) > 3
    assert found["aria"] == "descending"
    assert found["kinds"] == [found["wanted"]]
    assert found["count"].startswith(f"{found['n']} of {len(found['rising'])} rows")
    assert found["none"] == 0
    assert found["copyable"]
    assert found["drawn"]
    assert found["pictures"]
    assert found["back"] == "rgb(255, 255, 255)"


def test_dark_and_narrow(page, tmp_path):
    found, console = visit(page, tmp_path, "--window-size=420,800", "--blink-settings=preferredColorScheme=0")
    assert console == []
    assert found["back"] == "rgb(20, 23, 28)"
    assert found["wide"] <= 1  # tables scroll in their own frame
