"""What an action on training rows should do, and what it does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import Bunch

from ..utils._argument_checks import check_count
from ..utils._random import draw_seed
from ._confirmation import retrained_changes
from ._table import make_table

if TYPE_CHECKING:
    import pandas

_WORDS = {"remove": "removed", "relabel": "relabelled", "reweight": "reweighted"}


class ActionEffect:
    """What removing, relabelling or reweighting some training rows should do to held-out rows.

    Made by :func:`predict_action`.

    Read more in the :ref:`User Guide <decisions>`.

    Parameters
    ----------
    action : {"remove", "relabel", "reweight"}
        What is done.
    rows : ndarray of int
        To which training rows.
    labels : ndarray of shape (n_rows, ...) or None
        What they become, where they are relabelled.
    weight : float or None
        What they weigh after, where they are reweighted.
    changes : ndarray of shape (n_networks, n_val)
        Predicted for each held-out row by each network, in the unit of the measurement.
    before, after : list of Bunch
        For each network ``loss`` (n_val,) and ``wrong`` (n_val,), or None for what is not known.
    measurement : str or None
        Its name.
    cautions : list of str
        Reasons to take the prediction for an order of actions rather than a size.
    asked : Bunch
        What :meth:`confirm` trains and asks.

    Attributes
    ----------
    change : ndarray of shape (n_val,)
        The mean over networks.
    change_error : ndarray of shape (n_val,)
        Its standard error over networks; NaN for a single one.

    See Also
    --------
    predict_action : Makes it.
    group_influence : What groups of rows did.
    """

    def __init__(
        self,
        *,
        action: str,
        rows: np.ndarray,
        labels: np.ndarray | None,
        weight: float | None,
        changes: np.ndarray,
        before: list[Bunch],
        after: list[Bunch],
        measurement: str | None,
        cautions: list[str],
        asked: Bunch,
    ):
        self.action = action
        self.rows = rows
        self.labels = labels
        self.weight = weight
        self.changes = changes
        self.before = before
        self.after = after
        self.measurement = measurement
        self.cautions = cautions
        self.asked = asked

    @property
    def change(self) -> np.ndarray:
        """Predicted for each held-out row: the mean over networks."""
        return self.changes.mean(axis=0)

    @property
    def change_error(self) -> np.ndarray:
        """Standard error of :attr:`change` over networks; NaN for a single one."""
        n = len(self.changes)
        return self.changes.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(self.changes.shape[1], np.nan)

    def table(self, as_frame: bool | str = "auto") -> pandas.DataFrame | np.recarray:
        """Tell measurement, loss and errors before and after.

        Parameters
        ----------
        as_frame : bool or "auto", default="auto"
            A pandas DataFrame, or else a NumPy record array. "auto": a frame where pandas is installed.

        Returns
        -------
        table : DataFrame or recarray
            Columns ``quantity`` (``"measurement"`` and ``"loss"``, means over the held-out rows, and ``"errors"``, how
            many are wrong), ``before``, ``after`` (NaN for the measurement), ``change`` and ``std_error`` of the
            change: from how held-out rows and networks differ. Quantities that the measurement says nothing of are left
            out.
        """
        return make_table(_columns(self.quantities()), as_frame)

    def quantities(self) -> Iterator[tuple[str, float, np.ndarray, float]]:
        """Tell what is predicted of every held-out row by every network.

        Yields
        ------
        name : str
            ``"measurement"``, ``"loss"`` or ``"errors"``.
        before : float
            Its mean, or of errors the number; NaN for the measurement.
        change : ndarray of shape (n_networks, n_val)
            Of each held-out row.
        factor : float
            What a mean of changes is multiplied by: ``n_val`` for the number of errors, else 1.
        """
        yield "measurement", np.nan, self.changes, 1.0
        n_val = self.changes.shape[1]
        for name, key, factor in (("loss", "loss", 1.0), ("errors", "wrong", float(n_val))):
            if self.before and all(b[key] is not None and a[key] is not None for b, a in zip(self.before, self.after)):
                before, after = (np.array([part[key] for part in parts], float) for parts in (self.before, self.after))
                yield name, factor * before.mean(), after - before, factor

    def confirm(
        self,
        *,
        n_repeats: int = 5,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        engine: str = "auto",
        cache: str | os.PathLike | None = None,
        verbose: int = 0,
        as_frame: bool | str = "auto",
    ) -> Bunch:
        """Train with the action and without, and tell what was predicted beside what happened.

        Parameters
        ----------
        n_repeats : int, default=5
            Networks of either kind. Those of one repeat start from the same weights and meet the same batches, but for
            what the action changes.
        random_state : int, RandomState instance or None, default=None
            Decides initial weights, batch order and whatever else is drawn. Take another seed than the network's own.
        n_jobs : int or None, default=None
            Processes among which networks are shared out.
        engine : {"auto", "vectorized", "joblib"}, default="auto"
            See :func:`~sklearn_source.retraining.retrain_on_subsets`.
        cache : path-like, optional
            A folder where finished networks are kept.
        verbose : int, default=0
            Show progress.
        as_frame : bool or "auto", default="auto"
            As for :meth:`table`.

        Returns
        -------
        result : :class:`~sklearn.utils.Bunch`
            table : DataFrame or recarray
                Columns ``quantity``, ``predicted`` and ``retrained`` change, ``predicted_error`` and
                ``retrained_error``, standard errors: the first as in :meth:`table`, the second over the repeats.
            retrained : ndarray of shape (n_repeats, n_val)
                Change of the measurement of every held-out row.
            slope, correlation : float
                Of the retrained change on the predicted one, over held-out rows (through the origin), and of both.
                NaN where nothing varies.

        Raises
        ------
        ValueError
            If the network cannot be retrained (built from a module instance, a file, several stages), or rows are to
            have a weight that is no whole number, which copies cannot give.

        Notes
        -----
        Costs ``2 * n_repeats`` trainings. A weight of 2 is a second copy of the row: epochs are then longer, and
        batches others, so that repeats pair less well.
        """
        n_repeats = check_count("n_repeats", n_repeats)
        retrained = retrained_changes(
            self, n_repeats=n_repeats, n_jobs=n_jobs, random_state=draw_seed(random_state), engine=engine, cache=cache,
            verbose=verbose,
        )  # fmt: skip
        predicted = {
            name: (factor * change.mean(), _error(change, factor)) for name, _, change, factor in self.quantities()
        }
        names = [name for name in predicted if name in retrained]
        means = {name: retrained[name].mean(axis=1) for name in names}
        table = {
            "quantity": np.array(names, dtype=object),
            "predicted": np.array([predicted[name][0] for name in names]),
            "retrained": np.array([means[name].mean() for name in names]),
            "predicted_error": np.array([predicted[name][1] for name in names]),
            "retrained_error": np.array([spread(means[name]) for name in names]),
        }
        change = retrained["measurement"]
        slope, correlation = _agreement(self.change, change.mean(axis=0))
        return Bunch(table=make_table(table, as_frame), retrained=change, slope=slope, correlation=correlation)

    def __repr__(self) -> str:
        lines = [f"{len(self.rows)} rows {_WORDS[self.action]}, predicted by {len(self.changes)} network(s):"]
        for name, before, change, factor in self.quantities():
            start = "" if np.isnan(before) else f"{before:.4g}, "
            lines.append(f"  {name}: {start}change {factor * change.mean():+.3g} ± {_error(change, factor):.2g}")
        return "\n".join([*lines, *(f"  ({caution})" for caution in self.cautions)])


def _columns(quantities):
    lines = [
        (name, before, before + factor * change.mean(), factor * change.mean(), _error(change, factor))
        for name, before, change, factor in quantities
    ]
    names, *numbers = zip(*lines)
    columns = dict(zip(("before", "after", "change", "std_error"), map(np.array, numbers)))
    return {"quantity": np.array(names, dtype=object), **columns}


def _error(change, factor):
    """Standard error of a mean over rows and networks (n_networks, n_rows), from how both differ."""
    of_rows, of_networks = spread(change.mean(axis=0)), spread(change.mean(axis=1))
    return factor * float(np.sqrt(np.nansum([of_rows**2, of_networks**2])))


def spread(values):
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def _agreement(predicted, retrained):
    """Slope through the origin and correlation, NaN where nothing varies."""
    size = float(np.square(predicted).sum())
    varies = len(predicted) > 1 and predicted.std() > 0 and retrained.std() > 0
    slope = float(predicted @ retrained / size) if size > 0 else np.nan
    return slope, float(np.corrcoef(predicted, retrained)[0, 1]) if varies else np.nan
