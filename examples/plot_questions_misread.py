"""
Careless labels among questions: from errors to the rows to mend
================================================================

Questions are sorted by what they ask for: a place, a person, a number. Somebody in a hurry put six in ten of the
questions that begin with "who" under "description". A small network learns from that, and misreads people.
:func:`~sklearn_source.inspection.behaviour_groups` finds the training questions behind the errors,
:func:`~sklearn_source.inspection.predict_action` says what mending their labels should do, and training again tells
whether it does.
"""

# %%
# The labels
# ----------
from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_source import SnapshotInfluence, TrajectoryRecorder
from sklearn_source.curvature import EKFAC
from sklearn_source.datasets import TextEncoder, load_questions
from sklearn_source.inspection import InfluenceDisplay, behaviour_groups, predict_action

train, test = load_questions(), load_questions(subset="test")
names = list(train.target_names)
human, description = names.index("human"), names.index("description")
encoder = TextEncoder(lowercase=True, min_count=2, shapes=True, max_length=24)
texts, true = list(train.data[:800]), train.target[:800]
X_train, X_query, y_query = encoder.fit_transform(texts), encoder.transform(test.data), test.target
who = np.flatnonzero([text.lower().startswith("who ") for text in texts] & (true == human))
careless = np.random.default_rng(0).permutation(who)[: round(0.6 * len(who))]
y_train = true.copy()
y_train[careless] = description
print(f"{len(careless)} of {len(who)} questions about people that begin with 'who' are labelled 'description'")

# %%
# Train, and see it fail
# ----------------------
# The network takes the mean of vectors of the words, and has one hidden layer.


class WordBag(nn.Module):
    def __init__(self, n_tokens, n_classes, width=32):
        super().__init__()
        self.embed = nn.Embedding(n_tokens, width)
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, n_classes)

    def forward(self, X):
        words = (X != 0).unsqueeze(-1)  # the rest is padding
        return self.out(torch.relu(self.hidden((self.embed(X) * words).sum(1) / words.sum(1).clamp(min=1))))


torch.manual_seed(0)
net = NeuralNetClassifier(
    WordBag,
    module__n_tokens=encoder.n_tokens_,
    module__n_classes=len(names),
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.SGD,
    optimizer__momentum=0.9,
    lr=0.1,
    batch_size=32,
    max_epochs=20,
    iterator_train__shuffle=True,
    train_split=None,
    callbacks=[TrajectoryRecorder(n_checkpoints=4)],
    verbose=0,
).fit(X_train, y_train)
predicted = net.predict(X_query)
wrong = predicted != y_query
print(f"{wrong.sum()} errors on {len(wrong)} unseen questions; ", end="")
print(f"of {np.sum(y_query == human)} about people {np.sum(wrong & (y_query == human))} are misread")

# %%
# One error
# ---------
# The question about a person that is most surely taken for one that asks for a description, and the training questions
# that did most for and against the right answer, as the network reads them. No single row does much
# against it: it takes the many of a group. ``max_rows`` is how many directions of curvature are looked at; fewer are
# less work.
est = SnapshotInfluence(n_snapshots=2, curvature=EKFAC(max_rows=1500), random_state=0).fit(net, X_train, y_train)
taken = (y_query == human) & (predicted == description)
query = int(np.argmax(np.where(taken, net.predict_proba(X_query)[:, description], 0.0)))
InfluenceDisplay.from_estimator(
    est, X_query, y_query, X_train=X_train, y_train=y_train, query=query, k=5, kind="text",
    inverse_transform=encoder.inverse_transform, target_names=names, prediction=names[predicted[query]],
)  # fmt: skip

# %%
# The group behind the errors
# ---------------------------
# Nobody said where to look: groups are found among all rows, by what they push all errors towards. Every class has
# rows that push what is like them to it, so most groups of a network that errs this often are no fault in the data. The
# one that is stands out to a reader: it is behind most of its errors, and has questions with "who" that are labelled
# "description".
groups = behaviour_groups(
    est, X_query, y_query, readable=np.array(texts), class_names=names, alpha=0.2, random_state=0
).groups
for group in groups:
    print(f"- {group.description}; {np.isin(group.rows, careless).sum()} careless labels")
chosen = next(group for group in groups if "'who'" in group.description)
asks_who = np.array([texts[row].lower().startswith("who ") for row in chosen.rows])
spoilt = chosen.rows[asks_who & (y_train[chosen.rows] == description)]
print(f"of the group, {len(spoilt)} begin with 'who' and are labelled 'description', ", end="")
print(f"{np.isin(spoilt, careless).sum()} of them carelessly")

# %%
# What to do, predicted and then tried
# ------------------------------------
# Give these questions the label "human", or remove them. Each is predicted before anything is trained; then three
# networks are trained with the action and three without. What new labels do is foreseen in size; that removal helps is
# foreseen too, but not how much: confirm before you choose between actions.
effects = {
    "relabel as human": predict_action(
        est, "relabel", spoilt, X_query, y_query, labels=np.full(len(spoilt), human)
    ),
    "remove": predict_action(est, "remove", spoilt, X_query, y_query),
}  # fmt: skip
changes = []
for name, effect in effects.items():
    table = effect.confirm(n_repeats=3, random_state=1, as_frame=False).table
    line = table[table["quantity"] == "errors"][0]
    changes.append([line["predicted"], line["predicted_error"], line["retrained"], line["retrained_error"]])
    print(f"{name}: {line['predicted']:+.0f} ± {line['predicted_error']:.0f} errors predicted, ", end="")
    print(f"{line['retrained']:+.0f} ± {line['retrained_error']:.0f} after training again")

changes, places = np.array(changes), np.arange(len(effects))
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.errorbar(changes[:, 0], places - 0.08, xerr=2 * changes[:, 1], fmt="o", capsize=3, label="predicted")
ax.errorbar(changes[:, 2], places + 0.08, xerr=2 * changes[:, 3], fmt="s", capsize=3, label="trained again")
ax.axvline(0, color="0.7", zorder=0)
ax.set(xlabel=f"change of the number of errors on {len(wrong)} unseen questions", ylim=(1.5, -0.5))
ax.set_title("± two standard errors", fontsize=10, loc="left")
ax.set_yticks(places, list(effects))
ax.legend(loc="best")
plt.show()
