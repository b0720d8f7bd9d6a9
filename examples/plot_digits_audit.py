"""
Which labels are wrong, and where are rows missing?
===================================================

Handwritten digits with two faults put in on purpose: one label in ten is wrong, and of the sevens only twenty are left.
An audit of the training rows finds the first, a look at which rows each prediction rests on finds the second.
"""

# %%
# Data with faults
# ----------------
from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier

from sklearn_source import SourceAttribution, TrajectoryRecorder
from sklearn_source.inspection import MislabelDisplay, audit_training_rows, group_influence, under_sampled_regions
from sklearn_source.metrics import mislabel_detection_score
from sklearn_source.modules import MLP

images, labels = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
order = rng.permutation(len(images))
X, y = (images[order] / 16).astype(np.float32), labels[order].astype(np.int64)
X_query, y_query = X[1200:], y[1200:]
X, y = X[:1200], y[:1200]
keep = np.sort(np.append(np.flatnonzero(y != 7), np.flatnonzero(y == 7)[:20]))
X, true = X[keep], y[keep]
wrong = rng.choice(np.flatnonzero(true != 7), 110, replace=False)
y = true.copy()
y[wrong] = (y[wrong] + rng.integers(1, 10, size=len(wrong))) % 10

# %%
# Train on them
# -------------
# ``train_split=None`` trains on all rows, the recorder keeps what :class:`~sklearn_source.SourceAttribution` needs.


def train(X, y, seed=0):
    torch.manual_seed(seed)
    return NeuralNetClassifier(
        MLP,
        module__hidden=(64,),
        module__n_outputs=10,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.05,
        batch_size=32,
        max_epochs=20,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=[TrajectoryRecorder()],
        verbose=0,
    ).fit(X, y)


net = train(X, y)
before = np.mean([train(X, y, seed).score(X_query, y_query) for seed in range(5)])
print(f"accuracy on {len(X_query)} unseen digits, mean of five networks: {before:.3f}")

# %%
# Suspicious rows
# ---------------
# The table has the worst rows first, with what speaks against each and what might be done. Held-out digits with their
# true labels tell which rows oppose the right answers.
est = SourceAttribution(n_segments=1, random_state=0).fit(net, X, y)
table = audit_training_rows(est, X, y, X_query=X_query, y_query=y_query)
columns = ("row", "label", "suggestion", "suggested_label", "reason")
for row, label, suggestion, other, reason in zip(*(table[name][:4] for name in columns)):
    print(f"row {row}, labelled {label}: {suggestion} as {other}\n    {reason}")

# %%
# We know which labels are wrong, so we can tell how good the list is: the area under the ROC curve of each criterion,
# and how many wrong labels are found by the time that so many rows of the table have been inspected.
is_wrong = np.isin(table["row"], wrong)
for name in ("suspicion", "self_influence", "loss", "neighbour_disagreement", "opposed_queries"):
    print(f"{name:>24}  {mislabel_detection_score(table[name], is_wrong).score:.3f}")
relabel = table[table["suggestion"] == "relabel"]
right = (relabel["suggested_label"] == true[relabel["row"]]).sum()
hits = np.isin(relabel["row"], wrong).sum()
MislabelDisplay.from_predictions(table["suspicion"], is_wrong, name="suspicion")
print(f"to relabel: {len(relabel)} rows, {hits} of the 110 wrong ones; {right} labels then right")

# %%
# The first twelve rows to relabel, with the label they have and the one suggested.
figure, axes = plt.subplots(2, 6, figsize=(9, 3.9), layout="constrained")
figure.suptitle("label → suggested label")
for ax, row, label, other in zip(axes.flat, relabel["row"], relabel["label"], relabel["suggested_label"]):
    ax.imshow(X[row].reshape(8, 8), cmap="gray_r")
    ax.set_title(f"{label} → {other}")
    ax.set_axis_off()

# %%
# Act on it, and train again
# --------------------------
# Suggestions are for people to decide on. Rows of a class so rare that all their neighbours are of others look
# mislabelled too: with five sevens instead of twenty, three of them would be in this list.
fixed = y.copy()
fixed[relabel["row"]] = relabel["suggested_label"]
net = train(X, fixed)
after = np.mean([train(X, fixed, seed).score(X_query, y_query) for seed in range(5)])
print(f"accuracy after relabelling: {after:.3f}")

# %%
# Which groups stand behind a prediction
# --------------------------------------
# Here the groups are the classes: what all rows of a class together did to the log-odds of the true answer, for the
# first unseen seven that the network takes for something else. The interval says what other rows of the same kind, as
# many, might have done: wide for the sevens, of which there are twenty.
est = SourceAttribution(n_segments=1, random_state=0).fit(net, X, fixed)
query = np.flatnonzero((y_query == 7) & (net.predict(X_query) != 7))[:1]
found = group_influence(est, X_query[query], fixed, y_query[query])
low, high = (end[0] for end in found.interval)
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.errorbar(found.influence[0], found.names, xerr=[found.influence[0] - low, high - found.influence[0]], fmt="o")
ax.axvline(0, color="0.7", zorder=0)
ax.set(
    xlabel="effect on the log-odds of 7, with 95% interval", ylabel="rows labelled", yticks=found.names,
    title=f"A seven taken for a {net.predict(X_query[query])[0]}",
)  # fmt: skip

# %%
# Where rows are missing
# ----------------------
# Predictions that rest on few rows, and those rows. No labels of the unseen digits are needed.
result = under_sampled_regions(est, X_query, share=0.1)
flagged = result.table[result.table["under_sampled"]]["query"]
print(f"of the sevens {np.isin(np.flatnonzero(y_query == 7), flagged).mean():.0%} rest on few rows, ", end="")
print(f"of other digits {np.isin(np.flatnonzero(y_query != 7), flagged).mean():.0%}")
region = result.regions[0]
print(f"largest region: {len(region.queries)} queries, on average {np.mean(y_query[region.queries] == 7):.0%} sevens")
print("labels of the rows that they rest on most:", fixed[region.rows[:8]].tolist())
plt.show()
