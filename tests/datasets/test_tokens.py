"""Texts as rows of tokens, and rows as inputs and targets of a language model."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_source.datasets import TextEncoder, load_plays, load_questions, next_tokens


def test_vocabulary_is_ordered_by_frequency_then_occurrence():
    encoder = TextEncoder().fit(["b a b", "c b a"])
    assert encoder.vocabulary_ == {"b": 3, "a": 4, "c": 5}
    assert (encoder.n_tokens_, encoder.max_length_) == (6, 3)


def test_rows_written_out():
    encoder = TextEncoder(lowercase=True, edges=True, min_count=2, max_length=5).fit(["The cat", "the dog", "a cat"])
    assert encoder.vocabulary_ == {"the": 3, "cat": 4}
    expected = [[2, 3, 4, 2, 0], [2, 3, 1, 2, 0], [2, 3, 4, 3, 4], [2, 2, 0, 0, 0]]
    tokens = encoder.transform(["the CAT", "The dog", "the cat the cat the cat", ""])
    np.testing.assert_array_equal(tokens, expected)
    assert tokens.dtype == np.int64
    assert encoder.inverse_transform(tokens) == ["the cat", "the <?>", "the cat the cat", ""]


def test_rare_words_by_their_shape():
    encoder = TextEncoder(lowercase=True, shapes=True).fit(["what is"])
    assert encoder.vocabulary_ == {"what": 6, "is": 7}
    assert encoder.n_tokens_ == 8
    tokens = encoder.transform(["What IS DSL ouzo Linux 1976 B-52 I"])
    np.testing.assert_array_equal(encoder.fit(["what is"]).transform(["WHAT Is"]), [[6, 7]])
    assert tokens.shape == (1, 2)  # as wide as the texts of fit
    wide = TextEncoder(lowercase=True, shapes=True, max_length=8).fit(["what is"])
    expected = [[6, 7, 4, 1, 5, 3, 3, 5]]
    np.testing.assert_array_equal(wide.transform(["What IS DSL ouzo Linux 1976 B-52 I"]), expected)
    assert wide.inverse_transform(expected) == ["what is <CAPITALS> <?> <Capital> <with digit> <with digit> <Capital>"]


def test_characters_come_back():
    speeches = load_plays(max_length=128).data[:200]
    encoder = TextEncoder("char", edges=True)
    tokens = encoder.fit_transform(speeches)
    assert tokens.shape == (200, max(map(len, speeches)) + 2)
    assert encoder.inverse_transform(tokens) == list(speeches)
    assert encoder.n_tokens_ == 3 + len(set("".join(speeches)))


def test_questions_come_back():
    questions = load_questions().data
    encoder = TextEncoder()
    assert encoder.inverse_transform(encoder.fit_transform(questions)) == list(questions)


def test_next_tokens_written_out():
    X, y = next_tokens([[2, 7, 8, 2, 0, 0], [2, 9, 9, 9, 9, 2]])
    np.testing.assert_array_equal(X, [[2, 7, 8, 2, 0], [2, 9, 9, 9, 9]])
    np.testing.assert_array_equal(y, [[7, 8, 2, -100, -100], [9, 9, 9, 9, 2]])


def test_input_of_next_tokens_is_left_alone():
    tokens = np.array([[2, 7, 0]])
    X, y = next_tokens(tokens)
    X[:] = y[:] = 5
    np.testing.assert_array_equal(tokens, [[2, 7, 0]])


@pytest.mark.parametrize(
    "X, message",
    [("What is it ?", "a single str"), ([1, 2], "every text to be a str"), ([], "at least one text")],
)
def test_what_is_no_list_of_texts_is_refused(X, message):
    with pytest.raises(ValueError, match=message):
        TextEncoder().fit(X)


@pytest.mark.parametrize("parameters", [{"level": "byte"}, {"max_length": 0}, {"min_count": 0}, {"edges": "yes"}])
def test_parameters_are_checked(parameters):
    with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of TextEncoder"):
        TextEncoder(**parameters).fit(["a"])


def test_short_rows_hold_no_next_token():
    with pytest.raises(ValueError, match="at least two tokens"):
        next_tokens([[2]])


def test_unfitted_and_cloned():
    with pytest.raises(NotFittedError):
        TextEncoder().transform(["a"])
    assert clone(TextEncoder("char", shapes=True, max_length=7)).get_params() == {
        "level": "char",
        "max_length": 7,
        "min_count": 1,
        "lowercase": False,
        "shapes": True,
        "edges": False,
    }
