"""
A faulty batch in the laboratory: one page from errors to what to do
====================================================================

Strengths of concrete, of which one batch was reported too high: the press was not calibrated on the days when mixes
with much fly ash were tested. Nobody knows. A network learns from all of them, and errs on new mixes.
:func:`~sklearn_source.inspection.attribution_report` is the one call that goes from these errors to the rows behind
them, to what might be done, and to what that should change; training again says whether it does.
"""

# %%
# The data, and the fault
# -----------------------
from __future__ import annotations

import numpy as np
import torch
from skorch import NeuralNetRegressor

from sklearn_source import AttributionEnsemble, InfluenceFunctions, TrajectoryRecorder
from sklearn_source.datasets import load_concrete_split
from sklearn_source.inspection import attribution_report
from sklearn_source.modules import MLP

data = load_concrete_split()
X_train, X_query, y_query = data.X_train, data.X_query, data.y_query
mixes = data.scaler_X.inverse_transform(X_train)
fly_ash = mixes[:, data.feature_names.index("fly_ash")]
rng = np.random.default_rng(0)
batch = np.sort(rng.choice(np.flatnonzero(fly_ash > 120), 50, replace=False))
too_high = 30 / data.scaler_y.scale_[0]
y_train = data.y_train.copy()
y_train[batch] += too_high
print(f"{len(batch)} of {len(X_train)} rows are 30 MPa too high")

# %%
# Train, and attribute with an ensemble
# -------------------------------------
# Three networks of different seeds tell how sure the scores are.
torch.manual_seed(0)
net = NeuralNetRegressor(
    MLP,
    module__hidden=(32, 32),
    optimizer=torch.optim.SGD,
    optimizer__momentum=0.9,
    lr=0.03,
    batch_size=32,
    max_epochs=20,
    iterator_train__shuffle=True,
    train_split=None,
    callbacks=[TrajectoryRecorder()],
    verbose=0,
).fit(X_train, y_train)
est = AttributionEnsemble(InfluenceFunctions(), n_members=3, random_state=0).fit(net, X_train, y_train)

# %%
# The report
# ----------
# It shows itself in a notebook; ``report.save("report.html")`` writes the same page into one file.
report = attribution_report(
    est,
    X_query,
    y_query,
    inverse_transform=data.scaler_X.inverse_transform,
    inverse_transform_y=data.scaler_y.inverse_transform,
    feature_names=data.feature_names,
    target_names=["strength (MPa)"],
    scale=data.scaler_y.scale_[0],
    unit="MPa",
    n_shown=3,
    title="Errors on concrete, and a batch behind them",
)
report  # noqa: B018

# %%
# How much of the batch is found
# ------------------------------
# We know the fault, so we can tell how good the table of issues is.
harmful = report.issues_["row"][report.issues_["is_harmful_issue"]]
found = np.isin(report.issues_["row"][: len(batch)], batch).sum()
print(
    f"among the first {len(batch)} issues are {found} rows of the batch, {50 * len(batch) / len(X_train):.0f} by chance"
)
print(f"of the {len(harmful)} rows that push most towards the errors, {np.isin(harmful, batch).sum()} are of the batch")

# %%
# What to do, and whether it comes true
# -------------------------------------
# Predicted before anything is trained, then trained: networks with the action and without, in pairs of one seed.
for i, words in enumerate(report.actions_["description"]):
    change, low, high = (report.actions_[f"loss_{part}"][i] for part in ("change", "low", "high"))
    print(f"{words}: mean loss {change:+.3f} ({low:+.3f} to {high:+.3f})")
confirmed = report.confirm(actions=[0], n_repeats=5, random_state=1)
print(confirmed)
