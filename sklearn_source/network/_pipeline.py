"""A fitted scikit-learn pipeline that ends in a net: its steps, and the net behind them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import TargetEncoder
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet

from ..rows import brings_rows, count_rows
from ..utils._compat import FrozenEstimator
from ..utils._warnings import warn

_ALONE = "or give the net itself and rows as it reads them"
_LEFT_OUT = (None, "passthrough")
# Steps whose fit_transform is no transform of the same rows: they predict a row by what the others teach.
_APART = (TargetEncoder, StackingClassifier, StackingRegressor)
_FIRST = (
    "fit the steps first, then the net on what their transform gives, and put both into a Pipeline, which need not be "
    "fitted once more"
)


class FittedSteps:
    """What rows pass through on their way to a net: fitted transformers, as they were then, and never fitted anew.

    Parameters
    ----------
    steps : list of (str, transformer)
        None of them for a net that reads rows as they are.
    """

    def __init__(self, steps: list[tuple[str, Any]]):
        self.steps = steps

    def __len__(self):
        return len(self.steps)

    def transform(self, X: Any) -> Any:
        """Rows as the net reads them.

        Parameters
        ----------
        X : rows as the first step takes them, or None
            Left as they are.

        Returns
        -------
        X
            What the last step makes of them; without steps the same object.

        Raises
        ------
        ValueError
            If a step makes more rows or fewer.
        TypeError
            If X is a dataset, loader or stream, which no step takes.
        """
        if not self.steps or X is None:
            return X
        if brings_rows(X):
            raise TypeError(
                f"expected rows that the pipeline's steps take, got a {type(X).__name__}: pass them as arrays, {_ALONE}"
            )
        n_rows = count_rows(X)
        if hasattr(X, "copy") and any(_works_in_place(step) for _, step in self.steps):
            X = X.copy()
        for name, step in self.steps:
            X = step.transform(X)
            if count_rows(X) != n_rows:
                raise ValueError(
                    f"expected steps that make one row of each, but {_named(name, step)} made {count_rows(X)} rows of "
                    f"{n_rows}: apply it before, and leave it out of the pipeline"
                )
        return X

    @contextlib.contextmanager
    def recognising(self, *, recorded: bool) -> Iterator[None]:
        """Say of training rows that are not recognised what steps may have to do with it.

        Parameters
        ----------
        recorded : bool
            Whether there is a record of the rows that the net was trained on. Without one a step that is known to
            hand out other rows in training is warned of.
        """
        apart = [_named(name, step) for name, step in self.steps if _is_apart(step)]
        if apart and not recorded:
            warn(f"{apart[0]} hands a net other rows in pipeline.fit than its transform, which is asked here: {_FIRST}")
        try:
            yield
        except ValueError as error:
            if not self.steps:
                raise
            raise ValueError(
                f"{error}. In a pipeline, X is as it was given to pipeline.fit, in the same precision too: of float32 "
                "rows in place of float64, or the reverse, the steps make others. A step whose fit_transform gives "
                "other numbers than its transform (a TargetEncoder, a PCA in float32) hands the net other rows in "
                f"pipeline.fit: {_FIRST}"
            ) from error

    def around(self, net: Any) -> Any:
        """A net that takes rows as the first step takes them; without steps the net.

        Parameters
        ----------
        net : skorch.NeuralNet

        Returns
        -------
        net : Pipeline or skorch.NeuralNet
            It shares the steps and the net.
        """
        return Pipeline([*self.steps, (_free_name(self.steps), net)]) if self.steps else net


def split_pipeline(net: Any) -> tuple[FittedSteps, Any]:
    """The fitted steps in front of a net, and the net.

    Parameters
    ----------
    net : Pipeline, or whatever else is given as a network
        Also frozen.

    Returns
    -------
    steps : FittedSteps
    net : skorch.NeuralNet
        Of a pipeline, opened where it is frozen; all else as it came.

    Raises
    ------
    TypeError
        If a pipeline ends in something else than a net, or a step is none that transforms rows one by one.
    sklearn.exceptions.NotFittedError
        If a step is not fitted.
    """
    inner = net.estimator if isinstance(net, FrozenEstimator) else net
    _refuse_wrapped(inner)
    if not isinstance(inner, Pipeline):
        return FittedSteps([]), net
    *front, (name, last) = inner.steps
    nested, last = split_pipeline(last)
    last = last.estimator if isinstance(last, FrozenEstimator) else last
    if isinstance(last, type) or not isinstance(last, NeuralNet):
        what = repr(last) if last in _LEFT_OUT else f"a {type(last).__name__}"
        raise TypeError(f"expected a pipeline that ends in a skorch net, got one whose last step {name!r} is {what}")
    steps = [(key, _own(key, _checked(key, step))) for key, step in front if step not in _LEFT_OUT]
    return FittedSteps(_unique(steps + nested.steps)), last


def _refuse_wrapped(net):
    """Refuse what holds a network in another way, and say where it is."""
    if isinstance(net, TransformedTargetRegressor):
        raise TypeError(
            "expected a skorch net or a pipeline that ends in one, got a TransformedTargetRegressor, whose net "
            "predicts transformed targets, in whose unit scores are: pass ttr.regressor_ as the network, and as y "
            "what that was trained on, ttr.transformer_.transform(y.reshape(-1, 1))"
        )
    if not isinstance(net, (NeuralNet, type)) and hasattr(net, "best_estimator_"):
        raise TypeError(
            f"expected a skorch net or a pipeline that ends in one, got a {type(net).__name__}: pass "
            "its best_estimator_"
        )


def _checked(name, step):
    """A step, refused where it is not fitted or changes which rows there are."""
    parts = [part for _, part in step.steps] if isinstance(step, Pipeline) else [step]
    if any(hasattr(part, "fit_resample") for part in parts):
        raise TypeError(
            f"expected steps that keep the rows, but {_named(name, step)} draws others (fit_resample): call its "
            "fit_resample first, train a pipeline without it on what it returns, and pass these rows"
        )
    if not hasattr(step, "transform"):
        raise TypeError(f"expected steps that transform rows, got {_named(name, step)}, which has no transform")
    try:
        check_is_fitted(step)
    except NotFittedError as error:
        raise NotFittedError(
            f"{_named(name, step)} is not fitted: call pipeline.fit(X, y) first; its steps are used as that left them"
        ) from error
    return step


def _own(name, step):
    """A copy: the user may fit the step anew, for another fold say, and scores would follow."""
    try:
        return copy.deepcopy(step)
    except Exception as error:  # whatever a step of the user's raises
        raise TypeError(
            f"expected steps that can be copied, as a later fit of the pipeline would change them, but copying "
            f"{_named(name, step)} failed ({type(error).__name__}: {error}): let it hold arrays and plain objects, "
            f"{_ALONE}"
        ) from error


def _named(name, step):
    return f"the step {name!r} ({type(step).__name__})"


def _works_in_place(step):
    """Whether a step, or one inside it, was told to write into the rows it is given."""
    return any(value is False and key.split("__")[-1] == "copy" for key, value in _parameters(step).items())


def _is_apart(step):
    """Whether a step, or one inside it, is known to hand out other rows in training."""
    return any(isinstance(part, _APART) for part in (step, *_parameters(step).values()))


def _parameters(step):
    return step.get_params() if hasattr(step, "get_params") else {}


def _free_name(steps):
    name = "net"
    while name in dict(steps):
        name += "_"
    return name


def _unique(steps):
    """Steps under names of which no two are alike."""
    found: list[tuple[str, Any]] = []
    for name, step in steps:
        while name in dict(found):
            name += "_"
        found.append((name, step))
    return found
