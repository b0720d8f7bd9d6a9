"""Methods that look into a network: how they come by it, by its training rows, and by the queries."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from numbers import Integral
from typing import Any

import numpy as np

from ..gradients.algebra import even_chunks
from ..loss import resolve_measurement
from ..network import (
    FittedSteps,
    Network,
    PortableNet,
    outputs_of,
    row_form,
    train_clone,
    validate_query_rows,
    validate_training_rows,
    warn_changed_numbers,
)
from ..rows import (
    cast_like_training,
    rows_of_stages,
    warn_changing_rows,
)
from ..stochastic import fresh_draws
from ..trajectory import TrajectoryRecorder
from ..utils._compat import Interval, StrOptions, fit_context
from ..utils._compat_torch import autocast_off
from ..utils._digest import tensor_digest
from ..utils._locks import ThreadLock
from ..utils._random import draw_seed
from ._attribution import BaseAttribution
from ._data_validation import read, require_target_shape
from ._net_argument import (
    net_first,
    open_pipeline,
    require_network_first,
    require_trained,
    unwrap,
)
from ._query_batches import QueryBatches
from ._recognised_rows import RecognisesRows

_N_DRAWS = 16  # of a training row, where the loss draws and nothing else is asked for


class NetworkAttribution(RecognisesRows, BaseAttribution):
    """Base of the methods that look into a trained network.

    After :meth:`fit` a method finds a private copy of the network in ``_network``, the rows in ``_rows``, which of them
    each stage trained on in ``_credited``, the measurement in ``_measure``, and has learned its own in
    :meth:`_fit_method`. What another method has to be given to be fitted on the same is in ``net_`` and ``_given``.

    A method gives :meth:`_fit_method`, :meth:`_prepare_queries`, and the two generators of scores of
    :class:`BaseAttribution`. Its constructor takes ``net``, ``random_state``, ``verbose``, and what it needs of
    ``measurement``, ``output`` and ``batch_size``.

    Read more in the :ref:`User Guide <add_method>`.
    """

    # Queries scored together when nothing larger is at stake.
    _query_chunk = 4096
    _front = FittedSteps([])  # those in front of the network
    _parameter_constraints = {
        "net": "no_validation",  # fit says what it needs, and why
        "measurement": [StrOptions({"auto", "log_odds", "prediction", "neg_loss"}), callable],
        "output": [None, Interval(Integral, 0, None, closed="left"), tuple],
        "batch_size": [None, Interval(Integral, 1, None, closed="left")],
        "n_draws": [None, Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _needs_trajectory = False
    _reads_loss = True  # else targets, the loss and the form of the outputs are of no concern

    @abstractmethod
    def _fit_method(self) -> None:
        """Learn what the method needs from ``_network``, ``_rows``, ``_credited`` and ``trajectory_``."""

    @abstractmethod
    def _prepare_queries(self, rows, index, measure):
        """What :meth:`_score_batches` needs of the queries ``index`` of ``rows`` (a :class:`~.rows.Rows`)."""

    @net_first
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, *, net: Any = None, stage: Any = None) -> NetworkAttribution:
        """Fit on the training rows of a network.

        Parameters
        ----------
        X : array-like of shape (n_train, ...), dict of arrays, torch Dataset, DataLoader or stream
            The rows given to ``net.fit``; any order, none missing. Of streams see the :ref:`User Guide <streams>`.
        y : array-like of shape (n_train,) or (n_train, n_outputs)
            Their targets; None where X brings them.
        net : skorch.NeuralNet or Pipeline, optional
            The trained network, used as it is and never modified. ``fit(net, X, y)`` is the same call. Without it the
            constructor's ``net`` is used: frozen as it is, bare by training a clone. Of a fitted pipeline that ends in
            a network rows and queries pass through the fitted steps, of which nothing is attributed:
            :ref:`pipelines`.
        stage : array-like of int of shape (n_train,), optional
            For networks trained in several stages: the stage each row is credited in. Of no consequence to methods
            that look at the trained weights alone.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the rows are not those trained on, hold NaN, or the method cannot serve this network; the message says
            what to do. The estimator is then as it was before.
        TypeError
            If the network is none of skorch, or a pipeline that does not end in one or draws other rows.
        sklearn.exceptions.NotFittedError
            If the network is not trained, or a step in front of it not fitted.
        """
        before = dict(vars(self))
        try:
            self._fit(X, y, self.net if net is None else net, net is not None, stage)
        except BaseException:  # an interrupt too must not leave half of one fit and half of another
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def _validate_parts(self):
        """Validate the parameters of parameters that are objects, before anything is trained or computed."""

    def _fit(self, X, y, net, as_is, stage):
        self._validate_parts()
        if as_is:
            require_network_first(getattr(self, "net", None))
        self._front, net = open_pipeline(net, as_is)
        net, frozen = unwrap(net)
        as_is = as_is or frozen
        if as_is:
            require_trained(net)
        shown = X
        X, y = read(self, net, self._front.transform(X), y, reset=True)
        self._seed = self._draw_seed()
        if not as_is:
            net, X, y = train_clone(net, X, y, seed=self._seed, recorder=self._recorder())
        with autocast_off():  # the caller's, whose rounding would be that of sums over rows
            self._fit_trained(X, y, net, as_is, stage)
        if self._front:
            self._stand_behind(self._front, shown)

    def _stand_behind(self, steps, X):
        """Take the user's rows from now on: they pass through ``steps`` on their way to the network.

        Parameters
        ----------
        steps : FittedSteps
        X : the training rows, as the steps take them
        """
        self._front, (_, *others) = steps, self._given
        self._given = (X, *others)

    def _fit_trained(self, X, y, net, as_is, stage):
        """Fit on a net that is trained."""
        self.net_, self._given = net, (X, y, stage)
        self._network = Network.from_net(net)
        self._rows = self._network.prepare(X, y, self._training_draws())
        self.n_train_ = len(self._rows)
        if self._reads_loss and not self._rows.has_y and self._network.reads_targets(self._rows):
            raise ValueError(f"{type(self).__name__} requires y, the targets given to net.fit: fit(net, X, y)")
        trajectory = self._credit(X, y, as_is, stage)
        warn_changing_rows(self._rows.given, "training rows")
        x, targets = self._rows.batch(slice(0, 4))
        if self._reads_loss:
            self._network.compare_modes(x)
        output = validate_training_rows(self._network, x) if self._reads_loss else outputs_of(self._network.forward, x)
        self._form = row_form(self._rows.given.batch(slice(0, 1))[0])
        self._y_shape = y.shape[1:] if isinstance(y, np.ndarray) else None
        if self._reads_loss:
            self._network.calibrate(self._rows, rows_of_stages(self._credited))
            if self._network.row_loss.batch_loss.outputs.are_joined:  # the loss reads more than was looked at
                output = validate_training_rows(self._network, x)
        if trajectory is not None and self._reads_loss:
            warn_changed_numbers(self._network, self._rows.given, trajectory.checkpoints)
        if self._needs_trajectory:
            self._verify_training()
        self._measure = resolve_measurement(
            getattr(self, "measurement", "prediction"), self._network, output=getattr(self, "output", None)
        )
        if isinstance(getattr(self, "measurement", None), str):  # what cannot be measured is said before the work
            self._measure.check(output, targets, x)
        self._lock = ThreadLock()
        self._fit_method()

    def _recorder(self):
        """What is to watch the training of a bare net that has no recorder of its own."""
        return TrajectoryRecorder() if self._needs_trajectory else None

    def _training_draws(self):
        """The draws that a training row stands for, where the loss draws; None where it does not, or the method knows.

        Raises
        ------
        ValueError
            If ``n_draws`` is given to a network whose loss draws nothing.
        """
        n_draws = getattr(self, "n_draws", None)
        if self._network.draws_examples:
            return fresh_draws(self._seed, _N_DRAWS if n_draws is None else n_draws)
        if n_draws is not None:
            raise ValueError(
                f"n_draws={n_draws} is a number of draws of a loss that draws, but that of this "
                f"{type(self.net_).__name__} draws nothing (no StochasticLossMixin): leave it out"
            )
        return None

    def _measured_draws(self, measure):
        """The draws that a query is measured over, where the loss draws; else None."""
        return self._network.measured_draws(measure)

    def _draw_seed(self):
        """One seed per fit."""
        return draw_seed(self.random_state)

    def _fitted_parts(self):
        parts = super()._fitted_parts()
        if not self._identified:  # what has no fingerprints is read
            parts["training rows"] = self._rows.given.contents(np.arange(self.n_train_))
        if self._needs_trajectory:
            parts["trajectory"] = [checkpoint.digest for checkpoint in self.trajectory_.checkpoints]
        return {**parts, "net": self._trained_digest()}

    def _trained_digest(self):
        """Of the trained weights and buffers."""
        gradients = getattr(self, "_gradients", None)  # who walks to other weights knows those that are trained
        if gradients is not None:
            return gradients.trained.digest
        return tensor_digest({**self._network.parameters(), **self._network.buffers()})

    def _query_batches(self, X, y):
        return self._in_parts(X, y, self._prepare_queries)

    def _in_parts(self, X, y, prepare):
        """How many queries, validated, and :class:`QueryBatches` of ``prepare(rows, index, measure)``."""
        rows = self._query_rows(X, y)
        size = max(1, min(self._query_chunk, self._queries_at_once()))

        def make(chunk):
            return prepare(rows, np.arange(chunk.start, chunk.stop), self._measure)

        def contents():
            return rows.given.contents(np.arange(len(rows)))

        return len(rows), QueryBatches(even_chunks(len(rows), size), make, contents, self.verbose > 0)

    def _query_rows(self, X, y):
        """Validated queries, a :class:`~.rows.Rows`."""
        X, y = read(self, self.net_, self._front.transform(X), y, reset=False)
        X, y = cast_like_training(X, y, self._form, self._y_shape)
        rows = self._network.prepare_queries(X, y, self._measured_draws(self._measure))
        if self._measure.needs_y and not rows.has_y:
            raise ValueError(
                f"measurement={self._measure.name!r} compares the prediction with a target: pass y of the queries, "
                "transform(X, y)"
            )
        first = slice(0, 1)
        x, _ = rows.batch(first)
        given, _ = rows.given.batch(first)
        validate_query_rows(self._network, given, self._form, x)
        if self._network.predictive.takes_numbers and row_form(given) == self._form:
            require_target_shape(y, self._y_shape)
        warn_changing_rows(rows.given, "queries")
        return rows

    def _queries_at_once(self):
        """Queries whose vectors fit in memory together."""
        return self._query_chunk

    def _transform_needs_y(self):
        # Examples of queries may need what those of training rows are made of: the class of an image.
        return self._measure.needs_y or (self._network.draws_examples and not self._network.is_classification)

    @contextlib.contextmanager
    def _exclusive(self):
        """One reader at a time: threads that share the estimator share the module, whose weights change on the walk."""
        with super()._exclusive(), self._lock, autocast_off():
            if self._lock.abandoned:  # this process was forked while a thread of the other one was inside
                self._network.renew_parameters()
                self._lock.abandoned = False
            yield

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_measure")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = self._reads_loss
        tags.target_tags.multi_output = True
        return tags

    def __getstate__(self):
        state = dict(super().__getstate__())
        state.pop("_lock", None)
        return {name: PortableNet(value) if name in ("net", "net_") else value for name, value in state.items()}

    def __setstate__(self, state):
        super().__setstate__(state)
        self._lock = ThreadLock()
