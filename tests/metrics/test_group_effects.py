"""Predicted against retrained changes of groups: closed forms, regressions by scipy, intervals in simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress, pearsonr, spearmanr, t
from sklearn.utils import Bunch

from sklearn_source import SourceAttribution
from sklearn_source.metrics import (
    first_order_change,
    group_effect_score,
    linear_datamodeling_difference,
    linear_datamodeling_score,
    top_k_removals,
)
from sklearn_source.retraining import retrain_on_subsets, retrain_without
from tests._nets import make_net
from tests.metrics._worlds import RidgeWorld, SkewedWorld

N = 24


def halves(rng, n_subsets=30, n_train=N):
    return np.argsort(rng.random((n_subsets, n_train)), axis=1) < n_train // 2


def removal_truth(effects, removed, rng=None, noise=0.0, n_repeats=1):
    """A truth of what scores predict, and noise, for a dict of groups removed."""
    masks = np.ones((1 + len(removed), effects.shape[1]), dtype=bool)
    for mask, rows in zip(masks[1:], removed.values()):
        mask[rows] = False
    outputs = 3.0 + first_order_change(effects, masks)[:, None].repeat(n_repeats, axis=1)
    outputs = outputs + (noise * rng.normal(size=outputs.shape) if rng is not None else 0.0)
    return Bunch(masks=masks, outputs=outputs, names=["all", *map(str, removed)])


@pytest.fixture
def effects():
    return np.random.default_rng(0).normal(size=(5, N))


# --- the prediction -------------------------------------------------------------------------------


def test_first_order_of_subsets_and_of_removals_by_loops(effects):
    masks = np.random.default_rng(1).random((12, N)) < 0.7
    found = first_order_change(effects, masks)
    for j, mask in enumerate(masks):
        kept, removed = np.flatnonzero(mask), np.flatnonzero(~mask)
        for q in range(5):
            subset = N / len(kept) * effects[q, kept].sum() - effects[q].sum()
            removal = -effects[q, removed].sum() + len(removed) / (N - len(removed)) * effects[q, kept].sum()
            assert found[j, q] == pytest.approx(subset)
            assert found[j, q] == pytest.approx(removal)
    np.testing.assert_allclose(first_order_change(effects, np.ones((1, N), bool)), 0, atol=1e-12)
    plain = first_order_change(effects, masks, renormalize=False)
    np.testing.assert_allclose(plain, -(~masks @ effects.T))


def ridge(X, y, weights, X_query, penalty=0.1):
    """Predictions of the minimum of the weighted squared errors and a penalty of fixed size."""
    moments = (weights[:, None] * X).T @ X + penalty * np.eye(X.shape[1])
    return X_query @ np.linalg.solve(moments, X.T @ (weights * y))


def ridge_scores(X, y, X_query, penalty=0.1):
    """The derivative by the weight of each row, by finite differences."""
    n, scores = len(X), np.empty((len(X_query), len(X)))
    for m in range(n):
        step = 1e-4 * (np.arange(n) == m) / n
        up, down = (ridge(X, y, 1 / n + sign * step, X_query, penalty) for sign in (1, -1))
        scores[:, m] = (up - down) / 2e-4
    return scores


def test_first_order_is_the_derivative_along_the_way_from_all_rows_to_the_subset():
    rng = np.random.default_rng(2)
    X, y, X_query = rng.normal(size=(N, 3)), rng.normal(size=N), rng.normal(size=(4, 3))
    masks = rng.random((6, N)) < 0.6
    found = first_order_change(ridge_scores(X, y, X_query), masks)
    for mask, change in zip(masks, found):
        way = mask / mask.sum() - 1 / N
        up, down = (ridge(X, y, 1 / N + sign * 1e-4 * way, X_query) for sign in (1, -1))
        np.testing.assert_allclose(change, (up - down) / 2e-4, rtol=1e-5, atol=1e-8)


# --- the slope ------------------------------------------------------------------------------------


def test_exact_scores_have_slope_one_for_halves_and_for_removals():
    """The mean of some values: a model for which first order is all there is."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, N))
    scores = (values - values.mean(axis=1, keepdims=True)) / N
    removed = {**top_k_removals(scores, [1, 3, 6], n_random=4), "random 9 0": np.arange(9)}
    without = np.ones((1 + len(removed), N), bool)
    for mask, rows in zip(without[1:], removed.values()):
        mask[rows] = False
    for masks, names in ((halves(rng), None), (rng.random((20, N)) < 0.5, None), (without, ["all", *removed])):
        outputs = np.stack([values[:, mask].mean(axis=1) for mask in masks])[:, None]
        found = group_effect_score(scores, Bunch(masks=masks, outputs=outputs, names=names))
        assert found.slope == pytest.approx(1)
        assert found.slope_interval == pytest.approx((1, 1))
        assert found.correlation == pytest.approx(1)
        assert found.rank_correlation == pytest.approx(1)
        np.testing.assert_allclose(found.per_query_slope, 1)
        np.testing.assert_allclose(found.retrained, found.predicted, atol=1e-12)
    assert found.own_groups
    assert found.intercept == pytest.approx(0, abs=1e-12)
    assert found.random.slope == pytest.approx(1)
    assert not found.random.own_groups
    assert list(found.by_size.n_removed) == [1, 3, 6]
    assert list(found.random.by_size.n_removed) == [1, 3, 6, 9]
    assert found.measurement is None


def test_slope_of_a_ridge_regression_is_what_its_leverage_says():
    """A single row of leverage l moves by 1 / (1 - l) more than first order says (with the weights 1/N kept)."""
    rng = np.random.default_rng(3)
    X, y, X_query = rng.normal(size=(N, 3)), rng.normal(size=N), rng.normal(size=(4, 3))
    scores = ridge_scores(X, y, X_query)
    masks = np.vstack([np.ones((1, N), bool), ~np.eye(N, dtype=bool)])
    outputs = np.stack([ridge(X, y, mask / N, X_query) for mask in masks])[:, None]
    truth = Bunch(masks=masks, outputs=outputs, settings={"renormalize": False})
    leverage = np.einsum("ni,ij,nj->n", X, np.linalg.inv(X.T @ X / N + 0.1 * np.eye(3)), X) / N
    for m in range(N):
        found = group_effect_score(scores, truth, queries=np.where(np.arange(N) == m, 2, -1))
        assert found.slope == pytest.approx(1 / (1 - leverage[m]), rel=1e-5)
        assert found.retrained[0] == pytest.approx(outputs[1 + m, 0, 2] - outputs[0, 0, 2])


def test_a_linear_network_trained_again_has_slope_one_in_every_convention():
    """Up to the leverage of the groups, which makes the slope grow with their size."""
    rng = np.random.default_rng(0)
    X, X_query = (rng.normal(size=(n, 3)).astype(np.float32) for n in (120, 6))
    y = (X @ [[1.0], [-2.0], [0.5]] + 0.5 * rng.normal(size=(120, 1))).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make_net(module__hidden=(), max_epochs=50, batch_size=-1, lr=0.1).fit(X, y)
    scores = SourceAttribution(curvature="exact", n_segments=3).fit(net, X, y).transform(X_query)
    random_halves = retrain_on_subsets(net, X, y, X_query, n_subsets=30, random_state=0)
    assert group_effect_score(scores, random_halves).slope == pytest.approx(1, abs=0.15)
    removed = top_k_removals(scores, [2, 12], n_random=6)
    for renormalize in (True, False):
        truth = retrain_without(net, X, y, X_query, removed=removed, random_state=0, renormalize=renormalize)
        found = group_effect_score(scores, truth)
        few, many = found.by_size.slope
        assert 0.97 < few < 1.15 < many < 1.5
        assert found.random.slope == pytest.approx(1.08, abs=0.12)
        assert found.intercept == pytest.approx(0, abs=0.02)


def test_halves_are_regressed_about_the_mean_of_each_query(effects):
    rng = np.random.default_rng(1)
    masks = halves(rng)
    truth = Bunch(masks=masks, outputs=first_order_change(effects, masks)[:, None] + rng.normal(size=(30, 2, 5)))
    found = group_effect_score(effects / 3, truth)
    predicted, measured = first_order_change(effects / 3, masks), truth.outputs.mean(axis=1)
    for q in range(5):
        line = linregress(predicted[:, q], measured[:, q])
        assert found.per_query_slope[q] == pytest.approx(line.slope)
        assert found.per_query_correlation[q] == pytest.approx(line.rvalue)
        assert found.per_query_rank_correlation[q] == pytest.approx(spearmanr(predicted, measured).statistic[q, 5 + q])
    design = np.column_stack([predicted.T.ravel(), np.kron(np.eye(5), np.ones((30, 1)))])  # an intercept for each query
    solution = np.linalg.lstsq(design, measured.T.ravel(), rcond=None)[0]
    assert found.slope == pytest.approx(solution[0])
    assert found.intercept == pytest.approx(solution[1:].mean())
    assert np.corrcoef(found.predicted, found.retrained)[0, 1] > 0.5
    assert found.slope == pytest.approx(linregress(found.predicted, found.retrained).slope)
    assert list(found.query[:7]) == [0, 1, 2, 3, 4, 0, 1]
    assert found.correlation == pytest.approx(found.per_query_correlation.mean())
    assert found.random is None
    assert np.isnan(found.by_size.retrained).all()
    lds = linear_datamodeling_score(effects / 3, truth, n_bootstrap=2)
    assert lds.score == pytest.approx(found.rank_correlation)
    assert (lds.slope, lds.slope_interval) == (found.slope, found.slope_interval)


def test_own_groups_are_regressed_through_the_origin_over_their_own_queries(effects):
    rng = np.random.default_rng(1)
    removed = top_k_removals(effects, [2, 5], n_random=0)
    truth = removal_truth(effects, removed, rng, noise=1.0, n_repeats=3)
    found = group_effect_score(effects / 2, truth)
    query = np.array([int(name.split()[1]) for name in removed])
    predicted = first_order_change(effects / 2, truth.masks[1:])[np.arange(10), query]
    changes = truth.outputs.mean(axis=1)
    retrained = (changes[1:] - changes[0])[np.arange(10), query]
    slope = np.linalg.lstsq(predicted[:, None], retrained, rcond=None)[0][0]
    assert found.slope == pytest.approx(slope)
    assert found.intercept == pytest.approx((retrained - slope * predicted).mean())
    assert found.correlation == pytest.approx(pearsonr(predicted, retrained).statistic)
    assert found.rank_correlation == pytest.approx(spearmanr(predicted, retrained).statistic)
    np.testing.assert_allclose(found.predicted, predicted)
    np.testing.assert_allclose(found.retrained, retrained)
    np.testing.assert_array_equal(found.query, query)
    np.testing.assert_array_equal(found.n_removed, np.repeat([2, 5], 5))
    for i, size in enumerate((2, 5)):
        own = found.n_removed == size
        assert found.by_size.slope[i] == pytest.approx((predicted * retrained)[own].sum() / (predicted[own] ** 2).sum())
        assert found.by_size.predicted[i] == pytest.approx(predicted[own].mean())
        assert found.by_size.retrained[i] == pytest.approx(retrained[own].mean())
    for q in range(5):
        own = query == q
        assert found.per_query_slope[q] == pytest.approx(
            (predicted * retrained)[own].sum() / (predicted[own] ** 2).sum()
        )
    by_number = Bunch(masks=truth.masks, outputs=truth.outputs)
    assert group_effect_score(effects / 2, by_number, queries=query).slope == found.slope
    assert group_effect_score(effects / 2, by_number).own_groups is False  # no names: all count for every query


def test_predictions_in_place_of_scores(effects):
    rng = np.random.default_rng(1)
    truth = removal_truth(effects, top_k_removals(effects, [2, 5]), rng, noise=1.0)
    changes = first_order_change(effects, truth.masks)
    expected = group_effect_score(effects, truth)
    for predicted in (changes, changes[1:], changes.tolist()):
        found = group_effect_score(None, truth, predicted=predicted)
        assert found.slope == expected.slope
        assert found.random.slope == expected.random.slope
    masks = halves(rng)
    truth = Bunch(masks=masks, outputs=first_order_change(effects, masks)[:, None] + rng.normal(size=(30, 2, 5)))
    changes, options = first_order_change(effects, masks), {"n_bootstrap": 20}
    one = linear_datamodeling_score(effects, truth, **options)
    two = linear_datamodeling_score(None, truth, predicted=changes, **options)
    assert two.score == pytest.approx(one.score)
    assert two.slope == one.slope
    found = linear_datamodeling_difference(None, effects, truth, predicted=changes**3, **options)
    assert found.difference == pytest.approx(0, abs=1e-12)  # ranks alone count
    found = linear_datamodeling_difference(None, effects, truth, predicted=-changes, **options)
    assert found.difference == pytest.approx(-2 * one.score)


@settings(max_examples=25, deadline=None)
@given(
    factor=st.floats(1e-6, 1e6),
    sign=st.sampled_from([-1, 1]),
    own=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_scaled_scores_divide_the_slope_and_the_order_of_groups_and_rows_changes_nothing(factor, sign, own, seed):
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(4, N))
    removed = top_k_removals(effects, [2, 6], n_random=0 if own else 4)
    if not own:
        removed = {name: rows for name, rows in removed.items() if name.startswith("random")}
    truth = removal_truth(effects, removed, rng, noise=0.5, n_repeats=2)
    expected = group_effect_score(effects, truth)
    scaled = group_effect_score(sign * factor * effects, truth)
    assert scaled.slope == pytest.approx(expected.slope / (sign * factor), rel=1e-7)
    ends = sorted(end / (sign * factor) for end in expected.slope_interval)
    assert scaled.slope_interval == pytest.approx(tuple(ends), rel=1e-5)
    assert scaled.correlation == pytest.approx(sign * expected.correlation)
    assert scaled.rank_correlation == pytest.approx(sign * expected.rank_correlation)
    order, rows = rng.permutation(len(truth.masks)), rng.permutation(N)
    turned = Bunch(
        masks=truth.masks[order][:, rows], outputs=truth.outputs[order], names=[truth.names[i] for i in order]
    )
    found = group_effect_score(effects[:, rows], turned)
    for name in ("slope", "intercept", "correlation", "rank_correlation"):
        assert found[name] == pytest.approx(expected[name], abs=1e-9)
        if name != "intercept":
            assert found[f"{name}_interval"] == pytest.approx(expected[f"{name}_interval"], abs=1e-7)
    np.testing.assert_allclose(found.by_size.slope, expected.by_size.slope)


# --- intervals ------------------------------------------------------------------------------------


def test_intervals_are_jackknives_over_queries_and_groups_by_hand(effects):
    rng = np.random.default_rng(1)
    masks = halves(rng, 12)
    truth = Bunch(masks=masks, outputs=first_order_change(effects, masks)[:, None] + 3 * rng.normal(size=(12, 1, 1)))
    predicted, measured = first_order_change(effects, masks), truth.outputs[:, 0]

    def variance(values):
        return (len(values) - 1) * np.var(values, axis=0)

    def numbers(pairs):
        """Slope and correlations, from a list of what is left of each query."""
        centred = [(p - p.mean(), m - m.mean()) for p, m in pairs]
        slope = sum((p * m).sum() for p, m in centred) / sum((p * p).sum() for p, _ in centred)
        return np.array(
            [
                slope,
                np.mean([pearsonr(*c).statistic for c in centred]),
                np.mean([spearmanr(*c).statistic for c in pairs]),
            ]
        )

    every = list(zip(predicted.T, measured.T))
    queries = variance([numbers([pair for i, pair in enumerate(every) if i != q]) for q in range(5)])
    fewer = [[(np.delete(p, g), np.delete(m, g)) for p, m in every] for g in range(12)]
    groups = variance([numbers(pairs) for pairs in fewer])
    own = sum(
        variance([numbers([fewer[g][i] if i == q else pair for i, pair in enumerate(every)]) for g in range(12)])
        for q in range(5)
    )
    reach = t.ppf(0.9, 4) * np.sqrt(queries + np.maximum(0, groups - own))
    assert (groups > own).all()  # the noise is common to all queries
    found = group_effect_score(effects, truth, confidence=0.8)
    for value, name, far in zip(numbers(every), ("slope", "correlation", "rank_correlation"), reach):
        assert found[name] == pytest.approx(value)
        low, high = found[f"{name}_interval"]
        assert low == pytest.approx(value - far)
        assert high == pytest.approx(min(value + far, np.inf if name == "slope" else 1.0))


def test_intervals_of_own_groups_are_jackknives_over_queries_by_hand(effects):
    rng = np.random.default_rng(1)
    removed = top_k_removals(effects, [2, 5, 8], n_random=0)
    truth = removal_truth(effects, removed, rng, noise=2.0)
    found = group_effect_score(effects, truth)
    without = []
    for q in range(5):
        left = np.array([name == "all" or f"query {q} " not in name for name in truth.names])
        fewer = Bunch(masks=truth.masks[left], outputs=truth.outputs[left], names=list(np.array(truth.names)[left]))
        one = group_effect_score(effects, fewer)
        without.append([one.slope, one.correlation, one.rank_correlation])
    reach = t.ppf(0.975, 4) * np.sqrt(4 * np.var(without, axis=0))
    for name, far in zip(("slope", "correlation", "rank_correlation"), reach):
        low, high = found[f"{name}_interval"]
        assert low == pytest.approx(max(found[name] - far, -np.inf if name == "slope" else -1))
        assert high == pytest.approx(min(found[name] + far, np.inf if name == "slope" else 1))


def coverage(draw, n_worlds):
    """Share of the intervals that hold the expected value, and their width in standard deviations, by number."""
    names = ("slope", "correlation", "rank_correlation")
    found = [group_effect_score(*draw(np.random.default_rng(seed))) for seed in range(n_worlds)]
    values = np.array([[one[name] for name in names] for one in found])
    low, high = (np.array([[one[f"{name}_interval"][end] for name in names] for one in found]) for end in (0, 1))
    expected = values.mean(axis=0)
    return ((low <= expected) & (expected <= high)).mean(axis=0), (high - low).mean(axis=0) / values.std(axis=0)


@pytest.mark.parametrize(
    "world, shape",
    [
        (RidgeWorld(0), (30, 15, 3)),
        (RidgeWorld(1, n_clusters=3), (20, 25, 1)),
        (RidgeWorld(2, penalty=3.0, start=0.05), (40, 8, 2)),
    ],
)
def test_intervals_of_halves_cover_at_their_nominal_rate(world, shape):
    """Three standard errors of 200 worlds are .046."""
    rates, widths = coverage(lambda rng: world.draw(rng, *shape)[:2], 200)
    assert ((rates >= 0.90) & (rates <= 0.99)).all()
    assert (widths < 1.25 * 2 * t.ppf(0.975, min(shape[:2]) - 1)).all()


def test_the_interval_of_the_slope_is_too_narrow_where_few_queries_hold_most():
    """Effects that grow like sinh: what the docstring warns of, and that correlations do not mind."""
    rates, _ = coverage(lambda rng: SkewedWorld(2).draw(rng, 40, 8, 2)[:2], 100)
    assert 0.6 < rates[0] < 0.9
    assert (rates[1:] > 0.86).all()


@pytest.mark.parametrize("n_query", [6, 25])
def test_intervals_of_own_groups_cover_at_their_nominal_rate(n_query):
    """Queries of unlike size and noise, each with its top supporters by scores that err."""

    def draw(rng):
        effects = np.exp(0.3 * rng.normal(size=(n_query, 1))) * rng.standard_t(5, size=(n_query, N))
        scores = effects + 0.5 * rng.normal(size=effects.shape)
        return scores, removal_truth(effects, top_k_removals(scores, [1, 3], n_random=0), rng, noise=1.0)

    rates, _ = coverage(draw, 200)
    assert ((rates >= 0.89) & (rates <= 0.99)).all()


def test_noise_of_retraining_does_not_pull_the_slope_and_noise_of_scores_does():
    rng, slopes, noisy = np.random.default_rng(0), [], []
    for _ in range(200):
        effects, masks = rng.normal(size=(4, N)), halves(rng, 20)
        changes = first_order_change(effects, masks)
        truth = Bunch(masks=masks, outputs=changes[:, None] + 3 * changes.std() * rng.normal(size=(20, 1, 4)))
        slopes.append(group_effect_score(effects, truth).slope)
        noisy.append(group_effect_score(effects + rng.normal(size=effects.shape), truth).slope)
    assert np.mean(slopes) == pytest.approx(1, abs=4 * np.std(slopes) / np.sqrt(200))
    assert np.mean(noisy) == pytest.approx(0.5, abs=4 * np.std(noisy) / np.sqrt(200))


# --- what cannot be told, and what is refused -----------------------------------------------------


def test_what_cannot_be_told_is_nan(effects):
    rng = np.random.default_rng(0)
    masks = halves(rng)
    truth = Bunch(masks=masks, outputs=rng.normal(size=(30, 1, 5)))
    found = group_effect_score(0 * effects, truth)
    assert np.isnan([found.slope, *found.slope_interval, found.intercept]).all()
    assert found.correlation == found.rank_correlation == 0
    one = group_effect_score(effects[:1], Bunch(masks=masks, outputs=truth.outputs[:, :, :1]))
    assert one.slope_interval[0] < one.slope < one.slope_interval[1]
    removed = top_k_removals(effects[:1], [2, 5, 7], n_random=0)
    alone = group_effect_score(effects[:1], removal_truth(effects[:1], removed))
    assert alone.slope == pytest.approx(1)
    assert np.isnan(alone.slope_interval).all()
    sizes = group_effect_score(
        effects, Bunch(masks=rng.random((5, N)) < np.linspace(0.2, 0.8, 5)[:, None], outputs=truth.outputs[:5])
    )
    lonely = sizes.by_size.n_groups == 1
    assert lonely.any()
    assert np.isnan(sizes.by_size.correlation[lonely]).all()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s, t: (s.T, t), "expected scores of shape"),
        (lambda s, t: (None, t), "either scores or predicted changes, got neither"),
        (lambda s, t: (s, Bunch(masks=t.masks[:3], outputs=t.outputs[:3])), "at least 3 subsets that lack rows, got 2"),
        (lambda s, t: (s, Bunch(masks=t.masks & False, outputs=t.outputs)), "rows in every subset"),
        (
            lambda s, t: (s, Bunch(masks=t.masks[1:], outputs=t.outputs[1:], names=t.names[1:])),
            "make it with retrain_without",
        ),
        (
            lambda s, t: (s[:2], Bunch(masks=t.masks, outputs=t.outputs[:, :, :2], names=t.names)),
            "groups named for the 2 queries",
        ),
    ],
)
def test_bad_input(effects, change, message):
    with pytest.raises(ValueError, match=message):
        group_effect_score(*change(effects, removal_truth(effects, top_k_removals(effects, 3))))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"predicted": np.zeros((11, 5))}, "got both"),
        ({"queries": [0, 1]}, "queries as 10 integers"),
        ({"confidence": 95}, "confidence"),
    ],
)
def test_bad_options(effects, options, message):
    with pytest.raises(ValueError, match=message):
        group_effect_score(effects, removal_truth(effects, top_k_removals(effects, 3)), **options)


@pytest.mark.parametrize(
    "predicted, message",
    [(np.zeros((5, 11)), r"\(n_subsets, n_query\) = \(11, 5\)"), (np.full((11, 5), np.nan), "finite")],
)
def test_bad_predictions(effects, predicted, message):
    with pytest.raises(ValueError, match=message):
        group_effect_score(None, removal_truth(effects, top_k_removals(effects, 3)), predicted=predicted)


def test_masks_of_other_kinds_are_refused(effects):
    for masks in (np.ones((2, N)), np.ones((2, N - 1), bool), np.ones(N, bool)):
        with pytest.raises(ValueError, match="masks as booleans"):
            first_order_change(effects, masks)


def test_no_subset_has_no_change():
    assert first_order_change(np.ones((3, 4)), np.zeros((0, 4), dtype=bool)).shape == (0, 3)
