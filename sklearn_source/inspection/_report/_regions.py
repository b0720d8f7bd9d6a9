"""Where the answers to held-out rows rest on few training rows."""

from __future__ import annotations

import numpy as np

from .._under_sampled_regions import under_sampled_regions

_K = 10


def thin_regions(question, words, X, y):
    """Regions of two held-out rows or more that rest on few training rows, and share some of them.

    Parameters
    ----------
    question : Question
    words : dict
        What descriptions are made of: ``readable``, ``feature_names``, ``class_names``.
    X, y
        All held-out rows, as ``transform`` takes them.

    Returns
    -------
    regions : list of Bunch
        ``queries`` and ``rows`` of :func:`under_sampled_regions`, largest first; ``n_wrong``, how many of the queries
        are answered wrong, and ``median_rows``, on how many training rows they rest in the middle, with
        ``usual_rows``, the same of all held-out rows. ``n_wrong`` is None where it is not known.
    """
    found = under_sampled_regions(
        question.estimator, X, y, k=min(_K, question.estimator.n_train_), as_frame=False, **words
    )
    effective = np.empty(len(found.table))
    effective[found.table["query"]] = found.table["effective_rows"]
    wrong, regions = question.answers.wrong, []
    for region in found.regions:
        if len(region.rows) and len(region.queries) > 1:
            region.n_wrong = None if wrong is None else int(wrong[region.queries].sum())
            region.median_rows = float(np.median(effective[region.queries]))
            region.usual_rows = float(np.median(effective))
            regions.append(region)
    return regions
