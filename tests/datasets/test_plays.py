"""The bundled speeches: what they are, and how they are cut into rows."""

from __future__ import annotations

import gzip
import hashlib
import urllib.request
from importlib import resources

import numpy as np
import pytest

from sklearn_source.datasets import _plays, fetch_plays, load_plays
from sklearn_source.datasets._remote import RemoteFile


def test_first_speech_of_every_play():
    plays = load_plays()
    titles, first = np.unique(plays.play.astype(str), return_index=True)
    assert list(titles) == ["King Richard III", "Romeo and Juliet", "The Taming of the Shrew"]
    assert plays.data[first[0]].startswith("GLOUCESTER:\nNow is the winter of our discontent\nMade glorious summer")
    assert plays.data[first[1]] == "SAMPSON:\nGregory, o' my word, we'll not carry coals."
    assert plays.data[first[2]] == "SLY:\nI'll pheeze you, in faith."


def test_counts_are_those_documented():
    plays = load_plays()
    assert len(plays.data) == 1144
    assert [int((plays.play == title).sum()) for title in dict.fromkeys(plays.play)] == [366, 407, 371]
    assert len(set("".join(plays.data))) == 62
    np.testing.assert_array_equal(plays.speech, np.arange(1144))
    for fact in ("1144 speeches", "62 characters", "public domain"):
        assert fact in plays.DESCR


def test_every_row_is_headed_by_its_speaker():
    for plays in (load_plays(), load_plays(max_length=128)):
        assert all(text.startswith(f"{name}:\n") for text, name in zip(plays.data, plays.speaker))
        assert all(text[len(name) + 2 :].strip() for text, name in zip(plays.data, plays.speaker))


@pytest.mark.parametrize("max_length", [64, 128, 200])
def test_cut_speeches_hold_the_same_words_within_the_length(max_length):
    whole, cut = load_plays(), load_plays(max_length=max_length)
    assert max(map(len, cut.data)) <= max_length
    bodies = [text[len(name) + 2 :] for text, name in zip(cut.data, cut.speaker)]
    joined = [[] for _ in whole.data]
    for number, body in zip(cut.speech, bodies):
        joined[number] += body.split()
    assert joined == [text[len(name) + 2 :].split() for text, name in zip(whole.data, whole.speaker)]
    first = np.flatnonzero(np.diff(cut.speech, prepend=-1))
    np.testing.assert_array_equal(cut.speaker[first], whole.speaker)
    np.testing.assert_array_equal(cut.play[first], whole.play)


def test_cuts_are_between_lines_where_lines_fit():
    whole, cut = load_plays(), load_plays(max_length=128)
    lines = {line for text in whole.data for line in text.split("\n")}
    assert {line for text in cut.data for line in text.split("\n")} == lines
    # Greedy: the first line of a piece would not have fitted into the piece before.
    for k in np.flatnonzero(np.diff(cut.speech) == 0):
        next_line = cut.data[k + 1].split("\n")[1]
        assert len(cut.data[k]) + 1 + len(next_line) > 128


@pytest.mark.parametrize("max_length", [63, 0, 100.5, "long"])
def test_max_length_is_checked(max_length):
    with pytest.raises(ValueError, match="max_length to be None or an integer of at least 64"):
        load_plays(max_length=max_length)


def test_fetch_reads_the_published_form(tmp_path, monkeypatch):
    text = (
        b"First Citizen:\nBefore we proceed any further, hear me speak.\n\nTITUS:\n\n\n"
        b"All:\nSpeak, speak.\n\nMaster:\nBoatswain!\n"
    )
    file = _plays._REMOTE
    (tmp_path / "plays").mkdir()
    (tmp_path / "plays" / file.name).write_bytes(text)
    monkeypatch.setattr(_plays, "_REMOTE", RemoteFile(file.name, file.url, hashlib.sha256(text).hexdigest()))
    monkeypatch.delattr(urllib.request, "urlopen")  # what is there is not asked for
    plays = fetch_plays(data_home=tmp_path)
    assert list(plays.speaker) == ["First Citizen", "All", "Master"]  # Titus has no words
    assert list(plays.play) == ["Coriolanus", "Coriolanus", "The Tempest"]
    assert plays.data[1] == "All:\nSpeak, speak."


def test_the_bundled_file_is_reproducible():
    content = (resources.files("sklearn_source.datasets.data") / "plays.txt.gz").read_bytes()
    assert content[4:8] == bytes(4)  # no time of packing in the header
    assert len(gzip.decompress(content)) == 169085
