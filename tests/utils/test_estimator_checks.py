"""Our own checks: every method passes them, and every one of them can fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import Bunch
from sklearn.utils.validation import check_array, check_is_fitted

from sklearn_source import (
    TRAK,
    DiffusionTracIn,
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    SourceAttribution,
    TracIn,
    Trajectory,
)
from sklearn_source.curvature import EKFAC
from sklearn_source.rows import row_hashes
from sklearn_source.utils.estimator_checks import check_attribution_estimator, parametrize_with_attribution_checks
from tests._methods import METHODS

FIRST_ORDER = "nothing in it says that later steps take back what earlier ones did"


def wrong_in_size(estimator):
    """The check of the size where it has to fail."""
    reasons = {TracIn: FIRST_ORDER, DiffusionTracIn: FIRST_ORDER}
    return {"check_attribution_size": reasons[type(estimator)]} if type(estimator) in reasons else {}


@parametrize_with_attribution_checks([method() for method in METHODS], expected_failed_checks=wrong_in_size)
def test_attribution_checks(estimator, check):
    check(estimator)


@parametrize_with_attribution_checks(
    [
        SourceAttribution(curvature=EKFAC(fisher="sampled"), averaging="parameters", quadrature="right"),
        TracIn(quadrature="right"),
        RepresentationSimilarity(metric="l2"),
        TRAK(projection="kronecker", n_components=12, block_size=5, n_checkpoints=3, random_state=0),
        TRAK(projection="rademacher", n_components=6, regularization=0.1, random_state=0),
        TRAK(projection="mask", n_components=6, random_state=0),
    ],
    tasks=["regression"],
    expected_failed_checks=wrong_in_size,
)
def test_attribution_checks_of_the_other_ways(estimator, check):
    check(estimator)


class Nearest(BaseEstimator):
    """A third party's method, written from the contract alone: minus the distance of inputs."""

    def fit(self, X, y=None, *args, net=None):
        net, X, y = (X, y, args[0]) if args else (net, X, y)
        trajectory = Trajectory.from_net(net)
        X = check_array(X)
        check_array(y, ensure_2d=False)
        recorded = trajectory.stages[0].row_hashes
        if not np.array_equal(np.sort(row_hashes(X, y)), np.sort(recorded)):
            raise ValueError(f"expected the {len(recorded)} rows that the network was trained on, got others")
        self.X_ = X
        return self

    def transform(self, X, y=None):
        check_is_fitted(self)
        X = check_array(X)
        if X.shape[1] != self.X_.shape[1]:
            raise ValueError(f"expected {self.X_.shape[1]} columns, got {X.shape[1]}")
        return -np.linalg.norm(X[:, None] - self.X_[None], axis=2).astype(np.float32)

    def top_influences(self, X, y=None, k=10, *, order="supporting"):
        scores = self.transform(X)
        if not isinstance(k, int) or not 1 <= k <= scores.shape[1] or order not in ("supporting", "opposing"):
            raise ValueError(f"k from 1 to {scores.shape[1]}, order supporting or opposing; got {k!r}, {order!r}")
        indices = np.argsort(-scores if order == "supporting" else scores, axis=1, kind="stable")[:, :k]
        return Bunch(indices=indices, scores=np.take_along_axis(scores, indices, axis=1))

    def self_influence(self):
        check_is_fitted(self)
        return np.zeros(len(self.X_), dtype=np.float32)

    def get_feature_names_out(self, input_features=None):
        return [f"near{i}" for i in range(len(self.X_))]


def test_a_method_from_elsewhere_can_be_checked():
    results = check_attribution_estimator(Nearest())
    assert {result["status"] for result in results} == {"passed"}
    assert {result["task"] for result in results} == {"regression", "classification"}
    assert not any(result["check_name"] == "check_attribution_unit" for result in results)


# --- broken methods, each of which one check has to catch -----------------------------------------------------------


class Scored(GradientSimilarity):
    """A sound method whose scores subclasses spoil in ``spoiled``."""

    def spoiled(self, scores):
        return scores

    def transform(self, X, y=None):
        return self.spoiled(super().transform(X, y))


class WrongDtype(Scored):
    def spoiled(self, scores):
        return scores.astype(np.float64)


class WrongShape(Scored):
    def spoiled(self, scores):
        return scores.T


class NotFinite(Scored):
    def spoiled(self, scores):
        scores[0, 0] = np.nan
        return scores


class Constant(Scored):
    def spoiled(self, scores):
        return np.ones_like(scores)


class SameNames(GradientSimilarity):
    def get_feature_names_out(self, input_features=None):
        return np.asarray(["row"] * self.n_train_, dtype=object)


class CentredOverQueries(Scored):
    def spoiled(self, scores):
        return scores - scores.mean(0)


class OrderOfQueries(Scored):
    def spoiled(self, scores):
        return scores * np.linspace(1, 2, len(scores), dtype=np.float32)[:, None]


class BatchDependent(Scored):
    def spoiled(self, scores):
        return scores * np.float32(1 + 1e-3 * (self.batch_size or 0))


class ColumnDependent(Scored):
    def spoiled(self, scores):
        return scores * np.arange(1, self.n_train_ + 1, dtype=np.float32)


class OrderIgnored(GradientSimilarity):
    def top_influences(self, X, y=None, k=10, *, order="supporting"):
        return super().top_influences(X, y, k)


class TopUnsorted(GradientSimilarity):
    def top_influences(self, X, y=None, k=10, *, order="supporting"):
        top = super().top_influences(X, y, k, order=order)
        return Bunch(indices=top.indices[:, ::-1], scores=top.scores[:, ::-1])


class TopScoresOfOthers(GradientSimilarity):
    def top_influences(self, X, y=None, k=10, *, order="supporting"):
        top = super().top_influences(X, y, k, order=order)
        return Bunch(indices=np.roll(top.indices, 1, axis=1), scores=top.scores)


class SelfDoubled(GradientSimilarity):
    def self_influence(self):
        return 2 * super().self_influence()


class PrecisionDependent(Scored):
    def spoiled(self, scores):
        return scores * np.float32(1.01 if self._network.dtype == torch.float32 else 1)


class Meddling(GradientSimilarity):
    """Does something to the user's net, or to the world, in ``transform``."""

    def transform(self, X, y=None):
        self.meddle(self.net_)
        return super().transform(X, y)


class Evaluates(Meddling):
    def meddle(self, net):
        net.module_.eval()


class DropsGradients(Meddling):
    def meddle(self, net):
        net.module_.zero_grad()


class Nudges(Meddling):
    def meddle(self, net):
        with torch.no_grad():
            next(net.module_.parameters()).add_(1e-3)


class Freezes(Meddling):
    def meddle(self, net):
        next(net.module_.parameters()).requires_grad_(False)


class LeavesAHook(Meddling):
    def meddle(self, net):
        net.module_.register_forward_hook(lambda *_: None)


class RunsTheModule(Meddling):
    def meddle(self, net):
        with torch.no_grad():
            net.infer(torch.zeros(1, 3))


class LeavesAnAttribute(Meddling):
    def meddle(self, net):
        vars(net)["seen_"] = True


class DrawsNumbers(Meddling):
    def meddle(self, net):
        np.random.rand()


class DrawsTensors(Meddling):
    def meddle(self, net):
        torch.rand(1)


class FrozenOtherwise(Scored):
    def spoiled(self, scores):
        return scores * np.float32(1 if self.net is None else 1.1)


class CloneOtherwise(Scored):
    fits = 0

    def fit(self, X, y=None, *args, **kwargs):
        if self.net is not None:
            type(self).fits += 1
        self.scale_ = 1.0 if self.net is None else float(type(self).fits)
        return super().fit(X, y, *args, **kwargs)

    def spoiled(self, scores):
        return scores * np.float32(self.scale_)


class TrainsTheUsersNet(GradientSimilarity):
    def fit(self, X, y=None, *args, **kwargs):
        if self.net is None or hasattr(self.net, "estimator"):
            return super().fit(X, y, *args, **kwargs)
        return super().fit(self.net.fit(X, y), X, y)


class SeedIgnored(GradientSimilarity):
    def _draw_seed(self):
        return int(np.random.default_rng().integers(2**31 - 1))


class PickleLoses(Scored):
    def __setstate__(self, state):
        super().__setstate__(state)
        self.reborn = True

    def spoiled(self, scores):
        return scores * np.float32(2 if hasattr(self, "reborn") else 1)


class Remembers(Scored):
    def fit(self, X, y=None, *args, **kwargs):
        self.fits = getattr(self, "fits", 0) + 1
        return super().fit(X, y, *args, **kwargs)

    def spoiled(self, scores):
        return scores * np.float32(self.fits)


class Tires(Scored):
    def spoiled(self, scores):
        self.asked = getattr(self, "asked", 0) + 1
        return scores * np.float32(1 + 0.1 * self.asked)


class WritesParameters(GradientSimilarity):
    def fit(self, X, y=None, *args, **kwargs):
        super().fit(X, y, *args, **kwargs)
        self.batch_size = self._gradients.batch_size
        return self

    def transform(self, X, y=None):
        self.batch_size = 3
        return super().transform(X, y)


class HalfFitted(GradientSimilarity):
    def fit(self, X, y=None, *args, **kwargs):
        try:
            return super().fit(X, y, *args, **kwargs)
        except ValueError:
            self._rows = None
            raise


class ZerosBeforeFit(GradientSimilarity):
    def transform(self, X, y=None):
        return super().transform(X, y) if hasattr(self, "net_") else np.zeros((len(X), 1), dtype=np.float32)


class TrainsAnyNet(GradientSimilarity):
    def fit(self, X, y=None, *args, **kwargs):
        if args and not X.initialized_:
            X = clone(X).fit(y, args[0])
        return super().fit(X, y, *args, **kwargs)


class AnyRows(GradientSimilarity):
    def _credit(self, X, y, as_is, stage):
        self._credited, self._identified = [np.arange(self.n_train_)], False
        self._keys = np.arange(self.n_train_, dtype=np.uint64)


class Imputes(GradientSimilarity):
    def transform(self, X, y=None):
        return super().transform(np.nan_to_num(X, posinf=0.0), y)


class CutsToWidth(GradientSimilarity):
    def transform(self, X, y=None):
        X = X if not hasattr(self, "n_features_in_") else np.resize(X, (len(X), self.n_features_in_))
        return super().transform(X, y)


class ClipsK(GradientSimilarity):
    def top_influences(self, X, y=None, k=10, *, order="supporting"):
        return super().top_influences(X, y, max(1, min(int(k or 1), self.n_train_)), order=order)


class Negated(TracIn):
    def transform(self, X, y=None):
        return -super().transform(X, y)


class Summed(TracIn):
    def transform(self, X, y=None):
        return super().transform(X, y) * self.n_train_


class Quartered(SourceAttribution):
    def transform(self, X, y=None):
        return super().transform(X, y) / 4


BROKEN = [
    (WrongDtype, "output", "float64, not float32"),
    (WrongShape, "output", r"shape \(24, 7\), not"),
    (NotFinite, "output", "NaN"),
    (Constant, "output", "same score"),
    (SameNames, "output", "1 different names for 24 columns"),
    (CentredOverQueries, "query_batches", "when it comes alone"),
    (OrderOfQueries, "query_batches", "alone|order"),
    (BatchDependent, "batch_size", r"batch_size=1\) changes the scores"),
    (ColumnDependent, "permuted_rows", "permute its columns"),
    (OrderIgnored, "top_influences", "order='opposing'.*not the most extreme"),
    (TopUnsorted, "top_influences", "not the most extreme rows, in order"),
    (TopScoresOfOthers, "top_influences", "not those of transform at its indices"),
    (SelfDoubled, "self_influence", "not the diagonal"),
    (PrecisionDependent, "float64", "same net in float64"),
    (Evaluates, "net_untouched", "transform changed the training mode of module_"),
    (DropsGradients, "net_untouched", "transform changed the gradient of parameter"),
    (Nudges, "net_untouched", "transform changed the values of parameter"),
    (Freezes, "net_untouched", "transform changed requires_grad"),
    (LeavesAHook, "net_untouched", "transform changed the hooks"),
    (RunsTheModule, "net_untouched", "work on a copy"),
    (LeavesAnAttribute, "net_untouched", "the attributes of the net"),
    (DrawsNumbers, "net_untouched", "NumPy's random state"),
    (DrawsTensors, "net_untouched", "torch's random state"),
    (FrozenOtherwise, "frozen_net", "give different scores"),
    (CloneOtherwise, "frozen_net", "lost the net's training"),
    (TrainsTheUsersNet, "bare_net", "instead of training a clone"),
    (SeedIgnored, "bare_net", "another net at every fit"),
    (PickleLoses, "pickle", "changes with pickling"),
    (Remembers, "refit", "remembers an earlier fit"),
    (Tires, "refit", "after the estimator was asked before"),
    (WritesParameters, "refit", "changes its own parameters"),
    (HalfFitted, "failed_fit", "broken after a failed fit"),
    (ZerosBeforeFit, "unfitted", "no error was raised"),
    (TrainsAnyNet, "untrained_net", "no error was raised"),
    (AnyRows, "other_rows", "changed row of X: no error"),
    (Imputes, "not_finite", "nan in X: no error"),
    (CutsToWidth, "width", "too wide: no error"),
    (ClipsK, "k", "k=0: no error"),
    (Negated, "unit", "only 0% of the scores have the sign"),
    (Summed, "unit", "times the effect"),
    (Quartered, "size", r"are 0\.\d+ times the effect of the groups"),
    (TracIn, "size", "are 17.* times the effect of the groups.*within a factor of 1.33"),
]


def the_check(estimator, name, **options):
    """One check of the parametrization, as pytest would run it."""
    parameters = parametrize_with_attribution_checks([estimator], tasks=["regression"], **options).args[1]
    return next(parameter.values for parameter in parameters if f"-{name}-" in parameter.id)


@pytest.mark.parametrize("broken, check_name, message", BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_every_check_can_fail(broken, check_name, message):
    CloneOtherwise.fits = 0
    estimator, check = the_check(broken(), f"check_attribution_{check_name}")
    with pytest.raises(AssertionError, match=message) as caught:
        check(estimator)
    assert broken.__name__ in str(caught.value)


def test_the_unit_can_be_asked_for_closely():
    def check(estimator):
        _, run = the_check(estimator, "check_attribution_unit", unit_factor=1.2)
        run(estimator)

    check(SourceAttribution(curvature="exact"))
    with pytest.raises(AssertionError, match="TracIn: scores are 1.6.* times the effect"):
        check(TracIn())


@pytest.mark.parametrize(
    "estimator",
    [
        SourceAttribution(curvature="exact"),
        SourceAttribution(curvature="exact", n_segments=1),
        InfluenceFunctions(curvature="exact", damping=1 / 5),
    ],
    ids=lambda estimator: f"{estimator!r}",
)
def test_whole_curvature_is_right_in_size(estimator):
    _, check = the_check(estimator, "check_attribution_size")
    check(estimator)


def test_every_check_is_shown_to_fail():
    results = check_attribution_estimator(
        TracIn(), tasks=["regression"], expected_failed_checks=wrong_in_size(TracIn())
    )
    names = {result["check_name"] for result in results}
    assert names == {f"check_attribution_{check_name}" for _, check_name, _ in BROKEN}


def test_failures_are_raised_told_or_expected():
    with pytest.raises(AssertionError, match="WrongDtype.transform returned float64"):
        check_attribution_estimator(WrongDtype(), tasks=["regression"])
    expected = {"check_attribution_output": "float64 by choice"}
    results = check_attribution_estimator(WrongDtype(), tasks=["regression"], expected_failed_checks=expected)
    assert [r["check_name"] for r in results if r["status"] == "xfail"] == ["check_attribution_output"]
    assert {r["status"] for r in results} == {"passed", "xfail"}


def test_unit_is_checked_where_it_is_claimed():
    def names(**options):
        results = check_attribution_estimator(GradientSimilarity(), tasks=["regression"], on_fail=None, **options)
        return {result["check_name"]: result["status"] for result in results}

    assert "check_attribution_unit" not in names()
    assert names(has_unit=True)["check_attribution_unit"] == "failed"


def test_expected_failures_become_marks():
    decorator = parametrize_with_attribution_checks(
        [WrongDtype()], expected_failed_checks=lambda estimator: {"check_attribution_output": "float64 by choice"}
    )
    marked = [parameter for parameter in decorator.args[1] if parameter.marks]
    assert len(marked) == 2
    assert all("check_attribution_output" in parameter.id for parameter in marked)


def test_wrong_calls_are_refused():
    with pytest.raises(TypeError, match="pass TracIn()"):
        check_attribution_estimator(TracIn)
    with pytest.raises(ValueError, match="net=None"):
        check_attribution_estimator(TracIn(net=object()))
    with pytest.raises(ValueError, match="tasks to be some of"):
        check_attribution_estimator(TracIn(), tasks=["ranking"])
    with pytest.raises(ValueError, match="has_unit to be"):
        check_attribution_estimator(TracIn(), has_unit="yes")
    with pytest.raises(ValueError, match="on_fail to be"):
        check_attribution_estimator(TracIn(), on_fail="warn")


def test_unfitted_toy_would_be_seen():
    with pytest.raises(NotFittedError):
        Nearest().transform(np.zeros((1, 3)))
