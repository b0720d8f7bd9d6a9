"""Recipes of rows and batches."""

from __future__ import annotations

import numpy as np
import torch
from skorch import NeuralNetRegressor
from skorch.dataset import Dataset, ValidSplit
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from ._recipe import N_ROWS, Line, recipe


class Augmented(Dataset):
    """A row is another one at each reading."""

    def __getitem__(self, i):
        X, y = super().__getitem__(i)
        return X + 0.5 * torch.randn(3).double().numpy() * np.array([0.0, 1.0, 1.0]), y


class Flipped(Dataset):
    """A row is one of two at each reading."""

    def __getitem__(self, i):
        X, y = super().__getitem__(i)
        return (X * np.array([1.0, -1.0, 1.0]) if torch.rand(()) < 0.5 else X), y


class Scaled(Dataset):
    """Always the same change: no augmentation."""

    def __getitem__(self, i):
        X, y = super().__getitem__(i)
        return X * np.array([1.0, 1.5, 0.5]), y


def scaled_batch(rows):
    X, y = default_collate(rows)
    return X * torch.tensor([1.0, -1.0, 0.5]), y


def jittered_batch(rows):
    X, y = default_collate(rows)
    return X + 0.5 * torch.randn_like(X) * torch.tensor([0.0, 1.0, 1.0]), y


class InferOther(NeuralNetRegressor):
    def infer(self, x, **fit_params):
        if self.module_.training:
            x = x * torch.tensor([1.0, 1.5, 0.5])
        return super().infer(x, **fit_params)


class InferScaled(NeuralNetRegressor):
    """The same in training and after."""

    def infer(self, x, **fit_params):
        return super().infer(x * torch.tensor([1.0, 1.5, 0.5]), **fit_params)


class MixUp(NeuralNetRegressor):
    """Targets of a batch are mixed with its mirror image's."""

    def get_loss(self, y_pred, y_true, *args, training=False, **kwargs):
        if training:
            y_true = 0.7 * y_true + 0.3 * y_true.flip(0)
        return super().get_loss(y_pred, y_true, *args, training=training, **kwargs)


class ByBatchSampler(DataLoader):
    def __init__(self, dataset, batch_size=1, **options):
        super().__init__(dataset, batch_sampler=BatchSampler(RandomSampler(dataset), batch_size, drop_last=False))


class SkewedBatches(DataLoader):
    """Some rows more often than others, which no setting of the net tells."""

    def __init__(self, dataset, batch_size=1, **options):
        super().__init__(dataset, batch_sampler=BatchSampler(skewed(), batch_size, drop_last=False))


def skewed():
    return WeightedRandomSampler(np.linspace(0.1, 2.0, N_ROWS), N_ROWS)


no_shuffle = {"iterator_train__shuffle": False}

RECIPES = [
    recipe(
        "SubsetRandomSampler",
        "right or warned",
        "sampler",
        iterator_train__sampler=SubsetRandomSampler(range(18)),
        **no_shuffle,
        methods=("SOURCE", "TracIn"),
    ),
    recipe(
        "SubsetRandomSampler, converged",
        "right or warned",
        "sampler|never|drawn",
        module=Line,
        iterator_train__sampler=SubsetRandomSampler(range(18)),
        **no_shuffle,
        methods=("Influence",),
    ),
    recipe(
        "WeightedRandomSampler",
        "right or warned",
        "sampler",
        iterator_train__sampler=skewed(),
        **no_shuffle,
        max_epochs=40,  # when a row is drawn is chance
        lr=0.01,
        methods=("SOURCE", "TracIn"),
    ),
    recipe(
        "RandomSampler",
        "right or warned",
        "sampler",
        iterator_train__sampler=RandomSampler(range(N_ROWS)),
        **no_shuffle,
    ),
    recipe("batch_sampler", "right or warned", "sampler", iterator_train=ByBatchSampler),
    recipe("batch_sampler that favours rows", "right or warned", "sampler|drawn|often", iterator_train=SkewedBatches),
    recipe("unshuffled", **no_shuffle),
    recipe(
        "unshuffled, drop_last",
        "right or warned",
        "drop_last",
        **no_shuffle,
        batch_size=10,
        iterator_train__drop_last=True,
    ),
    recipe("unshuffled, smaller last batch", "right or warned", "smaller batch", **no_shuffle, batch_size=10),
    recipe("shuffled, drop_last", batch_size=10, iterator_train__drop_last=True),
    # Which rows shared the smaller batches is chance.
    recipe("shuffled, smaller last batch", batch_size=9, tolerance=0.1),
    recipe("full batch", batch_size=-1, lr=0.04, max_epochs=60),
    recipe("held-out rows", "right or warned", "held out", batch_size=6, train_split=ValidSplit(4)),
    recipe(
        "augmenting Dataset",
        "right or warned",
        "augment|reading|read",
        dataset=Augmented,
        methods=("SOURCE", "TracIn"),
    ),
    recipe("flipping Dataset", "right or warned", "augment|reading|read", dataset=Flipped),
    recipe("Dataset that scales", dataset=Scaled),
    recipe(
        "collate_fn for training only",
        "right or warned or refused",
        "collate",
        iterator_train__collate_fn=scaled_batch,
    ),
    recipe(
        "collate_fn that jitters",
        "right or warned",
        "augment|reading|read",
        iterator_train__collate_fn=jittered_batch,
    ),
    recipe("collate_fn for both", iterator_train__collate_fn=scaled_batch, iterator_valid__collate_fn=scaled_batch),
    recipe("infer other in training", "right or warned or refused", "infer|train", net=InferOther),
    recipe("infer that scales", net=InferScaled),
    recipe("targets mixed over a batch", "refused or warned", "row|batch", net=MixUp),
]
