"""Docstrings of what is public, held against numpydoc's rules."""

from __future__ import annotations

import inspect

import pytest

from tests.docs._reference import listed, resolve

validate = pytest.importorskip("numpydoc.validate")

# Rules of numpydoc that are not the house's.
IGNORED = {
    "ES01",  # a summary of one line may say all there is
    "EX01",  # examples stand where a reader starts; the gallery has the others
    "SA01",  # see also: where there is something to see
    "SS05",  # "Scores of ..." is no third person, and a property's summary no command: numpydoc cannot tell
    "PR04",  # "measurement, output, layers : as in SourceAttribution" has no type of its own
    "PR07",  # a name and type may say all: "n_neighbors : int, default=10"
    "RT02",  # what is returned has a name, as in scikit-learn
    "RT03",  # and its type may say all
    "RT04",  # descriptions go on from name and type, in lower case too
}
# Members whose contract, parameters included, is that of skorch's Callback and of torch's Module.
OF_THE_BASE = {
    "initialize",
    "on_train_begin",
    "on_train_end",
    "on_epoch_begin",
    "on_epoch_end",
    "on_batch_begin",
    "forward",
}
# Found when this test came, to be mended where they stand: the list only shrinks.
KNOWN = {
    ("sklearn_source.TracIn", "PR03"),
    ("sklearn_source.base.BaseAttribution.fit", "PR01"),
    ("sklearn_source.attribution.SegmentSummary", "PR01"),
    ("sklearn_source.Trajectory.from_checkpoints", "PR03"),
    ("sklearn_source.trajectory.Checkpoint.from_file", "PR01"),
    ("sklearn_source.trajectory.Stage.step_rates", "PR01"),
    ("sklearn_source.trajectory.Stage.step_rates", "RT01"),
}


def documented():
    """Full names of the listed objects and of the public members that their classes define."""
    for name in listed():
        yield name
        obj = resolve(name)
        if inspect.isclass(obj):
            for member, value in vars(obj).items():
                if (
                    not member.startswith("_")
                    and member not in OF_THE_BASE
                    and (inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod, property)))
                ):
                    yield f"{name}.{member}"


def test_docstrings_follow_numpydoc():
    found = {
        (name, code): message
        for name in documented()
        for code, message in validate.validate(name)["errors"]
        if code not in IGNORED
    }
    new = {key: message for key, message in found.items() if key not in KNOWN}
    assert new == {}
    assert KNOWN - set(found) == set(), "mended: take these off the list"
