"""The bundled questions, what the documentation says of them, and the download."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request

import numpy as np
import pytest

from sklearn_source.datasets import _questions, fetch_plays, fetch_questions, load_questions
from sklearn_source.datasets._remote import RemoteFile

PUBLISHED = {  # lines of the published files, with the stray byte and an uneven blank
    "train_5500.label": b"LOC:city Which city is a sister\xf0city of Rome ?\nNUM:count How many  men are there ?\n",
    "TREC_10.label": b"DESC:def What is an atom ?\n",
}


def test_first_questions_are_the_published_ones():
    test = load_questions(subset="test")
    assert test.data[0] == "What is an atom ?"
    assert test.target_names[test.target[0]] == "description"
    assert test.fine_target_names[test.fine_target[0]] == "DESC:def"


@pytest.mark.parametrize(
    "subset, n, per_class",
    [
        ("train", 1500, [24, 319, 344, 337, 229, 247]),
        ("test", 300, [5, 83, 57, 39, 48, 68]),
        ("all", 1800, [29, 402, 401, 376, 277, 315]),
    ],
)
def test_counts(subset, n, per_class):
    questions = load_questions(subset=subset)
    assert questions.data.shape == questions.target.shape == questions.fine_target.shape == (n,)
    assert questions.target.dtype == questions.fine_target.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(questions.target), per_class)


def test_the_excerpt_keeps_every_fine_class_and_is_clean():
    train, every = load_questions(), load_questions(subset="all")
    assert len(np.unique(train.fine_target)) == len(train.fine_target_names) == 50
    assert train.fine_target_names == sorted(train.fine_target_names)
    lengths = [len(text.split(" ")) for text in every.data]
    assert (min(lengths), max(lengths)) == (3, 31)  # as documented; a double blank would count as a word
    assert all(word for text in every.data for word in text.split(" "))
    # Repetitions are the source's own.
    assert len(set(train.data)) == 1493
    assert set(train.data) & set(load_questions(subset="test").data) == {"What does NASA stand for ?"}


def test_coarse_and_fine_classes_agree():
    questions = load_questions(subset="all")
    coarse_of_fine = [name.split(":")[0] for name in questions.fine_target_names]
    pairs = {
        (coarse_of_fine[fine], questions.target_names[coarse])
        for fine, coarse in zip(questions.fine_target, questions.target)
    }
    assert pairs == {
        ("ABBR", "abbreviation"),
        ("DESC", "description"),
        ("ENTY", "entity"),
        ("HUM", "human"),
        ("LOC", "location"),
        ("NUM", "number"),
    }


def test_return_X_y_and_description():
    X, y = load_questions(return_X_y=True)
    questions = load_questions()
    np.testing.assert_array_equal(X, questions.data)
    np.testing.assert_array_equal(y, questions.target)
    assert "Li and Dan Roth" in questions.DESCR


@pytest.mark.parametrize("load", [load_questions, fetch_questions])
def test_unknown_subset(load):
    with pytest.raises(ValueError, match="expected subset to be one of .*, got 'valid'"):
        load(subset="valid")


@pytest.fixture
def server(monkeypatch):
    """A server with the files of PUBLISHED, whose checksums are expected; it counts what is asked of it."""
    asked = []

    class Response:
        def __init__(self, content):
            self.content = content

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def read(self):
            return self.content

    def urlopen(url, timeout):
        asked.append(url)
        return Response(PUBLISHED[url.rsplit("/", 1)[1]])

    remote = {
        part: RemoteFile(file.name, file.url, hashlib.sha256(PUBLISHED[file.name]).hexdigest())
        for part, file in _questions._REMOTE.items()
    }
    monkeypatch.setattr(_questions, "_REMOTE", remote)
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def test_fetch_downloads_once_and_reads_the_published_form(server, tmp_path):
    first = fetch_questions(subset="all", data_home=tmp_path)
    assert list(first.data) == [
        "Which city is a sister city of Rome ?",
        "How many men are there ?",
        "What is an atom ?",
    ]
    assert [first.target_names[label] for label in first.target] == ["location", "number", "description"]
    again = fetch_questions(subset="all", data_home=tmp_path, download_if_missing=False)
    np.testing.assert_array_equal(first.data, again.data)
    assert server == [
        "https://cogcomp.seas.upenn.edu/Data/QA/QC/train_5500.label",
        "https://cogcomp.seas.upenn.edu/Data/QA/QC/TREC_10.label",
    ]
    assert sorted(path.name for path in (tmp_path / "trec_questions").iterdir()) == sorted(PUBLISHED)


def test_fetch_refuses_other_bytes_and_keeps_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "TREC_10.label", b"<html>moved</html>")
    with pytest.raises(OSError, match="expected a file with SHA-256 .*, got 18 bytes"):
        fetch_questions(subset="test", data_home=tmp_path)
    assert not list(tmp_path.rglob("TREC_10*"))


def test_fetch_refuses_a_damaged_file(server, tmp_path):
    fetch_questions(subset="test", data_home=tmp_path)
    (tmp_path / "trec_questions" / "TREC_10.label").write_bytes(b"DESC:def What")
    with pytest.raises(OSError, match="is not the file published at .*: delete it"):
        fetch_questions(subset="test", data_home=tmp_path)


@pytest.mark.parametrize("fetch, name", [(fetch_questions, "train_5500.label"), (fetch_plays, "tinyshakespeare.txt")])
def test_without_network_or_leave_to_use_it(fetch, name, tmp_path, monkeypatch):
    def offline(url, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(OSError, match=f"could not download .*no route to host.* save it as .*{name}"):
        fetch(data_home=tmp_path)
    with pytest.raises(OSError, match="does not exist and download_if_missing=False"):
        fetch(data_home=tmp_path, download_if_missing=False)
