"""Ensembles on rows that come one after the other: those that train refuse them, the others take them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from sklearn_source import AttributionEnsemble, DropoutEnsemble, GradientSimilarity, LoRAEnsemble
from tests.attribution._ensemble_nets import trained

METHOD = GradientSimilarity()
LORA = {"n_members": 2, "rank": 2, "n_steps": 3, "random_state": 0}


class Rows(IterableDataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __iter__(self):
        yield from zip(self.X, self.y)


class Batches(Rows):
    """An IterableDataset only by its base: gives batches within a loader."""

    def __iter__(self):
        yield self.X, self.y


class Plain:
    def __init__(self, X, y):
        self.rows = X, y

    def __iter__(self):
        yield self.rows


STREAMS = {
    "rows": Rows,
    "loader of rows": lambda X, y: DataLoader(Rows(X, y), batch_size=5),
    "loader of batches": lambda X, y: DataLoader(Batches(X, y), batch_size=None),
    "plain": Plain,
    "generator": lambda X, y: iter(Plain(X, y)),
}


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_members_are_not_trained_on_streams(make):
    net, X, y = trained(max_epochs=1)
    for ensemble in (AttributionEnsemble(METHOD, n_members=2), LoRAEnsemble(METHOD, **LORA)):
        with pytest.raises(TypeError, match="trained on here, arrays or a map-style Dataset, got a stream"):
            ensemble.fit(net, make(X, y), None)
    with pytest.raises(TypeError, match="got a stream"):  # a bare net, of which clones are trained
        AttributionEnsemble(GradientSimilarity(net), members="snapshots").fit(make(X, y), None)


@pytest.mark.parametrize(
    "ensemble",
    [
        AttributionEnsemble(METHOD, members="snapshots", n_members=2),
        AttributionEnsemble(METHOD, nets=[trained(max_epochs=2)[0]]),
        AttributionEnsemble(METHOD, n_members=1),
        DropoutEnsemble(METHOD, n_masks=2, random_state=0),
    ],
    ids=["snapshots", "nets", "one", "dropout"],
)
def test_members_that_train_nothing_take_streams(ensemble):
    net, X, y = trained(max_epochs=1)
    expected = ensemble.fit(net, X, y).transform(X[:3])
    np.testing.assert_array_equal(ensemble.fit(net, Rows(X, y), None).transform(X[:3]), expected)


@pytest.mark.parametrize(
    "ensemble", [AttributionEnsemble(METHOD, n_members=2, random_state=0), LoRAEnsemble(METHOD, **LORA)]
)
def test_a_loader_over_a_dataset_is_trained_on_as_the_dataset(ensemble):
    net, X, y = trained(max_epochs=1)
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), batch_size=5)
    expected = ensemble.fit(net, X, y).transform(X[:3])
    np.testing.assert_allclose(ensemble.fit(net, loader, None).transform(X[:3]), expected, rtol=1e-5, atol=1e-7)
