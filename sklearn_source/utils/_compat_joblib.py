"""The one home of what moved between releases of joblib or is private to it."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator

import joblib
from joblib.externals.loky.backend.reduction import get_loky_pickler
from joblib.parallel import get_active_backend

__all__ = ["AS_FINISHED", "Pickler", "active_backend", "dask_client", "own_start_method", "ray_options"]

# Cloudpickle's, with which joblib sends classes of ``__main__`` and lambdas, unless the user chose another.
Pickler = get_loky_pickler()
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


def ray_options(backend):
    """Options of ray's remote functions; None where this is another engine. Starts ray where it is not running."""
    if type(backend).__module__ != "ray.util.joblib.ray_backend":
        return None
    import ray

    if not ray.is_initialized():
        ray.init()
    return dict(getattr(backend, "ray_remote_args", None) or {})


@contextlib.contextmanager
def own_start_method() -> Iterator[None]:
    """Within a worker of joblib's processes, let others start processes in the system's way: loky's is its own alone.

    A loader of torch with workers of its own does, wherever it is read.
    """
    given = multiprocessing.get_start_method(allow_none=True)
    if given not in ("loky", "loky_init_main"):
        yield
        return
    multiprocessing.set_start_method(None, force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(given, force=True)
