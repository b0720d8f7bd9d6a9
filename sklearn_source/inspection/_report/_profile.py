"""What one pass over the scores of the queries tells of queries and rows."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch

from ...rows import take_rows
from .._score_chunks import score_chunks

_N_BINS = 61  # odd: one bin around zero


def profile_scores(question, X_asked, y_asked, shown, k):
    """Go through the scores of the asked queries once.

    Parameters
    ----------
    question : Question
    X_asked, y_asked
        The asked queries, as ``transform`` takes them.
    shown : ndarray of int
        Which of the asked queries are shown: their strongest rows and the distribution of their scores are kept.
    k : int
        Rows of either sign kept of a query, and most harmful rows counted.

    Returns
    -------
    profile : Bunch
        harm : ndarray (n_train,)
            Sum over the asked queries of what each row did towards their error.
        n_harmed : ndarray of int (n_train,)
            Asked queries of whose ``k`` most harmful rows each is one.
        queries : list of Bunch
            For each shown query ``supporting`` and ``opposing``, pairs of rows and scores, strongest first, and
            ``counts`` (n_bins,) and ``edges`` (n_bins + 1,) of the histogram of all its ``scores`` (n_train,).
    """
    n_train, signs = question.estimator.n_train_, question.harm_signs()
    harm, n_harmed, queries = np.zeros(n_train), np.zeros(n_train, dtype=np.int64), {}
    for part, scores in score_chunks(question.estimator, X_asked, y_asked):
        harm += signs[part] @ scores
        for place, (row, sign) in enumerate(zip(scores, signs[part]), start=part.start):
            worst = strongest(sign * row, k)
            n_harmed[worst[(sign * row)[worst] > 0]] += 1
            if place in shown:
                queries[place] = query_profile(row, k)
    return Bunch(harm=harm, n_harmed=n_harmed, queries=[queries[place] for place in shown])


def query_profile(scores, k):
    """Strongest rows of either sign, and the histogram, of the scores (n_train,) of one query."""
    high, low = strongest(scores, k), strongest(-scores, k)
    reach = float(np.abs(scores).max()) or 1.0
    counts, edges = np.histogram(scores, bins=_N_BINS, range=(-reach, reach))
    kept = scores.astype(np.float32)
    return Bunch(supporting=(high, scores[high]), opposing=(low, scores[low]), counts=counts, edges=edges, scores=kept)


def strongest(scores, k):
    """The rows of the ``k`` largest scores (n_train,), largest first."""
    k = min(k, len(scores))
    found = np.argpartition(-scores, k - 1)[:k]
    return found[np.lexsort((found, -scores[found]))]


def score_errors(question, index):
    """Standard errors of the scores of some queries (n, n_train), from a method that knows them; else None."""
    estimator = question.estimator
    if not hasattr(estimator, "score_error") or len(getattr(estimator, "members_", [None, None])) < 2:
        return None
    X, y = question.rows(index)
    return np.asarray(estimator.score_error(X) if y is None else estimator.score_error(X, y), dtype=np.float64)


def contrasts(question, index, k):
    """Why this answer and not that: the rows that raised the predicted class over the true one.

    Parameters
    ----------
    question : Question
    index : ndarray of int (n,)
        Queries.
    k : int

    Returns
    -------
    found : dict of int to Bunch
        For the wrong ones among the queries ``rows`` (k,), and their scores of both answers, ``predicted`` (k,) and
        ``true`` (k,), by falling difference. Empty where the measurement is of no class.
    """
    answers = question.answers
    if question.measurement not in ("log_odds", "neg_loss") or answers.wrong is None or question.y_of_method is None:
        return {}
    wrong = [i for i in index if answers.wrong[i]]
    if not wrong:
        return {}
    X = take_rows(question.X, np.array(wrong))
    given = take_rows(question.y, np.array(wrong))
    predicted = np.asarray(answers.predicted[wrong]).astype(np.asarray(given).dtype).reshape(np.shape(given))
    of_true, of_predicted = (
        np.asarray(question.estimator.transform(X, y), dtype=np.float64) for y in (given, predicted)
    )
    found = {}
    for place, i in enumerate(wrong):
        rows = strongest(of_predicted[place] - of_true[place], k)
        found[int(i)] = Bunch(rows=rows, predicted=of_predicted[place, rows], true=of_true[place, rows])
    return found
