"""
Which mixes taught the network the strength of this one?
========================================================

A network learns the compressive strength of concrete from 896 mixes. For a few mixes it has never seen, this example
asks :class:`~sklearn_source.SourceAttribution` which training rows pushed the prediction up, which pushed it down, and
by how many MPa.
"""

# %%
# The data
# --------
# 896 training rows and 103 queries, standardised by scalers fitted on the training rows. Mixes and strengths are kept
# in their own units for reading the result.
from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from skorch import NeuralNetRegressor

from sklearn_source import SourceAttribution, TrajectoryRecorder
from sklearn_source.datasets import load_concrete, load_concrete_split
from sklearn_source.inspection import InfluenceDisplay, SegmentDisplay
from sklearn_source.modules import MLP

concrete, split = load_concrete(), load_concrete_split(random_state=0)
train, queries = split.indices_train, split.indices_query
mixes, strengths = concrete.data[train], concrete.target[train]
query_mixes, query_strengths = concrete.data[queries], concrete.target[queries]

# %%
# Train, with a recorder
# ----------------------
# The recorder is the only addition to an ordinary skorch net: it keeps six checkpoints and the learning rate of every
# step. ``train_split=None`` trains on all rows handed to ``fit``.
torch.manual_seed(0)
net = NeuralNetRegressor(
    MLP,
    module__hidden=(128, 128, 128),
    optimizer=torch.optim.SGD,
    optimizer__momentum=0.9,
    optimizer__weight_decay=1e-5,
    lr=0.03,
    batch_size=32,
    max_epochs=20,
    train_split=None,
    callbacks=[TrajectoryRecorder(n_checkpoints=6)],
    verbose=0,
).fit(split.X_train, split.y_train)
predictions = split.scaler_y.inverse_transform(net.predict(split.X_query))[:, 0]
print(f"R2 on {len(split.X_query)} unseen mixes: {net.score(split.X_query, split.y_query):.3f}")

# %%
# Attribute
# ---------
# ``fit`` measures the curvature of three segments of the training. ``h sigma`` tells what kind of attribution each one
# is: directions far above 1 were learned to the end within the segment, directions far below 1 hardly moved.
est = SourceAttribution(n_segments=3, random_state=0).fit(net, split.X_train, split.y_train)
for segment in est.segments_:
    quantiles = ", ".join(f"{value:.2g} ({q:.0%})" for q, value in segment.h_sigma_quantiles.items())
    print(f"steps {segment.start} to {segment.end}, checkpoints {segment.checkpoints}")
    print(f"    quantiles of h sigma: {quantiles}")

# %%
# Three queries: a weak, a typical and a strong mix. A score is the part of the prediction that is owed to the row's
# presence in training; the network predicts standardised strengths, so one scale factor turns scores into MPa.
chosen = np.argsort(query_strengths)[[10, 51, 92]]
unit = float(split.scaler_y.scale_[0])
supporting = est.top_influences(split.X_query[chosen], k=10, order="supporting")
opposing = est.top_influences(split.X_query[chosen], k=10, order="opposing")

short_names = ["cement", "slag", "fly ash", "water", "plastic.", "coarse", "fine", "age"]
header = " ".join(f"{name:>8}" for name in short_names)


def line(mix):
    return " ".join(f"{value:8g}" for value in mix.round(1))


for place, query in enumerate(chosen):
    print(f"\nQuery {query}: predicted {predictions[query]:.1f} MPa, measured {query_strengths[query]:.1f} MPa")
    print(f"  {'row':>4} {'score':>7} {'strength':>8} {header}")
    print(f"  {'the query':21} {line(query_mixes[query])}")
    for title, top in (("raised the prediction", supporting), ("lowered it", opposing)):
        print(f"  {title}:")
        for row, score in zip(top.indices[place], top.scores[place] * unit, strict=True):
            print(f"  {row:4d} {score:+7.2f} {strengths[row]:8.1f} {line(mixes[row])}")

# %%
# The rows themselves
# -------------------
# The same in one picture, beside the query: grey marks where a row differs from it. Where the training rows hold a near
# copy of the query, it weighs most.
figure, places = plt.subplots(3, 1, figsize=(11, 14), layout="constrained")
for query, place in zip(chosen, places, strict=True):
    InfluenceDisplay.from_estimator(
        est,
        split.X_query,
        query_strengths,
        X_train=split.X_train,
        y_train=strengths,
        query=query,
        inverse_transform=split.scaler_X.inverse_transform,
        feature_names=concrete.feature_names,
        target_names=["strength (MPa)"],
        prediction=predictions[query],
        scale=unit,
        unit="MPa",
        ax=place,
    )
figure.savefig("concrete_influences.png", dpi=120)
print("\nSaved concrete_influences.png")

# %%
# All training rows: those near the query carry nearly all the weight; the stronger ones mostly raise the prediction,
# the weaker ones mostly lower it.
CEMENT, WATER = (concrete.feature_names.index(name) for name in ("cement", "water"))
scores = est.transform(split.X_query[chosen]) * unit
blue_orange = LinearSegmentedColormap.from_list("blue_orange", ["tab:orange", "white", "tab:blue"])
ratio = mixes[:, WATER] / mixes[:, CEMENT]
figure, places = plt.subplots(1, 3, sharey=True, figsize=(14, 6), layout="constrained")
for place, (query, cloud) in enumerate(zip(chosen, places, strict=True)):
    order = np.argsort(np.abs(scores[place]))  # the strongest on top
    limit = np.abs(scores[place, order[-5]])
    points = cloud.scatter(
        ratio[order],
        strengths[order],
        c=scores[place, order],
        cmap=blue_orange,
        vmin=-limit,
        vmax=limit,
        s=28,
        ec="0.6",
        lw=0.4,
    )
    position = query_mixes[query, WATER] / query_mixes[query, CEMENT], query_strengths[query]
    cloud.scatter(*position, marker="*", s=380, color="none", ec="black", lw=1.4, label="query")
    cloud.set_xlabel("water / cement")
    cloud.set_title(f"query {query}, {query_strengths[query]:.1f} MPa")
    label = "effect of the row on the prediction (MPa)"
    figure.colorbar(points, ax=cloud, extend="both", location="bottom", label=label)
places[0].legend(loc="upper right")
places[0].set_ylabel("strength of the training row (MPa)")

# %%
# Where in training it arose
# --------------------------
# The share of each segment in the scores of all queries, and how far the directions of the weights were learned in it.
SegmentDisplay.from_estimator(est, split.X_query, scale=unit, unit="MPa")
