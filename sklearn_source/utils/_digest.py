"""Digests: of any value, by what it says of itself alike in every process, of tensors and of bytes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
import sysconfig
from collections.abc import Mapping
from logging import Logger
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

import joblib
import numpy as np
import torch

_INSTALLED = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
_VERSIONLESS = ("builtins", "numpy", "sklearn", "skorch", "torch")  # another release of these trains the same networks
_WRAPPERS = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),
}


def describe(value):
    """Any value as JSON: numbers by their values, code by its text and by what it refers to.

    Functions bring their defaults, the variables they enclose, and the functions, classes and data of their module that
    they name; classes their methods and those of their bases. Installed packages are known by name and version.
    """
    return _Description().of(value)


def digest(value):
    """32 hexadecimal digits that stand for :func:`describe`: what caches are keyed by."""
    return _json_digest(describe(value))


def tensor_digest(tensors):
    """Hash names, shapes, dtypes and bits of tensors.

    Parameters
    ----------
    tensors : mapping of str to Tensor

    Returns
    -------
    digest : str
        32 hexadecimal digits; stored trajectories hold them. Costs one read of the values, about 1 GB/s.
    """
    hasher = hashlib.blake2b(digest_size=16)
    for name, value in tensors.items():
        value = value.detach()
        hasher.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        hasher.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return hasher.hexdigest()


def checksum(tensors):
    """Of names, shapes, dtypes and bits of tensors: :func:`tensor_digest` at a multiple of its speed, by SHA-256.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        On the CPU, contiguous.

    Returns
    -------
    checksum : str
        64 hexadecimal digits.
    """
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach()
        hasher.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        hasher.update(value.reshape(-1).view(torch.uint8).numpy())
    return hasher.hexdigest()


def bytes_digest(content):
    """32 hexadecimal digits that stand for some bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _json_digest(description):
    return bytes_digest(json.dumps(description, sort_keys=True).encode())


class _Description:
    def __init__(self):
        self._open, self._done = [], {}  # what refers to itself ends; the things are kept, lest ids be given away

    def of(self, value):
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, torch.Tensor):
            return {"tensor": tensor_digest({"": value})}
        if isinstance(value, (np.ndarray, np.generic)):
            return {"array": joblib.hash(np.asarray(value))}
        if isinstance(value, ModuleType):
            return {"module": value.__name__}
        if isinstance(value, Logger):  # knows all others of its process
            return {"logger": value.name}
        if id(value) in self._done:
            return self._done[id(value)][0]
        for height, above in enumerate(reversed(self._open)):
            if above is value:
                return {"above": height}
        self._open.append(value)
        described = self._compound(value)
        self._open.pop()
        if isinstance(value, (type, FunctionType)):
            described = {"name": value.__qualname__, "is": _json_digest(described)}  # many refer to it
            self._done[id(value)] = described, value
        return described

    def _compound(self, value):
        if isinstance(value, Mapping):
            return {str(key): self.of(item) for key, item in sorted(value.items(), key=lambda entry: str(entry[0]))}
        if isinstance(value, (list, tuple)):
            return [self.of(item) for item in value]
        if isinstance(value, (set, frozenset)):
            return {"set": sorted(json.dumps(self.of(item), sort_keys=True) for item in value)}
        if isinstance(value, functools.partial):
            return {"partial": self.of(value.func), "args": self.of(value.args), "keywords": self.of(value.keywords)}
        if isinstance(value, MethodType):
            return {"method": self.of(value.__func__), "self": self.of(value.__self__)}
        if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
            return self._defined(value)
        return {"object": self.of(type(value)), "state": self._state(value)}

    def _defined(self, thing):
        """Where a class or function comes from, or what it does."""
        root = (thing.__module__ or "builtins").split(".")[0]
        if isinstance(thing, BuiltinFunctionType) or _is_installed(thing):
            version = None if root in _VERSIONLESS else getattr(sys.modules.get(root), "__version__", None)
            return {"from": thing.__module__, "name": thing.__qualname__, "version": version}
        return self._class(thing) if isinstance(thing, type) else self._function(thing)

    def _class(self, cls):
        members = {}
        for name, member in sorted(vars(cls).items()):
            parts = _WRAPPERS.get(type(member))
            if isinstance(member, FunctionType) or parts:
                members[name] = [self.of(getattr(member, part)) for part in parts or ()] or self.of(member)
            elif not name.startswith("__") and _is_data(member):
                members[name] = self.of(member)
        return {"members": members, "bases": [self.of(base) for base in cls.__bases__]}

    def _function(self, function):
        enclosed, named = _referred(function)
        root = (function.__module__ or "").split(".")[0]
        named = {
            name: self.of(value)
            for name, value in sorted(named.items())
            if _is_data(value) or _root_of(value) == root and not _is_installed(value)
        }
        defaults = function.__defaults__, function.__kwdefaults__
        own = {"code": _text(function), "defaults": self.of(defaults), "enclosed": self.of(enclosed), "named": named}
        return {**own, "attributes": self.of(vars(function))} if vars(function) else own

    def _state(self, value):
        # Slots of other people's classes hold what was looked up before, as those of a Path.
        own = [cls for cls in type(value).__mro__ if not _is_installed(cls)]
        slots = [name for cls in own for name in _names(vars(cls).get("__slots__", ()))]
        state = {name: getattr(value, name) for name in slots if hasattr(value, name) and not name.startswith("__")}
        # What ends in an underscore was learned, or noted down.
        state.update({k: v for k, v in getattr(value, "__dict__", {}).items() if not k.endswith("_")})
        if state:
            return self.of(state)
        text = repr(value)
        return None if " at 0x" in text else text


def _text(function):
    """The source of a function; its bytecode where there is none, and where a line may hold several functions."""
    if function.__name__ != "<lambda>":
        try:
            return inspect.getsource(function)
        except (OSError, TypeError):
            pass
    return _bytecode(function.__code__)


def _bytecode(code):
    constants = [_bytecode(c) if isinstance(c, CodeType) else describe(c) for c in code.co_consts]
    return [code.co_code.hex(), constants, code.co_names, code.co_varnames]


def _referred(function):
    """Variables that a function encloses, and those of its module that it may name."""
    cells = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            cells[name] = cell.cell_contents
        except ValueError:  # not given a value yet
            continue
    known = function.__globals__
    return cells, {name: known[name] for name in _global_names(function.__code__) if name in known}


def _global_names(code):
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _global_names(constant)
    return names


def _is_data(value):
    """Numbers, text, arrays, and collections of them."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_data, value))
    if isinstance(value, dict):
        return all(map(_is_data, value.values()))
    return value is None or isinstance(value, (bool, int, float, str, np.ndarray, np.generic, torch.Tensor))


def _root_of(value):
    """The package that a class or function is defined in, None for anything else."""
    return (value.__module__ or "").split(".")[0] if isinstance(value, (type, FunctionType)) else None


def _is_installed(thing):
    """Whether it belongs to Python or to a package, not to the user's own code."""
    name = thing.__module__ or "builtins"
    if name == "__main__" or name not in sys.modules:
        return False
    file = getattr(sys.modules[name], "__file__", None)
    return file is None or file.startswith(_INSTALLED)


def _names(slots):
    return (slots,) if isinstance(slots, str) else tuple(slots)
