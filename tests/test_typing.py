"""The public API is annotated, as py.typed promises; ``python3 tasks.py types`` has mypy check what is said."""

from __future__ import annotations

import functools
import inspect

import pytest

from tests.docs._reference import listed, resolve


def functions(obj):
    """Name -> function: of a function itself, of a class its constructor, public methods and properties."""
    if not inspect.isclass(obj):
        return {obj.__name__: obj}
    functions = {}
    for name, member in vars(obj).items():
        if isinstance(member, property):
            member = member.fget
        elif isinstance(member, functools.cached_property):
            member = member.func
        member = inspect.unwrap(getattr(member, "__func__", member))
        if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
            functions[name] = member
    return functions


def lacking(name, function):
    """What a function's signature does not say."""
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    lacks = [f"{name}({p.name})" for p in parameters if p.annotation is p.empty]
    if signature.return_annotation is signature.empty and name != "__init__":
        lacks.append(f"{name} -> ?")
    return lacks


@pytest.mark.parametrize("name", listed())
def test_public_signatures_are_annotated(name):
    lacks = [lack for called, function in functions(resolve(name)).items() for lack in lacking(called, function)]
    assert lacks == []


def test_what_a_signature_lacks():
    """The check itself sees parameters, results and the members of a class."""

    class Example:
        def __init__(self, a, b: int = 0):
            pass

        @property
        def size(self):
            return 0

        @functools.cached_property
        def kept(self):
            return 0

        @classmethod
        def make(cls, a: int):
            pass

        def said(self, a: int) -> int:
            return a

        def _private(self, a):
            pass

    lacks = [lack for name, function in functions(Example).items() for lack in lacking(name, function)]
    assert lacks == ["__init__(a)", "size -> ?", "kept -> ?", "make -> ?"]
