"""Random numbers of a row: they depend on its content and on which draw it is, on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..utils._counter_random import row_uniforms

_STREAMS = 64  # requests for random numbers that one draw may make
# Draws of a training are numbered by epochs; those of a method or a measurement by numbers far beyond.
_FRESH = 2**32


@dataclass(frozen=True)
class Draw:
    """Which random numbers the rows get.

    Read more in the :ref:`User Guide <draws>`.

    Parameters
    ----------
    seed : int
        Of the training, or of whoever draws.
    number : int
        Which of the draws: in a training the epoch, from 1 on.
    given : object, optional
        What is not left to chance, as ``example`` understands it: a timestep.
    """

    seed: int
    number: int
    given: Any = None


def fresh_draws(seed: int, n_draws: int, given: Sequence[Any] = (None,)) -> list[Draw]:
    """Draws that no training makes.

    Parameters
    ----------
    seed : int
    n_draws : int
        For each of ``given``, all of them different.
    given : sequence, default=(None,)
        What is not left to chance.

    Returns
    -------
    draws : list of Draw
    """
    values = [value for value in given for _ in range(n_draws)]
    return [Draw(int(seed), _FRESH + number, value) for number, value in enumerate(values)]


class RowRandom:
    """Random numbers for the rows of a batch, each row's by its own content: never by its batch or place.

    Every request gives other numbers. They come from a counter-based generator and move no global one.

    Read more in the :ref:`User Guide <draws>`.

    Parameters
    ----------
    keys : ndarray of uint64 (B,)
        Fingerprints of the rows.
    draw : Draw
    dtype : torch.dtype
        Of the numbers that are given out.
    device : torch.device or str
        Where they are.

    Attributes
    ----------
    given : object
        Of the draw: what is not left to chance.
    """

    def __init__(self, keys: NDArray[np.uint64], draw: Draw, dtype: torch.dtype, device: torch.device | str):
        self._keys, self._draw, self._dtype, self._device = keys, draw, dtype, device
        self._requests = 0
        self.given = draw.given

    def __len__(self) -> int:
        return len(self._keys)

    def uniform(self, shape: Sequence[int] = ()) -> torch.Tensor:
        """Numbers between 0 and 1, neither of them included.

        Parameters
        ----------
        shape : tuple of int, default=()
            Of what every row gets.

        Returns
        -------
        numbers : Tensor of shape (B,) + shape
        """
        return self._uniforms(shape).to(self._device, self._dtype)

    def normal(self, shape: Sequence[int] = ()) -> torch.Tensor:
        """Standard normal numbers.

        Parameters
        ----------
        shape : tuple of int, default=()
            Of what every row gets.

        Returns
        -------
        numbers : Tensor of shape (B,) + shape
        """
        return torch.special.ndtri(self._uniforms(shape)).to(self._device, self._dtype)

    def integers(self, low: int, high: int, shape: Sequence[int] = ()) -> torch.Tensor:
        """Integers from ``low`` to ``high - 1``, each as probable as another.

        Parameters
        ----------
        low, high : int
        shape : tuple of int, default=()
            Of what every row gets.

        Returns
        -------
        numbers : Tensor of shape (B,) + shape of int64
        """
        return (low + (self._uniforms(shape) * (high - low)).floor().long()).to(self._device)

    def _uniforms(self, shape):
        number = self._draw.number * _STREAMS + self._requests
        self._requests += 1
        if self._requests > _STREAMS:
            raise ValueError(
                f"expected at most {_STREAMS} requests for random numbers in one draw: ask for larger ones"
            )
        return row_uniforms(self._keys, tuple(shape), seed=self._draw.seed, draw=number)
