"""From texts to rows of integers and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ..utils._compat import Interval, StrOptions, fit_context

PADDING, UNKNOWN, EDGE = 0, 1, 2
_SPECIAL = ("", "<?>", "")  # how padding, unknown and edge read in inverse_transform
_SHAPES = ("<with digit>", "<CAPITALS>", "<Capital>")  # unknown tokens by their shape, tokens 3, 4 and 5
IGNORED = -100  # the default ignore_index of torch's criteria


class TextEncoder(TransformerMixin, BaseEstimator):
    """Turn texts into padded rows of integer tokens, one row per text.

    Token 0 is padding, 1 stands for whatever is not in the vocabulary, 2 marks both ends of a text if `edges`, and the
    vocabulary follows, most frequent first; with `shapes`, tokens 3, 4 and 5 come before it. Padding is always at the
    end.

    Read more in the :ref:`User Guide <example_data>`.

    Parameters
    ----------
    level : {"word", "char"}, default="word"
        What a token is: what stands between blanks, or a character.
    max_length : int, default=None
        Longest row, edges included; what does not fit is cut off at the end. `None` takes the longest text of `fit`.
    min_count : int, default=1
        How often a token must occur in the texts of `fit` to enter the vocabulary.
    lowercase : bool, default=False
        Whether to write texts in lower case first.
    shapes : bool, default=False
        Whether to tell words that are not in the vocabulary apart by what they look like: with a digit (token 3),
        several capitals (4), a capital at the beginning (5), anything else (1). "What is DSL ?" and "What is ouzo ?"
        stay different questions though both words are rare.
    edges : bool, default=False
        Whether to begin and end every text with token 2, so that a language model learns where texts begin and end.

    Attributes
    ----------
    vocabulary_ : dict of str to int
        The number of every token.
    max_length_ : int
        The width of the rows.
    n_tokens_ : int
        How many tokens there are, the special ones included.

    See Also
    --------
    next_tokens : Inputs and targets of a language model from such rows.

    Examples
    --------
    >>> from sklearn_source.datasets import TextEncoder
    >>> encoder = TextEncoder(lowercase=True)
    >>> encoder.fit_transform(["What is an atom ?", "What is it ?"])
    array([[3, 4, 6, 7, 5],
           [3, 4, 8, 5, 0]])
    >>> encoder.transform(["What is a quark ?"])
    array([[3, 4, 1, 1, 5]])
    """

    _parameter_constraints = {
        "level": [StrOptions({"word", "char"})],
        "max_length": [None, Interval(Integral, 1, None, closed="left")],
        "min_count": [Interval(Integral, 1, None, closed="left")],
        "lowercase": ["boolean"],
        "shapes": ["boolean"],
        "edges": ["boolean"],
    }

    def __init__(
        self,
        level: str = "word",
        *,
        max_length: int | None = None,
        min_count: int = 1,
        lowercase: bool = False,
        shapes: bool = False,
        edges: bool = False,
    ):
        self.level = level
        self.max_length = max_length
        self.min_count = min_count
        self.lowercase = lowercase
        self.shapes = shapes
        self.edges = edges

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Sequence[str], y: Any = None) -> TextEncoder:
        """Learn the vocabulary.

        Parameters
        ----------
        X : sequence of str
            The texts.
        y : ignored
            Present for the convention.

        Returns
        -------
        self : TextEncoder
            Fitted.

        Raises
        ------
        ValueError
            If X is a single string, holds something else than strings, or has no text.
        """
        texts = self._split(X)
        if not texts:
            raise ValueError("expected at least one text to learn the vocabulary from, got none")
        counts = Counter(self._key(token) for text in texts for token in text)
        # The most frequent first; equally frequent ones in the order of their first occurrence.
        known = [token for token, count in counts.most_common() if count >= self.min_count]
        n_special = len(self._special())
        self.vocabulary_ = {token: number for number, token in enumerate(known, n_special)}
        self.n_tokens_ = n_special + len(known)
        longest = max(map(len, texts)) + 2 * self.edges
        self.max_length_ = max(1, longest) if self.max_length is None else self.max_length
        return self

    def transform(self, X: Sequence[str]) -> np.ndarray:
        """Turn texts into rows of tokens.

        Parameters
        ----------
        X : sequence of str
            The texts.

        Returns
        -------
        tokens : ndarray of shape (n_texts, length), int64
            All rows as wide as `max_length_` says.

        Raises
        ------
        ValueError
            If X is a single string or holds something else than strings.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        texts = self._split(X)
        tokens = np.full((len(texts), self.max_length_), PADDING, dtype=np.int64)
        for row, text in zip(tokens, texts, strict=True):
            numbers = [self._number(token) for token in text]
            if self.edges:
                numbers = [EDGE, *numbers, EDGE]
            numbers = numbers[: self.max_length_]
            row[: len(numbers)] = numbers
        return tokens

    def inverse_transform(self, X: ArrayLike) -> list[str]:
        """Turn rows of tokens into texts; what was cut off or unknown is lost.

        Parameters
        ----------
        X : array-like of int, shape (n_texts, length)
            Tokens.

        Returns
        -------
        texts : list of str
            Words joined by single blanks; `<?>` for unknown tokens, or the name of their shape.

        Raises
        ------
        ValueError
            If X holds anything but tokens of this vocabulary.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        names = [*self._special(), *self.vocabulary_]
        separator = " " if self.level == "word" else ""
        rows = _token_rows(X, len(names))
        return [separator.join(names[token] for token in row if token not in (PADDING, EDGE)) for row in rows]

    def _split(self, texts):
        """Texts as lists of tokens; a ValueError for what is no sequence of str."""
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
            raise ValueError(
                f"expected a sequence of texts, got a single {type(texts).__name__}"
                + (": pass a list with it" if isinstance(texts, str) else "")
            )
        texts = list(texts)
        if not all(isinstance(text, str) for text in texts):
            other = next(text for text in texts if not isinstance(text, str))
            raise ValueError(f"expected every text to be a str, got a {type(other).__name__}")
        return [text.split() if self.level == "word" else list(text) for text in texts]

    def _special(self):
        """How the tokens before the vocabulary read, a tuple of str."""
        return (*_SPECIAL, *_SHAPES) if self.shapes else _SPECIAL

    def _key(self, token):
        """The entry of the vocabulary that a token, a str, is looked up as."""
        return token.lower() if self.lowercase else token

    def _number(self, token):
        """The integer of a token, a str."""
        number = self.vocabulary_.get(self._key(token), UNKNOWN)
        if number != UNKNOWN or not self.shapes:
            return number
        n_capitals = sum(character.isupper() for character in token)
        shape = (any(character.isdigit() for character in token), n_capitals > 1, token[0].isupper())
        return len(_SPECIAL) + shape.index(True) if any(shape) else UNKNOWN

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []  # always int64
        return tags


def next_tokens(tokens: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows of tokens into inputs and targets of a language model: at every place, the target is the next token.

    Read more in the :ref:`User Guide <example_data>`.

    Parameters
    ----------
    tokens : array-like of int, shape (n_rows, length)
        Rows of :class:`TextEncoder`, padded with 0 at the end.

    Returns
    -------
    X : ndarray of shape (n_rows, length - 1), int64
        All tokens but the last.
    y : ndarray of shape (n_rows, length - 1), int64
        All but the first; -100, which :class:`torch.nn.CrossEntropyLoss` ignores, in place of padding.

    Raises
    ------
    ValueError
        If rows are shorter than two tokens, or hold anything but whole numbers from 0 up.

    See Also
    --------
    TextEncoder : Makes the rows.
    sklearn_source.modules.CharTransformer : A language model to be trained on them.

    Examples
    --------
    >>> from sklearn_source.datasets import next_tokens
    >>> X, y = next_tokens([[2, 7, 8, 2, 0]])
    >>> X, y
    (array([[2, 7, 8, 2]]), array([[   7,    8,    2, -100]]))
    """
    rows = _token_rows(tokens)
    if rows.shape[1] < 2:
        raise ValueError(f"expected rows of at least two tokens, got an array of shape {rows.shape}")
    y = rows[:, 1:]
    return rows[:, :-1].copy(), np.where(y == PADDING, IGNORED, y)


def _token_rows(tokens, n_tokens=None):
    """Tokens as integers of shape (n_rows, length); ValueError for anything else, or beyond a vocabulary."""
    try:
        rows = np.asarray(tokens)
    except ValueError as error:
        raise ValueError(f"expected rows of tokens of one length, got others ({error})") from error
    beyond = np.inf if n_tokens is None else n_tokens
    if rows.ndim != 2 or rows.dtype.kind not in "iu" or (rows.size and not 0 <= rows.min() <= rows.max() < beyond):
        limit = "up" if n_tokens is None else f"to {n_tokens - 1}"
        raise ValueError(
            f"expected tokens, whole numbers from 0 {limit}, of shape (n_rows, length), got {rows.dtype} of shape "
            f"{rows.shape}"
        )
    return rows.astype(np.int64)
