"""What gradient methods have beside their training rows: the rows' gradients in a folder."""

from __future__ import annotations

from numbers import Real
from typing import Any

from ._gradient_store import GradientStore
from ._stored_gradients import StoredGradients, store_gradients


class StoresGradients:
    """The part of :class:`GradientAttribution` that keeps gradients for queries to come; stands left of the rest."""

    _stored: StoredGradients | None = None

    def store_gradients(self: Any, path: Any, *, tol: float | None = 0.01) -> Any:
        """Keep the gradients of the training rows in a folder, for the queries to come.

        ``transform`` and ``top_influences`` then read the folder in place of the training rows: no pass over these
        through the network. A row's gradient is kept as few outer products per layer, in half precision. The same call
        goes on with what an interrupted one has left, and takes up a folder that is there, in another process after the
        same ``fit``; a pickled estimator keeps the path. Another ``fit`` leaves the folder alone.

        Read more in the :ref:`User Guide <gradient_store>`.

        Parameters
        ----------
        path : path-like or None
            A folder, which is made. None: no longer read one.
        tol : float or None, default=0.01
            Error that a row's gradient, averaged over the checkpoints of a term, may have in every layer, relative to
            its norm there. Queries are met within it too, where the estimator has no ``tol`` of its own. None: exact,
            in the network's data type.

        Returns
        -------
        self : object
            The fitted estimator, with ``gradient_store_``.

        Raises
        ------
        FileExistsError
            If the folder holds anything but gradients of this network at these checkpoints for these rows and ``tol``.
        ValueError
            If ``tol`` is not between 0 and 1, the folder that ``path`` is in is missing, or gradients are not finite.
        OSError
            If the folder cannot be written to. What is there stays, and is gone on from.

        Notes
        -----
        With ``G`` a row's gradient in a layer, that stored has ``|G' - G| <= tol |G|`` in the Frobenius norm, measured,
        rounding included, so that a score is off by no more than ``(tol + t + tol t) sum |V| |G|``, the sum over layers
        and terms, with ``V`` the queries' side and ``t`` its tolerance. Cost: that of the training rows in one
        ``transform``, without the products with queries, and decompositions of small matrices. :meth:`self_influence`,
        :meth:`predict_reweighting` and :meth:`predict_relabeling` read the training rows as ever. While another process
        writes the folder the call waits, with a warning.
        """
        if tol is not None and not (isinstance(tol, Real) and not isinstance(tol, bool) and 0 < tol < 1):
            raise ValueError(f"expected tol, a relative error between 0 and 1, or None, got {tol!r}")
        with self._exclusive():
            self._stored = None
            if path is not None:
                self._stored = store_gradients(self, path, None if tol is None else float(tol))
        return self

    @property
    def gradient_store_(self) -> GradientStore | None:
        """The folder that :meth:`store_gradients` wrote: an object with ``path`` and ``n_bytes``; None for none."""
        return None if self._stored is None else self._stored.store
