"""Locks that a child process does not inherit from threads that it has not, and switches that threads share."""

from __future__ import annotations

import functools
import os
import threading
import weakref


class ThreadLock:
    """A re-entrant lock, as a context manager. After a fork, it is free in the child unless the forking thread held it.

    A thread that held it in the parent does not exist in the child, and would never give it back. What it was at is
    half done there: ``abandoned`` is True until whoever mends that sets it back.
    """

    _all: weakref.WeakSet = weakref.WeakSet()

    def __init__(self):
        self._lock, self._owner, self._depth = threading.RLock(), None, 0
        self.abandoned = False
        self._all.add(self)

    def __enter__(self):
        self._lock.acquire()
        self._owner, self._depth = threading.get_ident(), self._depth + 1
        return self

    def __exit__(self, *exception):
        self._depth -= 1
        if not self._depth:
            self._owner = None
        self._lock.release()

    @classmethod
    def free_in_child(cls):
        """Called in the child of a fork."""
        for lock in list(cls._all):
            if lock._owner != threading.get_ident():
                lock.abandoned |= lock._owner is not None
                lock._lock, lock._owner, lock._depth = threading.RLock(), None, 0


LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event, ThreadLock)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ThreadLock.free_in_child)


class cached_property(functools.cached_property):  # noqa: N801
    """Without the lock that Python before 3.12 holds for all instances: in a fork a vanished thread would keep it."""

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        value = instance.__dict__[self.attrname] = self.func(instance)
        return value


class Switch:
    """Something of the whole process that is set to a value while any thread is inside; the last one puts it back.

    Parameters
    ----------
    get, set : callable
        Read and write it.
    value : object
        What it is inside.
    """

    def __init__(self, get, set, value):
        self._get, self._set, self._value = get, set, value
        self._lock, self._inside, self._before = ThreadLock(), 0, None

    def __enter__(self):
        with self._lock:
            if not self._inside:
                self._before = self._get()
                self._set(self._value)
            self._inside += 1

    def __exit__(self, *exception):
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._set(self._before)
