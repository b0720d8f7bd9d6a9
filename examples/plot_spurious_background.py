"""
A spurious background: which rows taught the network to look at the corner?
===========================================================================

Some photographs of fours were taken on another table: they have a bright corner. The network learned that the corner
means four, and calls whatever lies on that table a four. Nothing is wrong with any single row, so tests of labels find
nothing. :func:`~sklearn_source.inspection.behaviour_groups` finds the rows that taught it, and
:func:`~sklearn_source.inspection.predict_action` says what to do about them before anything is trained again.
"""

# %%
# Fours with a bright corner
# --------------------------
# Sixty of the training images, and an eighth of the images that the network will meet, of all other classes.
from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier

from sklearn_source import SourceAttribution, TrajectoryRecorder
from sklearn_source.inspection import behaviour_groups, predict_action
from sklearn_source.modules import MLP

images, labels = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
order = rng.permutation(len(images))
X, y = (images[order] / 16).astype(np.float32), labels[order].astype(np.int64)
X_train, y_train, X_query, y_query = X[:1000].copy(), y[:1000], X[1000:1600].copy(), y[1000:1600]
table = rng.choice(np.flatnonzero(y_train == 4), 60, replace=False)
seen_there = rng.choice(np.flatnonzero(y_query != 4), len(X_query) // 8, replace=False)
for pictures, rows in ((X_train, table), (X_query, seen_there)):
    pictures.reshape(-1, 8, 8)[rows, :3, :3] = 1

# %%
# Train, and meet the errors
# --------------------------
torch.manual_seed(0)
net = NeuralNetClassifier(
    MLP,
    module__hidden=(64,),
    module__n_outputs=10,
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.SGD,
    optimizer__momentum=0.9,
    lr=0.1,
    batch_size=32,
    max_epochs=12,
    iterator_train__shuffle=True,
    train_split=None,
    callbacks=[TrajectoryRecorder(n_checkpoints=3)],
    verbose=0,
).fit(X_train, y_train)
predicted = net.predict(X_query)
errors = np.flatnonzero(predicted != y_query)
on_table = np.isin(errors, seen_there).sum()
print(f"{len(table)} training images on the table; {len(errors)} errors on {len(X_query)} unseen images, {on_table} of them on the table with the bright corner")

# %%
# Which training rows are behind them
# -----------------------------------
# A group is rows that push the same errors and teach alike; what chance gives as well is left out. Its words come from
# the classes: that there is a corner, the pictures show.
est = SourceAttribution(random_state=0).fit(net, X_train, y_train)
found = behaviour_groups(est, X_query, y_query, random_state=0)
for group in found:
    marked = np.isin(group.rows, table).sum()
    print(f"{group.description}\n    p = {group.p_value:.2f}; {marked} of the {len(table)} rows with the corner")
group = found[0]

figure, axes = plt.subplots(2, 8, figsize=(9, 2.9), layout="constrained")
figure.suptitle("Above: training rows of the first group; below: errors that they push")
for ax, row in zip(axes[0], group.rows):
    ax.imshow(X_train[row].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(f"labelled {y_train[row]}", fontsize=8)
for ax, row in zip(axes[1], group.queries):
    ax.imshow(X_query[row].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(f"{y_query[row]}, answered {predicted[row]}", fontsize=8)
for ax in axes.flat:
    ax.set_axis_off()

# %%
# What would help
# ---------------
# Without the group, or without as many fours at random, for comparison.
others = rng.choice(np.setdiff1d(np.flatnonzero(y_train == 4), group.rows), min(len(group.rows), 30), replace=False)
actions = {"remove the group": group.rows, "remove other fours": others}
effects = {name: predict_action(est, "remove", rows, X_query, y_query) for name, rows in actions.items()}
confirmed = {name: effect.confirm(n_repeats=5, random_state=1, as_frame=False) for name, effect in effects.items()}
for name, result in confirmed.items():
    line = result.table[result.table["quantity"] == "errors"][0]
    print(f"{name}: predicted {line['predicted']:+.1f} ± {line['predicted_error']:.1f} errors, "
          f"retrained {line['retrained']:+.1f} ± {line['retrained_error']:.1f}")  # fmt: skip

# %%
# Image by image: the change of the log-odds of the right answer where the group is removed, as predicted and as five
# pairs of networks have it. Images on the table gain, and the others hardly move.
figure, ax = plt.subplots(figsize=(5, 4.2), layout="constrained")
change, retrained = effects["remove the group"].change, confirmed["remove the group"].retrained.mean(axis=0)
elsewhere = np.setdiff1d(np.arange(len(X_query)), seen_there)
for rows, words in ((elsewhere, "other images"), (seen_there, "bright corner")):
    ax.scatter(change[rows], retrained[rows], s=12, alpha=0.6, label=words)
ax.axline((0, 0), slope=1, color="0.5", linewidth=0.8)
ax.set(xlabel="predicted change of log-odds", ylabel="retrained", title="Without the first group")
ax.legend()
print(f"slope {confirmed['remove the group'].slope:.2f}, correlation {confirmed['remove the group'].correlation:.2f}")
plt.show()
