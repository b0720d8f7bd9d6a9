"""Ground truth made up so that everything about it is known."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch


def additive_world(seed, n_subsets, n_query, n_train=40, n_repeats=3, reliability=0.8, quality=1.0, shared=0.5):
    """Rows with additive effects, seen through noise; scores that are the effects and an error.

    `reliability` is that of the mean over repeats. A share of the noise is common to the queries of a network.
    """
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(n_query, n_train))
    masks = np.argsort(rng.random((n_subsets, n_train)), axis=1) < n_train // 2
    size = np.sqrt(n_train / 4 * (1 / reliability - 1) * n_repeats)
    noise = np.sqrt(1 - shared) * rng.normal(size=(n_subsets, n_repeats, n_query))
    noise = size * (noise + np.sqrt(shared) * rng.normal(size=(n_subsets, n_repeats, 1)))
    scores = effects + rng.uniform(0.3, 1.5, size=(n_query, 1)) * quality * rng.normal(size=effects.shape)
    truth = Bunch(masks=masks, outputs=(masks @ effects.T)[:, None] + noise)
    return scores, truth, effects
