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
print(f"{len(table)} training images have the bright corner; of {len(errors)} errors on {len(X_query)} unseen images "
      f"{on_table} are on such")  # fmt: skip

# %%
# Which training rows are behind them
# -----------------------------------
# A group is rows without which the network, linearised at its weights, would err less, and that are alike to it;
# groups that errors dealt out at random give as well are left out. Scores help to tell which rows learn alike: those of
# one segment do it better. Words come from the classes and single pixels. That one group has a bright corner, the
# pictures show at once.
est = SourceAttribution(n_segments=1, random_state=0).fit(net, X_train, y_train)
found = behaviour_groups(est, X_query, y_query, random_state=0)
figure, axes = plt.subplots(len(found), 8, figsize=(9, 1.4 * len(found)), layout="constrained", squeeze=False)
for number, (group, axs) in enumerate(zip(found, axes)):
    marked = np.isin(group.rows, table).sum()
    print(f"{number}: {group.description}")
    print(f"    p = {group.p_value:.2f}; {marked} of the {len(table)} images with the corner")
    for ax, row in zip(axs, group.rows):
        ax.imshow(X_train[row].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(f"group {number}: {y_train[row]}", fontsize=8)
for ax in axes.flat:
    ax.set_axis_off()

# %%
# The group with the corner, and errors on unseen images that have it too.
group = max(found, key=lambda group: np.isin(group.rows, table).sum())
figure, axes = plt.subplots(1, 8, figsize=(9, 1.5), layout="constrained")
for ax, row in zip(axes, np.intersect1d(errors, seen_there)):
    ax.imshow(X_query[row].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(f"a {y_query[row]}, answered {predicted[row]}", fontsize=7)
    ax.set_axis_off()

# %%
# What would help
# ---------------
# Without the group, or without thirty of the other fours, for comparison. The direction is right, the size is not: a
# network that lost its shortcut learns to look elsewhere, which no derivative at the trained network foresees. So
# confirm before you act. And what is tempting, fewer fours of any kind, makes the shortcut all the stronger.
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
# pairs of networks have it. Images on the table gain, far more than on the line of equal changes.
figure, ax = plt.subplots(figsize=(5, 4.2), layout="constrained")
change, retrained = effects["remove the group"].change, confirmed["remove the group"].retrained.mean(axis=0)
elsewhere = np.setdiff1d(np.arange(len(X_query)), seen_there)
for rows, words in ((elsewhere, "other images"), (seen_there, "bright corner")):
    ax.scatter(change[rows], retrained[rows], s=12, alpha=0.6, label=words)
ax.axline((0, 0), slope=1, color="0.5", linewidth=0.8)
ax.set(xlabel="predicted change of log-odds", ylabel="retrained", title="Without the group")
ax.legend()
print(f"slope {confirmed['remove the group'].slope:.2f}, correlation {confirmed['remove the group'].correlation:.2f}")
plt.show()
