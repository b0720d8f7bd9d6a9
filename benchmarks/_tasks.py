"""The networks and rows of the speed benchmarks: synthetic, deterministic, nothing downloaded.

``a``
    MLP 784-256-256-10 on 6000 x 200 rows; a sixth of the inputs is constantly zero, as at the border of an image.
``b``
    ResNet-9 with GroupNorm, narrowed to 2.0 M parameters, on 1000 x 50 images of 3 x 32 x 32. Four
    resolutions: 32, 16, 8 and 4 (three quarters of the parameters sit at 4 x 4).
``b2``
    The other network called ResNet-9 in the attribution literature (a 5 x 5 convolution with stride 2, fewer
    resolutions, 2.3 M parameters), GroupNorm in place of BatchNorm. Its large layers see 64 positions, not 16, which
    leaves less to gain.
``c``
    Transformer classifier: 2 layers, width 128, 4 heads, separate q, k, v, o, feed-forward 512, 64 tokens of 128
    floats, 1000 x 50 rows.

Every network is trained briefly by plain SGD with momentum, and one label in ten is wrong, so that per-row
gradients are neither those of a random initialisation nor vanishing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from _common import N_THREADS
from torch import Tensor, nn

N_CLASSES = 10


@dataclass(frozen=True)
class Task:
    """One benchmark problem.

    Attributes
    ----------
    name : str
        The key in `TASKS`.
    X_train, X_query : Tensor of shape (n, ...), float32
    y_train, y_query : Tensor of shape (n,), int64
    layers : tuple of str
        Names of the Linear and Conv2d modules: what both sides attribute. Norm layers and the position embedding
        are left out because the peer does not track them.
    n_params : int
        Number of weights and biases in `layers`.
    checkpoints : tuple of (int, dict)
        ``(step, state_dict)``, the initial parameters (step 0) first, the trained network last.
    learning_rate, momentum, batch_size
        The settings of the SGD run that made `checkpoints`; the rate is constant.
    device : str
        Where both sides compute; rows and checkpoints stay on the CPU.
    """

    name: str
    build: Callable[[], nn.Module]
    X_train: Tensor
    y_train: Tensor
    X_query: Tensor
    y_query: Tensor
    layers: tuple[str, ...]
    n_params: int
    checkpoints: tuple[tuple[int, dict[str, Tensor]], ...]
    learning_rate: float
    momentum: float
    batch_size: int
    device: str = "cpu"

    def module(self, checkpoint: int = -1) -> nn.Module:
        """Return a fresh network in eval mode, with the parameters of a checkpoint (default: the trained network)."""
        module = self.build()
        module.load_state_dict(self.checkpoints[checkpoint][1])
        return module.eval()

    def head(self, n_train: int, n_query: int) -> Task:
        """Return the same problem on its first rows (warm-up, sweeps)."""
        return replace(
            self,
            X_train=self.X_train[:n_train],
            y_train=self.y_train[:n_train],
            X_query=self.X_query[:n_query],
            y_query=self.y_query[:n_query],
        )


class MLP(nn.Module):
    """784-256-256-10 with ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 256)
        self.fc2 = nn.Linear(256, 256)
        self.fc3 = nn.Linear(256, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class ConvNorm(nn.Module):
    """Convolution without bias (the norm has one), GroupNorm, ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=padding, bias=False)
        self.norm = nn.GroupNorm(4, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """Two `ConvNorm` around a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvNorm(width, width)
        self.second = ConvNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class ResNet9(nn.Module):
    """Eight convolutions and a linear layer; resolutions 32, 16, 8, 4; widths 36, 72, 144, 288."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(3, 36),
            ConvNorm(36, 72),
            nn.MaxPool2d(2),
            Residual(72),
            ConvNorm(72, 144),
            nn.MaxPool2d(2),
            ConvNorm(144, 288),
            nn.MaxPool2d(2),
            Residual(288),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        self.out = nn.Linear(288, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return 0.2 * self.out(self.body(x))  # maxima of normed sums are large: without a scale SGD diverges


class ResNet9Strided(nn.Module):
    """Eight convolutions and a linear layer; resolutions 32, 16, 8 (6 after the last, unpadded); widths 64 to 256."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(3, 64),
            ConvNorm(64, 128, kernel=5, stride=2, padding=2),
            Residual(128),
            ConvNorm(128, 256),
            nn.MaxPool2d(2),
            Residual(256),
            ConvNorm(256, 128, padding=0),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        self.out = nn.Linear(128, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return 0.2 * self.out(self.body(x))  # maxima of normed sums are large: without a scale SGD diverges


class Block(nn.Module):
    """Pre-norm transformer layer with separate q, k, v and o."""

    def __init__(self, width: int, n_heads: int, hidden: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.ff1, self.ff2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        q, k, v = (layer(h).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, tokens, width)
        x = x + self.o(mixed)
        return x + self.ff2(F.gelu(self.ff1(self.norm2(x))))


class Transformer(nn.Module):
    """Two layers, mean over the tokens, linear head."""

    def __init__(self, width: int = 128, n_heads: int = 4, hidden: int = 512, n_tokens: int = 64) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(n_tokens, width))
        self.layer1 = Block(width, n_heads, hidden)
        self.layer2 = Block(width, n_heads, hidden)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.layer2(self.layer1(x + self.position))).mean(1))


@dataclass(frozen=True)
class _Recipe:
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    n_train: int
    n_query: int
    signal: float  # norm of a class mean; the noise has unit variance per input
    learning_rate: float
    n_steps: int
    n_checkpoints: int
    batch_size: int = 50


TASKS = {
    "a": _Recipe(MLP, (784,), 6000, 200, signal=5.0, learning_rate=0.01, n_steps=180, n_checkpoints=6),
    "b": _Recipe(ResNet9, (3, 32, 32), 1000, 50, signal=40.0, learning_rate=0.03, n_steps=12, n_checkpoints=1),
    "b2": _Recipe(ResNet9Strided, (3, 32, 32), 1000, 50, signal=40.0, learning_rate=0.03, n_steps=12, n_checkpoints=1),
    "c": _Recipe(Transformer, (64, 128), 1000, 50, signal=30.0, learning_rate=0.02, n_steps=40, n_checkpoints=1),
}


def _rows(recipe: _Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian clusters: X (n, *shape), observed labels with one in ten drawn at random, true labels."""
    n = recipe.n_train + recipe.n_query
    true = torch.randint(N_CLASSES, (n,), generator=generator)
    means = torch.randn((N_CLASSES, *recipe.shape), generator=generator)
    if len(recipe.shape) == 3:  # smooth images: a convolution of a few steps finds nothing in white noise
        means = F.interpolate(means[..., ::8, ::8], scale_factor=8, mode="bilinear")
    means = recipe.signal * F.normalize(means.flatten(1))
    X = means[true].reshape(n, *recipe.shape) + torch.randn((n, *recipe.shape), generator=generator)
    if len(recipe.shape) == 1:
        X[:, ::6] = 0.0
    wrong = torch.rand(n, generator=generator) < 0.1
    y = torch.where(wrong, torch.randint(N_CLASSES, (n,), generator=generator), true)
    return X.contiguous(), y, true


def _train(recipe: _Recipe, X: Tensor, y: Tensor, generator: torch.Generator, momentum: float) -> tuple:
    """SGD at a constant rate; a checkpoint at the start and `n_checkpoints` more at equal distances."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = recipe.build()
    optimizer = torch.optim.SGD(module.parameters(), lr=recipe.learning_rate, momentum=momentum)
    checkpoints = [(0, {k: v.clone() for k, v in module.state_dict().items()})]
    every = recipe.n_steps // recipe.n_checkpoints
    n_passes = -(-recipe.n_steps * recipe.batch_size // len(X))
    order = torch.cat([torch.randperm(len(X), generator=generator) for _ in range(n_passes)])
    for step, rows in enumerate(order.split(recipe.batch_size)[: recipe.n_steps], start=1):
        optimizer.zero_grad()
        F.cross_entropy(module(X[rows]), y[rows]).backward()
        optimizer.step()
        if step % every == 0:
            checkpoints.append((step, {k: v.clone() for k, v in module.state_dict().items()}))
    return tuple(checkpoints)


def make_task(name: str, seed: int = 0) -> Task:
    """Build one of `TASKS`; the same seed gives the same rows and (on one machine) the same parameters.

    Cost: a few passes of training, seconds on two free cores.
    """
    if name not in TASKS:
        raise ValueError(f"Expected a task out of {sorted(TASKS)}, got {name!r}.")
    torch.set_num_threads(N_THREADS)
    recipe, momentum = TASKS[name], 0.9
    generator = torch.Generator().manual_seed(seed)
    X, y, true = _rows(recipe, generator)
    X_train, y_train = X[: recipe.n_train].clone(), y[: recipe.n_train].clone()
    checkpoints = _train(recipe, X_train, y_train, generator, momentum)
    module = recipe.build()
    tracked = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    return Task(
        name=name,
        build=recipe.build,
        X_train=X_train,
        y_train=y_train,
        X_query=X[recipe.n_train :].clone(),
        y_query=true[recipe.n_train :].clone(),
        layers=tuple(tracked),
        n_params=sum(p.numel() for m in tracked.values() for p in m.parameters()),
        checkpoints=checkpoints,
        learning_rate=recipe.learning_rate,
        momentum=momentum,
        batch_size=recipe.batch_size,
    )
