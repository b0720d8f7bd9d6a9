"""The rows of a report as people read them."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch

from ...rows import count_rows, list_to_array
from ...utils._argument_checks import check_callable, check_choice, check_names
from .._plot._captions import format_value, measurement_in_words
from .._plot._influence_data import ShownRows, check_scale, class_name, display_arguments, require_length
from .._plot._influence_display import InfluenceDisplay
from .._plot._influence_image import value_range_of
from .._plot._influence_ranking import Ranking
from .._plot._row_kinds import KINDS, NotShowable
from .._showable import take_showable
from ._key_words import KeyWords
from ._sentences import with_minus

_N_SAMPLED = 2000  # training texts whose words are counted
_N_FOR_RANGE = 200  # images that say what is black and what is white


class ReadableRows:
    """Training rows, queries, targets and answers in words, numbers and pictures.

    Parameters
    ----------
    question : Question
    shown : ShownRows or None
        None where rows cannot be shown.
    target_names, transform_y
        Of the user.
    scale : float
    unit : str or None
    why_not : str
        Why rows are not shown; empty where they are.

    Attributes
    ----------
    kind : {"image", "table", "text"} or None
    """

    def __init__(self, question, shown, target_names, transform_y, scale, unit, why_not):
        self._question, self.shown, self._names, self._transform_y = question, shown, target_names, transform_y
        self.scale, self._unit, self.why_not = scale, unit, why_not
        self.kind = None if shown is None else shown.kind
        self.key_words, self.value_range = None, (0.0, 1.0)
        n_train = question.estimator.n_train_
        if self.kind == "text":
            sample = np.unique(np.linspace(0, n_train - 1, min(_N_SAMPLED, n_train)).astype(int))
            self.key_words = KeyWords(shown.train(sample))
        elif self.kind == "image":
            sample = np.unique(np.linspace(0, n_train - 1, min(_N_FOR_RANGE, n_train)).astype(int))
            self.value_range = value_range_of(shown.train(sample))

    @property
    def unit(self):
        """Of the scores, in words."""
        if not self._question.has_unit:
            return "no unit"
        names = {"log_odds": "log-odds", "neg_loss": "loss", "prediction": "units of the prediction"}
        return self._unit or names.get(self._question.measurement, "units of the measurement")

    def answer(self, value):
        """A class by its name, or a number, as str."""
        if value is None:
            return ""
        if self._question.answers.is_classification:
            return format_value(class_name(np.atleast_1d(value), self._names))
        return with_minus(format_value(readable_target(np.atleast_1d(value), self._transform_y)))

    def true_answer(self, i):
        target = self._question.answers.target
        return "" if target is None else self.answer(target[i])

    def predicted_answer(self, i):
        predicted = self._question.answers.predicted
        return "" if predicted is None else self.answer(predicted[i])

    def train_targets(self, index):
        """Targets of training rows as str, empty where they are not known."""
        targets = None if self.shown is None else self.shown.targets(index)
        return [""] * len(index) if targets is None else [with_minus(format_value(t)) for t in targets]

    def query(self, i):
        """A query as it is shown."""
        return self.shown.query(take_showable(self._question.X_shown, [i]))

    def measured(self, i):
        """What the scores of a query are parts of, in words."""
        name = self._question.measurement
        if not self._question.has_unit:
            return "the score"
        words = measurement_in_words(name)
        answers = self._question.answers
        measured = answers.predicted if answers.target is None else answers.target
        return f"{words} of {self.answer(measured[i])}" if name == "log_odds" and measured is not None else words

    def display(self, i, profile, errors):
        """The :class:`InfluenceDisplay` of a query, not drawn; None where rows cannot be shown.

        Parameters
        ----------
        i : int
            The query.
        profile : Bunch
            With its strongest rows.
        errors : ndarray (n_train,) or None
            Standard errors of its scores.
        """
        if self.shown is None:
            return None
        question, target = self._question, None
        if question.y is not None:
            target = readable_target(np.asarray(take_showable(question.y, [i])), self._transform_y)
        ranking = Ranking(
            position=int(i), query_row=take_showable(question.X_shown, [i]), query_target=target,
            supporting=profile.supporting, opposing=profile.opposing,
            has_classes=question.answers.is_classification, prediction=self.predicted_answer(i) or None,
            has_unit=question.has_unit, measurement=self.measured(i), errors=errors,
        )  # fmt: skip
        return InfluenceDisplay(**display_arguments(ranking, self.shown, self.scale, self.unit))

    def unshown(self, i, profile, errors):
        """What a display has of a query's strongest rows, of rows that cannot be shown."""
        groups = []
        for sign, (rows, scores) in ((1, profile.supporting), (-1, profile.opposing)):
            keep = sign * scores > 0 if self._question.has_unit else np.ones(len(scores), dtype=bool)
            own = None if errors is None else errors[rows[keep]] * self.scale
            groups.append(Bunch(indices=rows[keep], scores=scores[keep] * self.scale, errors=own, X=None, y=None))
        return groups


def readable_rows(question, given, kind, inverse_transform, transform_y, feature_names, target_names, scale, unit):
    """The :class:`ReadableRows` of a question; a ValueError where rows cannot be shown as a kind that is asked for.

    Parameters
    ----------
    question : Question
    given : (X_train, y_train) or None
        Rows to be shown.
    kind, inverse_transform, transform_y, feature_names, target_names, scale, unit
        Of the user.
    """
    check_scale(scale)
    check_choice("kind", kind, ("auto", *KINDS))
    for name, function in (("inverse_transform", inverse_transform), ("inverse_transform_y", transform_y)):
        check_callable(name, function)
    check_names("feature_names", feature_names)
    check_names("target_names", target_names, or_mapping=True)
    if unit is not None and not isinstance(unit, str):
        raise ValueError(f"expected unit to be a text or None, got {unit!r}")
    shown, why_not = None, ""
    if given is None or given[0] is None:
        why_not = "The method keeps no training rows: pass X_train=, and they are shown."
    else:
        X, y = given
        require_length(X, question.estimator.n_train_, "X_train", "the rows that the estimator was fitted on")
        if y is not None:
            require_length(y, question.estimator.n_train_, "y_train", "X_train")
            y = list_to_array(y, "y_train")
            y = readable_target(take_showable(y, np.arange(count_rows(y))), transform_y)
            if question.net is not None:
                _require_targets(y, question)
        try:
            shown = ShownRows(
                X, y, kind, inverse_transform, feature_names, target_names,
                has_classes=question.answers.is_classification, example=take_showable(question.X_shown, [0]),
            )  # fmt: skip
        except NotShowable as error:
            if kind != "auto":
                raise
            why_not = str(error)
    return ReadableRows(question, shown, target_names, transform_y, scale, unit, why_not)


def _require_targets(y, question):
    """Refuse targets to be shown that are no numbers, or no classes where the network learned classes."""
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "biuf" or not np.isfinite(y).all():
        kind = f"{y.dtype} of shape {y.shape}" if isinstance(y, np.ndarray) else f"a {type(y).__name__}"
        raise ValueError(f"expected y_train as finite numbers, one target for each row, got {kind}")
    learned = (getattr(question.method, "_given", None) or (None, None))[1]
    if question.answers.is_classification and isinstance(learned, np.ndarray):
        if y.size != len(y) or not np.isin(y, learned).all():
            raise ValueError(
                f"expected y_train as the classes of the training rows, one of {np.unique(learned)[:10].tolist()} for "
                f"each, got {y.dtype} of shape {y.shape} with others among them"
            )


def readable_target(values, transform_y):
    """Targets or predictions (n, ...) as people read them."""
    if transform_y is None:
        return values
    values = np.asarray(values)
    return np.asarray(transform_y(values.reshape(len(values), -1))).reshape(values.shape)
