"""Members that workers fit are those of one process. Threads stand for workers; everything is packed for them."""

from __future__ import annotations

import joblib
import numpy as np
import pytest

from sklearn_source import DropoutEnsemble, InfluenceFunctions, LoRAEnsemble
from tests.attribution._ensemble_nets import Plain, trained


@pytest.mark.parametrize(
    "ensemble",
    [
        DropoutEnsemble(InfluenceFunctions(), n_masks=2, random_state=0),
        LoRAEnsemble(InfluenceFunctions(), n_members=2, rank=1, n_steps=2, random_state=0),
    ],
    ids=["dropout", "lora"],
)
def test_members_of_workers_are_the_same(ensemble):
    net, X, y = trained(Plain)
    expected = ensemble.fit(net, X, y).transform(X[:4])
    with joblib.parallel_config("threading", n_jobs=2):
        ensemble.fit(net, X, y)
    np.testing.assert_allclose(ensemble.transform(X[:4]), expected, rtol=1e-6, atol=1e-9)
