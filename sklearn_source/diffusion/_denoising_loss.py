"""What is measured of a diffusion model: its loss, or its output, at timesteps of one's choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch

from ..stochastic import Draw, fresh_draws
from ..utils._argument_checks import check_choice, check_count


@dataclass(frozen=True)
class DenoisingLoss:
    """A measurement of diffusion models: minus the loss of an image, a mean over a fixed grid of timesteps and noises.

    For ``measurement=`` of the methods of attribution and of retraining.

    Read more in the :ref:`User Guide <diffusion>`.

    Parameters
    ----------
    n_timesteps : int, default=10
        Timesteps, evenly spaced.
    n_noise : int, default=1
        Noises at each of them.
    timesteps : (int, int) or int, optional
        A range, first and beyond the last, or one timestep: the scores are then of the rows that shaped these stages.
        None: all.
    loss : {"squared", "absolute", "output"}, default="squared"
        Minus the mean squared or absolute error; or the mean square of the output, ``mean eps^2`` of D-TRAK [1]_.
    seed : int, default=0
        Of the noises, which depend on it and the image alone.

    References
    ----------
    .. [1] Zheng, Pang, Du, Jiang, Lin (2024), "Intriguing Properties of Data Attribution on Diffusion Models", ICLR.

    Examples
    --------
    >>> from sklearn_source.diffusion import DenoisingLoss
    >>> DenoisingLoss(timesteps=(600, 1000)).grid(1000)  # the coarse stages
    [620, 660, 700, 740, 780, 820, 860, 900, 940, 980]
    """

    n_timesteps: int = 10
    n_noise: int = 1
    timesteps: int | tuple[int, int] | None = None
    loss: Literal["squared", "absolute", "output"] = "squared"
    seed: int = 0

    def __post_init__(self):
        check_choice("loss", self.loss, ("squared", "absolute", "output"))
        for name, smallest in (("n_timesteps", 1), ("n_noise", 1), ("seed", 0)):
            check_count(name, getattr(self, name), smallest)
        times = self.timesteps if isinstance(self.timesteps, tuple) else (self.timesteps,)
        is_range = isinstance(self.timesteps, tuple)
        whole = all(isinstance(t, Integral) and not isinstance(t, bool) and t >= 0 for t in times)
        if self.timesteps is not None and not (whole and (not is_range or len(times) == 2 and times[0] < times[1])):
            raise ValueError(
                "expected timesteps to be None, one of them, or a range (first, beyond the last), whole numbers from 0 "
                f"up, got {self.timesteps!r}"
            )

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Measure a batch.

        Parameters
        ----------
        output, target : Tensor (B, n_draws, ...)

        Returns
        -------
        values : Tensor (B,)
        """
        if self.loss == "output":
            return output.square().flatten(1).mean(1)
        error = output - target
        return -(error.square() if self.loss == "squared" else error.abs()).flatten(1).mean(1)

    def grid(self, n_timesteps: int) -> list[int]:
        """The timesteps of a model that has so many.

        Parameters
        ----------
        n_timesteps : int

        Returns
        -------
        timesteps : list of int
            From 0 on, in the middle of equal parts.

        Raises
        ------
        ValueError
            If the model has not those asked for.
        """
        if isinstance(self.timesteps, (int, np.integer)):
            first, beyond = int(self.timesteps), int(self.timesteps) + 1
        else:
            first, beyond = self.timesteps or (0, n_timesteps)
        if not 0 <= first < beyond <= n_timesteps:
            raise ValueError(f"expected timesteps from 0 to {n_timesteps - 1}, got {self.timesteps}")
        wanted = min(self.n_timesteps, beyond - first)
        return [int(first + (i + 0.5) * (beyond - first) / wanted) for i in range(wanted)]

    def draws(self, net: Any) -> list[Draw]:
        """The grid as draws.

        Parameters
        ----------
        net : DiffusionNet

        Returns
        -------
        draws : list of Draw

        Raises
        ------
        ValueError
            If the net has no timesteps.
        """
        if not hasattr(net, "n_timesteps"):
            raise ValueError(f"expected a DiffusionNet, whose loss has timesteps, got a {type(net).__name__}")
        return self.draws_at(self.grid(net.n_timesteps))

    def draws_at(self, timesteps: Sequence[int]) -> list[Draw]:
        """Draws of some timesteps, ``n_noise`` of each.

        Parameters
        ----------
        timesteps : sequence of int

        Returns
        -------
        draws : list of Draw
        """
        return fresh_draws(self.seed, self.n_noise, timesteps)
