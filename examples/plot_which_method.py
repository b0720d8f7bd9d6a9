"""
Which method should I believe?
==============================

Every method gives a number for every training row, and every number looks convincing. This example asks the networks
themselves: it trains them again on other rows, and sees which method had said beforehand what would happen. Then it
looks at what becomes of predictions without the rows that were said to support them, and at who finds wrong labels.
"""

# %%
# Data and a network
# ------------------
# Handwritten digits: 1200 to train on, 40 others as queries.
from __future__ import annotations

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier

from sklearn_source import (
    EmpiricalInfluence,
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    SourceAttribution,
    TracIn,
    TrajectoryRecorder,
)
from sklearn_source.curvature import EKFAC
from sklearn_source.inspection import LDSDisplay, MislabelDisplay, SubsetRemovalDisplay
from sklearn_source.metrics import linear_datamodeling_difference, subset_removal_score, top_k_removals
from sklearn_source.model_selection import FullTrainingSet, held_out_score, make_lds_scorer
from sklearn_source.modules import MLP
from sklearn_source.retraining import retrain_on_subsets, retrain_without

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
images, labels = (images[order] / 16).astype(np.float32), labels[order].astype(np.int64)
X, y = images[:1200], labels[:1200]
X_query, y_query = images[1200:1240], labels[1200:1240]


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
print(f"accuracy on {len(images) - 1200} unseen digits: {net.score(images[1200:], labels[1200:]):.3f}")

# %%
# The truth
# ---------
# The network is trained again on 100 random halves of the rows, three times on each, and the log-odds of every query's
# digit are written down. Small networks are trained many at once.
truth = retrain_on_subsets(
    net, X, y, X_query, y_query, n_subsets=100, subset_size=0.5, n_repeats=3, random_state=0, verbose=1
)

# %%
# Who foresaw it?
# ---------------
# By its scores, a method predicts how good a half is for a query: the sum of the scores of the rows in it. The *linear
# datamodeling score* is the rank correlation of that with what happened, a mean over queries. Nobody can reach 1: two
# networks trained on the same half differ by chance. The ceiling is what perfect scores would reach.
#
# ``EmpiricalInfluence`` knows no gradients: it compares networks that had a row with those that had not, here 300 of
# them, trained on other halves than those by which it is judged.
methods = {
    "SOURCE, 3 segments": SourceAttribution(n_segments=3, random_state=0),
    "SOURCE, 1 segment": SourceAttribution(n_segments=1, random_state=0),
    "influence functions": InfluenceFunctions(random_state=0),
    "TracIn": TracIn(),
    "gradient cosine": GradientSimilarity(),
    "last layer cosine": RepresentationSimilarity(),
}
scores = {name: clone(method).fit(net, X, y).transform(X_query, y_query) for name, method in methods.items()}
others = retrain_on_subsets(net, X, y, X_query, y_query, n_subsets=300, n_repeats=1, random_state=1)
scores["300 retrained networks"] = EmpiricalInfluence(others).fit(X, y).transform(X_query)
several = [clone(methods["SOURCE, 3 segments"]).fit(train(X, y, seed), X, y) for seed in range(5)]
mean = np.mean([method.transform(X_query, y_query) for method in several], axis=0)
scores = {"SOURCE, 3 segments, 5 networks": mean, **scores}
display = LDSDisplay.from_predictions(scores, truth, show_queries=True)
for name, found in display.results.items():
    print(f"{name:>30}  {found.score:.2f}  ({found.interval[0]:.2f} to {found.interval[1]:.2f})")
print(f"{'ceiling':>30}  {found.ceiling:.2f}")

# %%
# SOURCE foresaw most, a good half of a possible 0.89, and the mean of five networks a little more than one. Influence
# functions come next; TracIn and the similarities foresaw little. To have retrained 300 networks helps less than the
# gradients of a single one: each of their scores is the difference of two means that are noisy themselves.
#
# Is one segment better than three? Their intervals overlap, but both were judged by the same halves and queries: the
# difference has an interval of its own.
found = linear_datamodeling_difference(scores["SOURCE, 1 segment"], scores["SOURCE, 3 segments"], truth)
print(f"one segment less three: {found.difference:+.3f} ({found.interval[0]:+.3f} to {found.interval[1]:+.3f})")

# %%
# Here it is, by more than chance: the interval has no zero in it.

# %%
# Which setting?
# --------------
# The same score chooses settings. ``FullTrainingSet`` fits on all rows every time, since scores are about one training,
# and deals the *queries* into folds; ``held_out_score`` then reports a score on queries that had no part in the choice.
with tempfile.TemporaryDirectory() as folder:
    search = GridSearchCV(
        SourceAttribution(FrozenEstimator(net), curvature=EKFAC(memory=folder), random_state=0),
        {"n_segments": [1, 2, 3, 6]},
        scoring=make_lds_scorer(truth, X_query, y_query),
        cv=FullTrainingSet(5),
    ).fit(X, y)
for setting, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"]):
    print(f"{setting}: {score:.3f}")
honest = held_out_score(search)
print(f"chosen by the queries of the other folds: {[setting['n_segments'] for setting in honest.chosen]}")
print(f"score on queries that did not choose: {honest.score:.3f}")

# %%
# Whichever fifth of the queries is kept out, the others choose one segment, so the honest score is that of the search.

# %%
# Without the rows that support it
# --------------------------------
# A cruder question, nearer to practice: take away the k rows of highest score of a query, train again, and see how far
# its log-odds fall. The baseline takes away as many random rows. Anything that finds rows of the right digit beats it
# easily; the baseline to beat is the cosine of the last layer. With ``cache=`` the networks of the baseline, which the
# methods share, are trained once.
asked = slice(0, 20)
figure, ax = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
with tempfile.TemporaryDirectory() as folder:
    for name in ("SOURCE, 3 segments", "influence functions", "gradient cosine", "last layer cosine"):
        removed = top_k_removals(scores[name][asked], k=[10, 30, 100], n_random=5)
        retrained = retrain_without(
            net, X, y, X_query[asked], y_query[asked], removed=removed, n_repeats=2, random_state=0, cache=folder
        )
        result = subset_removal_score(retrained)
        first = not ax.lines
        SubsetRemovalDisplay.from_result(result, quantity="change", name=name, show_baseline=first, ax=ax)
        own = np.mean([np.mean(y[removed[f"query {q} top 100"]] == y_query[q]) for q in range(20)])
        falls = ", ".join(f"{fall:.1f} without {k} rows" for fall, k in zip(result.change, result.k))
        print(f"{name:>20}: log-odds fall by {falls}; of the 100, {own:.0%} are of the query's digit")

# %%
# Random rows do no harm; on average, every method's do. Without ten rows SOURCE and influence functions do most, and
# without thirty SOURCE; without a hundred the gradient cosine, which foresaw little above: nearly all of its rows are
# of the query's digit, of which there are about 120, where SOURCE and influence functions list rows of other digits.
# But queries differ so much that twenty of them do not decide between these methods: the intervals overlap everywhere.

# %%
# Who finds wrong labels?
# -----------------------
# Here the truth is for free: put wrong labels on one row in five, train, and inspect the rows in the order of their
# *self-influence*, how much of its fit a row owes to itself. The loss of the trained network stands beside it. Wrong
# labels of two kinds: drawn at random, and those that the first network would have taken for the next best.
wrong = np.random.default_rng(0).choice(len(X), 240, replace=False)
at_random, confused = y.copy(), y.copy()
at_random[wrong] = (y[wrong] + np.random.default_rng(1).integers(1, 10, size=240)) % 10
next_best = net.predict_proba(X[wrong])
next_best[np.arange(240), y[wrong]] = 0
confused[wrong] = next_best.argmax(axis=1)
figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), sharey=True, layout="constrained")
for ax, y_noisy, kind in zip(axes, (at_random, confused), ("labels drawn at random", "labels easily confused")):
    noisy = train(X, y_noisy)
    for name in ("SOURCE, 3 segments", "influence functions", "TracIn"):
        method = clone(methods[name]).fit(noisy, X, y_noisy)
        MislabelDisplay.from_estimator(method, wrong, name=name, show_references=False, ax=ax)
    loss = -np.log(noisy.predict_proba(X)[np.arange(len(X)), y_noisy] + 1e-12)
    MislabelDisplay.from_predictions(loss, wrong, name="loss", ax=ax)
    ax.set_title(kind)
    ax.label_outer()

# %%
# Labels drawn at random are found by all of them, and best by the loss, which costs nothing. Confused ones are harder.
# There TracIn is best, which foresaw little above: it is another question. So believe a method on the question that you
# have, once you have seen it answer that one.
plt.show()
