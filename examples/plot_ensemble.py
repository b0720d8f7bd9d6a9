"""
Which influences are certain?
=============================

Train the same network again from another seed, and its answers change little. Its explanations do: the rows behind an
answer come in another order, and many with another sign. This example goes from one network to ten, and asks which
influences remain. Then it trains without some rows, to see whether those called certain were.
"""

# %%
# One network, and another
# ------------------------
# Concrete again, but with 150 mixes to train on: of 896, a single one does too little to be seen by training without
# it. 20 other mixes are queries. The two networks differ in their seed alone.
from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import spearmanr
from skorch import NeuralNetRegressor

from sklearn_source import AttributionEnsemble, SourceAttribution, TrajectoryRecorder
from sklearn_source.datasets import load_concrete, load_concrete_split
from sklearn_source.inspection import InfluenceDisplay
from sklearn_source.metrics import top_k_overlap
from sklearn_source.modules import MLP
from sklearn_source.retraining import leave_one_out

split = load_concrete_split(random_state=0)
X, y, X_query = split.X_train[:150], split.y_train[:150], split.X_query[:20]


def train(seed):
    torch.manual_seed(seed)
    return NeuralNetRegressor(
        MLP,
        module__hidden=(64, 64),
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__weight_decay=1e-3,
        lr=0.03,
        batch_size=32,
        max_epochs=40,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=[TrajectoryRecorder(n_checkpoints=8)],
        verbose=0,
    ).fit(X, y)


net, other = train(0), train(1)
method = SourceAttribution(random_state=0)
one, two = (SourceAttribution(random_state=0).fit(n, X, y).transform(X_query) for n in (net, other))
answers = np.corrcoef(net.predict(X_query)[:, 0], other.predict(X_query)[:, 0])[0, 1]
scores = np.mean([spearmanr(a, b).statistic for a, b in zip(one, two)])
print(f"correlation of their predictions: {answers:.3f}")
print(f"rank correlation of their scores: {scores:.2f}")
print(f"of the ten rows that raise a prediction most, both name: {top_k_overlap(one, two, k=10).score:.0%}")

# %%
# Ten networks
# ------------
# ``AttributionEnsemble`` trains nine more like it, fits the method on each, and gives the mean of their scores. Whether
# that settles anything shows in two ensembles that have no network in common. Two networks each agree better than one
# and one, and five better still, but nothing is settled yet: what is left is weak rows, whose order is chance.
ensemble = AttributionEnsemble(method, n_members=10, random_state=0).fit(net, X, y)
members = np.stack([member.transform(X_query) for member in ensemble.members_])
sizes = [1, 2, 3, 4, 5]
agreement = [
    np.mean([spearmanr(a, b).statistic for a, b in zip(members[:n].mean(0), members[n : 2 * n].mean(0))]) for n in sizes
]
figure, ax = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
ax.plot(sizes, agreement, "o-", color="C0")
ax.set(xlabel="networks in each of two ensembles", ylabel="rank correlation of their scores", ylim=(0, 1), xticks=sizes)
print("agreement:", ", ".join(f"{value:.2f} of {n}" for n, value in zip(sizes, agreement)))

# %%
# The members know more than their mean: how far they are apart is the standard error of it. It stands beside each
# score, here in MPa.
concrete = load_concrete()
InfluenceDisplay.from_estimator(
    ensemble,
    X_query,
    X_train=X,
    y_train=concrete.target[split.indices_train[:150]],
    query=3,
    k=5,
    inverse_transform=split.scaler_X.inverse_transform,
    feature_names=concrete.feature_names,
    target_names=["strength"],
    scale=float(split.scaler_y.scale_[0]),
    unit="MPa",
)

# %%
# Which signs are certain
# -----------------------
# ``stable_influences`` asks, for every query and row, whether ten networks could have agreed that well by chance: a
# t-test, with the share of false discoveries among those called stable held below 5 %.
found = ensemble.stable_influences(X_query, alpha=0.05)
print(f"pairs of query and row whose sign is certain: {found.stable.mean():.0%}")
strongest = np.argsort(-np.abs(found.scores), axis=1)[:, :20]
print(f"among the twenty strongest rows of a query: {np.take_along_axis(found.stable, strongest, 1).mean():.0%}")

# %%
# Was it so?
# ----------
# Train fifty networks on all rows, none of which is in the ensemble, and fifty without each of forty rows, from the
# same weights and with the same batches: a row that raised a prediction leaves it lower. Even so most effects are lost
# in the chance of training. Those that stand out of it, by two and a half of their standard errors, show whose signs
# were right.
rows = np.random.default_rng(0).choice(len(X), 40, replace=False)
truth = leave_one_out(net, X, y, X_query, rows=rows, n_repeats=50, random_state=1)
differences = truth.outputs[0] - truth.outputs[1:]  # (rows, repeats, queries)
effects, errors = differences.mean(axis=1).T, differences.std(axis=1, ddof=1).T / np.sqrt(50)
seen = np.abs(effects) > 2.5 * errors
right = np.sign(effects) == np.sign(found.scores[:, rows])
stable = found.stable[:, rows]
print(f"effects that retraining can tell from chance: {seen.mean():.0%}")
for name, pairs in (("called stable", stable), ("not called stable", ~stable)):
    print(f"{name}: {(seen & pairs).sum()} of these, {right[seen & pairs].mean():.0%} with the right sign")

# %%
# The signs called stable are right in seven of eight cases, the others little more often than those of a coin. It is
# not 95 %: a t-test over members knows the chance of a training, but nothing of what the method has wrong for all of
# them alike.
plt.show()
