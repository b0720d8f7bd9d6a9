"""The result of a retraining: which rows each network was trained on, and what it gave for the queries."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..rows import count_rows, to_numpy
from ._storage import read_arrays, write_arrays

_FORMAT = "sklearn_source.retraining"


class Retraining:
    """What networks put out for the queries when trained on other rows: the ground truth of attribution.

    Made by :func:`retrain_on_subsets`, :func:`leave_one_out` and :func:`retrain_without`.

    Read more in the :ref:`User Guide <retraining>`.

    Parameters
    ----------
    masks : ndarray of shape (n_subsets, n_train), bool
        Which training rows each subset holds.
    outputs : ndarray of shape (n_subsets, n_repeats, n_query)
        The measurement of every query by every network, in the unit of the measurement.
    measurement : str
        Its name.
    seeds : ndarray of shape (n_subsets, n_repeats), uint64
        What decided initial weights and batch order of each network.
    settings : dict
        How it was made: numbers, strings, lists and dicts of these. ``"fingerprint"`` names the network's
        configuration, the rows and the queries; ``"engine"`` and ``"engine_reason"`` say what trained and why.
    names : list of str, optional
        A name for each subset.
    X_query, y_query : optional
        The queries, kept as they were given, so that scorers and displays have them. :meth:`save` writes those that are
        numbers in an array, table, tensor or list, as arrays.
    row_hashes : ndarray of shape (n_train,), uint64, optional
        Fingerprints of the training rows and their targets, by which scorers and displays recognise the rows that an
        estimator was fitted on, in any order.

    Raises
    ------
    ValueError
        If shapes do not fit each other.
    """

    def __init__(
        self,
        masks: ArrayLike,
        outputs: ArrayLike,
        measurement: str,
        seeds: ArrayLike,
        settings: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = None,
        *,
        X_query: Any = None,
        y_query: Any = None,
        row_hashes: ArrayLike | None = None,
    ) -> None:
        self.masks = _array_of(masks, "masks", "b")
        self.outputs = _array_of(outputs, "outputs", "iuf")
        if not isinstance(measurement, str):
            raise ValueError(f"expected measurement as the name of what was measured, got {measurement!r}")
        self.measurement = measurement
        self.seeds = _whole(_array_of(seeds, "seeds", "iuf"), "seeds")
        if not isinstance(settings or {}, Mapping) or isinstance(names, str) or not np.iterable(names or ()):
            raise ValueError(
                "expected settings as a dict and names as one text for each subset, got a "
                f"{type(settings).__name__} and a {type(names).__name__}"
            )
        self.settings = dict(settings or {})
        self.names = None if names is None else [str(name) for name in names]
        self.X_query, self.y_query = X_query, y_query
        self.row_hashes = (
            None if row_hashes is None else _whole(_array_of(row_hashes, "row_hashes", "iu"), "row_hashes")
        )
        fits = self.masks.ndim == 2 and self.outputs.ndim == 3
        if not fits or self.outputs.shape[:2] != self.seeds.shape or len(self.masks) != len(self.outputs):
            raise ValueError(
                "expected masks (n_subsets, n_train) of booleans, outputs (n_subsets, n_repeats, n_query) and seeds "
                f"(n_subsets, n_repeats), got shapes {self.masks.shape} of {self.masks.dtype}, {self.outputs.shape} "
                f"and {self.seeds.shape}"
            )
        if self.row_hashes is not None and self.row_hashes.shape != (self.masks.shape[1],):
            raise ValueError(
                f"expected row_hashes of {self.masks.shape[1]} training rows, got shape {self.row_hashes.shape}"
            )
        if X_query is not None and (n := count_rows(X_query)) != self.outputs.shape[2]:
            raise ValueError(f"expected X_query as the {self.outputs.shape[2]} queries of the outputs, got {n} rows")
        if self.names is not None and len(self.names) != len(self.masks):
            raise ValueError(f"expected a name for each of {len(self.masks)} subsets, got {len(self.names)}")

    @property
    def n_subsets(self) -> int:
        """Number of subsets."""
        return self.outputs.shape[0]

    @property
    def n_repeats(self) -> int:
        """Networks per subset."""
        return self.outputs.shape[1]

    @property
    def n_query(self) -> int:
        """Number of queries."""
        return self.outputs.shape[2]

    @property
    def n_train(self) -> int:
        """Number of rows that the subsets are drawn from."""
        return self.masks.shape[1]

    def mean(self) -> np.ndarray:
        """Mean over repeats.

        Returns
        -------
        outputs : ndarray of shape (n_subsets, n_query), float64
        """
        return self.outputs.mean(axis=1, dtype=np.float64)

    def effects(self) -> np.ndarray:
        """What the rows that a subset lacks contributed: trained on all rows, minus trained on the subset.

        Returns
        -------
        effects : ndarray of shape (n_query, n_subsets - n_whole), float64
            In the unit and with the sign of scores: positive where the rows raised the measurement. One column for
            each subset that lacks rows, in order.

        Raises
        ------
        ValueError
            If no subset holds all rows.
        """
        whole = self.masks.all(axis=1)
        if not whole.any():
            raise ValueError(
                "expected a subset of all rows, with whose networks effects compare, got "
                f"{self.n_subsets} subsets that all lack some: use leave_one_out or retrain_without"
            )
        mean = self.mean()
        return (mean[whole].mean(axis=0) - mean[~whole]).T

    def merge(self, other: Retraining) -> Retraining:
        """Add the repeats of another retraining of the same subsets.

        Parameters
        ----------
        other : Retraining
            Same rows, queries, subsets, measurement and training; other seeds (another ``random_state``, with
            ``subsets=first.masks``).

        Returns
        -------
        merged : Retraining
            A new one. Its ``settings`` are those of `self`.

        Raises
        ------
        ValueError
            If the two differ in anything but seeds, or share a network: it would be counted twice.
        """
        if not isinstance(other, Retraining):
            raise ValueError(
                f"expected a Retraining to merge with, got a {type(other).__name__}: load it first if it is a file"
            )
        if not np.array_equal(self.masks, other.masks):
            raise ValueError(
                f"expected a retraining of the same subsets in the same order, got {other.n_subsets} that differ from "
                f"these {self.n_subsets}: make it with subsets=first.masks and another random_state"
            )
        fingerprints = [r.settings.get("fingerprint") for r in (self, other)]
        if self.measurement != other.measurement or self.n_query != other.n_query or len(set(fingerprints)) > 1:
            raise ValueError(
                "expected a retraining of the same network, rows, queries and measurement, got "
                f"{self.measurement!r} and {other.measurement!r}, {self.n_query} and {other.n_query} queries, "
                f"fingerprints {fingerprints[0]} and {fingerprints[1]}: only repeats can be added"
            )
        if any(np.intersect1d(mine, theirs).size for mine, theirs in zip(self.seeds, other.seeds)):
            raise ValueError(
                "expected a retraining with other seeds, got some networks that are in both and would be counted "
                "twice: make the second with another random_state"
            )
        outputs, seeds = (np.concatenate([getattr(r, n) for r in (self, other)], axis=1) for n in ("outputs", "seeds"))
        merged = copy.copy(self)
        merged.outputs, merged.seeds, merged.settings = outputs, seeds, dict(self.settings)
        return merged

    def save(self, path: str | os.PathLike) -> Path:
        """Write to one ``.npz`` file: arrays, and the settings as JSON. Written whole or not at all.

        Parameters
        ----------
        path : path-like
            ``.npz`` is added where it is missing.

        Returns
        -------
        path : Path
            The file written.
        """
        arrays = {"masks": self.masks, "outputs": self.outputs, "seeds": self.seeds}
        optional = {"X_query": _numeric_array(self.X_query), "y_query": _numeric_array(self.y_query)}
        optional["row_hashes"] = self.row_hashes
        arrays.update({name: values for name, values in optional.items() if values is not None})
        about = {"format": _FORMAT, "version": 1, "measurement": self.measurement, "names": self.names}
        return write_arrays(path, arrays, {**about, "settings": self.settings})

    @classmethod
    def load(cls, path: str | os.PathLike) -> Retraining:
        """Read what :meth:`save` wrote. No code from the file is run.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        retraining : Retraining

        Raises
        ------
        ValueError
            If the file is missing, damaged or of another kind.
        """
        arrays, about = read_arrays(path)
        if about.get("format") != _FORMAT or not {"masks", "outputs", "seeds"} <= set(arrays):
            raise ValueError(
                f"expected a file written by Retraining.save, got {path} of format {about.get('format')!r}: pass one"
            )
        if about.get("version") != 1:
            raise ValueError(f"expected {path} of version 1, got {about.get('version')!r}: upgrade sklearn_source")
        known = ("masks", "outputs", "seeds", "X_query", "y_query", "row_hashes")
        described = {name: about.get(name) for name in ("measurement", "settings", "names")}
        return cls(**{name: arrays[name] for name in known if name in arrays}, **described)

    def __repr__(self) -> str:
        return (
            f"Retraining({self.n_subsets} subsets x {self.n_repeats} repeats of {self.n_train} rows, "
            f"{self.n_query} queries, measurement={self.measurement!r})"
        )


def _array_of(values, name, kinds):
    """An array whose numbers are of some kinds; ValueError for anything else."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"expected {name} as an array, got a {type(values).__name__} ({error})") from error
    if array.dtype.kind not in kinds:
        wanted = {"b": "booleans", "iuf": "real numbers", "iu": "integers"}[kinds]
        raise ValueError(f"expected {name} as {wanted}, got {array.dtype} of shape {array.shape}")
    return array


def _whole(array, name):
    """The same as uint64; ValueError for negative numbers and fractions."""
    if array.dtype.kind != "u" and not ((array >= 0) & (array == np.floor(array))).all():
        raise ValueError(f"expected {name} as whole numbers from 0 up, got others among them")
    return array.astype(np.uint64)


def _numeric_array(values):
    """An array of numbers, None where there are other things."""
    if isinstance(values, list) and values and np.ndim(values[0]) < 2:  # else several inputs
        values = np.asarray(values)
    values = to_numpy(values)
    return values if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" else None
