"""Randomness that leaves the global generators as they were."""

from __future__ import annotations

import contextlib
import random
from numbers import Integral

import numpy as np
import torch
from sklearn.utils import check_random_state

from ._locks import ThreadLock

# The global generators belong to one thread at a time: what seeds them, or puts them back, waits for its turn.
TURN = ThreadLock()


def draw_seed(random_state):
    """One seed; None draws fresh entropy, so that numpy's global state is left alone."""
    return int(draw_seeds(random_state, 1)[0])


def draw_seeds(random_state, n):
    """``n`` seeds, the first of them whatever their number is."""
    if random_state is None:
        return np.random.default_rng().integers(2**31 - 1, size=n)
    return generator_of(random_state).randint(2**31 - 1, size=n)


def generator_of(random_state):
    """``check_random_state``, but None is a generator of its own from fresh entropy, not NumPy's global one."""
    if random_state is None:
        return np.random.RandomState()
    if isinstance(random_state, Integral) and not 0 <= random_state < 2**32:
        raise ValueError(f"expected random_state to be an integer from 0 to 2**32 - 1, got {random_state!r}")
    return check_random_state(random_state)


@contextlib.contextmanager
def generators_kept(cuda):
    """Put the global generators of Python, NumPy and torch back as they are, whatever draws from them meanwhile.

    Other threads that ask for the same wait.

    Parameters
    ----------
    cuda : bool
        Whether the generators of all CUDA devices are among them.
    """
    devices = range(torch.cuda.device_count()) if cuda else ()
    with TURN:
        python, numpy_ = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=devices):
            try:
                yield
            finally:
                random.setstate(python)
                np.random.set_state(numpy_)


@contextlib.contextmanager
def seeded(seed, device="cpu"):
    """Seed the global generators of Python, NumPy and torch for as long as the context lasts.

    Parameters
    ----------
    seed : int
    device : torch.device or str
        A CUDA device includes the generators of all CUDA devices.
    """
    cuda = torch.device(device).type == "cuda"
    with generators_kept(cuda):
        # Not torch.manual_seed for the CPU alone: it would seed the CUDA generators too, for good.
        (torch.manual_seed if cuda else torch.default_generator.manual_seed)(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
