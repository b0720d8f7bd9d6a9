"""Processes that are killed at their work, at a time or at a file operation."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

# What a module of such tests is marked with.
NEEDS_FORK = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]
OPERATIONS = ("fsync", "replace", "rename", "mkdir", "rmdir", "unlink")


def started(work: Callable[[], object]) -> int:
    """Begin a process that does it; its id."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def was_killed(pid: int) -> bool:
    """Wait for the end of a process: whether it was a signal."""
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def killed(pid: int) -> bool:
    """Whether SIGKILL met the process at work."""
    os.kill(pid, signal.SIGKILL)
    return was_killed(pid)


def wait_while(waiting: Callable[[], bool], patience: float = 30.0) -> None:
    """Sleep until it says no, or patience ends."""
    end = time.monotonic() + patience
    while waiting() and time.monotonic() < end:
        time.sleep(0.005)


def killed_while(pid: int, waiting: Callable[[], bool]) -> bool:
    """Kill it when it is no longer waited for: whether that met the process at work."""
    wait_while(waiting)
    return killed(pid)


def killed_at_every_operation(work: Callable[[int], object]) -> Iterator[int]:
    """Yield 1, 2, ... after ``work(number)`` was done by a process that died before that operation on files.

    The last number is one that the work was done before.
    """

    def until_operation(number: int) -> None:
        die_at(number)
        work(number)

    for number in itertools.count(1):
        dead = was_killed(started(functools.partial(until_operation, number)))
        yield number
        if not dead:
            return


def die_at(number: int) -> None:
    """Kill this process before its operation of that number."""
    count = itertools.count(1)

    def counted(operation, *args, **options):
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return operation(*args, **options)

    _instead_of_operations(counted)


def slow_down(seconds: float) -> None:
    """Let every operation of this process take a while, so that a kill meets one."""

    def slowed(operation, *args, **options):
        time.sleep(seconds)
        try:
            return operation(*args, **options)
        finally:
            time.sleep(seconds)

    _instead_of_operations(slowed)


def _instead_of_operations(wrapper):
    for name in OPERATIONS:
        setattr(os, name, functools.partial(wrapper, getattr(os, name)))
