"""
Which speeches taught the network to write this line?
=====================================================

A small language model learns from speeches of three plays by Shakespeare, character by character. For lines that it
has never read, :class:`~sklearn_source.SourceAttribution` says which speeches made it expect them, and which speech
taught it which word. A row of the data is a speech; the loss is a mean over characters, padding ignored.
"""

# %%
# The data
# --------
# Speeches longer than 128 characters are cut between lines. Every 20th speech is kept out of training.
from __future__ import annotations

import re
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch import NeuralNet

from sklearn_source import SourceAttribution, TrajectoryRecorder
from sklearn_source.datasets import TextEncoder, load_plays, next_tokens
from sklearn_source.modules import CharTransformer

plays = load_plays(max_length=128)
encoder = TextEncoder("char", edges=True)
X, y = next_tokens(encoder.fit_transform(plays.data))
held_out = plays.speech % 20 == 0
texts, X_train, y_train = plays.data[~held_out], X[~held_out], y[~held_out]
print(f"{len(X_train)} rows of {X.shape[1]} places, {encoder.n_tokens_} characters; {held_out.sum()} rows held out")

# %%
# Train, with a recorder
# ----------------------
# The output has the shape (rows, characters, places), as the criterion takes it; it skips targets of -100, the padding.
torch.manual_seed(0)
net = NeuralNet(
    CharTransformer,
    module__n_tokens=encoder.n_tokens_,
    module__max_length=X.shape[1],
    module__width=48,
    module__n_blocks=2,
    criterion=torch.nn.CrossEntropyLoss,
    criterion__ignore_index=-100,
    optimizer=torch.optim.AdamW,
    optimizer__weight_decay=0.01,
    lr=4e-3,
    batch_size=16,
    max_epochs=8,
    iterator_train__shuffle=True,
    train_split=None,
    callbacks=[TrajectoryRecorder(n_checkpoints=3)],
    verbose=0,
).fit(X_train, y_train)


def log_likelihood(output, target):
    """Log-probability of a row's characters, summed over those that are not ignored."""
    return -torch.nn.functional.cross_entropy(output, target, reduction="none").sum(1)


log_likelihood.needs_y = True
with torch.no_grad():
    gained = log_likelihood(net.forward(X[held_out]), torch.as_tensor(y[held_out])).sum()
losses = net.history[-1, "train_loss"], -gained / (y[held_out] >= 0).sum()
print("loss per character: {:.2f} in training, {:.2f} held out".format(*losses))

# %%
# So short a training leaves it with the look of verse, some words and no sense. It continues Romeo's name with:
torch.manual_seed(1)
written = encoder.transform(["ROMEO:\n"])[:, :8]
with torch.no_grad():
    while written.shape[1] < X.shape[1] and written[0, -1] != encoder.transform([""])[0, 1]:
        probabilities = (net.forward(written)[0, :, -1] / 0.5).softmax(0)
        written = np.append(written, torch.multinomial(probabilities, 1)[None].numpy(), axis=1)
print("\n" + encoder.inverse_transform(written)[0])

# %%
# Attribute
# ---------
# Three lines held out, one from each play. ``"neg_loss"`` would be a mean over characters, as training counts it; the
# log-likelihood of the line is in nats. A query's targets say what is asked: with -100 in place of all targets but
# those of one word, it is what made the network expect this word after the text before it.
starts = "GLOUCESTER:\nNow is the winter", "ROMEO:\nWith love's light wings", "PETRUCHIO:\nSignior Hortensio, come"
lines = [next(row for row in np.flatnonzero(held_out) if plays.data[row].startswith(start)) for start in starts]


def words_of(row):
    """The words of a row and, for each, targets that ask for it alone; the character `t` of a text is target `t`."""
    text = plays.data[row]
    spoken = len(plays.speaker[row]) + 2
    for match in re.finditer(r"[\w'-]{3,}", text[spoken:]):
        places = np.arange(y.shape[1])
        asked = (places >= spoken + match.start()) & (places < spoken + match.end())
        yield match.group(), np.where(asked, y[row], -100)


words, y_words = zip(*words_of(lines[0]))
est = SourceAttribution(n_segments=3, measurement=log_likelihood, random_state=0).fit(net, X_train, y_train)
# One call for the three lines and the words of the first: the training rows are walked through once.
X_query = X[lines + [lines[0]] * len(words)]
y_query = np.concatenate([y[lines], y_words])
scores = est.transform(X_query, y_query)
with torch.no_grad():
    expected = log_likelihood(net.forward(X_query), torch.as_tensor(y_query)).numpy()
scores_lines, scores_words = scores[: len(lines)], scores[len(lines) :]
ranked = np.argsort(-scores_lines, axis=1)


def flat(text):
    """A speech on one line of print."""
    name, spoken = text.split(":\n", 1)
    return f"{name}: {spoken}".replace("\n", " / ")


for place, row in enumerate(lines):
    print(f"\n{flat(plays.data[row])}\n  log-likelihood {expected[place]:.1f} nats")
    for title, rows in (("raised by", ranked[place, :6]), ("lowered by", ranked[place, :-4:-1])):
        print(f"  {title}:")
        for k in rows:
            print(f"    {scores_lines[place, k]:+.2f}  {flat(texts[k])}")

print("\nWord by word: its log-likelihood, and the speeches that raised it most")
for word, value, row in zip(words, expected[len(lines) :], scores_words):
    print(f"  {word} ({value:.1f} nats)")
    for k in np.argsort(-row)[:2]:
        print(f"    {row[k]:+.2f}  {flat(texts[k])}")

# %%
# Speeches like no other
# ----------------------
# Self-influence finds what the network could not have learned from the rest: names of speakers who are rarely heard,
# of Greeks and Romans, Latin. It is in the unit of the training loss, a mean over characters.
own = est.self_influence()
print("\nSpeeches that owe most of their fit to themselves:")
for k in np.argsort(-own)[:10]:
    print(f"  {own[k]:.2f}  {flat(texts[k])}")

# %%
# Two pictures
# ------------
# For each line the speeches that raised and lowered its log-likelihood most; then, for each word of the first line, the
# speech that did most for it.


def bars(axes, values, labels, width):
    axes.barh(range(len(values)), values, color=np.where(np.array(values) > 0, "tab:blue", "tab:red"))
    axes.set_yticks(range(len(values)), [textwrap.fill(label, width) for label in labels], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel("effect of the speech on the log-likelihood (nats)")


figure, panels = plt.subplots(len(lines), 1, figsize=(11, 13), layout="constrained")
for place, (row, axes) in enumerate(zip(lines, panels)):
    rows = np.concatenate([ranked[place, :5], ranked[place, -3:]])
    bars(axes, scores_lines[place, rows], [flat(texts[k]) for k in rows], width=75)
    axes.set_title(textwrap.fill(flat(plays.data[row]), 75), fontsize=11, loc="left")
figure.savefig("plays_influences.png", dpi=120)

figure, axes = plt.subplots(figsize=(11, 8), layout="constrained")
best = scores_words.argmax(axis=1)
labels = [f"{word}  |  {flat(texts[k])}" for word, k in zip(words, best)]
bars(axes, scores_words.max(axis=1), labels, width=75)
axes.set_title(
    "The words of the first line, and the speech that taught the network most about each", fontsize=11, loc="left"
)
figure.savefig("plays_words.png", dpi=120)
print("\nSaved plays_influences.png and plays_words.png")
