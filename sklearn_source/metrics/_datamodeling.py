"""The linear datamodeling score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from ..utils._argument_checks import check_confidence, check_count
from ..utils._random import generator_of
from ._agreement import slope_of_tables
from ._first_order import predicted_changes, subset_sums
from ._intervals import student_interval
from ._ranks import column_spearman, resampled_spearman, resamples
from ._score_validation import check_scores, check_truth

_N_SPLITS = 20  # random halves of the repeats that the reliability is averaged over


def linear_datamodeling_score(
    scores: ArrayLike | None,
    truth: Any,
    *,
    predicted: ArrayLike | None = None,
    confidence: float = 0.95,
    n_bootstrap: int = 1000,
    random_state: int | np.random.RandomState | None = 0,
) -> Bunch:
    """How well sums of scores predict what networks retrained on subsets of the rows put out.

    For subset :math:`S_j` scores predict the output of query q to vary as :math:`\\sum_{m \\in S_j} \\tau[q, m]`. The
    score is the mean over queries of the Spearman correlation, over subsets, of that sum with what was measured.

    Read more in the :ref:`User Guide <linear_datamodeling>`.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train) or None
        From ``transform``; positive: having the row raises the query's measurement. Their unit does not matter.
    truth : Retraining
        From :func:`~sklearn_source.retraining.retrain_on_subsets` with the same queries, training rows and measurement.
        Anything with ``masks`` (n_subsets, n_train) and ``outputs`` (n_subsets, n_repeats, n_query) will do.
    predicted : array-like of shape (n_subsets, n_query), optional
        In place of scores: how far the measurement goes on each subset, predicted otherwise than by a sum of scores.
    confidence : float, default=0.95
        Of the interval.
    n_bootstrap : int, default=1000
        Resamples behind the interval.
    random_state : int, RandomState instance or None, default=0
        For the resamples, and the halves of the repeats.

    Returns
    -------
    result : Bunch
        score : float
            From -1 to 1; without unit. Scores that are noise give 0.
        interval : tuple of float
            Bootstrap interval, over subsets and queries, of the expected score: the mean of what as many other subsets,
            retrained as often, and other queries of the same kind would give. Of a single query: over subsets alone.
        ceiling : float
            What perfect scores would reach: the outputs averaged over few repeats still hold the chance of
            initialisation and batch order. The square root of their reliability, from the correlation of the means of
            two halves of the repeats (averaged over random halves) by the Spearman-Brown formula, for an odd number of
            repeats Horst's [3]_; mean over queries. All correlations are by rank, translated as for normal variables
            (at most 0.02 apart). NaN with a single repeat.
        per_query : ndarray of shape (n_query,)
            The correlation of each query; 0 where scores or outputs do not vary.
        per_query_ceiling : ndarray of shape (n_query,)
            The ceiling of each query.
        slope, slope_interval : float, tuple of float
            What :func:`group_effect_score` says of the size of scores that have a unit: 1 is right, below 1 they are
            too large. All subsets count for every query.

    Raises
    ------
    ValueError
        If shapes differ, something is not finite, or there are fewer than 3 subsets.

    Notes
    -----
    The interval is the score plus and minus Student quantiles of its standard error, in which the chance that both the
    subsets and the queries bring is counted once; degrees of freedom are those of the fewer, subsets or queries. It
    takes the scores as given: other networks trained on all rows would give others. Costs
    ``n_query * n_subsets**2 * n_bootstrap`` multiplications: a second for 100 queries and 100 subsets.

    From few subsets the score itself is expected lower than from many, by ``3 (rho - tau) / (n_subsets + 1)`` with
    Spearman's and Kendall's correlation over many ([4]_): some 0.05 with 10 subsets, 0.02 with 30, 0.005 with 100.
    Compare scores of equally many.

    The ceiling is right for outputs that are about normal over subsets and over repeats. In simulations of 100 subsets,
    noise that was skewed, or larger for some subsets, made it up to 0.03 too high where it was 0.9, and 0.07 at 0.7.
    Below 0.6, with 2 or 3 repeats, take it as rough: there it was up to 0.1 off, either way.

    References
    ----------
    .. [1] S. M. Park et al., "TRAK: Attributing Model Behavior at Scale", 2023, arXiv:2303.14186, Definition 2.3.
    .. [2] J. Bae, W. Lin, J. Lorraine, R. Grosse, "Training Data Attribution via Approximate Unrolled Differentiation",
       2024, arXiv:2405.12186.
    .. [3] P. Horst, "Estimating Total Test Reliability from Parts of Unequal Length", Educational and Psychological
       Measurement 11, 1951.
    .. [4] W. Hoeffding, "A Class of Statistics with Asymptotically Normal Distribution", Annals of Mathematical
       Statistics 19, 1948.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.utils import Bunch
    >>> from sklearn_source.metrics import linear_datamodeling_score
    >>> rng = np.random.default_rng(0)
    >>> effects, masks = rng.normal(size=(5, 20)), rng.random((50, 20)) < 0.5
    >>> outputs = (masks @ effects.T)[:, None]  # additive effects, no noise
    >>> round(linear_datamodeling_score(effects, Bunch(masks=masks, outputs=outputs)).score, 6)
    1.0
    """
    seed = generator_of(random_state).randint(2**31)
    masks, outputs = check_truth(truth)
    changes = predicted_changes(scores, predicted, truth, masks, outputs.shape[2])
    ranked = [(_ranked(scores, predicted, truth, masks, outputs), 1)]
    correlation = _mean_correlation(ranked, outputs, confidence, n_bootstrap, np.random.default_rng([seed, 0]))
    slope, slope_interval = slope_of_tables(changes, outputs.mean(axis=1), confidence)
    ceilings = _noise_ceilings(outputs, np.random.default_rng([seed, 1]))
    return Bunch(
        score=correlation.mean,
        interval=correlation.interval,
        ceiling=float(ceilings.mean()),
        per_query=correlation.per_query,
        per_query_ceiling=ceilings,
        slope=slope,
        slope_interval=slope_interval,
    )


def linear_datamodeling_difference(
    scores: ArrayLike | None,
    others: ArrayLike,
    truth: Any,
    *,
    predicted: ArrayLike | None = None,
    confidence: float = 0.95,
    n_bootstrap: int = 1000,
    random_state: int | np.random.RandomState | None = 0,
) -> Bunch:
    """By how much some scores predict retraining better than others do, on the same subsets and queries.

    Two methods share the chance of the truth: the interval of their difference is narrower than intervals of their own
    suggest, and says whether one is better by more than chance.

    Read more in the :ref:`User Guide <linear_datamodeling>`.

    Parameters
    ----------
    scores, others : array-like of shape (n_query, n_train)
        Of two methods, from ``transform``; positive: having the row raises the query's measurement.
    truth : Retraining
        From :func:`~sklearn_source.retraining.retrain_on_subsets` with the same queries, training rows and measurement.
    predicted : array-like of shape (n_subsets, n_query), optional
        In place of `scores`, which are None then: how far the measurement goes on each subset.
    confidence : float, default=0.95
        Of the interval.
    n_bootstrap : int, default=1000
        Resamples behind the interval.
    random_state : int, RandomState instance or None, default=0
        For the resamples.

    Returns
    -------
    result : Bunch
        difference : float
            The linear datamodeling score of `scores` less that of `others`; positive: `scores` are better.
        interval : tuple of float
            Of the expected difference, made like that of :func:`linear_datamodeling_score`: over other subsets and
            other queries, with the scores as given.
        per_query : ndarray of shape (n_query,)
            The difference for each query.

    Raises
    ------
    ValueError
        If shapes differ, something is not finite, or there are fewer than 3 subsets.

    Notes
    -----
    Where the best of many methods is compared with the others, the largest of many differences is found: hold queries
    back (:func:`~sklearn_source.model_selection.held_out_score`). Costs twice what
    :func:`linear_datamodeling_score` does.

    In simulations, intervals of 95 % held the expected difference in 92 to 98 % of the cases with 20 subsets or more;
    with 10 subsets in 90 % for half of the worlds.

    Examples
    --------
    >>> linear_datamodeling_difference(  # doctest: +SKIP
    ...     SourceAttribution().fit(net, X, y).transform(X_query), TracIn().fit(net, X, y).transform(X_query), truth
    ... ).interval
    """
    seed = generator_of(random_state).randint(2**31)
    masks, outputs = check_truth(truth)
    ranked = [
        (_ranked(scores, predicted, truth, masks, outputs), 1),
        (_ranked(others, None, truth, masks, outputs), -1),
    ]
    correlation = _mean_correlation(ranked, outputs, confidence, n_bootstrap, np.random.default_rng([seed, 0]))
    return Bunch(difference=correlation.mean, interval=correlation.interval, per_query=correlation.per_query)


def _ranked(scores, predicted, truth, masks, outputs):
    """Whose ranks are compared: sums of scores over the rows of each subset, else what was predicted."""
    if scores is None or predicted is not None:
        return predicted_changes(scores, predicted, truth, masks, outputs.shape[2])
    return subset_sums(check_scores(scores, outputs.shape[2], masks.shape[1]), masks)


def _mean_correlation(sides, outputs, confidence, n_bootstrap, rng):
    """Mean over queries of the correlations of scores with the truth, those of several added up with their signs.

    Queries vary with each other by what they are and by what the subsets happen to be; both are in the variance between
    their correlations. The chance of the subsets that queries share is not: resampling the subsets adds it.
    Resampling both at once would count the chance that each query has for itself twice.

    Parameters
    ----------
    sides : list of (ndarray of shape (n_subsets, n_query), sign)
        What is predicted.
    outputs : ndarray of shape (n_subsets, n_repeats, n_query)
    """
    check_count("n_bootstrap", n_bootstrap, 2)
    check_confidence(confidence)
    n_subsets, n_query = len(outputs), outputs.shape[2]
    if n_subsets < 3:
        raise ValueError(f"expected at least 3 subsets to correlate over, got {n_subsets}")
    measured = outputs.mean(1)
    per_query = sum(sign * column_spearman(predicted, measured) for predicted, sign in sides)
    subsets = resamples(n_subsets, n_bootstrap, rng)
    total, own = np.zeros(n_bootstrap), 0.0
    for q in range(n_query):
        resampled = sum(sign * resampled_spearman(side[:, q], measured[:, q], subsets) for side, sign in sides)
        total += resampled
        own += resampled.var(ddof=1)
    shared = (total.var(ddof=1) - own) / n_query**2
    between = per_query.var(ddof=1) / n_query if n_query > 1 else own
    error = float(np.sqrt(between + max(0.0, shared)))
    mean = float(per_query.mean())
    fewer = min(n for n in measured.shape if n > 1)
    largest = len(sides)  # correlations are within 1, differences of two within 2
    interval = student_interval(mean, error, fewer - 1, confidence, -largest, largest)
    return Bunch(mean=mean, interval=interval, per_query=per_query)


def _noise_ceilings(outputs, rng):
    """What perfect scores would reach, by the reliability of each query's mean over repeats: (n_query,)."""
    n_repeats = outputs.shape[1]
    half = n_repeats // 2
    if half == 0:
        return np.full(outputs.shape[2], np.nan)
    n_splits = _N_SPLITS if n_repeats > 2 else 1
    agreement = np.zeros(outputs.shape[2])
    for _ in range(n_splits):
        order = rng.permutation(n_repeats)
        first, second = outputs[:, order[:half]].mean(1), outputs[:, order[half:]].mean(1)
        agreement += column_spearman(first, second) / n_splits
    # The formulas hold for Pearson correlations: there and back by what the two are for normal variables.
    agreement = 2 * np.sin(np.pi / 6 * agreement.clip(min=0))
    evenness = 4 * half * (n_repeats - half) / n_repeats**2  # 1 for equal halves: Spearman-Brown
    reliability = 2 * agreement / (agreement + np.sqrt(agreement**2 + evenness * (1 - agreement**2)))
    return 6 / np.pi * np.arcsin(np.sqrt(reliability) / 2)
