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
from sklearn_source.datasets import MLP
from sklearn_source.inspection import LDSDisplay, MislabelDisplay, SubsetRemovalDisplay
from sklearn_source.metrics import linear_datamodeling_score, subset_removal_score, top_k_removals
from sklearn_source.model_selection import FullTrainingSet, held_out_score, make_lds_scorer
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
# datamodeling score* is the rank correlation of that with what happened, averaged over queries. Nobody can reach 1: two
# networks trained on the same half differ by chance. The ceiling is what perfect scores would reach.
#
# ``EmpiricalInfluence`` knows no gradients: it compares networks that had a row with those that had not, here 300 of
# them, trained on other halves than those by which it is judged.
others = retrain_on_subsets(net, X, y, X_query, y_query, n_subsets=300, n_repeats=1, random_state=1)
methods = {
    "SOURCE, 3 segments": SourceAttribution(n_segments=3, random_state=0),
    "SOURCE, 1 segment": SourceAttribution(n_segments=1, random_state=0),
    "influence functions": InfluenceFunctions(random_state=0),
    "TracIn": TracIn(),
    "gradient cosine": GradientSimilarity(),
    "last layer cosine": RepresentationSimilarity(),
}
methods = {name: method.fit(net, X, y) for name, method in methods.items()}
scores = {name: method.transform(X_query, y_query) for name, method in methods.items()}
scores["300 retrained networks"] = EmpiricalInfluence(others).fit(X, y).transform(X_query)
LDSDisplay.from_predictions(scores, truth, show_queries=True)
for name, values in scores.items():
    found = linear_datamodeling_score(values, truth)
    print(f"{name:>24}  {found.score:.2f}  ({found.interval[0]:.2f} to {found.interval[1]:.2f})")
print(f"{'ceiling':>24}  {found.ceiling:.2f}")

# %%
# Which setting?
# --------------
# The same score chooses settings. ``FullTrainingSet`` fits on all rows every time, since scores are about one training,
# and deals the *queries* into folds; ``held_out_score`` then reports a score on queries that had no part in the choice.
with tempfile.TemporaryDirectory() as folder:
    search = GridSearchCV(
        SourceAttribution(FrozenEstimator(net), memory=folder, random_state=0),
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
# Without the rows that support it
# --------------------------------
# A cruder question, nearer to practice: take away the k rows of highest score of a query, train again, and see how far
# its log-odds fall. The baseline takes away as many random rows. It is easily beaten, by anything that finds rows of
# the right digit; the cosine of the last layer is the baseline to beat.
#
# The cache trains the networks that the methods share, those of the baseline, only once.
asked = slice(0, 15)
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
        fall, flipped = (" ".join(f"{v:6.2f}" for v in values) for values in (result.change, result.flip_rate))
        print(f"{name:>20}: log-odds fall by {fall}; share of queries flipped {flipped}")

# %%
# Who finds wrong labels?
# -----------------------
# The one question whose truth is for free: put wrong labels on one row in five, train, and inspect the rows in the
# order of their *self-influence*, how much of its fit a row owes to itself. The loss of the trained network stands
# beside it.
rng = np.random.default_rng(0)
wrong = rng.choice(len(X), 240, replace=False)
y_noisy = y.copy()
y_noisy[wrong] = (y[wrong] + rng.integers(1, 10, size=len(wrong))) % 10
net_noisy = train(X, y_noisy)
figure, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
for name in ("SOURCE, 3 segments", "influence functions", "TracIn"):
    method = methods[name].fit(net_noisy, X, y_noisy)
    MislabelDisplay.from_estimator(method, wrong, name=name, show_references=False, ax=ax)
loss = -np.log(net_noisy.predict_proba(X)[np.arange(len(X)), y_noisy] + 1e-12)
MislabelDisplay.from_predictions(loss, wrong, name="loss", ax=ax)
plt.show()
