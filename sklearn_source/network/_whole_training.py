"""Trainings that the package starts, which have to prove that they were not cut short."""

from __future__ import annotations

import dis
import signal

_RAISE = dis.opmap["RAISE_VARARGS"]


def train_to_the_end(train, X, y):
    """Train a net by its own method, and let no training pass for a whole one that was interrupted.

    skorch ends a training quietly on KeyboardInterrupt, whoever raised it. Its callbacks do so on purpose, early
    stopping say; a Ctrl-C leaves a network that is half trained.

    Parameters
    ----------
    train : bound method
        ``net.fit`` or ``net.partial_fit``.
    X, y : what they take

    Raises
    ------
    KeyboardInterrupt
        When the training was interrupted, once the net's callbacks have seen it end.
    """
    net = train.__self__
    own, interrupts = type(net), []

    class Watched(own):
        def fit_loop(self, *args, **kwargs):
            try:
                return super().fit_loop(*args, **kwargs)
            except KeyboardInterrupt as error:
                if not _meant(error):
                    interrupts.append(error)
                raise

        def __reduce_ex__(self, protocol):  # a callback may save the net, or copy it
            return object.__new__, (own,), self.__getstate__()

    Watched.__name__, Watched.__qualname__, Watched.__module__ = own.__name__, own.__qualname__, own.__module__
    net.__class__ = Watched
    try:
        train(X, y)
    finally:
        net.__class__ = own
    if interrupts:
        raise interrupts[0]


def _meant(error):
    """Whether a callback of the net raised a KeyboardInterrupt itself, and no signal that reached it there."""
    frames, place = [], error.__traceback__
    while place is not None:
        frames.append(place.tb_frame.f_code)
        last, place = place, place.tb_next
    handler = signal.getsignal(signal.SIGINT)
    handler = getattr(getattr(handler, "__func__", handler), "__code__", None)
    code = last.tb_frame.f_code.co_code
    raised = 0 <= last.tb_lasti < len(code) and code[last.tb_lasti] == _RAISE
    return raised and handler not in frames and any(code.co_name == "notify" for code in frames)
