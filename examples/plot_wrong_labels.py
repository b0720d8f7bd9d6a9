"""
One annotator's mistake: found, its mending predicted, and confirmed
====================================================================

Somebody who labelled handwritten digits took sevens with a bar for ones. Nobody knows; a network learns from these
labels too, and takes some unseen sevens for ones. :func:`~sklearn_source.inspection.attribution_report` starts at such
errors, finds the rows behind them, says what giving them other labels should change before anything is trained again,
and trains to see whether it does.
"""

# %%
# The mistake
# -----------
# Ones, fours, sevens and nines. The seven that is most unlike the others and those nearest to it are called ones: 20
# labels of 400 are wrong, all in one way.
from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier

from sklearn_source import SnapshotInfluence, TrajectoryRecorder
from sklearn_source.inspection import attribution_report
from sklearn_source.modules import MLP

names = ["one", "four", "seven", "nine"]
images, labels = load_digits(return_X_y=True)
kept = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(labels, [1, 4, 7, 9])))
X, true = (images[kept] / 16).astype(np.float32), np.searchsorted([1, 4, 7, 9], labels[kept])
X_train, X_query, y_query = X[:400], X[400:], true[400:]
sevens = np.flatnonzero(true[:400] == 2)
odd = sevens[((X_train[sevens] - X_train[sevens].mean(axis=0)) ** 2).sum(axis=1).argmax()]
mistaken = sevens[((X_train[sevens] - X_train[odd]) ** 2).sum(axis=1).argsort()[:20]]
y_train = true[:400].copy()
y_train[mistaken] = 0

# %%
# Train, and attribute
# --------------------
torch.manual_seed(0)
net = NeuralNetClassifier(
    MLP,
    module__hidden=(16,),
    module__n_outputs=4,
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.SGD,
    optimizer__momentum=0.9,
    lr=0.05,
    batch_size=32,
    max_epochs=25,
    iterator_train__shuffle=True,
    train_split=None,
    callbacks=[TrajectoryRecorder(n_checkpoints=3)],
    verbose=0,
).fit(X_train, y_train)
predicted = net.predict(X_query)
print(f"{np.sum(predicted != y_query)} errors on {len(X_query)} unseen digits, "
      f"{np.sum((y_query == 2) & (predicted == 0))} of them sevens taken for ones")  # fmt: skip
est = SnapshotInfluence(random_state=0).fit(net, X_train, y_train)

# %%
# The report
# ----------
# It shows itself in a notebook, and here; ``report.save("report.html")`` writes the same page into one file.
report = attribution_report(
    est, X_query, y_query, kind="image", target_names=names, n_shown=4,
    title="Errors on digits, and the labels behind them",
)  # fmt: skip
report  # noqa: B018

# %%
# How much of the mistake is found
# --------------------------------
# We know which labels are wrong, so we can tell. Row by row nothing is seen, as wrong sevens lie among wrong sevens:
# their neighbours agree with them, and so does the network. Errors give them away as a group. Groups that are no more
# coherent than chance makes them are left out.
relabel = np.array(report.issues_["row"][report.issues_["is_label_issue"]])
print(f"{len(relabel)} labels are doubted, {np.isin(relabel, mistaken).sum()} of the 20 wrong ones among them")
for group in report.groups_:
    print(f"{group.description}: {np.isin(group.rows, mistaken).sum()} of the 20, p = {group.p_value:.2f}")

figure, axes = plt.subplots(2, 8, figsize=(9, 2.8), layout="constrained")
group = max(report.groups_, key=lambda group: np.isin(group.rows, mistaken).sum())
figure.suptitle(f"Above: {group.description}\nbelow: unseen digits that these rows push towards an error")
for axs, rows, pictures, words in ((axes[0], group.rows, X_train, y_train), (axes[1], group.queries, X_query, y_query)):
    for ax, row in zip(axs, rows):
        ax.imshow(pictures[row].reshape(8, 8), cmap="gray_r")
        ax.set_title(f"{'labelled' if pictures is X_train else 'is a'} {names[words[row]]}", fontsize=8)
    for ax in axs:
        ax.set_axis_off()

# %%
# What to do, predicted and then tried
# ------------------------------------
# The predicted change of the number of errors comes with an interval over the unseen digits. Then five pairs of
# networks are trained, without the action and with it.
for i in range(len(report.actions_)):
    change, low, high = (report.actions_[f"errors_{part}"][i] for part in ("change", "low", "high"))
    print(f"{i}: {report.actions_['description'][i]}: {change:+.0f} errors ({low:+.0f} to {high:+.0f})")
confirmed = report.confirm(actions=[0, 1], n_repeats=5, random_state=1)
print(confirmed)

# %%
# Side by side, with standard errors: over the unseen digits of what was predicted, over the repeats of what was found.
errors = confirmed[confirmed["quantity"] == "errors"]
figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
for shift, name in ((-0.1, "predicted"), (0.1, "retrained")):
    ax.errorbar(errors[name], np.arange(len(errors)) + shift, xerr=errors[f"{name}_error"], fmt="o", label=name)
ax.axvline(0, color="0.7", zorder=0)
ax.set(xlabel=f"change of the number of errors on {len(X_query)} unseen digits", ylim=(len(errors) - 0.5, -0.5))
words = [textwrap.fill(report.actions_["description"][i], 32) for i in errors["action"]]
ax.set_yticks(range(len(errors)), words, fontsize=8)
figure.legend(loc="outside upper right", ncols=2)
plt.show()
