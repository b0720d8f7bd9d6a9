"""The page of a report: whole, small, safe, legible, and its Python runs."""

from __future__ import annotations

import html
import importlib
import io
import re
import zlib
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils import Bunch

import sklearn_source
from sklearn_source import GradientSimilarity, InfluenceFunctions
from sklearn_source.inspection import attribution_report
from sklearn_source.inspection._report._data_uri import data_uri, encode_png
from sklearn_source.inspection._report._histogram import HEIGHT, WIDTH, histogram
from sklearn_source.inspection._report._key_words import KeyWords, marked
from sklearn_source.inspection._report._sentences import doubts, ends
from tests.inspection._known_scores import known
from tests.inspection._reports import Page, classes, numbers

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'
TEMPLATES = Path(sklearn_source.__file__).parent / "inspection" / "_report" / "templates"


@pytest.fixture(scope="module")
def problem():
    return classes()


@pytest.fixture(scope="module")
def report(problem):
    net, X, y, X_query, y_query = problem
    est = InfluenceFunctions(damping=0.1, random_state=0).fit(net, X, y)
    return attribution_report(est, X_query, y_query, target_names=["red", "green", "blue"])


def test_one_file_that_loads_nothing(report, tmp_path):
    path = report.save(tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert len(page) < 300_000
    assert not re.search(r"https?://|@import|url\(", page)
    parsed = Page(page)
    assert not parsed.of("link")
    assert all(image["src"].startswith("data:image/png;base64,") for image in parsed.of("img"))
    assert len(parsed.of("script")) == 1
    assert parsed.headings == [
        "What to do", "Groups behind the errors", "Training rows to look at", "Answers explained", "How to read this",
    ]  # fmt: skip


def test_a_folder_that_is_not_there_is_named(report, tmp_path):
    with pytest.raises(FileNotFoundError, match="in a folder that exists, got .*there is no .*absent"):
        report.save(tmp_path / "absent" / "report.html")


def test_sections_without_findings_are_hidden():
    est, X = known(np.zeros((3, 8)))
    page = Page(attribution_report(est, X).to_html())
    assert page.headings == ["Answers explained", "How to read this"]
    assert page.text.count("What to do") == page.text.count("Where rows are missing") == 0


def test_in_a_notebook(report):
    shown = report._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    parsed = Page(shown)
    (frame,) = parsed.of("iframe")
    assert [name for name, _ in parsed.elements] == ["iframe"]
    assert frame["srcdoc"] == report.to_html()
    assert frame["sandbox"] == "allow-scripts"


def test_nothing_of_the_users_becomes_markup(problem):
    net, X, y, X_query, y_query = problem
    est = GradientSimilarity().fit(net, X, y)
    options = {"title": EVIL, "target_names": [EVIL] * 3, "n_shown": 3}
    for kind in (
        {"feature_names": [EVIL] * 4},
        {"inverse_transform": lambda rows: [EVIL] * len(rows)},
    ):
        page = attribution_report(est, X_query, y_query, **options, **kind).to_html()
        parsed = Page(page)
        assert len(parsed.of("script")) == 1
        assert not any("onerror" in attributes or attributes.get("src") == "x" for _, attributes in parsed.elements)
        assert parsed.text.count("<script>alert") > 10


def test_unit_interval_and_sentence(report):
    text = Page(report.to_html()).text
    first = report.actions_.iloc[0] if hasattr(report.actions_, "iloc") else report.actions_[0]
    assert re.search(r"Predicted: [−+0].* errors of 30 held-out rows \(95% interval .* to .*\); mean loss", text)
    assert f"{first['n_rows']}" in text
    for words in ("(log-odds)", "95% interval over held-out rows", "by its presence, in log-odds", "errors of 30"):
        assert words in text


def test_rows_are_shown_as_what_they_are(problem):
    net, X, y, X_query, y_query = problem
    est = GradientSimilarity().fit(net, X, y)
    images = attribution_report(est, X_query, y_query, kind="image", n_shown=2)
    found = Page(images.to_html()).of("img")
    assert all("row" in image["alt"] for image in found)
    assert len(found) > 20
    words = ["alpha", "beta", "gamma", "delta"]
    texts = attribution_report(
        est, X_query, y_query, n_shown=2,
        inverse_transform=lambda rows: [f"the {words[int(r.argmax())]} of {abs(r[0]):.4f}" for r in rows],
    )  # fmt: skip
    assert "neighbours" not in Page(texts.to_html()).text
    assert Page(texts.to_html()).of("blockquote")
    tables = Page(attribution_report(est, X_query, y_query, feature_names=list("abcd"), n_shown=2).to_html())
    assert "standard deviations over the training rows" in tables.text


def test_rows_that_cannot_be_shown():
    rng = np.random.default_rng(0)
    est, X = known(rng.normal(size=(4, 12)))
    report = attribution_report(est, X, X_train=rng.normal(size=(12, 2, 2, 2, 2)))
    assert report.rows.kind is None or report.rows.kind == "table"
    page = Page(report.to_html())
    assert f"row {report.found.profile.queries[0].supporting[0][0]}" in page.text


def test_at_most_two_megabytes_and_some_hundred_rows():
    rng = np.random.default_rng(0)
    est, X = known(rng.normal(size=(60, 900)))
    noise = rng.random((900, 64, 64, 3)).astype(np.float32)
    shown = attribution_report(
        est,
        X,
        X_train=np.arange(900)[:, None],
        n_shown=30,
        inverse_transform=lambda rows: noise[np.asarray(rows)[:, 0].astype(int)],
    )
    page = shown.to_html()
    assert len(page.encode()) <= 2_000_000
    assert 200 < len(Page(page).of("img")) < 500


def test_the_python_runs(problem, report):
    _, _, _, X_query, y_query = problem
    blocks = re.findall(r"<code>(.*?)</code></pre>", report.to_html(), flags=re.DOTALL)
    names = {"est": report.question.estimator, "X_query": X_query, "y_query": y_query}
    setup = html.unescape(blocks[-1])
    exec(setup, names)  # noqa: S102
    assert len(blocks) >= 8
    for block in blocks[:-1]:
        exec(html.unescape(block), names)  # noqa: S102
    assert names["report"].actions_["n_rows"].tolist() == report.actions_["n_rows"].tolist()


def test_columns_can_be_sorted_and_rows_found(report):
    page = Page(report.to_html())
    assert len([b for b in page.of("button") if b.get("type") == "button"]) > 8
    rows = [row for row in page.of("tr") if "data-suggestion" in row]
    assert len(rows) == min(100, len(report.issues_))
    assert {row["data-suggestion"] for row in rows} == set(report.issues_["suggestion"])


def luminance(colour):
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def contrast(first, second):
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_contrast(mode):
    """Text at least 4.5 to 1 on both backgrounds, what is drawn 3 to 1: WCAG 2 AA."""
    css = (TEMPLATES / "report.css").read_text()
    blocks = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)]
    colours = {**blocks[0], **(blocks[1] if mode == "dark" else {})}
    for back in (colours["back"], colours["panel"]):
        for name in ("text", "muted", "link", "supporting", "opposing", "good"):
            assert contrast(colours[name], back) >= 4.5, name
        for name in ("neutral", "focus"):
            assert contrast(colours[name], back) >= 3, name
    assert contrast(colours["mark-text"], colours["mark"]) >= 4.5


def test_every_control_and_picture_has_a_name(report):
    page = Page(report.to_html())
    assert all(region.get("aria-label") for name, region in page.elements if region.get("role") in ("region", "img"))
    assert page.of("html")[0]["lang"] == "en"
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {a["href"][1:] for a in page.of("a")} <= ids
    assert {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a} <= ids


def test_without_jinja2(report, monkeypatch):
    known_import = importlib.import_module

    def absent(name, *args):
        if name == "jinja2":
            raise ModuleNotFoundError("No module named 'jinja2'")
        return known_import(name, *args)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match=r"pip install jinja2, or sklearn-source\[report\]"):
        report.to_html()
    assert report._repr_html_() is None
    assert len(report.issues_)


@pytest.mark.parametrize(
    ("errors", "loss", "expected"),
    [
        ((-3, -5, -1), (-0.2, -0.3, -0.1), []),
        ((-3, -7, 1), (-0.2, -0.3, -0.1), ["uncertain for errors: the interval holds 0"]),
        ((-3, -5, -1), (0.2, 0.1, 0.3), ["errors and loss are predicted to go opposite ways"]),
        ((np.nan,) * 3, (0.2, -0.1, 0.5), ["uncertain for the loss: the interval holds 0"]),
    ],
)
def test_what_speaks_against_a_prediction(errors, loss, expected):
    parts = ("change", "low", "high")
    columns = {f"errors_{part}": [value] for part, value in zip(parts, errors)}
    columns |= {f"loss_{part}": [value] for part, value in zip(parts, loss)}
    assert doubts(columns, 0) == expected


def test_the_first_number_has_its_interval_and_its_doubts(report):
    columns, page = report.found.actions, Page(report.to_html()).text
    _, low, high = (columns[f"errors_{part}"][0] for part in ("change", "low", "high"))
    assert f"errors ({ends(low, high)}), predicted of the best action" in page
    for i in range(len(columns["action"])):
        assert all(doubt in page for doubt in doubts(columns, i))
    caution = "one network: the chance of its training is in no standard error"  # of all actions: said once
    assert page.count(caution) == 1


@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3), (4, 4, 4)])
def test_png(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    data = encode_png(pixels)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    lines = np.frombuffer(zlib.decompress(data[start : start + length]), np.uint8).reshape(shape[0], -1)
    assert (lines[:, 0] == 0).all()
    np.testing.assert_array_equal(lines[:, 1:].reshape(shape), pixels)
    image = pytest.importorskip("matplotlib.image")
    np.testing.assert_array_equal(np.rint(image.imread(io.BytesIO(data)) * 255), pixels)


def test_large_images_are_averaged():
    image = np.kron(np.arange(6.0).reshape(2, 3), np.ones((10, 10)))
    data = b64decode(data_uri(image, (0.0, 5.0), 3).split(",")[1])
    start = data.index(b"IDAT") + 4
    lines = np.frombuffer(zlib.decompress(data[start:-16]), np.uint8).reshape(2, -1)
    np.testing.assert_array_equal(lines[:, 1:], np.rint(np.arange(6).reshape(2, 3) * 51))


def test_key_words():
    collection = KeyWords(["the cat sat", "the dog ran", "the cow stood"] * 20 + ["the volcano erupts"])
    assert collection.of(["the volcano erupts", "a volcano of the sea"]) == ["volcano"]
    assert collection.of(["the cat", "the dog"]) == []
    pieces = marked("A Volcano, seen", ["volcano"])
    assert pieces == [("A ", False), ("Volcano", True), (", seen", False)]


def test_histogram():
    counts = np.array([1, 0, 9, 3, 2])
    scores = np.array([-2.0] + [0.0] * 9 + [0.9] * 3 + [2.0] * 2)
    profile = Bunch(counts=counts, edges=np.linspace(-2, 2, 6), scores=scores)
    drawing = histogram(profile, 10.0, np.full(15, 0.5))
    assert [bar.side for bar in drawing.bars] == ["opposing", "zero", "supporting", "supporting"]
    assert max(bar.height for bar in drawing.bars) == HEIGHT
    assert drawing.noise.half == pytest.approx(9.8)
    assert drawing.noise.width == pytest.approx(0.49 * WIDTH, abs=0.1)
    assert (drawing.low, drawing.high) == (-20, 20)
    assert "9 rows" in drawing.bars[1].words
    assert drawing.noise.n_certain == 3
    assert histogram(profile, 1.0, None).noise is None


def test_regression_page():
    net, X, y, X_query, y_query = numbers()
    report = attribution_report(InfluenceFunctions(damping=0.1).fit(net, X, y), X_query, y_query)
    text = Page(report.to_html()).text
    assert "Of numbers, none is right or wrong" in text
    assert "mean loss of the held-out rows" in text
