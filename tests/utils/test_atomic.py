"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import sklearn_source
from sklearn_source.utils._atomic import atomic_write


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("old", "new"):
        with atomic_write(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, "old"])
def test_an_error_leaves_what_was_there_and_no_temporary_file(tmp_path, old, error):
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)
    with pytest.raises(error), atomic_write(path) as temporary:
        raise error(temporary.write_text("half"))
    assert [file.read_text() for file in tmp_path.iterdir()] == ([] if old is None else [old])


def test_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="soon"), atomic_write(tmp_path / "a.txt"):
        raise ValueError("soon")
    assert not list(tmp_path.iterdir())


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    path, done = tmp_path / "a.txt", []
    sync, replace = os.fsync, os.replace

    def noted_sync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        sync(descriptor)

    def noted_replace(*names):
        done.append("name")
        replace(*names)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert done == ["content", "name", "folder"]


def test_a_disk_that_fails_while_syncing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"), atomic_write(path) as temporary:
        temporary.write_text("new")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_the_package_replaces_files_by_this_function_alone():
    package = Path(sklearn_source.__file__).parent
    others = [path.name for path in package.rglob("*.py") if "os.replace" in path.read_text()]
    assert others == ["_atomic.py"]
