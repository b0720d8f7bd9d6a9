"""What is told of a group of training rows behind errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ._table import make_table

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class BehaviourGroup:
    """Training rows that push some errors together; made by :func:`behaviour_groups`.

    Read more in the :ref:`User Guide <decisions>`.

    Parameters
    ----------
    rows : ndarray of int
        Indices of training rows.
    queries : ndarray of int
        Indices, among all queries, of the errors that the rows rest behind.
    harm : float
        Sum of the rows' pushes towards these errors, in the unit of the measurement; positive: towards the errors.
        Negative at times in a regression, where the residuals of rows that are fitted push either way.
    share : float
        Of all pushes towards any of the errors.
    description : str
        What sets rows and errors apart, in words.
    error : float or None
        Standard error of ``harm`` over the networks of an ensemble, None for one network.
    p_value : float
        Share of searches, in errors or scores dealt out at random, that gave a group as strong or more so, the one in
        those as they are counted; NaN where the group was not held against chance.
    explained : float
        Share of the sum of squared errors of all queries (1 less the probability of the own class, and those of the
        others) that is predicted to go where the rows are left out, negative where errors would grow; NaN where groups
        were found by scores alone.
    """

    rows: np.ndarray
    queries: np.ndarray
    harm: float
    share: float
    description: str
    error: float | None = None
    p_value: float = np.nan
    explained: float = np.nan


@dataclass(frozen=True)
class BehaviourGroups:
    """What :func:`behaviour_groups` found: a sequence of groups, the most telling first.

    Read more in the :ref:`User Guide <decisions>`.

    Parameters
    ----------
    groups : list of BehaviourGroup
        May be empty.
    errors : ndarray of int
        The queries that were to be explained.
    unit : str
        Of ``harm``.
    """

    groups: list[BehaviourGroup] = field(default_factory=list)
    errors: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    unit: str = ""

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[BehaviourGroup]:
        return iter(self.groups)

    def __getitem__(self, index: int) -> BehaviourGroup:
        return self.groups[index]

    @property
    def table(self) -> pandas.DataFrame | dict[str, list]:
        """One line for each group: a DataFrame where pandas is installed, else a dict of lists."""
        columns: dict[str, list] = {
            "group": list(range(len(self.groups))),
            "n_rows": [len(group.rows) for group in self.groups],
            "n_queries": [len(group.queries) for group in self.groups],
            "harm": [group.harm for group in self.groups],
            "error": [np.nan if group.error is None else group.error for group in self.groups],
            "p_value": [group.p_value for group in self.groups],
            "share": [group.share for group in self.groups],
            "explained": [group.explained for group in self.groups],
            "description": [group.description for group in self.groups],
        }
        try:
            return make_table(columns, as_frame=True)
        except ImportError:
            return columns
