"""
Which questions taught the network what this one asks for?
==========================================================

"Where is the volcano Mauna Loa?" asks for a place, "How tall is the Sears Building?" for a number. A small transformer
learns from 1500 labelled questions to tell which of six kinds of answer a question asks for.
:class:`~sklearn_source.SourceAttribution` then says which training questions made it answer as it does, for a mistake
too, and which labels deserve a second look. The network is trained by AdamW, whose preconditioner the attribution takes
into account.
"""

# %%
# The data
# --------
# Questions become rows of 24 tokens, short ones padded. Words that occur once in the training questions would each be a
# token of their own that no other question shares; they are told apart by their shape only, a word in capitals say.
from __future__ import annotations

import re
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch import NeuralNetClassifier

from sklearn_source import SourceAttribution, TrajectoryRecorder
from sklearn_source.curvature import EKFAC
from sklearn_source.datasets import TextEncoder, load_questions
from sklearn_source.modules import TextClassifier

train, test = load_questions(), load_questions(subset="test")
encoder = TextEncoder(lowercase=True, min_count=2, shapes=True, max_length=24)
X_train, y_train = encoder.fit_transform(train.data), train.target
X_test, y_test = encoder.transform(test.data), test.target
names = np.array(train.target_names)


def readable(text):
    """A question as one writes it: the data has blanks around punctuation, and quotes as two strokes."""
    text = re.sub(r" ([?,.:;!]|'s\b)", r"\1", text)
    return re.sub(r"`` *| *''", '"', text)


print(f"{len(X_train)} training questions, {encoder.n_tokens_} tokens")
print(f"{train.data[2]!r} is read as {encoder.inverse_transform(X_train[2:3])[0]!r}: {names[y_train[2]]}")

# %%
# Train, with a recorder
# ----------------------
# The recorder keeps the optimizer's second moments with the weights.
torch.manual_seed(0)
net = NeuralNetClassifier(
    TextClassifier,
    module__n_tokens=encoder.n_tokens_,
    module__n_classes=len(names),
    module__max_length=X_train.shape[1],
    module__width=32,
    module__n_blocks=1,
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.AdamW,
    optimizer__weight_decay=0.01,
    lr=1e-3,
    batch_size=32,
    max_epochs=6,
    iterator_train__shuffle=True,
    train_split=None,
    callbacks=[TrajectoryRecorder(n_checkpoints=6)],
    verbose=0,
).fit(X_train, y_train)
predicted, confidence = net.predict(X_test), net.predict_proba(X_test).max(axis=1)
print(f"accuracy: {net.score(X_train, y_train):.3f} in training, {np.mean(predicted == y_test):.3f} on 300 others")

# %%
# Attribute
# ---------
# Two questions that were understood, and the mistake that the network is surest of. A score is the part of the log-odds
# of the predicted class that is owed to the training question, for one question at a time and to first order. Sums
# over many questions rank right and overstate: for four test questions, networks trained anew without the 40 strongest
# supporters lost 5 in log-odds on average, where the scores add up to 19; without 40 of the class drawn at random, 0.1.
est = SourceAttribution(n_segments=3, curvature=EKFAC(fisher="sampled"), random_state=0).fit(net, X_train, y_train)
asked = [list(test.data).index(text) for text in ("What does NASA stand for ?", "Where is the volcano Mauna Loa ?")]
asked.append(int(np.argmax(np.where(predicted == y_test, 0, confidence))))
scores = est.transform(X_test[asked])
ranked = np.argsort(-scores, axis=1)

for place, query in enumerate(asked):
    print(f"\n{readable(test.data[query])}")
    print(f"  predicted {names[predicted[query]]} ({confidence[query]:.0%}), labelled {names[y_test[query]]}")
    for title, rows in (("made it say so", ranked[place, :8]), ("spoke against it", ranked[place, :-7:-1])):
        print(f"  {title}:")
        for row in rows:
            print(f"    {scores[place, row]:+6.2f}  {names[y_train[row]]:12}  {readable(train.data[row])}")

# %%
# Labels to look at
# -----------------
# Self-influence is how much of its own fit a question owes to itself: high where nothing else in the data says the
# same. These are rare kinds of question, or questions whose label another reader would not have given.
own = est.self_influence()
suspects = np.argsort(-own)[:20]
print("\nTraining questions that owe most to themselves:")
for row in suspects:
    print(f"  {own[row]:6.2f}  {train.fine_target_names[train.fine_target[row]]:12}  {readable(train.data[row])}")

# %%
# Two pictures
# ------------
# The questions that weighed most, each with its label, and the labels that owe most to themselves.
colours = dict(zip(range(len(names)), plt.get_cmap("Dark2").colors))


def bars(axes, rows, values, width):
    found = axes.barh(range(len(rows)), values, color=[colours[label] for label in y_train[rows]])
    axes.bar_label(found, names[y_train[rows]], padding=4, fontsize=9)  # colours alone are not for everyone
    axes.set_yticks(range(len(rows)), [textwrap.fill(readable(train.data[row]), width) for row in rows], fontsize=9)
    axes.margins(x=0.22, y=0.02)
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


figure, panels = plt.subplots(len(asked), 1, figsize=(11, 13), layout="constrained")
for place, (query, axes) in enumerate(zip(asked, panels)):
    rows = np.concatenate([ranked[place, :6], ranked[place, -4:]])
    bars(axes, rows, scores[place, rows], width=66)
    verdict = f"predicted {names[predicted[query]]} ({confidence[query]:.0%}), labelled {names[y_test[query]]}"
    axes.set_title(f"{readable(test.data[query])}\n{verdict}", fontsize=12, loc="left")
    axes.set_xlabel(f"effect of the training question on the log-odds of {names[predicted[query]]}")
figure.savefig("questions_influences.png", dpi=120)

figure, axes = plt.subplots(figsize=(11, 7), layout="constrained")
bars(axes, suspects[:15], own[suspects[:15]], width=60)
axes.set_title("Training questions that owe most of their fit to themselves", fontsize=12, loc="left")
axes.set_xlabel("part of the question's own log-likelihood that is owed to its presence (nats)")
figure.savefig("questions_self_influence.png", dpi=120)
print("\nSaved questions_influences.png and questions_self_influence.png")
