"""Scores before their terms are summed."""

from __future__ import annotations


def scores_by_term(method, X, y=None):
    """Walk a gradient method's terms one by one: the checkpoint of TracIn, the segments of SOURCE from last to first.

    Parameters
    ----------
    method : GradientAttribution
        Fitted.
    X : array-like of shape (n_query, ...)
        The queries.
    y : array-like, optional
        Their targets, where the measurement needs them.

    Yields
    ------
    term : int
        Position in the method's list of terms.
    queries, rows : slice
        The queries and training rows scored.
    scores : Tensor (n_queries, n_rows)
        Their sum over the terms is ``transform``'s score.

    Notes
    -----
    One pass over the training rows per chunk of queries and term; a checkpoint that several terms share is visited by
    each. Nothing is kept.
    """
    with method._exclusive():
        for queries, terms in method._query_batches(X, y)[1]:
            for number, term in enumerate(terms):
                for columns, scores in method._score_batches([term], queries.stop - queries.start):
                    yield number, queries, columns, scores
