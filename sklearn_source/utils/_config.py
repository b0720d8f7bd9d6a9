"""Settings of the package for the thread that runs: how much memory intermediate results may take."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from ._argument_checks import check_count

_DEFAULTS = {"memory_budget": 2 * 2**30}
# Bytes that each kind of intermediate result may take with the default budget; another budget scales all alike. Sizes
# that are chosen for a processor's cache stay where they are used: more memory would make those chunks slower.
DEFAULT_BYTES = {
    # Query vectors kept at a time. More queries take further passes over the training rows, and a product with some
    # dozens of queries has two thirds of the rate that it has with a hundred.
    "query_vectors": 2 * 2**30,
    # Per-row gradients kept between the two passes of a curvature's fit, with cache_size="auto".
    "cached_gradients": 2**30,
    # Parameters, gradients and two moments of the networks that are retrained together on a GPU.
    "stacked_networks": 2 * 2**30,
    # Dense per-row gradients of one batch, all Fisher columns together: beyond that the batch is cut further.
    "dense_gradients": 512 * 2**20,
    # Fisher columns that couple layers, as matrices, while they meet the same vectors again and again.
    "fisher_columns": 1024 * 2**20,
    # Features of all rows in the basis of a ridge regression, in float64; beyond that they are formed at each use.
    "ridge_coordinates": 512 * 2**20,
    # Inputs and output gradients of one batch of rows, for batch_size=None.
    "batch": 128 * 2**20,
    # Scores that functions of the inspection hold, as float64.
    "scores": 128 * 2**20,
    # Per-row gradients that torch.func takes of a module without a rule of its own.
    "functional_gradients": 64 * 2**20,
    # Outputs weighed together, counted as float32, while a loss is looked at for unequal weights of rows.
    "weighed_outputs": 16 * 2**20,
    # Numbers ranked together in the resamples behind an interval; some three times as much is held.
    "resamples": 32_000_000,
}
_local = threading.local()


def _settings():
    if not hasattr(_local, "settings"):
        _local.settings = dict(_DEFAULTS)
    return _local.settings


def get_config() -> dict[str, int]:
    """The settings of this thread.

    Read more in the :ref:`User Guide <memory_budget>`.

    Returns
    -------
    config : dict
        A copy: ``memory_budget``, in bytes.

    See Also
    --------
    config_context : Other settings for a while.
    set_config : Other settings from now on.

    Examples
    --------
    >>> import sklearn_source
    >>> sklearn_source.get_config()
    {'memory_budget': 2147483648}
    """
    return dict(_settings())


def set_config(*, memory_budget: int | None = None) -> None:
    """Change settings of this thread.

    Read more in the :ref:`User Guide <memory_budget>`.

    Parameters
    ----------
    memory_budget : int, optional
        See :func:`config_context`. None leaves it as it is.

    Raises
    ------
    ValueError
        If the budget is no positive integer.

    See Also
    --------
    config_context : The same for a while.
    get_config : What is set.
    """
    if memory_budget is not None:
        _settings()["memory_budget"] = check_count("memory_budget", memory_budget)


@contextlib.contextmanager
def config_context(*, memory_budget: int | None = None) -> Iterator[None]:
    """Change settings of this thread for as long as the context lasts.

    Read more in the :ref:`User Guide <memory_budget>`.

    Parameters
    ----------
    memory_budget : int, default=2 GiB (2 * 2**30)
        Bytes that the largest intermediate results may take: the vectors of the queries that are scored in one pass
        over the training rows, or the networks retrained together on a GPU. Others take fixed shares of it, a batch of
        training rows for ``batch_size=None`` a sixteenth, dense gradients of rows a quarter, those that a fit keeps for
        its second pass a half, so that all that is held at a time is somewhat more. Not counted: weights, checkpoints,
        data, curvatures, scores.
        None leaves it as it is.

    Yields
    ------
    None
        Nothing; when the context ends, the settings are what they were before.

    Raises
    ------
    ValueError
        If the budget is no positive integer.

    See Also
    --------
    get_config : What is set.
    set_config : Other settings from now on.

    Notes
    -----
    More memory means fewer passes and larger products; scores differ by rounding alone. As in scikit-learn the settings
    are of the thread: others, and worker processes, have the defaults. Batches are chosen in ``fit``, chunks of queries
    when they are scored.

    Examples
    --------
    >>> from sklearn_source import config_context, get_config
    >>> with config_context(memory_budget=8 * 2**30):
    ...     get_config()["memory_budget"] // 2**30
    8
    """
    before = get_config()
    set_config(memory_budget=memory_budget)
    try:
        yield
    finally:
        _settings().update(before)


def bytes_for(purpose):
    """Bytes that a kind of intermediate result may take, a key of ``DEFAULT_BYTES``."""
    return DEFAULT_BYTES[purpose] * _settings()["memory_budget"] // _DEFAULTS["memory_budget"]
