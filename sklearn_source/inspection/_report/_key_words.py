"""The words by which some texts differ from the others."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_SMOOTHING = 0.5
_LEAST_LIFT = 3.0  # times as frequent as elsewhere, or a word says nothing


class KeyWords:
    """How common words are in a collection of texts, against which a few of them are held.

    Parameters
    ----------
    texts : list of str
        A sample of all.
    """

    def __init__(self, texts):
        self._n = len(texts)
        self._counts = Counter(word for text in texts for word in words_of(text))

    def of(self, texts, n=6):
        """The words of some texts that set them apart.

        Parameters
        ----------
        texts : list of str
        n : int

        Returns
        -------
        words : list of str
            In lower case, most telling first: how much more often a text has the word than texts elsewhere do (the
            logarithm), times the share of the texts that have it. Of several texts only words that two have.
        """
        counts = Counter(word for text in texts for word in words_of(text))
        least = 2 if len(texts) > 1 else 1
        gains = {}
        for word, count in counts.items():
            here = count / len(texts)
            elsewhere = (self._counts[word] + _SMOOTHING) / (self._n + 1)
            if len(word) > 1 and count >= least and here > _LEAST_LIFT * elsewhere:
                gains[word] = here * np.log(here / elsewhere)
        return sorted(gains, key=lambda word: (-gains[word], word))[:n]


def words_of(text):
    """The different words of a text, in lower case."""
    return {word.lower() for word in _WORD.findall(text)}


def marked(text, words):
    """A text in pieces: pairs of (piece, whether it is one of the words)."""
    pieces, end, words = [], 0, set(words)
    for match in _WORD.finditer(text):
        if match.group().lower() in words:
            pieces += [(text[end : match.start()], False), (match.group(), True)]
            end = match.end()
    return [piece for piece in [*pieces, (text[end:], False)] if piece[0]]
