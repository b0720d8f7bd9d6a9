"""Functions of blocks of work, wherever joblib sends them; a worker that is lost on the way costs its blocks alone."""

from __future__ import annotations

import contextlib
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import torch

from ._clusters import by_dask, by_ray, is_loss, within_cluster
from ._compat_joblib import AS_FINISHED, active_backend, dask_client, ray_options
from ._compat_torch import autocast_off
from ._config import config_context, get_config
from ._parcel import Parcel
from ._warnings import warn

_ATTEMPTS = 3  # in a row without a block done
_SMALLEST = 32  # rows of a batch that are worth a product of their own
_AHEAD = 2  # blocks per worker that are on their way


def n_workers(n_jobs: int | None) -> int:
    """How many workers ``n_jobs`` means, as joblib reads it; 1 within a worker, so that jobs do not multiply.

    On dask, which gives all its workers to whoever asks, ``n_jobs=1`` is one here.

    Parameters
    ----------
    n_jobs : int or None

    Returns
    -------
    n_workers : int
    """
    backend = active_backend()
    if n_jobs == 1 or (getattr(backend, "nesting_level", None) or 0) > 0 or within_cluster():
        return 1
    ray_options(backend)  # it is asked for its processors
    # A cluster, be it of one worker for the moment, is another machine than this one.
    least = 2 if dask_client(backend) else 1
    return max(least, int(joblib.effective_n_jobs(n_jobs)))


def row_blocks(
    n_rows: int, batch_size: int, workers: int, *, per_worker: int = 8, max_rows: int | None = None
) -> list[list[slice]]:
    """Rows parted for some workers: blocks of batches.

    Batches are those that one worker would take, unless there are too few of them to keep all workers busy.

    Parameters
    ----------
    n_rows : int
    batch_size : int
        Rows taken at once.
    workers : int
    per_worker : int, default=8
        Blocks of each: one that is slow, or lost, then does not hold up the rest for long.
    max_rows : int, optional
        About how many rows a block may have.

    Returns
    -------
    blocks : list of list of slice
        In order, without gaps.
    """
    if n_rows < 2 * batch_size * workers:
        batch_size = min(batch_size, max(_SMALLEST, -(-n_rows // (2 * workers))))
    batches = [slice(start, min(start + batch_size, n_rows)) for start in range(0, n_rows, batch_size)]
    most = len(batches) if max_rows is None else max_rows // batch_size
    size = max(1, min(-(-len(batches) // (per_worker * workers)), most))
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def in_blocks(
    function: Callable[[Any, Any], Any], content: Any, blocks: Sequence[Any], *, n_jobs: int | None
) -> Iterator[Any]:
    """``function(content, block)`` of every block, in the order of the blocks; see :func:`finished_blocks`.

    Yields
    ------
    result : object
        One for every block.
    """
    done, given = {}, 0
    for number, value in finished_blocks(function, content, blocks, n_jobs=n_jobs):
        done[number] = value
        while given in done:
            yield done.pop(given)
            given += 1


def finished_blocks(
    function: Callable[[Any, Any], Any], content: Any, blocks: Sequence[Any], *, n_jobs: int | None
) -> Iterator[tuple[int, Any]]:
    """``function(content, block)`` of every block, as they are finished.

    Where workers are lost, the blocks that they had are computed anew, and a warning says so.

    Parameters
    ----------
    function : callable
        Of a module of the package. It may change the content, of which every block gets its own, but not write into
        large arrays.
    content : object
        Sent once, see :class:`Parcel`.
    blocks : list
        Small objects.
    n_jobs : int or None
        As joblib takes it.

    Yields
    ------
    number : int
        Of the block.
    result : object

    Raises
    ------
    TypeError
        If the content cannot be sent.
    RuntimeError
        If workers are lost again and again.
    """
    parcel, settings = Parcel(content), _settings()
    waiting, attempts = dict(enumerate(blocks)), 0
    while waiting:
        failure = None
        with contextlib.closing(_outcomes(parcel, function, settings, dict(waiting), n_jobs)) as outcomes:
            while True:
                try:
                    number, outcome = next(outcomes)
                except StopIteration:
                    break
                except Exception as error:
                    if not is_loss(error):
                        raise
                    failure = error
                    break
                if isinstance(outcome, _Raised):
                    raise outcome.error()
                attempts = 0
                del waiting[number]
                yield number, outcome.value
        if waiting:
            attempts += 1
            said = f" ({type(failure).__name__}: {str(failure).strip()[:200]})" if failure is not None else ""
            if attempts >= _ATTEMPTS:
                raise RuntimeError(
                    f"expected workers that last until a block of the work is done, but they were lost {attempts} "
                    f"times in a row{said}: most often a machine is short of memory. Use fewer workers (n_jobs), a "
                    "smaller config_context(memory_budget=), a smaller batch_size, or, of retraining, chunk_size"
                ) from failure
            warn(f"workers were lost{said}: {len(waiting)} of {len(blocks)} blocks of work are done anew")


@dataclass
class _Given:
    value: Any


@dataclass
class _Raised:
    """An exception of a block, and where it came from."""

    pickled: bytes
    where: str

    @classmethod
    def of(cls, error):
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)  # some can be written only
        except Exception:
            pickled = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        return cls(pickled, "".join(traceback.format_exception(error)))

    def error(self):
        error = pickle.loads(self.pickled)
        error.__cause__ = _InWorker(f"in a worker:\n{self.where}")
        return error


class _InWorker(Exception):
    """What a traceback looked like in another process."""


def _settings():
    """What of the caller's thread and process decides numbers."""
    return get_config(), torch.get_default_dtype(), _flushes_denormals()


def _flushes_denormals():
    """Whether ``torch.set_flush_denormal(True)`` is on, which torch does not tell."""
    return bool((torch.full((1,), 2e-39, dtype=torch.float32) * 0.5 == 0).all())


@contextlib.contextmanager
def _as_there(config, dtype, flushes):
    """The settings of where the call came from; those that are here are put back, other work may want them."""
    dtype_here, flushes_here = torch.get_default_dtype(), _flushes_denormals()
    if dtype_here != dtype:
        torch.set_default_dtype(dtype)
    torch.set_flush_denormal(flushes)
    try:
        with config_context(**config), autocast_off():
            yield
    finally:
        torch.set_flush_denormal(flushes_here)
        if dtype_here != dtype:
            torch.set_default_dtype(dtype_here)


def _run(parcel, function, settings, number, block):
    """(number, outcome) of one block. Exceptions are outcomes: what the engine raises is about its workers."""
    try:
        with _as_there(*settings):
            return number, _Given(function(parcel.open(), block))
    except Exception as error:
        return number, _Raised.of(error)


def _outcomes(parcel, function, settings, blocks, n_jobs):
    """Yield (number, outcome) of blocks, as they are finished."""
    calls = ((parcel, function, settings, number, block) for number, block in blocks.items())
    backend = active_backend()
    if found := dask_client(backend):
        yield from by_dask(*found, _run, parcel, calls, _AHEAD)
        return
    if (options := ray_options(backend)) is not None:
        yield from by_ray(options, _run, parcel, calls, n_workers(n_jobs))
        return
    # Nothing that joblib would start other processes for than the caller's own calls have.
    options = {"n_jobs": n_jobs, "batch_size": 1, "pre_dispatch": f"{_AHEAD}*n_jobs"}
    if getattr(backend, "supports_return_generator", False):
        outcomes = _parallel(calls, return_as=AS_FINISHED, **options)
        try:
            # Not "yield from", which would hand on what closes this generator.
            for outcome in outcomes:  # noqa: UP028
                yield outcome
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # joblib remarks on calls whose results nobody wants any more
                outcomes.close()
        return
    wave = _AHEAD * n_workers(n_jobs)
    calls = list(calls)
    for start in range(0, len(calls), wave):
        yield from _parallel(calls[start : start + wave], **options)


def _parallel(calls, **options):
    return joblib.Parallel(**options)(joblib.delayed(_run)(*call) for call in calls)
