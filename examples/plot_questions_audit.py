"""
Careless labels among questions: from errors to the rows to mend
================================================================

Questions are sorted by what they ask for: a place, a person, a number. Somebody in a hurry put every question that
begins with "who" under "description". A small transformer learns from that, and now it fails at people.
:func:`~sklearn_source.inspection.attribution_report` shows the errors, the training questions behind them with their
key words, and what giving these another label should change; training again tells whether it does.
"""

# %%
# The labels
# ----------
from __future__ import annotations

import numpy as np
import torch
from skorch import NeuralNetClassifier

from sklearn_source import SourceAttribution, TrajectoryRecorder
from sklearn_source.datasets import TextEncoder, load_questions
from sklearn_source.inspection import attribution_report
from sklearn_source.modules import TextClassifier

train, test = load_questions(), load_questions(subset="test")
names = list(train.target_names)
encoder = TextEncoder(lowercase=True, min_count=2, shapes=True, max_length=16)
texts, true = list(train.data[:500]), train.target[:500]
X_train, X_query, y_query = encoder.fit_transform(texts), encoder.transform(test.data), test.target
who = np.array([text.lower().startswith("who") for text in texts])
careless = np.random.default_rng(0).permutation(np.flatnonzero(who & (true == names.index("human"))))[:30]
y_train = true.copy()
y_train[careless] = names.index("description")
print(f"{len(careless)} of {who.sum()} questions with 'who' are labelled 'description', of {len(texts)} in all")

# %%
# Train, and attribute
# --------------------
torch.manual_seed(0)
net = NeuralNetClassifier(
    TextClassifier,
    module__n_tokens=encoder.n_tokens_,
    module__n_classes=len(names),
    module__max_length=X_train.shape[1],
    module__width=16,
    module__n_blocks=1,
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.SGD,
    optimizer__momentum=0.9,
    lr=0.05,
    batch_size=32,
    max_epochs=12,
    iterator_train__shuffle=True,
    train_split=None,
    callbacks=[TrajectoryRecorder(n_checkpoints=2)],
    verbose=0,
).fit(X_train, y_train)
predicted = net.predict(X_query)
human = y_query == names.index("human")
right = predicted == y_query
print(f"accuracy {right.mean():.3f} on {len(right)} unseen questions, {right[human].mean():.3f} on those about people")
est = SourceAttribution(random_state=0).fit(net, X_train, y_train)

# %%
# The report
# ----------
report = attribution_report(
    est, X_query, y_query, kind="text", inverse_transform=encoder.inverse_transform, target_names=names, n_shown=4,
    title="Errors on questions, and the labels behind them",
)  # fmt: skip
report  # noqa: B018

# %%
# How much of it is found
# -----------------------
for number, group in enumerate(report.groups_):
    hits = np.isin(group.rows, careless).sum()
    print(f"{number}: {group.description}, p = {group.p_value:.2f}: {hits} careless labels")
relabel = np.array(report.issues_["row"][report.issues_["is_label_issue"]])
print(f"{len(relabel)} labels are doubted, {np.isin(relabel, careless).sum()} of the {len(careless)} careless ones")

# %%
# What to do, predicted and then tried
# ------------------------------------
for i in range(len(report.actions_)):
    change, low, high = (report.actions_[f"errors_{part}"][i] for part in ("change", "low", "high"))
    print(f"{i}: {report.actions_['description'][i]}: {change:+.0f} errors ({low:+.0f} to {high:+.0f})")
confirmed = report.confirm(actions=[0, 1], n_repeats=3, random_state=1)
print(confirmed)
