"""What an InfluenceDisplay shows is what the scores say, whatever the rows are."""

from __future__ import annotations

import matplotlib.colors
import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from sklearn_source import AttributionEnsemble, GradientSimilarity
from sklearn_source.datasets import load_concrete
from sklearn_source.inspection import InfluenceDisplay
from sklearn_source.inspection._plot._influence_text import wrap_text
from sklearn_source.inspection._plot._matplotlib import OPPOSING, SUPPORTING


def texts(ax):
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("query", [0, 7, -1])
def test_digits_as_images(digits, query):
    est, X, y, X_query, y_query = digits
    display = InfluenceDisplay.from_estimator(
        est, X_query, y_query, X_train=X, y_train=y, query=query, k=4, kind="image", target_names=list("abcdefghij")
    )
    scores = est.transform(X_query, y_query)[query]
    order = np.argsort(scores, kind="stable")
    np.testing.assert_array_equal(display.supporting.indices, order[::-1][:4])
    np.testing.assert_array_equal(display.opposing.indices, order[:4])
    np.testing.assert_allclose(display.supporting.scores, scores[order[::-1][:4]], rtol=1e-5)
    shown = [ax.images[0].get_array() for ax in display.axes_]
    assert len(shown) == 1 + 4 + 4
    expected = [X_query[query], *X[display.supporting.indices], *X[display.opposing.indices]]
    for image, row in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(image, row.reshape(8, 8))
    for ax, index, score in zip(
        display.axes_[1:],
        [*display.supporting.indices, *display.opposing.indices],
        [*display.supporting.scores, *display.opposing.scores],
        strict=True,
    ):
        assert ax.get_xlabel() == f"row {index}\n{'abcdefghij'[y[index]]}"
        assert float(ax.get_title().replace("\N{MINUS SIGN}", "-")) == pytest.approx(
            score, abs=0.06 * abs(score) + 5e-5
        )
        colour = SUPPORTING if score > 0 else OPPOSING
        assert matplotlib.colors.same_color(ax.spines["top"].get_edgecolor(), colour)
    title = display.axes_[0].get_title()
    assert f"target: {'abcdefghij'[y_query[query]]}" in title
    assert f"predicted: {'abcdefghij'[est.net_.predict(X_query)[query]]}" in title
    assert display.headings()[0] == f"Raised the log-odds of {'abcdefghij'[y_query[query]]}"


def test_the_predicted_class_is_named_where_no_target_is_given(digits):
    est, X, _, X_query, _ = digits
    display = InfluenceDisplay.from_estimator(est, X_query[:1], X_train=X, kind="image", k=2)
    assert display.headings()[1] == f"Lowered the log-odds of {est.net_.predict(X_query[:1])[0]}"
    assert display.supporting.y is None


@pytest.mark.parametrize("name", ["3", "a name of two lines"])
@pytest.mark.parametrize("k", [2, 5, 9])
def test_images_are_close_to_their_heading(k, name):
    rng = np.random.default_rng(0)
    X = rng.random((30, 8, 8))
    options = {"y_train": [0] * 30, "target_names": [name], "k": k}
    display = InfluenceDisplay.from_predictions(rng.normal(size=(1, 30)), X[:1], X_train=X, **options)
    display.figure_.canvas.draw()
    points = 72 / display.figure_.dpi
    for heading, ax in zip(display.headings(), (display.axes_[1], display.axes_[1 + k])):
        line = next(text for other in display.figure_.axes for text in other.texts if text.get_text() == heading)
        gap = (line.get_window_extent().y0 - ax.title.get_window_extent().y1) * points
        assert -1 < gap < 10
    labels = [ax.xaxis.label.get_window_extent().y0 for ax in display.axes_[1 + k :]]
    assert 0 <= min(labels) * points < 36  # nothing cut, little left empty


@pytest.mark.parametrize(
    "shape",
    [(6, 5), (6, 5, 1), (1, 6, 5), (6, 5, 3), (3, 6, 5), (6, 5, 4)],
    ids=lambda shape: "x".join(map(str, shape)),
)
def test_images_of_all_layouts(shape):
    rng = np.random.default_rng(0)
    X = rng.random((8, *shape))
    display = InfluenceDisplay.from_predictions(rng.normal(size=(2, 8)), torch.as_tensor(X[:2]), X_train=X, k=2)
    assert display.kind == "image"
    for ax in display.axes_:
        assert ax.images[0].get_array().shape[:2] == (6, 5)
    if shape == (3, 6, 5):
        image = display.axes_[1].images[0].get_array()
        np.testing.assert_allclose(image, np.moveaxis(X[display.supporting.indices[0]], 0, -1))


@pytest.mark.parametrize("kind", ["image", "table", "text"])
def test_errors_stand_beside_their_scores(kind):
    rng = np.random.default_rng(0)
    X = {"image": rng.random((12, 6, 5)), "table": rng.random((12, 4))}.get(kind, np.array(["some words"] * 12))
    scores, errors = rng.normal(size=(3, 12)), rng.uniform(0.01, 0.2, size=(3, 12))
    display = InfluenceDisplay.from_predictions(
        scores, X[:3], X_train=X, query=1, k=3, kind=kind, errors=errors, scale=2.0, unit="MPa"
    )
    np.testing.assert_allclose(display.supporting.errors, 2 * errors[1][display.supporting.indices])
    assert display.headings()[0] == "Raised the measurement (MPa, ± standard error)"
    shown = [text for ax in display.figure_.axes for text in (*texts(ax), ax.get_title())]
    for group in (display.supporting, display.opposing):
        for score, error in zip(group.scores, group.errors):
            assert error == pytest.approx(2 * errors[1, np.flatnonzero(2 * scores[1] == score)[0]])
            numbers = [float(part.split()[0]) for text in shown for part in text.split("± ")[1:] if part[0].isdigit()]
            assert np.abs(np.array(numbers) - error).min() < 6e-3
    plain = InfluenceDisplay.from_predictions(scores, X[:3], X_train=X, query=1, k=3, kind=kind)
    assert plain.supporting.errors is None
    assert not any("±" in text for ax in plain.figure_.axes for text in (*texts(ax), ax.get_title()))
    with pytest.raises(ValueError, match=r"expected errors of the shape of the scores, \(3, 12\), got \(12,\)"):
        InfluenceDisplay.from_predictions(scores, X[:3], X_train=X, kind=kind, errors=errors[0])


def test_rows_in_another_order_are_not_drawn(digits):
    est, X, y, X_query, _ = digits
    order = np.random.default_rng(0).permutation(len(X))
    with pytest.raises(ValueError, match="in the order of fit, got the same rows in another"):
        InfluenceDisplay.from_estimator(est, X_query, X_train=X[order], y_train=y[order], kind="image")
    shown = InfluenceDisplay.from_estimator(est, X_query, X_train=X, y_train=(y + 1) % 10, k=1, kind="image")
    assert shown.supporting.y[0] == (y[shown.supporting.indices[0]] + 1) % 10


def test_errors_of_methods_that_know_them(digits):
    est, X, y, X_query, y_query = digits
    ensemble = AttributionEnsemble(GradientSimilarity(), n_members=3, nets=[est.net_] * 3)
    with pytest.warns(UserWarning, match="same"):
        ensemble.fit(est.net_, X, y)
    display = InfluenceDisplay.from_estimator(ensemble, X_query, y_query, X_train=X, k=2, kind="image")
    np.testing.assert_allclose(display.supporting.errors, 0.0, atol=1e-6)
    assert InfluenceDisplay.from_estimator(est, X_query, X_train=X, k=2, kind="image").opposing.errors is None


def test_concrete_as_a_table_in_its_own_units():
    X, y = load_concrete(return_X_y=True)
    X, y = X[:60], y[:60]
    scaler = StandardScaler().fit(X)
    names = load_concrete().feature_names
    scores = np.random.default_rng(0).normal(size=(2, 60))
    display = InfluenceDisplay.from_predictions(
        scores,
        scaler.transform(X[:2]),
        y[:2],
        X_train=scaler.transform(X),
        y_train=y,
        query=1,
        k=3,
        inverse_transform=scaler.inverse_transform,
        feature_names=names,
        target_names=["strength"],
        prediction=41.5,
        scale=2.0,
        unit="MPa",
    )
    assert display.kind == "table"
    top = np.argsort(-scores[1])[:3]
    np.testing.assert_array_equal(display.supporting.indices, top)
    np.testing.assert_allclose(display.supporting.scores, 2 * scores[1, top])
    drawn = texts(display.ax_)
    assert set(names) | {"score (MPa)", "strength", "predicted", "Raised the measurement (MPa)"} <= set(drawn)
    for row in top:
        assert str(row) in drawn
    cells = display.ax_.texts
    for j, name in enumerate(names):
        line = next(text.get_position()[1] for text in cells if text.get_text() == name)
        cells_of_line = [text for text in cells if text.get_position()[1] == line and text.get_text() != name]
        values = [float(text.get_text()) for text in sorted(cells_of_line, key=lambda text: text.get_position()[0])]
        expected = X[[1, *top, *np.argsort(scores[1])[:3]], j]
        np.testing.assert_allclose(values, expected, rtol=2e-3, atol=0.006)


def test_differences_are_shaded_by_the_spread_of_the_training_rows():
    X = np.array([[0.0, 1], [0, 2], [10, 3], [0, 4]])
    scores = np.array([[0.0, 1.0, 0.5, -1.0]])
    display = InfluenceDisplay.from_predictions(scores, X[:1], X_train=X, k=2)
    greys = {}
    for patch in display.ax_.patches:
        colour = patch.get_facecolor()
        if len({round(c, 6) for c in colour[:3]}) == 1:
            greys[patch.get_xy()] = colour[0]
    columns, lines = sorted({x for x, _ in greys}), sorted({y for _, y in greys})
    assert len(columns) == 3
    assert len(lines) == 2
    shade = np.array([[greys[x, y] for x in columns] for y in lines])
    assert shade[0, 0] == shade[0, 2] == 1.0  # equal to the query: white
    assert shade[0, 1] < 0.6  # 2.3 standard deviations away
    assert 1 > shade[1, 0] > shade[1, 1] > shade[1, 2]


def test_a_frame_with_words_and_gaps():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"cost in $": [1.0, np.nan, 3.5, 4], "kind": ["a", "b", "a very long category name", "a"]})
    scores = np.array([[0.1, 3.0, 2.0, 1.0]])
    display = InfluenceDisplay.from_predictions(scores, frame.iloc[[0]], X_train=frame, k=3)
    drawn = texts(display.ax_)
    assert {"cost in $", "kind", "b", "–", "3.5", "a very lon…"} <= set(drawn)
    assert "Lowered the measurement: no row" in drawn
    display.figure_.canvas.draw()  # a dollar sign is no formula


def test_wide_tables_show_the_features_that_differ_most():
    X = np.ones((5, 100))
    X[1:, [17, 80]] = np.arange(8).reshape(4, 2)
    X[1:, 3] = X[1:, 17] * 1e-3
    display = InfluenceDisplay.from_predictions(np.array([[0.0, 1, 2, -1, -2]]), X[:1], X_train=X, k=2)
    drawn = texts(display.ax_)
    assert {"x3", "x17", "x80"} <= set(drawn)
    assert sum(name.startswith("x") for name in drawn) == 30
    assert any("70 features that differ less" in text for text in drawn)


def test_texts_are_wrapped_and_shown_whole():
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "$x", "gamma", "delta_{1}", "é"]
    X = [" ".join(rng.choice(words, size=n)) for n in (5, 30, 60, 3, 400)] + [""]
    scores = np.array([[0.5, 0.4, 0.3, -0.2, -0.3, -0.1]])
    display = InfluenceDisplay.from_predictions(
        scores, [X[2]], np.array([1]), X_train=X, y_train=[0, 1, 0, 1, 1, 0], target_names=["ham", "spam"], k=3
    )
    assert display.kind == "text"
    drawn = texts(display.ax_)
    whole = " ".join(drawn)
    for i in range(4):
        assert " ".join(X[i].split()) in whole
    assert "query 0 · target: spam" in drawn
    assert "+0.50 · row 0 · ham" in drawn
    assert "\N{MINUS SIGN}0.30 · row 4 · spam" in drawn
    assert "(empty)" in drawn
    assert sum(line.endswith(" …") for line in drawn) == 1  # the longest one
    display.figure_.canvas.draw()
    bounds = display.figure_.bbox
    column = display.ax_.get_window_extent().width / 2
    for text in display.ax_.texts:
        box = text.get_window_extent()
        assert box.x1 <= bounds.x1 + 1
        assert box.y0 >= bounds.y0 - 1
        if box.x0 < column - 20 and not text.get_text().startswith("query") and text.get_text() not in X[2]:
            assert box.x1 <= column + 1  # the left column does not run into the right one


def test_wrapping():
    lines = wrap_text("one two three four five six seven", 60, 10, 3)
    assert len(lines) == 3
    assert lines[-1].endswith(" …")
    long = wrap_text("x" * 200, 100, 10, 50)
    assert "".join(long) == "x" * 200
    assert len(long) > 5
    assert len(wrap_text("x" * 100_000, 100, 10, 4)) == 4


def test_rows_from_dicts_through_inverse_transform():
    vocabulary = np.array(["the", "cat", "sat", "dog"])
    X = {"ids": np.array([[0, 1], [0, 3], [3, 2]]), "mask": np.ones((3, 2))}

    def decode(rows):
        return [" ".join(vocabulary[ids]) for ids in rows["ids"]]

    scores = np.array([[1.0, -1, 0], [0, 1, -1], [0, 0, 0]])
    display = InfluenceDisplay.from_predictions(scores, X, X_train=X, query=1, k=5, inverse_transform=decode)
    assert display.query.X == "the dog"
    assert list(display.supporting.X) == ["the dog"]
    assert list(display.opposing.X) == ["dog sat"]


def test_the_axes_given_are_used(plt, digits):
    est, X, y, X_query, _ = digits
    figure, axes = plt.subplots(1, 2, figsize=(14, 6), layout="constrained")
    display = InfluenceDisplay.from_estimator(est, X_query, X_train=X, y_train=y, k=3, kind="image", ax=axes[1])
    assert display.figure_ is figure
    assert display.ax_ is axes[1]
    figure.canvas.draw()
    assert all(ax.get_position().x0 > 0.45 for ax in display.axes_)
    assert not axes[1].axison  # it holds the others and shows no ticks of its own
    free = plt.figure().add_axes((0.5, 0.5, 0.5, 0.5))
    assert all(ax.get_position().y0 >= 0.49 for ax in display.plot(ax=free).axes_)
    size = tuple(figure.get_size_inches())
    table = InfluenceDisplay.from_estimator(est, X_query[:, :3].repeat(22, 1)[:, :64], X_train=X, k=2, ax=axes[0])
    assert table.axes_.tolist() == [axes[0]]
    assert tuple(figure.get_size_inches()) == size
    assert len(plt.get_fignums()) == 2


def test_methods_without_unit_promise_no_direction(digits):
    est, X, y, X_query, _ = digits
    method = GradientSimilarity().fit(est.net_, X, y)
    display = InfluenceDisplay.from_estimator(method, X_query, X_train=X, k=3, kind="image")
    assert display.headings() == ("Highest scores", "Lowest scores")
    assert len(display.opposing.indices) == 3


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": 0}, "expected k to be an integer >= 1"),
        ({"k": True}, "expected k to be an integer >= 1"),
        ({"query": 2}, "one of the 2 queries"),
        ({"query": 0.5}, "one of the 2 queries"),
        ({"kind": "sound"}, "expected kind to be"),
        ({"kind": "text"}, "expected strings"),
        ({"kind": "image"}, "expected rows of shape"),
        ({"scale": -1.0}, "expected scale to be a positive number"),
        ({"y_train": np.zeros(4)}, "y_train to have 5 rows"),
        ({"feature_names": ["a"]}, "expected 3 feature_names"),
        ({"scores": np.ones((2, 4))}, r"\(2, 5\)"),
        ({"scores": np.full((2, 5), np.nan)}, "finite scores"),
        ({"inverse_transform": lambda rows: rows[:, 0]}, "expected rows that can be shown"),
        ({"y_train": np.arange(5), "target_names": ["a", "b"]}, "no name for class 4"),
        ({"y_train": -np.ones(5, int), "target_names": ["a", "b"]}, "no name for class -1"),
        ({"ax": "here"}, "matplotlib Axes or None"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(plt, change, message):
    arguments = {"scores": np.arange(10.0).reshape(2, 5) + 1, "X_query": np.ones((2, 3)), "X_train": np.ones((5, 3))}
    with pytest.raises(ValueError, match=message):
        InfluenceDisplay.from_predictions(**{**arguments, **change})
    assert plt.get_fignums() == []


def test_rows_other_than_those_fitted_on_are_refused(plt, fitted):
    est, _, X, _ = fitted
    with pytest.raises(ValueError, match="X_train to have 64 rows"):
        InfluenceDisplay.from_estimator(est, X[:2], X_train=X[:10])
    assert plt.get_fignums() == []


def test_zeros_scaled_and_back_are_zeros():
    X = np.array([[-3.8e-6, 1], [-3.8e-6, 2], [-3.8e-6, 3], [50.0, 4]])
    display = InfluenceDisplay.from_predictions(
        np.array([[0.0, 2, -1, 0]]), X[:1], X_train=X, feature_names=["ash", "b"]
    )
    line = next(text.get_position()[1] for text in display.ax_.texts if text.get_text() == "ash")
    cells = [text.get_text() for text in display.ax_.texts if text.get_position()[1] == line]
    assert cells == ["ash", "0", "0", "0"]
