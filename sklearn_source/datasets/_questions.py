"""Questions and the kind of answer they ask for: the TREC question classification data."""

from __future__ import annotations

import os
from importlib import resources

import numpy as np
from sklearn.utils import Bunch

from ..utils._argument_checks import check_choice, check_switch
from ._remote import RemoteFile, fetch_bytes

_DATA_MODULE = "sklearn_source.datasets.data"
_PAGE = "https://cogcomp.seas.upenn.edu/Data/QA/QC/"
_REMOTE = {
    "train": RemoteFile(
        "train_5500.label",
        _PAGE + "train_5500.label",
        "9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3",
    ),
    "test": RemoteFile(
        "TREC_10.label",
        _PAGE + "TREC_10.label",
        "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
    ),
}
_COARSE = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "entity",
    "HUM": "human",
    "LOC": "location",
    "NUM": "number",
}
_FINE = tuple(
    f"{coarse}:{fine}"
    for coarse, fines in {
        "ABBR": "abb exp",
        "DESC": "def desc manner reason",
        "ENTY": "animal body color cremat currency dismed event food instru lang letter other plant product religion "
        "sport substance symbol techmeth termeq veh word",
        "HUM": "desc gr ind title",
        "LOC": "city country mount other state",
        "NUM": "code count date dist money ord other perc period speed temp volsize weight",
    }.items()
    for fine in fines.split()
)
_SUBSETS = ("train", "test", "all")


def load_questions(*, subset: str = "train", return_X_y: bool = False) -> Bunch | tuple:
    """Load an excerpt of the TREC questions (classification, 1500 + 300 questions, 6 classes).

    Each question is labelled with the kind of answer it asks for. The excerpt comes with the package; nothing is
    downloaded. :func:`fetch_questions` has all 5952 questions.

    Read more in the :ref:`User Guide <example_data>`.

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="train"
        The 1500 training questions, the 300 test questions, or the first followed by the second.
    return_X_y : bool, default=False
        Return `(data, target)` instead of a Bunch.

    Returns
    -------
    questions : :class:`~sklearn.utils.Bunch` or tuple
        The tuple `(data, target)` if `return_X_y`, else:

        data : ndarray of shape (n_questions,), object
            The questions as str, words and punctuation separated by single spaces.
        target : ndarray of shape (n_questions,), int64
            The class of each: a position in `target_names`.
        target_names : list of str
            abbreviation, description, entity, human, location, number.
        fine_target : ndarray of shape (n_questions,), int64
            The finer class of each: a position in `fine_target_names`.
        fine_target_names : list of str
            The 50 finer classes, `"HUM:ind"` for instance, sorted.
        DESCR : str
            The source, the classes, and how the excerpt was drawn.

    Raises
    ------
    ValueError
        If `subset` is not one of those above.

    See Also
    --------
    fetch_questions : All of them, downloaded.
    TextEncoder : Turns questions into sequences of tokens.

    Examples
    --------
    >>> from sklearn_source.datasets import load_questions
    >>> questions = load_questions()
    >>> questions.data[0], questions.target_names[questions.target[0]]
    ('What fowl grabs the spotlight after the Chinese Year of the Monkey ?', 'entity')
    """
    folder = resources.files(_DATA_MODULE)
    lines = [
        line
        for file in _files_of(subset)
        for line in (folder / f"questions_{file}.txt").read_text(encoding="utf-8").splitlines()
    ]
    return _parse_questions(lines, return_X_y)


def fetch_questions(
    *,
    subset: str = "train",
    data_home: str | os.PathLike | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
) -> Bunch | tuple:
    """Load all TREC questions (classification, 5452 + 500 questions, 6 classes), downloading them if needed.

    The two files of 0.4 MB in all are published at https://cogcomp.seas.upenn.edu/Data/QA/QC/. They are downloaded once
    and their SHA-256 is checked, then and at every later call.

    Read more in the :ref:`User Guide <example_data>`.

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="train"
        The 5452 training questions, the 500 test questions, or the first followed by the second.
    data_home : str or path-like, default=None
        The folder for downloads, as in :func:`sklearn.datasets.get_data_home`. `None` is scikit-learn's own.
    download_if_missing : bool, default=True
        If False, raise an OSError where the files are not in `data_home` instead of downloading them.
    return_X_y : bool, default=False
        Return `(data, target)` instead of a Bunch.

    Returns
    -------
    questions : :class:`~sklearn.utils.Bunch` or tuple
        `data`, `target`, `target_names`, `fine_target`, `fine_target_names` and `DESCR`, as :func:`load_questions`
        returns them; the tuple `(data, target)` if `return_X_y`.

    Raises
    ------
    OSError
        If the files are neither there nor to be had, or are not those that were published.
    ValueError
        If `subset` is not one of those above.

    See Also
    --------
    load_questions : The excerpt that comes with the package.

    Examples
    --------
    >>> from sklearn_source.datasets import fetch_questions
    >>> questions, kinds = fetch_questions(return_X_y=True)  # doctest: +SKIP
    >>> questions.shape  # doctest: +SKIP
    (5452,)
    """
    lines = []
    for file in _files_of(subset):
        content = fetch_bytes(_REMOTE[file], "trec_questions", data_home, download_if_missing)
        # One question has a stray byte 0xF0 where a space belongs; without it the files are ASCII.
        lines += content.replace(b"\xf0", b" ").decode("ascii").splitlines()
    return _parse_questions(lines, return_X_y)


def _files_of(subset):
    """The files that a subset is read from, a tuple of "train" and "test"."""
    check_choice("subset", subset, _SUBSETS)
    return ("train", "test") if subset == "all" else (subset,)


def _parse_questions(lines, return_X_y):
    """The Bunch, or the tuple (data, target), of lines ``COARSE:fine question``."""
    labels, texts = zip(*(line.strip().split(maxsplit=1) for line in lines))
    data = np.array([" ".join(text.split()) for text in texts], dtype=object)
    coarse = list(_COARSE)
    target = np.array([coarse.index(label.split(":")[0]) for label in labels], dtype=np.int64)
    if check_switch("return_X_y", return_X_y):
        return data, target
    return Bunch(
        data=data,
        target=target,
        target_names=list(_COARSE.values()),
        fine_target=np.array([_FINE.index(label) for label in labels], dtype=np.int64),
        fine_target_names=list(_FINE),
        DESCR=(resources.files(_DATA_MODULE) / "questions.rst").read_text(encoding="utf-8"),
    )
