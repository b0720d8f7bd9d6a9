"""
Which rows is a generated image made of?
========================================

A diffusion model learns to find the noise in noisy images, and makes new images out of noise alone. This example trains
a small one on handwritten digits, with some foreign images among them, and asks three methods which rows are behind an
image that it made. Beside them stands what needs no network at all: how alike the pixels are.
"""

# %%
# Digits, and some that are foreign
# ---------------------------------
# 500 digits of 8 x 8 pixels, white on black; 25 of them are inverted. The network is a small
# U-Net. ``DiffusionNet`` trains it on a timestep and a noise per row and epoch, and knows afterwards which they were.
from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from sklearn_source import DiffusionReTrac, DiffusionTracIn, SourceAttribution, TrajectoryRecorder
from sklearn_source.diffusion import DiffusionNet
from sklearn_source.inspection import InfluenceDisplay, MislabelDisplay
from sklearn_source.metrics import generally_influential_share
from sklearn_source.modules import UNet

images = (load_digits().images[:, None] / 8 - 1).astype(np.float32)
order = np.random.default_rng(0).permutation(len(images))
X, held_out = images[order[:500]], images[order[500:532]]
foreign = np.arange(500) < 25
X[foreign] *= -1

torch.manual_seed(0)
net = DiffusionNet(
    UNet,
    module__channels=(12, 24),
    n_timesteps=1000,
    schedule="linear",
    optimizer=torch.optim.Adam,
    lr=3e-3,
    batch_size=64,
    max_epochs=80,
    iterator_train__shuffle=True,
    train_split=None,
    callbacks=[TrajectoryRecorder(n_checkpoints=5)],
    verbose=0,
).fit(X)
samples = net.sample(32, random_state=0, clip=(-1, 1))


def show(ax, image, framed=False):
    ax.imshow(image[0], cmap="gray", vmin=-1, vmax=1)
    ax.set(xticks=[], yticks=[])
    if framed:
        ax.spines[:].set(color="C3", linewidth=2)


figure, axes = plt.subplots(2, 16, figsize=(9, 1.3), layout="constrained")
for ax, image in zip(axes.flat, samples):
    show(ax, image)

# %%
# The rows behind a sample
# ------------------------
# What is attributed is minus the loss of an image, over ten timesteps with a noise each: would the network know this
# image less well without the row? ``DiffusionTracIn`` adds up products of gradients along the training, of a row at the
# timestep that it drew just then. ``DiffusionReTrac`` divides the gradients by their norms first. SOURCE takes a mean
# over 16 draws for each row, and follows what becomes of a step in the steps after it.
methods = {
    "Diffusion-TracIn": DiffusionTracIn(),
    "Diffusion-ReTrac": DiffusionReTrac(),
    "SOURCE": SourceAttribution(random_state=0),
}
queries = np.concatenate([samples, held_out])
scores = {name: method.fit(net, X).transform(queries) for name, method in methods.items()}


def cosine(a, b):
    a, b = (rows.reshape(len(rows), -1) for rows in (a, b))
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


scores["cosine of pixels"] = cosine(queries, X)

chosen = [0, 1, 2, 3, samples.mean(axis=(1, 2, 3)).argmax()]  # the last is the brightest
figure = plt.figure(figsize=(12, 4), layout="constrained")
parts = figure.subfigures(1, 5, width_ratios=[1, 4, 4, 4, 4])
for ax, q in zip(parts[0].subplots(5, 1), chosen):
    show(ax, samples[q])
parts[0].suptitle("sample", fontsize=10)
for part, (name, table) in zip(parts[1:], scores.items()):
    part.suptitle(name, fontsize=10)
    for axes, row in zip(part.subplots(5, 5), table[chosen]):
        for ax, best in zip(axes, np.argsort(-row)):
            show(ax, X[best], framed=foreign[best])

# %%
# Framed rows are foreign. The last sample is the brightest of all: the network has learned to make inverted digits
# too, and every method finds inverted rows behind it, SOURCE and the pixels nothing else. For the digits above it
# Diffusion-TracIn and Diffusion-ReTrac name rows that are hardly like them. SOURCE lists rows with some strokes of the
# sample, and pixels rows that look like it, as they must. Which of these the network would miss, pictures cannot tell:
# it takes retraining.
#
# One sample in full, with the rows that spoke against it. They are as like the sample as those that spoke for it, and
# their scores as large:
InfluenceDisplay.from_estimator(methods["SOURCE"], samples, X_train=X[:, 0], query=0, k=6)

# %%
# Who is on top for everybody?
# ----------------------------
for name, table in scores.items():
    for kind, part in (("samples", table[:32]), ("digits held out", table[32:])):
        share = generally_influential_share(part).score
        among = foreign[np.argsort(-part, axis=1)[:, :6]].mean()
        print(f"{name:>17}, {kind:>15}: generally influential {share:.2f}, foreign among the top six {among:.1%}")

# %%
# Under Diffusion-TracIn most places of the lists are taken by rows that are in many lists, whatever the query. One
# timestep stands for a row at each of five checkpoints, and some have far larger gradients than others. Dividing by
# norms helps a little at best. In SOURCE, where a row has a mean over 16 draws, such rows take a sixth of the places,
# under the cosine of pixels a fifteenth. Foreign images hardly come up for digits that were held out; for samples they
# stand mostly behind the few that are inverted themselves.

# %%
# Who is foreign?
# ---------------
# Self-influence is what a row did to its own loss: rows that are like no other owe their fit to themselves. The control
# is how unlike the others the pixels of a row are, its mean cosine with all of them.
figure, ax = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
for name, method in methods.items():
    MislabelDisplay.from_estimator(method, foreign, name=name, show_references=False, ax=ax)
MislabelDisplay.from_predictions(
    -cosine(X, X).mean(axis=1), foreign, name="pixels unlike others", show_references=False, ax=ax
)
ax.set(ylabel="foreign images found, of 25")

# %%
# SOURCE finds most of the foreign images early, Diffusion-TracIn does little better than chance, and Diffusion-ReTrac
# meets them last: with the norms the size is gone that makes a row stand out. Pixels find them all at once. So inverted
# digits need no attribution to be found, and no method here is shown to say more than pixels do; the :ref:`user guide
# <diffusion>` holds both against networks that were trained again.
plt.show()
