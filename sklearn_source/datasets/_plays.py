"""Speeches of Shakespeare's plays, for language models over characters."""

from __future__ import annotations

import gzip
import os
import textwrap
from importlib import resources
from numbers import Integral

import numpy as np
from sklearn.utils import Bunch

from ._remote import RemoteFile, fetch_bytes

_DATA_MODULE = "sklearn_source.datasets.data"
_REMOTE = RemoteFile(
    "tinyshakespeare.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
# The files run through the plays without naming them: this is how each begins.
_OPENINGS = {
    "First Citizen:\nBefore we proceed any further": "Coriolanus",
    "GLOUCESTER:\nNow is the winter of our discontent": "King Richard III",
    "KING RICHARD II:\nOld John of Gaunt": "King Richard II",
    "SAMPSON:\nGregory, o' my word": "Romeo and Juliet",
    "WARWICK:\nI wonder how the king escaped": "King Henry VI, Part 3",
    "ARCHIDAMUS:\nIf you shall chance, Camillo": "The Winter's Tale",
    "DUKE VINCENTIO:\nEscalus.": "Measure for Measure",
    "SLY:\nI'll pheeze you, in faith.": "The Taming of the Shrew",
    "Master:\nBoatswain!": "The Tempest",
}
_SHORTEST_CUT = 64


def load_plays(*, max_length: int | None = None) -> Bunch:
    """Load speeches from three plays by Shakespeare (text, 168 kB).

    The openings of King Richard III, Romeo and Juliet and The Taming of the Shrew. They come with the package; nothing
    is downloaded. :func:`fetch_plays` has nine plays.

    Read more in the :ref:`User Guide <example_data>`.

    Parameters
    ----------
    max_length : int, default=None
        Cut longer speeches, between lines where possible, into rows of at most so many characters, each of which begins
        with the speaker's name: an attribution credits rows, and rows of like length are easier to compare. At least
        64. `None`: one row per speech.

    Returns
    -------
    plays : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_rows,), object
            The rows as str: `"ROMEO:\\nIs the day so young?"`.
        speaker : ndarray of shape (n_rows,), object
            Who speaks, as the text names them.
        play : ndarray of shape (n_rows,), object
            From which play.
        speech : ndarray of shape (n_rows,), int64
            The number of the speech that the row is, or is a part of; they count through the data in order.
        DESCR : str
            The source and what was left out.

    Raises
    ------
    ValueError
        If `max_length` is not an integer of at least 64.

    See Also
    --------
    fetch_plays : Nine plays, downloaded.
    TextEncoder : Turns speeches into sequences of characters.

    Examples
    --------
    >>> from sklearn_source.datasets import load_plays
    >>> plays = load_plays()
    >>> row = list(plays.speaker).index("ROMEO")
    >>> print(plays.data[row])
    ROMEO:
    Is the day so young?
    """
    content = (resources.files(_DATA_MODULE) / "plays.txt.gz").read_bytes()
    return _parse_plays(gzip.decompress(content).decode("ascii"), max_length)


def fetch_plays(
    *, max_length: int | None = None, data_home: str | os.PathLike | None = None, download_if_missing: bool = True
) -> Bunch:
    """Load the speeches of nine plays by Shakespeare (text, 1.1 MB), downloading them if needed.

    The file is the one known as "tiny Shakespeare". It is downloaded once from
    https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare and its SHA-256 is checked, then and at every
    later call.

    Read more in the :ref:`User Guide <example_data>`.

    Parameters
    ----------
    max_length : int, default=None
        Cut longer speeches, between lines where possible, into rows of at most so many characters, each of which begins
        with the speaker's name. At least 64. `None`: one row per speech.
    data_home : str or path-like, default=None
        The folder for downloads, as in :func:`sklearn.datasets.get_data_home`. `None` is scikit-learn's own.
    download_if_missing : bool, default=True
        If False, raise an OSError where the file is not in `data_home` instead of downloading it.

    Returns
    -------
    plays : :class:`~sklearn.utils.Bunch`
        `data`, `speaker`, `play` and `speech`, an entry for each row, and `DESCR`, as :func:`load_plays` returns them.

    Raises
    ------
    OSError
        If the file is neither there nor to be had, or is not the one that was published.
    ValueError
        If `max_length` is not an integer of at least 64.

    See Also
    --------
    load_plays : The excerpt that comes with the package.

    Examples
    --------
    >>> from sklearn_source.datasets import fetch_plays
    >>> plays = fetch_plays()  # doctest: +SKIP
    >>> len(set(plays.play))  # doctest: +SKIP
    9
    """
    content = fetch_bytes(_REMOTE, "plays", data_home, download_if_missing)
    return _parse_plays(content.decode("ascii"), max_length)


def _parse_plays(text, max_length):
    """The Bunch of the speeches in a text, each cut where it is longer than ``max_length`` allows."""
    if max_length is not None and (
        not isinstance(max_length, Integral) or isinstance(max_length, bool) or max_length < _SHORTEST_CUT
    ):
        raise ValueError(
            f"expected max_length to be None or an integer of at least {_SHORTEST_CUT}, got {max_length!r}"
        )
    rows, play, number = [], None, 0
    for block in text.strip().split("\n\n"):
        block = block.strip()
        play = next((title for opening, title in _OPENINGS.items() if block.startswith(opening)), play)
        name, _, words = block.partition(":\n")
        if not words:  # a speaker whose words the file lost
            continue
        pieces = [words] if max_length is None else _split_speech(words, max_length - len(name) - 2)
        rows += [(f"{name}:\n{piece}", name, play, number) for piece in pieces]
        number += 1
    data, speaker, of_play, speech = zip(*rows)
    return Bunch(
        data=np.array(data, dtype=object),
        speaker=np.array(speaker, dtype=object),
        play=np.array(of_play, dtype=object),
        speech=np.array(speech, dtype=np.int64),
        DESCR=(resources.files(_DATA_MODULE) / "plays.rst").read_text(encoding="utf-8"),
    )


def _split_speech(words, width):
    """Pieces of at most ``width`` characters: as many whole lines as fit; lines too long for one cut between words."""
    pieces = []
    for line in words.split("\n"):
        for part in textwrap.wrap(line, width, break_on_hyphens=False) if len(line) > width else [line]:
            if pieces and len(pieces[-1]) + 1 + len(part) <= width:
                pieces[-1] += "\n" + part
            else:
                pieces.append(part)
    return pieces
