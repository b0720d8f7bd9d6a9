"""Groups of training rows as users name them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ._indices import row_indices


def group_masks(groups, n_train):
    """Names of the groups, a list, and their rows, masks (n_groups, n_train), from groups as the user gives them."""
    if isinstance(groups, Mapping):
        names, members = list(groups), list(groups.values())
    else:
        labels = groups if isinstance(groups, (list, tuple)) else np.asarray(groups)
        if isinstance(labels, np.ndarray) and labels.ndim == 0:
            raise ValueError(
                "expected groups as a dict from names to rows, a label for each training row, or rows of one group "
                f"after the other, got {groups!r}"
            )
        if isinstance(labels, np.ndarray) and labels.shape == (n_train, 1) and len(np.unique(labels)) < n_train:
            raise ValueError(
                f"expected a label for each training row, shape ({n_train},), or different groups, got an array of "
                f"shape {labels.shape}: pass labels.ravel()"
            )
        if len(labels) and all(np.ndim(label) == 0 for label in labels):
            if isinstance(labels, (list, tuple)) and len({isinstance(label, str) for label in labels}) > 1:
                raise ValueError(
                    "expected labels of one kind, got texts among others, which would be taken for texts too: "
                    "name the rows that have none by a text as well"
                )
            return _masks_by_label(np.asarray(labels), n_train)
        names, members = list(range(len(labels))), list(labels)
    if not members:
        raise ValueError("expected at least one group, got none")
    masks = np.zeros((len(members), n_train), dtype=bool)
    for mask, name, rows in zip(masks, names, members):
        mask[row_indices(rows, n_train, f"group {name!r}")] = True
        if not mask.any():
            raise ValueError(f"expected rows in every group, got none in group {name!r}")
    return names, masks


def _masks_by_label(labels, n_train):
    """Names and masks (n_groups, n_train) of a group for each value among labels (n_train,)."""
    if labels.shape != (n_train,):
        raise ValueError(
            f"expected a label for each of {n_train} training rows, got {len(labels)}: rows of one group alone are a "
            "list in a list, [[1, 2]]"
        )
    if labels.dtype.kind in "fc" and not np.isfinite(labels).all():
        raise ValueError("expected a label for each training row, got NaN or infinity: name the rows that have none")
    try:
        values, inverse = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise ValueError(
            f"expected labels of one kind, which can be sorted ({error}): name the rows that have none too"
        ) from error
    return values.tolist(), inverse[None] == np.arange(len(values))[:, None]
