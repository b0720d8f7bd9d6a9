"""Rows as what a page shows of them: a picture, a text, or some features."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch

from .._plot._captions import format_error, format_score
from .._plot._influence_table import decimals_of, difference, feature_std, features_to_show, format_cell
from .._plot._row_kinds import floats_or_none
from ._data_uri import data_uri
from ._key_words import marked

_N_FEATURES, _MOST_FEATURES = 5, 20
_MIN_SHOWN_SIDE = 64  # pixels on the screen


class Cards:
    """Makes of rows what the template writes.

    Parameters
    ----------
    rows : ReadableRows
    side : int
        Pixels that an image has at most.
    n_letters : int
        Of a text.
    """

    def __init__(self, rows, side, n_letters):
        self._rows, self._side, self._n_letters = rows, side, n_letters

    def train(self, index, words=()):
        """A list of Bunches ``row``, ``target``, ``image``, ``text`` and ``features`` of training rows.

        ``words`` are marked in texts. What a row is not is None.
        """
        index = np.asarray(index, dtype=np.int64)
        shown = None if self._rows.shown is None else self._rows.shown.train(index)
        targets = self._rows.train_targets(index)
        return [
            Bunch(row=int(row), target=target, **self._content(None if shown is None else shown[j], words))
            for j, (row, target) in enumerate(zip(index, targets))
        ]

    def query(self, i, words=()):
        """The same of a held-out row, with ``true`` and ``predicted`` in place of the target."""
        content = self._content(None if self._rows.shown is None else self._rows.query(i), words)
        return Bunch(row=int(i), true=self._rows.true_answer(i), predicted=self._rows.predicted_answer(i), **content)

    def groups(self, groups, words):
        """Cards of supporting and of opposing rows, with ``score`` and ``error``; ``words`` are marked in each."""
        found = []
        for group, own in zip(groups, words):
            cards = self.train(group.indices, own)
            for j, card in enumerate(cards):
                card.score, card.error = format_score(group.scores[j], groups), format_error(group, j)
            found.append(cards)
        return found

    def comparison(self, display):
        """A table of a query and its rows: features downwards, rows sideways, darker where they differ more."""
        features = features_to_show(display, _MOST_FEATURES)
        query = display.query.X
        columns = [row for group in (display.supporting, display.opposing) for row in group.X]
        lines = []
        for j in features:
            std = feature_std(display, j)
            decimals = decimals_of([query[j], *(row[j] for row in columns)], std)
            cells = [
                Bunch(text=format_cell(row[j], decimals), shade=round(difference(row[j], query[j], std), 2))
                for row in columns
            ]
            lines.append(Bunch(name=display.feature_names[j], query=format_cell(query[j], decimals), cells=cells))
        return Bunch(lines=lines, n_left_out=len(display.feature_names) - len(features))

    def _content(self, row, words):
        kind, nothing = self._rows.kind, {"image": None, "text": None, "features": None}
        if row is None:
            return nothing
        if kind == "image":
            longer = max(row.shape[:2])
            size = max(_MIN_SHOWN_SIDE, min(longer, self._side))
            across, down = (max(1, round(size * n / longer)) for n in (row.shape[1], row.shape[0]))
            uri = data_uri(row, self._rows.value_range, self._side)
            return {**nothing, "image": Bunch(uri=uri, width=across, height=down)}
        if kind == "text":
            text = " ".join(row.split()) or "(empty)"
            if len(text) > self._n_letters:
                text = text[: self._n_letters].rsplit(" ", 1)[0] + " …"
            return {**nothing, "text": marked(text, words)}
        return {**nothing, "features": self._unusual_features(row)}

    def _unusual_features(self, row):
        """Names and values of the features that are furthest from the mean, in the order of the table."""
        shown = self._rows.shown
        distance = np.zeros(len(row))
        for j, value in enumerate(row):
            number = floats_or_none([value])
            if number is not None and np.isfinite(number).all() and shown.spread[j] > 0:
                distance[j] = abs(number[0] - shown.means[j]) / shown.spread[j]
        chosen = sorted(np.argsort(-distance, kind="stable")[:_N_FEATURES].tolist())
        return [(shown.feature_names[j], format_cell(row[j], decimals_of([row[j]], shown.spread[j]))) for j in chosen]
