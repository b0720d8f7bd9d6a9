"""Blocks of work on a cluster that dask or ray keeps, by its own means."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

# What engines say of workers that are gone, by name: they are not imported for it.
_LOST = {
    "TerminatedWorkerError", "BrokenProcessPool", "BrokenExecutor",  # joblib's own processes
    "KilledWorker", "CommClosedError", "FutureCancelledError", "CancelledError",  # dask
    "WorkerCrashedError", "ActorDiedError", "RayActorError", "ObjectLostError", "NodeDiedError",  # ray
}  # fmt: skip


def is_loss(error: BaseException) -> bool:
    """Whether an engine says by this that workers are gone."""
    return any(cls.__name__ in _LOST for cls in type(error).__mro__)


def within_cluster() -> bool:
    """Whether this runs as a task of a worker of dask or ray."""
    dask, ray = sys.modules.get("distributed.worker"), sys.modules.get("ray")
    if dask is not None and hasattr(dask.thread_state, "execution_state"):
        return True
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def by_dask(
    client: Any, options: dict[str, Any], run: Callable, parcel: Any, calls: Iterator[tuple], n_ahead: int
) -> Iterator[Any]:
    """What ``run`` makes of calls, as they are finished, by dask's futures.

    joblib waits for ever for a call that dask gives up, and sends what is shared to one worker alone, with which it can
    be lost.

    Parameters
    ----------
    client : distributed.Client
    options : dict
        Of ``submit``.
    run : callable
    parcel : object
        What all calls have in common: sent once, the first argument.
    calls : iterator of tuple
        Their arguments, the parcel first.
    n_ahead : int
        Calls on their way, per thread of the cluster.

    Yields
    ------
    outcome : object
    """
    from distributed import as_completed

    shared, futures = client.scatter(parcel, broadcast=True, hash=False), as_completed([])

    def submit(call):
        future = client.submit(run, shared, *call[1:], pure=False, **options)
        futures.add(future)
        return future

    n_ahead *= max(1, sum(client.ncores().values()))
    return _as_finished(calls, n_ahead, submit, lambda _: next(futures), lambda done: done.result(), client.cancel)


def by_ray(
    options: dict[str, Any], run: Callable, parcel: Any, calls: Iterator[tuple], n_workers: int
) -> Iterator[Any]:
    """The same by ray's tasks, whose processes stay between two calls: joblib's way to ray starts others for each.

    Parameters
    ----------
    options : dict
        Of a remote function, from ``parallel_config("ray", ray_remote_args=)``.
    run, parcel, calls
        As in :func:`by_dask`.
    n_workers : int
        Calls at a time.

    Yields
    ------
    outcome : object
    """
    import ray

    task: Any = ray.remote(_pickled).options(**options)
    shared = ray.put(parcel)

    def cancel(running):
        for each in running:
            ray.cancel(each)

    return _as_finished(
        calls,
        n_workers,
        lambda call: task.remote(run, shared, *call[1:]),
        lambda running: ray.wait(running, num_returns=1)[0][0],
        lambda done: pickle.loads(cast(bytes, ray.get(done))),
        cancel,
    )


def _as_finished(calls, n_ahead, submit, wait, result, cancel):
    """Outcomes of calls as they are finished, ``n_ahead`` on their way at a time; a loss is raised after the others.

    A call whose worker was lost is left out, and only one that was finished lets others be sent: where every call takes
    its worker with it, those on their way do and no more.
    """
    running, failure = [], None

    def send():
        while len(running) < n_ahead and (call := next(calls, None)) is not None:
            running.append(submit(call))

    try:
        send()
        while running:
            done = wait(running)
            running.remove(done)
            try:
                outcome = result(done)
            except Exception as error:
                if not is_loss(error):
                    raise
                failure = error
                continue
            yield outcome
            send()
        if failure is not None:
            raise failure
    finally:
        cancel(running)


def _pickled(run, *args):
    """What it makes, in bytes: arrays that ray gives lie in its store, where nobody may write."""
    return pickle.dumps(run(*args), protocol=5)
