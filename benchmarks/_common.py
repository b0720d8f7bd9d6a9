"""Settings and clocks shared by every benchmark: import this module before any other torch user.

Importing it fixes the number of threads and flushes denormals. Worker threads inherit the floating-point state of
the thread that starts them, so the flag has to be set before the first parallel operation of the process.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

N_THREADS = 2

torch.set_flush_denormal(True)
torch.set_num_threads(N_THREADS)


@dataclass(frozen=True)
class Clock:
    """Wall and process CPU time of one call, in seconds."""

    wall: float
    cpu: float

    def __add__(self, other: Clock) -> Clock:
        return Clock(self.wall + other.wall, self.cpu + other.cpu)


def synchronize() -> None:
    """Wait for the accelerator, where one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def timed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Clock]:
    """Call ``function`` once; return its result and a `Clock`. Garbage of earlier calls is collected first.

    An accelerator's work is waited for on both sides of the call.
    """
    gc.collect()
    synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*args, **kwargs)
    synchronize()
    return result, Clock(time.perf_counter() - wall, time.process_time() - cpu)


def exit_on_terminate() -> None:
    """Leave through the context managers when terminated, so that no working directory stays in shared memory."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
