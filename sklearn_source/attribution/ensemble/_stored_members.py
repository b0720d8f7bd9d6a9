"""The training gradients of an ensemble's members, in a folder each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted


def _members_store(ensemble):
    """Whether the method of the members has training gradients to store."""
    members = getattr(ensemble, "members_", None) or [ensemble._prototype()]
    return hasattr(members[0], "store_gradients")


class StoresMembersGradients:
    """The part of :class:`BaseEnsemble` that keeps gradients for queries to come; stands left of the rest."""

    @available_if(_members_store)
    def store_gradients(self: Any, path: Any, *, tol: float | None = 0.01) -> Any:
        """Keep the training gradients of every member in a folder of its own, for the queries to come.

        Parameters
        ----------
        path : path-like or None
            A folder, which is made, of folders ``member0``, ``member1``, ... None: no longer read them.
        tol : float or None, default=0.01
            As the method of the members takes it.

        Returns
        -------
        self : object
            The fitted ensemble.

        Raises
        ------
        FileExistsError
            If a member's folder holds anything else.
        ValueError
            If the folder that ``path`` is in is missing, or ``tol`` is no relative error.
        """
        check_is_fitted(self)
        folder = None if path is None else Path(os.fspath(path))
        if folder is not None:
            if not folder.parent.is_dir():
                raise ValueError(f"expected a path in a folder that exists, got {str(path)!r}: make the folder first")
            folder.mkdir(exist_ok=True)
        for number, member in enumerate(self.members_):
            member.store_gradients(None if folder is None else folder / f"member{number}", tol=tol)
        return self
