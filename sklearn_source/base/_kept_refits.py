"""Refits of a method, kept while several questions are asked of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

_kept: ContextVar[list | None] = ContextVar("kept_refits", default=None)


@contextlib.contextmanager
def keep_refits() -> Iterator[None]:
    """As long as the context lasts, removals, other weights and other targets share what they solve with.

    Which columns stand for the curvature at a checkpoint, their Gram matrix and its factors do not depend on which rows
    change, nor how. They are held, a gigabyte and more for each checkpoint of a large network, until the context ends.
    """
    if _kept.get() is not None:  # the outer one holds them
        yield
        return
    token = _kept.set([])
    try:
        yield
    finally:
        _kept.reset(token)


def kept_refit(method: Any, state: Any, make: Callable[[], Any]) -> Any:
    """What ``make`` makes of a fitted method at a state, by an earlier call where such are kept.

    Parameters
    ----------
    method : CurvatureAttribution
        Fitted, and not fitted anew while the context lasts.
    state : State
    make : callable

    Returns
    -------
    refit : GaussNewtonRefit
    """
    kept = _kept.get()
    if kept is None:
        return make()
    weights = state.step, state.digest
    for known, where, refit in kept:  # the method is held, so that no other takes its place
        if known is method and where == weights:
            return refit
    refit = make()
    kept.append((method, weights, refit))
    return refit
