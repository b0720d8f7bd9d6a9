"""A diffusion model as a skorch net."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from skorch import NeuralNet

from ..stochastic import Draw, RowRandom, StochasticLossMixin
from ..utils._argument_checks import check_choice, check_confidence, check_count, check_switch
from ..utils._progress import progress
from ..utils._random import draw_seed
from ._denoising_loss import DenoisingLoss
from ._sampling import check_sampling, image_and_noise, reverse_step, reverse_steps
from ._schedule import SCHEDULES, signal_shares

_CHUNK = 256  # images that pass through the module together


class DiffusionNet(StochasticLossMixin, NeuralNet):
    """A denoising diffusion model: a skorch net that is fitted on images and makes new ones.

    ``fit(X)`` trains the module to find the noise in noisy rows. The timestep and the noise that a row drew in an epoch
    follow from ``draw_seed_``, the row and the epoch (:class:`StochasticLossMixin`): methods of attribution know them
    afterwards, and no noise is stored.

    Read more in the :ref:`User Guide <diffusion>`.

    Parameters
    ----------
    module : type of torch.nn.Module
        ``forward(sample, timestep)``, with a third argument ``class_labels`` where ``conditional``, returning what is
        to be found, shaped like ``sample``: :class:`~sklearn_source.modules.UNet`, or diffusers' ``UNet2DModel``.
    *args
        Further arguments of ``skorch.NeuralNet``.
    criterion : type, default=torch.nn.MSELoss
        ``torch.nn.L1Loss`` for the absolute error.
    n_timesteps : int, default=1000
        Of the diffusion.
    schedule : {"cosine", "linear"}, default="cosine"
        How the share of noise grows.
    target : {"noise", "v"}, default="noise"
        What the module finds: the noise, or ``sqrt(abar) noise - sqrt(1 - abar) image``.
    conditional : bool, default=False
        Whether ``y`` of ``fit`` are class labels that the module is told.
    ema_decay : float, optional
        Keep an average of the weights, this much of it from step to step, to sample with. Training, and all that is
        recorded and attributed of it, are of the weights themselves.
    **kwargs
        Further arguments of ``skorch.NeuralNet``.

    Attributes
    ----------
    draw_seed_ : int
        Of the timesteps and noises of the training.
    sample_shape_ : tuple of int
        Shape of a row.
    ema_ : dict of str to Tensor
        The averaged weights, where asked for.

    Notes
    -----
    Of a row x at timestep t the module sees ``sqrt(abar_t) x + sqrt(1 - abar_t) eps``; timesteps count from 0. Scale
    the rows to [-1, 1] or to unit variance. Measured (by default, and as validation loss) is the loss over ten
    timesteps, one noise each: :class:`DenoisingLoss`.

    References
    ----------
    .. [1] Ho, Jain, Abbeel (2020), "Denoising Diffusion Probabilistic Models", NeurIPS.
    .. [2] Nichol, Dhariwal (2021), "Improved Denoising Diffusion Probabilistic Models", ICML.

    Examples
    --------
    >>> from sklearn_source.diffusion import DiffusionNet
    >>> from sklearn_source.modules import UNet
    >>> net = DiffusionNet(UNet, module__channels=(16, 32), train_split=None)
    >>> net.fit(X).sample(16, random_state=0)  # doctest: +SKIP
    """

    def __init__(
        self,
        module: Any,
        *args: Any,
        criterion: Any = torch.nn.MSELoss,
        n_timesteps: int = 1000,
        schedule: Literal["cosine", "linear"] = "cosine",
        target: Literal["noise", "v"] = "noise",
        conditional: bool = False,
        ema_decay: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(module, *args, criterion=criterion, **kwargs)
        self.n_timesteps = n_timesteps
        self.schedule = schedule
        self.target = target
        self.conditional = conditional
        self.ema_decay = ema_decay

    def initialize(self) -> DiffusionNet:
        """Initialize all components of the net.

        Returns
        -------
        self : DiffusionNet

        Raises
        ------
        ValueError
            If a parameter of the diffusion is none.
        """
        check_count("n_timesteps", self.n_timesteps)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("target", self.target, ("noise", "v"))
        check_switch("conditional", self.conditional)
        if self.ema_decay is not None:
            check_confidence(self.ema_decay, "ema_decay")
        super().initialize()
        for name in ("ema_", "sample_shape_"):
            self.__dict__.pop(name, None)
        return self

    def example(self, X: torch.Tensor, y: Any, random: RowRandom) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Noisy images and what is to be found in them.

        Parameters
        ----------
        X : Tensor (B, ...)
        y : Tensor (B,) or None
            Class labels where ``conditional``.
        random : RowRandom
            ``random.given`` is a timestep, or None for one at random.

        Returns
        -------
        inputs : dict of Tensor
        target : Tensor like ``X``
        """
        if not isinstance(X, torch.Tensor):
            raise ValueError(f"expected rows of a diffusion model in one array X, got a {type(X).__name__}")
        drawn = random.integers(0, self.n_timesteps)
        timestep = drawn if random.given is None else torch.full_like(drawn, random.given)
        noise = random.normal(X.shape[1:])
        share = torch.from_numpy(self._shares()[timestep.cpu().numpy()]).reshape(-1, *[1] * (X.ndim - 1))
        image_scale, noise_scale = (s.to(X.device, X.dtype) for s in (share.sqrt(), (1 - share).sqrt()))
        inputs = {"sample": image_scale * X + noise_scale * noise, "timestep": timestep}
        if self.conditional:
            if y is None:
                raise ValueError("a conditional DiffusionNet needs the class label of every row: pass them as y")
            inputs["class_labels"] = y.reshape(len(X)).long()
        return inputs, noise if self.target == "noise" else image_scale * noise - noise_scale * X

    def measured_draws(self) -> list[Draw]:
        """The grid of :class:`DenoisingLoss` as it is by default.

        Returns
        -------
        draws : list of Draw
        """
        return DenoisingLoss().draws(self)

    def infer(self, x: Any, **fit_params: Any) -> torch.Tensor:
        """The module's output for noisy images.

        Parameters
        ----------
        x : dict of Tensor
            From :meth:`example`.
        **fit_params : dict

        Returns
        -------
        output : Tensor like ``x["sample"]``

        Raises
        ------
        TypeError
            If ``x`` holds images without timesteps.
        """
        if not isinstance(x, dict):
            raise TypeError(
                "a diffusion model predicts nothing of a row, only the noise in a noisy one at a timestep: use "
                "sample() for new rows, and net.example for noisy ones"
            )
        output = super().infer(x, **fit_params)
        return getattr(output, "sample", output)  # diffusers wrap it

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """An optimizer step, and one of the averaged weights.

        Parameters
        ----------
        batch : object
            As the iterator gives it.
        **fit_params : dict
            For ``infer``.

        Returns
        -------
        step : dict
        """
        self.sample_shape_ = tuple(batch[0].shape[1:])
        step = super().train_step(batch, **fit_params)
        if self.ema_decay is not None:
            weights = {name: p.detach() for name, p in self.module_.named_parameters()}
            if not hasattr(self, "ema_"):
                self.ema_ = {name: value.clone() for name, value in weights.items()}
            for name, average in self.ema_.items():
                average.lerp_(weights[name], 1 - self.ema_decay)
        return step

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        y: ArrayLike | None = None,
        random_state: int | np.random.RandomState | None = None,
        method: Literal["ddpm", "ddim"] = "ddpm",
        n_steps: int | None = None,
        clip: tuple[float, float] | None = None,
        verbose: int = 0,
    ) -> NDArray:
        """Make new rows.

        Parameters
        ----------
        n : int
            How many.
        y : array-like of int (n,), optional
            Their classes, of a ``conditional`` net.
        random_state : int, RandomState instance or None, default=None
            No global random state is used or moved.
        method : {"ddpm", "ddim"}, default="ddpm"
            With fresh noise at each step, or deterministic after the first.
        n_steps : int, optional
            Steps of the reverse process; None: all timesteps.
        clip : (float, float), optional
            Bounds for what the image is taken to be at each step: those of the training rows.
        verbose : int, default=0
            Show progress.

        Returns
        -------
        rows : ndarray (n, ...)
            Queries for the methods of attribution. By the averaged weights where there are some.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the net is not trained.
        ValueError
            If an argument is none, or classes are missing.
        """
        if not hasattr(self, "sample_shape_"):
            raise NotFittedError("this DiffusionNet was not trained: call its fit first")
        n, n_steps = check_sampling(n, n_steps, self.n_timesteps, method, clip, verbose)
        if (y is None) == bool(self.conditional):
            raise ValueError(
                f"expected {'' if self.conditional else 'no '}y, the classes, of a net that is "
                f"{'' if self.conditional else 'not '}conditional"
            )
        labels = None if y is None else torch.as_tensor(np.asarray(y)).reshape(n).long().to(self.device)
        generator = torch.Generator().manual_seed(draw_seed(random_state))
        like = next(self.module_.parameters())
        noisy = torch.randn((n, *self.sample_shape_), generator=generator, dtype=torch.float64).to(like)
        shares = np.append(self._shares(), 1.0)  # the last for the image itself
        steps = reverse_steps(self.n_timesteps, n_steps)
        was_training = self.module_.training
        self.module_.eval()
        try:
            for timestep, following in progress(steps, verbose=verbose, desc="sampling"):
                output = self._output(noisy, timestep, labels)
                image, noise = image_and_noise(noisy, output, shares[timestep], self.target)
                if clip is not None:
                    image = image.clamp(*clip)
                    noise = (noisy - shares[timestep] ** 0.5 * image) / (1 - shares[timestep]) ** 0.5
                noisy = reverse_step(noisy, image, noise, shares[timestep], shares[following], method, generator)
        finally:
            self.module_.train(was_training)
        return noisy.cpu().numpy()

    def _output(self, noisy, timestep, labels):
        """Of the module with the averaged weights, or with its own, some images at a time."""
        averaged = getattr(self, "ema_", None)
        parts = []
        for start in range(0, len(noisy), _CHUNK):
            some = slice(start, start + _CHUNK)
            x = {"sample": noisy[some], "timestep": torch.full((len(noisy[some]),), timestep, device=noisy.device)}
            if labels is not None:
                x["class_labels"] = labels[some]
            if averaged is None:
                parts.append(self.infer(x))
            else:
                output = torch.func.functional_call(self.module_, averaged, kwargs=x)
                parts.append(getattr(output, "sample", output))
        return torch.cat(parts)

    def _shares(self):
        return signal_shares(self.schedule, self.n_timesteps)
