"""The training rows of a truth, recognised."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..utils._warnings import warn
from ._matching import match_rows


def match_truth_rows(truth: Any, hashes: np.ndarray | None) -> np.ndarray | None:
    """Where a truth has the training rows of an estimator.

    Parameters
    ----------
    truth : Retraining
    hashes : ndarray of uint64, shape (n_train,), or None
        Fingerprints of the rows, as many as the truth has.

    Returns
    -------
    places : ndarray of int64, shape (n_train,), or None
        Given row i is row ``places[i]`` of the truth. None: the same order, as far as can be told.

    Raises
    ------
    ValueError
        If some of the rows are those of the truth and some are not.

    Warns
    -----
    UserWarning
        If none is recognised: another representation of the rows, perhaps.
    """
    known = getattr(truth, "row_hashes", None)
    if known is None or hashes is None or np.array_equal(known, hashes):
        return None
    places = match_rows(np.asarray(hashes, dtype=np.uint64), np.asarray(known, dtype=np.uint64))
    foreign = int((places < 0).sum())
    if foreign == len(places):
        warn(
            "none of the training rows is among those of the truth: that they are the same, in another representation "
            "and in the same order, is taken on trust",
        )
        return None
    if foreign:
        raise ValueError(
            f"expected the training rows of the truth, in any order, but {foreign} of {len(places)} are others: fit on "
            "the very X and y that were given to the retraining"
        )
    return places
