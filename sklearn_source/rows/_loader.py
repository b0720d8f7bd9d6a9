"""A DataLoader over a Dataset stands for the Dataset: its rows in its order, whatever order the loader draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    default_collate,
)

_HOW_OFTEN = "; how often training drew each row is recorded by TrajectoryRecorder, from the net's own iterator_train"


class CollatedDataset(Dataset):
    """A Dataset with the function that its loader puts items into batches with.

    Parameters
    ----------
    dataset : Dataset
        With length and item access.
    collate_fn : callable
        From a list of items to a batch.
    """

    def __init__(self, dataset: Any, collate_fn: Callable):
        self.dataset, self.collate_fn = dataset, collate_fn

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


def is_stream_of_batches(loader: DataLoader) -> bool:
    """Whether nothing but the loader itself says which rows there are."""
    return isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None


def opened_loader(X: Any) -> Any:
    """The Dataset of a DataLoader that gives each of its rows once in an epoch; anything else as it came.

    Raises
    ------
    ValueError
        If the loader leaves rows out or repeats them, or may do so.
    """
    if not isinstance(X, DataLoader) or is_stream_of_batches(X):
        return X
    dataset: Any = X.dataset
    n_rows, left_over = len(dataset), 0
    if type(X.batch_sampler) is not BatchSampler or type(X.sampler) not in (SequentialSampler, RandomSampler):
        sampler = X.sampler if type(X.batch_sampler) is BatchSampler else X.batch_sampler
        _refuse(f"a {type(sampler).__name__}, which may leave rows out or repeat them", _HOW_OFTEN)
    if isinstance(X.sampler, RandomSampler):
        if X.sampler.replacement or X.sampler.num_samples != n_rows:
            _refuse("a RandomSampler that leaves rows out or repeats them", _HOW_OFTEN)
    elif X.drop_last:
        left_over = n_rows % (X.batch_size or 1)
    if left_over:
        _refuse(f"drop_last=True without shuffling, which leaves its last {left_over} rows out")
    return dataset if X.collate_fn is default_collate else CollatedDataset(dataset, X.collate_fn)


def collate_of(dataset: Any) -> Callable | None:
    """How the loader of a Dataset, or of the one that it is a part of, collates; None where no loader says."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset.collate_fn if isinstance(dataset, CollatedDataset) else None


def _refuse(what, more=""):
    raise ValueError(
        f"expected a DataLoader that gives every row of its dataset once, got one with {what}. Pass the dataset itself "
        f"(loader.dataset), or a torch.utils.data.Subset of the rows that are meant{more}"
    )
