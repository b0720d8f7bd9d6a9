"""The one home of what moved between releases of joblib or is private to it."""

from __future__ import annotations

import joblib
from joblib.parallel import get_active_backend

try:
    from joblib.externals import cloudpickle  # up to 1.5
except ImportError:
    import cloudpickle

__all__ = ["AS_FINISHED", "active_backend", "cloudpickle", "dask_client"]

# What ``Parallel(return_as=)`` calls a generator of results, in the order in which they come where it can.
AS_FINISHED = "generator_unordered" if tuple(map(int, joblib.__version__.split(".")[:2])) >= (1, 4) else "generator"


def active_backend():
    """The engine that ``joblib.Parallel`` would use here."""
    return get_active_backend()[0]


def dask_client(backend):
    """The dask client of an engine, and its options of ``submit``; None where it is another engine."""
    if type(backend).__module__ != "joblib._dask":
        return None
    return backend.client, getattr(backend, "submit_kwargs", {})
