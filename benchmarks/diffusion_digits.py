"""Diffusion models of digits: which scores foretell retraining, and which name the same rows for every image.

    python benchmarks/diffusion_digits.py lds            # 64 halves x 3 networks, every method beside scores by looks
    python benchmarks/diffusion_digits.py lds --mnist FOLDER      # 28 x 28 and a U-Net
    python benchmarks/diffusion_digits.py draws          # more draws or more networks: docs/lds/diffusion-draws.csv
    python benchmarks/diffusion_digits.py general        # generally influential rows, and gradient norms by timestep
    python benchmarks/diffusion_digits.py outliers       # a U-Net, inverted digits among the rows

``--cache folder`` keeps the retrained networks, and the scores. The digits are scikit-learn's of 8 x 8 pixels, or 300
of the 10,000 of the test set of MNIST in ``--mnist`` (t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz).
"""

from __future__ import annotations

import argparse
import csv
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _diffusion_methods import GRID, every_method, patch_kernel, scores_of
from _lds_problems import load_digits as load_mnist
from sklearn.datasets import load_digits
from sklearn.utils import Bunch
from torch import nn

from sklearn_source import (
    DiffusionReTrac,
    DiffusionTracIn,
    GradientSimilarity,
    SourceAttribution,
    TrajectoryRecorder,
)
from sklearn_source.diffusion import DenoisingLoss, DiffusionNet
from sklearn_source.metrics import (
    generally_influential_share,
    linear_datamodeling_difference,
    linear_datamodeling_score,
    mislabel_detection_score,
)
from sklearn_source.modules import UNet
from sklearn_source.retraining import retrain_on_subsets

N_TRAIN, N_QUERY = 500, 24
N_IMAGES = 300  # of 28 x 28 pixels
# What scores are held against: powers of the cosine of raw pixels, with its sign, and patches of so many pixels a side.
POWERS = (1, 3, 8)
PATCHES = (3, 5, 8)
DRAWS, NETWORKS = (1, 4, 16, 64), (1, 2, 4)


class Denoiser(nn.Module):
    """Three layers on the pixels and waves of the timestep."""

    def __init__(self, n_features=64, hidden=96, n_waves=16):
        super().__init__()
        self.n_waves = n_waves
        self.one = nn.Linear(n_features + 2 * n_waves, hidden)
        self.two = nn.Linear(hidden + 2 * n_waves, hidden)
        self.three = nn.Linear(hidden, n_features)

    def forward(self, sample, timestep):
        frequencies = torch.exp(torch.arange(self.n_waves) * (-math.log(1000) / self.n_waves)).to(sample)
        angles = timestep[:, None].to(sample) * frequencies
        told = torch.cat([angles.sin(), angles.cos()], dim=1)
        x = nn.functional.silu(self.one(torch.cat([sample, told], dim=1)))
        return self.three(nn.functional.silu(self.two(torch.cat([x, told], dim=1))))


def digits(n_held=N_QUERY):
    """Training rows and held-out rows, scaled to [-1, 1]."""
    images = (load_digits().images / 8 - 1).astype(np.float32).reshape(-1, 64)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order[:N_TRAIN]], images[order[N_TRAIN : N_TRAIN + n_held]]


def perceptron(seed=0):
    """A model that retrains in a second."""
    torch.manual_seed(seed)
    return DiffusionNet(
        Denoiser, n_timesteps=100, optimizer=torch.optim.SGD, optimizer__momentum=0.9, lr=0.2, max_epochs=150,
        batch_size=64, train_split=None, verbose=0, iterator_train__shuffle=True, callbacks=[TrajectoryRecorder(8)],
    )  # fmt: skip


def unet():
    """A U-Net, whose gradients differ tenfold between timesteps."""
    torch.manual_seed(0)
    return DiffusionNet(
        UNet, module__channels=(8, 16), n_timesteps=1000, schedule="linear", optimizer=torch.optim.Adam, lr=3e-3,
        max_epochs=30, batch_size=64, train_split=None, verbose=0, iterator_train__shuffle=True,
        callbacks=[TrajectoryRecorder(12)],
    )  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What is trained on what, and the size of its truth."""

    X: Any
    held: Any
    make_net: Callable[[], DiffusionNet]
    n_subsets: int = 64
    n_repeats: int = 3
    n_jobs: int | None = None


def small():
    """8 x 8 digits and a model that retrains in a second."""
    return Setting(*digits(), perceptron)


def images(folder, device, n_jobs):
    """28 x 28 digits and a U-Net of three resolutions, of a size that one core retrains 192 times in an hour."""
    pixels = load_mnist(folder)[0][: N_IMAGES + N_QUERY].reshape(-1, 1, 28, 28) * 2 - 1

    def make_net():
        torch.manual_seed(0)
        return DiffusionNet(
            UNet, module__channels=(8, 8, 16), n_timesteps=200, optimizer=torch.optim.AdamW, lr=3e-3, max_epochs=60,
            batch_size=32, train_split=None, verbose=0, iterator_train__shuffle=True, device=device,
            callbacks=[TrajectoryRecorder(8)],
        )  # fmt: skip

    return Setting(pixels[:N_IMAGES], pixels[N_IMAGES:], make_net, n_jobs=n_jobs)


def truth_of(setting, queries, cache):
    """What networks trained on random halves lose at the grid."""
    return retrain_on_subsets(
        setting.make_net(), setting.X, None, queries, n_subsets=setting.n_subsets, n_repeats=setting.n_repeats,
        random_state=0, measurement=DenoisingLoss(**GRID), cache=cache, n_jobs=setting.n_jobs,
    )  # fmt: skip


def lds(setting, cache=None, n_draws=DRAWS):
    """Linear datamodeling scores of every method, for held-out digits and for samples."""
    X, held = setting.X, setting.held
    start = time.perf_counter()
    net = setting.make_net().fit(X)
    print(f"one network: {time.perf_counter() - start:.0f} s, loss {net.history[-1, 'train_loss']:.4f}", flush=True)
    queries = np.concatenate([held, net.sample(N_QUERY, random_state=0, clip=(-1, 1))])
    start = time.perf_counter()
    truth = truth_of(setting, queries, cache)
    print(f"truth: {time.perf_counter() - start:.0f} s", flush=True)
    parts = slice(0, N_QUERY), slice(N_QUERY, None)
    own = [Bunch(masks=truth.masks, outputs=truth.outputs[:, :, part]) for part in parts]
    # The same of how much more an image loses than the others of its kind: what a half does to all of them is left out.
    apart = [Bunch(masks=half.masks, outputs=half.outputs - half.outputs.mean(2, keepdims=True)) for half in own]
    for name, halves in (("as they are", own), ("less the mean of the images", apart)):
        ceilings = [linear_datamodeling_score(np.zeros((N_QUERY, len(X))), half).ceiling for half in halves]
        print(f"ceilings, {name}: held out {ceilings[0]:.2f}, samples {ceilings[1]:.2f}")
    cosine = _unit(queries.reshape(len(queries), -1)) @ _unit(X.reshape(len(X), -1)).T
    controls = {}

    def report(name, scores, seconds=0.0):
        own_scores = [scores[part] for part in parts]
        less = [found - found.mean(axis=0) for found in own_scores]
        for kind, found, halves in (("", own_scores, own), ("  less the mean of the images", less, apart)):
            results = [linear_datamodeling_score(*pair) for pair in zip(found, halves)]
            cells = [
                f"{r.score:.3f} ({r.interval[0]:.2f} to {r.interval[1]:.2f}), slope {r.slope:.2f}" for r in results
            ]
            print(f"{kind or name:36} held out {cells[0]}; samples {cells[1]}; {seconds:.0f} s", flush=True)
        for control in (f"cosine, power {POWERS[-1]}", f"patches of {PATCHES[0]}"):
            for kind, halves in (("", own), (", less the mean of the images", apart)):
                cells = []
                for part, half in zip(parts, halves if control in controls and name not in controls else ()):
                    pair = (scores[part], controls[control][part])
                    pair = [one - one.mean(axis=0) for one in pair] if kind else pair
                    found = linear_datamodeling_difference(*pair, half)
                    cells.append(f"{found.difference:+.3f} ({found.interval[0]:+.3f} to {found.interval[1]:+.3f})")
                if cells:
                    print(f"  beyond {control}{kind}: held out {cells[0]}; samples {cells[1]}", flush=True)

    for power in POWERS:
        name = f"cosine, power {power}"
        controls[name] = np.sign(cosine) * np.abs(cosine) ** power
        report(name, controls[name])
    for size in PATCHES if X[0].size == 64 else PATCHES[:1]:
        start, name = time.process_time(), f"patches of {size}"
        controls[name] = patch_kernel(net, queries, X, size)
        report(name, controls[name], time.process_time() - start)
        report(f"{name}, squared", controls[name] ** 2)
    for name, method in every_method(n_draws).items():
        scores, seconds = scores_of(name, method, net, X, queries, cache)
        report(name, scores, seconds)
        report(f"{name}, squared", scores**2)
        report(f"{name}, signed square", np.sign(scores) * scores**2)


def draws(cache=None, out=Path("docs/lds/diffusion-draws.csv")):
    """SOURCE with more draws against the mean over more networks; of several equal groups of networks the mean."""
    X, held = digits()
    samples = perceptron().fit(X).sample(N_QUERY, random_state=0, clip=(-1, 1))  # the truth of ``lds``
    truth = truth_of(small(), np.concatenate([held, samples]), cache)
    truth = Bunch(masks=truth.masks, outputs=truth.outputs[:, :, :N_QUERY])
    start = time.perf_counter()
    nets = [perceptron(seed).fit(X) for seed in range(max(NETWORKS))]
    training = (time.perf_counter() - start) / len(nets)
    lines, means = [], {}
    for n_draws in DRAWS:
        start = time.perf_counter()
        options = {"n_draws": n_draws, "measurement": DenoisingLoss(**GRID)}
        # A seed for each, or the same rows would be unlucky with all networks: draws follow from seed and row.
        scores = np.stack(
            [SourceAttribution(random_state=i, **options).fit(net, X).transform(held) for i, net in enumerate(nets)]
        )
        seconds = (time.perf_counter() - start) / len(nets)
        for n in NETWORKS:
            groups = [scores[i : i + n].mean(axis=0) for i in range(0, len(nets), n)]
            found = [linear_datamodeling_score(group, truth) for group in groups]
            means[n, n_draws] = groups[0]
            numbers = [np.mean([r.score for r in found]), *np.mean([r.interval for r in found], axis=0)]
            numbers += [np.mean([r.slope for r in found]), found[0].ceiling]
            cost = [f"{n * training:.1f}", f"{n * seconds:.1f}"]
            lines.append([n, n_draws, *cost, *(f"{value:.3f}" for value in numbers)])
            print(*lines[-1], flush=True)
    with out.open("w", newline="") as file:
        names = ["networks", "draws", "training, s", "fit and transform, s", "LDS", "from", "to", "slope", "ceiling"]
        csv.writer(file, lineterminator="\n").writerows([names, *lines])
    for more, fewer in (((4, 1), (1, 4)), ((4, 4), (1, 16)), ((4, 16), (1, 64))):
        found = linear_datamodeling_difference(means[more], means[fewer], truth)
        low, high = found.interval
        print(f"networks, draws: {more} less {fewer}: {found.difference:+.3f} ({low:+.3f} to {high:+.3f})")


def general():
    """How much of the lists of ten is taken by rows in more than a tenth of the lists."""
    X, held = digits(2 * N_QUERY)
    net = perceptron().fit(X)
    print("gradient norms by timestep:", norms(net, X))
    queries = {"held out": held, "samples": net.sample(2 * N_QUERY, random_state=0, clip=(-1, 1))}
    for method in (DiffusionTracIn, DiffusionReTrac):
        for rows in ("drawn", "grid"):
            est = method(rows=rows).fit(net, X)
            shares = {name: generally_influential_share(est.transform(Q)) for name, Q in queries.items()}
            print(method.__name__, rows, {name: f"{s.score:.3f} (chance {s.chance:.3f})" for name, s in shares.items()})


def outliers():
    """Twenty inverted digits among the rows: found by self-influence, and named for digits as they are?"""
    X, held = digits()
    inverted = np.arange(N_TRAIN) < 20
    X, held = (np.where(inverted[:, None], -X, X), held)
    X, held = X.reshape(-1, 1, 8, 8), held.reshape(-1, 1, 8, 8)
    net = unet().fit(X)
    print("gradient norms by timestep:", norms(net, X))
    for method in (DiffusionTracIn, DiffusionReTrac):
        est = method().fit(net, X)
        scores = est.transform(held)
        found = mislabel_detection_score(est.self_influence(), inverted).score
        top = inverted[np.argsort(-scores, axis=1)[:, :6]].mean()
        share = generally_influential_share(scores).score
        print(
            f"{method.__name__}: outliers by self-influence, AUC {found:.3f}; outliers among the top six {top:.3f}; "
            f"generally influential {share:.3f}"
        )


def norms(net, X):
    """Mean size of a row's gradient at some timesteps: squares are those of influence by itself."""
    result = {}
    for timestep in np.linspace(0, net.n_timesteps - 1, 9).astype(int).tolist():
        at = DenoisingLoss(timesteps=timestep)
        own = GradientSimilarity(metric="dot", measurement=at, n_draws=1).fit(net, X)
        gradients = own._gradients.of_loss(*own._rows.with_draws(at.draws(net)).batch(slice(None)))
        result[timestep] = round(float(sum(g.squared_norm() for g in gradients).sqrt().mean()), 2)
    return result


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("lds", "draws", "general", "outliers"))
    parser.add_argument("--cache", help="folder of retrained networks")
    parser.add_argument("--mnist", type=Path, help="folder of the files of MNIST: lds of 28 x 28 digits")
    parser.add_argument("--device", default="cpu", help="where the U-Nets of 28 x 28 digits are: cpu or cuda")
    parser.add_argument("--n-jobs", type=int, help="processes that retrain them")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if args.what == "lds" and args.mnist is not None:
        lds(images(args.mnist, args.device, args.n_jobs), args.cache, n_draws=(4, 16))
    elif args.what == "lds":
        lds(small(), args.cache)
    elif args.what == "draws":
        draws(args.cache)
    else:
        {"general": general, "outliers": outliers}[args.what]()
