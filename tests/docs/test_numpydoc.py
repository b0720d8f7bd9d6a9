"""Docstrings of what is public, held against numpydoc's rules."""

from __future__ import annotations

import inspect
import re

import pytest

from tests.docs._reference import listed, resolve

validate = pytest.importorskip("numpydoc.validate")

# Rules of numpydoc that are not the house's.
IGNORED = {
    "ES01",  # a summary of one line may say all there is
    "EX01",  # examples stand where a reader starts; the gallery has the others
    "SA01",  # see also: where there is something to see
    "SS05",  # "Scores of ..." is no third person, and a property's summary no command: numpydoc cannot tell
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


def documented():
    """Full names of the listed objects and of the public members that their classes define.

    Not of a member that overrides one of a listed base class: what goes in and comes out is told there.
    """
    names = listed()
    bases = {resolve(name) for name in names if inspect.isclass(resolve(name))}
    for name in names:
        yield name
        obj = resolve(name)
        if inspect.isclass(obj):
            for member, value in vars(obj).items():
                if (
                    not member.startswith("_")
                    and member not in OF_THE_BASE
                    and not any(member in vars(base) for base in obj.__mro__[1:] if base in bases)
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
    assert found == {}


def test_parameters_are_documented_where_they_stand():
    """No entry says "as in" another class or function only: ``help`` shows one docstring."""
    found = {name for name in documented() if re.search("(?mi)( : |^ +)as in [:`]", inspect.getdoc(resolve(name)))}
    assert found == set()
