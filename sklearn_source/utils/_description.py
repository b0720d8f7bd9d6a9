"""Any value as JSON: numbers by their values, objects by what they hold, code by its text and what it refers to."""

from __future__ import annotations

import functools
import io
import json
import random
import re
import weakref
from collections.abc import Mapping
from logging import Logger
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)

import joblib
import numpy as np
import torch
from torch.utils.hooks import RemovableHandle

from ._checksums import bytes_digest, tensor_digest
from ._code import OWN_ROOT, enclosed_by, is_installed, named_by, root_of, text_of, version_of
from ._locks import LOCKS

_PARTS = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),
}
_OF_A_CLASS = ("_abc_impl", "__weakref__", "__dict__")
_SLOTS = (MemberDescriptorType, GetSetDescriptorType, WrapperDescriptorType, MethodDescriptorType)
_MOST = 300_000  # objects that are looked at: more are no settings of a network


class Description:
    """Describes values; what a part says twice is looked at once.

    Parameters
    ----------
    own : dict from int to str, optional
        By ``id``, names of objects that are known by these names alone.

    Attributes
    ----------
    unknown : list of str
        Names of the parts that say nothing of themselves.
    """

    def __init__(self, own=None):
        self.unknown = []
        self._own, self._path, self._n_seen = own or {}, [], 0
        self._open, self._done = [], {}  # what refers to itself ends; the things are kept, lest ids be given away
        self._lowest = []  # for each open value, the lowest place in the stack that it refers to

    def of(self, value):
        """A value as JSON."""
        if value is None or isinstance(value, (bool, int, float, str)) and type(value).__module__ == "builtins":
            return value
        if id(value) in self._own:
            return {"own": self._own[id(value)]}
        simple = self._simple(value)
        if simple is not None:
            return simple
        if id(value) in self._done:
            return self._done[id(value)][0]
        for height, above in enumerate(reversed(self._open)):
            if above is value:
                self._lowest[-1] = min(self._lowest[-1], len(self._open) - 1 - height)
                return {"above": height}
        self._n_seen += 1
        if self._n_seen > _MOST:
            return self._unknown(value, "too large")
        return self._open_up(value)

    def _open_up(self, value):
        place = len(self._open)
        self._open.append(value)
        self._lowest.append(place)
        try:
            described = self._compound(value)
        except RecursionError:
            described = self._unknown(value, "too deep")
        self._open.pop()
        lowest = self._lowest.pop()
        if self._lowest:
            self._lowest[-1] = min(self._lowest[-1], lowest)
        is_code = isinstance(value, (type, FunctionType))
        if is_code or lowest >= place:  # it says the same wherever it stands
            name = {"name": value.__qualname__} if is_code else {}
            text = json.dumps(described, sort_keys=True)
            if is_code or len(text) > 100:
                described = {**name, "is": bytes_digest(text.encode())}
            self._done[id(value)] = described, value
        return described

    def _named(self, name, value):
        self._path.append(str(name))
        try:
            return self.of(value)
        finally:
            self._path.pop()

    def _unknown(self, value, why=""):
        name = ".".join(self._path[-2:])
        kind = type(value).__name__ + (f", {why}" if why else "")
        self.unknown.append(f"{name} ({kind})" if name else kind)
        return {"unknown": type(value).__qualname__}

    def _simple(self, value):
        """What needs no look inside; None for the rest."""
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, (np.ndarray, np.generic)):
            return self._array(value)
        if callable(getattr(type(value), "to_numpy", None)):  # of pandas, or alike
            labels = [np.asarray(getattr(value, name, ())) for name in ("columns", "index")]
            return {"table": [self._array(np.asarray(part)) for part in (value.to_numpy(), *labels)]}
        if isinstance(value, np.ufunc):
            return {"ufunc": value.__name__}
        if isinstance(value, io.IOBase) and not value.closed and not value.readable():
            return {"written to": type(value).__name__}  # nothing comes back from it
        if isinstance(value, bytes):
            return {"bytes": bytes_digest(value)}
        if isinstance(value, ModuleType):
            return {"module": value.__name__}
        if isinstance(value, Logger):  # knows all others of its process
            return {"logger": value.name}
        if isinstance(value, LOCKS) or (isinstance(value, type) and issubclass(value, LOCKS)):
            return {"lock": None}  # the class of ours knows all others of its process
        if isinstance(value, RemovableHandle):
            return {"handle": None}
        if isinstance(value, re.Pattern):
            return {"pattern": repr(value.pattern), "flags": value.flags}
        if isinstance(value, torch.Generator):
            return {"generator": tensor_digest({"": value.get_state()})}
        return None

    def _tensor(self, value):
        try:
            if value.layout is not torch.strided:
                value = value.detach().cpu().coalesce() if value.layout is torch.sparse_coo else value.to_sparse_coo()
                parts = {"indices": value.indices(), "values": value.values()}
                return {"sparse": tensor_digest(parts), "shape": list(value.shape)}
            return {"tensor": tensor_digest({"": value})}
        except (RuntimeError, NotImplementedError):  # quantized, on no device, or left by a pass under vmap
            return self._unknown(value)

    def _array(self, value):
        array = np.asarray(value)
        if array.dtype.hasobject:
            return {"objects": [self.of(item) for item in array.ravel().tolist()], "shape": list(array.shape)}
        described = {"array": joblib.hash(array)}
        if isinstance(value, np.ma.MaskedArray):
            described["mask"] = joblib.hash(np.ma.getmaskarray(value))
        return described

    def _compound(self, value):
        if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
            return self._defined(value)
        if isinstance(value, functools.partial):
            return {"partial": self.of(value.func), "args": self.of(value.args), "keywords": self.of(value.keywords)}
        if isinstance(value, MethodType):
            return {"method": self.of(value.__func__), "self": self.of(value.__self__)}
        if isinstance(value, weakref.ref):
            return {"reference": self.of(value())}
        if isinstance(value, np.random.Generator):
            return {"generator": self.of(value.bit_generator.state)}
        if isinstance(value, np.random.RandomState):
            return {"generator": self.of(value.get_state())}
        if isinstance(value, random.Random):
            return {"generator": self.of(value.getstate())}
        items = self._items(value)
        if items is None:
            return {"object": self.of(type(value)), "state": self._state(value)}
        if is_installed(type(value)):
            return items
        return {"object": self.of(type(value)), "items": items, "state": self._held(value)}

    def _items(self, value):
        """What a collection holds; None for what is none."""
        if isinstance(value, Mapping):
            pairs = [(_key(key) or json.dumps(self.of(key), sort_keys=True), item) for key, item in value.items()]
            return {key: self._named(key, item) for key, item in sorted(pairs, key=lambda pair: pair[0])}
        if isinstance(value, (list, tuple)):
            return [self.of(item) for item in value]
        if isinstance(value, (set, frozenset)):
            return {"set": sorted(json.dumps(self.of(item), sort_keys=True) for item in value)}
        return None

    def _defined(self, thing):
        """Where a class or function comes from, or what it does."""
        if isinstance(thing, BuiltinFunctionType):
            owner = thing.__self__
            bound = {} if owner is None or isinstance(owner, ModuleType) else {"self": self.of(owner)}
            return {"from": thing.__module__, "name": thing.__qualname__, **bound}
        if is_installed(thing):
            return {"from": thing.__module__, "name": thing.__qualname__, "version": version_of(root_of(thing))}
        return self._class(thing) if isinstance(thing, type) else self._function(thing)

    def _class(self, cls):
        members = {}
        for name, member in sorted(vars(cls).items()):
            parts = _PARTS.get(type(member))
            if isinstance(member, FunctionType) or parts:
                members[name] = [self.of(getattr(member, part)) for part in parts or ()] or self.of(member)
            elif not name.startswith("__") and name not in _OF_A_CLASS and not isinstance(member, _SLOTS):
                members[name] = self._named(f"{cls.__name__}.{name}", member)
        return {"members": members, "bases": [self.of(base) for base in cls.__bases__]}

    def _function(self, function):
        own = root_of(function)
        named = {
            name: self._named(name, value)
            for name, value in sorted(named_by(function).items())
            if not isinstance(value, ModuleType) and _matters(value, own)
        }
        defaults = function.__defaults__, function.__kwdefaults__
        enclosed = self.of(enclosed_by(function))
        known = {"code": text_of(function), "defaults": self.of(defaults), "enclosed": enclosed, "named": named}
        return {**known, "attributes": self.of(vars(function))} if vars(function) else known

    def _state(self, value):
        if isinstance(value, torch.jit.ScriptFunction):
            return {"graph": str(value.inlined_graph)}
        if isinstance(value, torch.jit.ScriptModule):
            return {"graph": str(value.inlined_graph), "tensors": self.of(value.state_dict())}
        state = self._held(value)
        if state is not None and _is_plain(type(value)) and not _says_how_it_is_made(type(value)):
            return state
        try:
            made = value.__reduce_ex__(4)
        except Exception:  # it cannot be pickled, each kind of thing says so in its own way
            return self._unknown(value)
        if isinstance(made, str):
            return made
        function, arguments, state, items, pairs = (*made, None, None, None)[:5]
        return [self.of(part) for part in (function, arguments, state, list(items or ()), list(pairs or ()))]

    def _held(self, value):
        """Attributes of an object; None where it has none."""
        # Slots of other people's classes hold what was looked up before.
        own = [cls for cls in type(value).__mro__ if not is_installed(cls)]
        slots = [name for cls in own for name in _names(vars(cls).get("__slots__", ()))]
        state = {name: getattr(value, name) for name in slots if hasattr(value, name) and not name.startswith("__")}
        # What ends in an underscore was learned, or noted down, where scikit-learn's conventions hold.
        learned = "_" if hasattr(type(value), "get_params") else None
        state.update({k: v for k, v in getattr(value, "__dict__", {}).items() if not (learned and k.endswith(learned))})
        return self.of(state) if state else None


def _says_how_it_is_made(cls):
    """Whether a class of somebody else says itself what its objects are, as those of pandas do."""
    return is_installed(cls) and (cls.__reduce__, cls.__reduce_ex__) != (object.__reduce__, object.__reduce_ex__)


def _is_plain(cls):
    """Whether objects of a class hold nothing beside their attributes: no memory that compiled code looks after."""
    slots = sum(
        name not in ("__dict__", "__weakref__") for c in cls.__mro__ for name in _names(vars(c).get("__slots__", ()))
    )
    words = slots + bool(cls.__dictoffset__) + bool(cls.__weakrefoffset__)
    return cls.__basicsize__ <= object.__basicsize__ + words * object.__basicsize__ // 2


def _matters(value, own):
    """Whether a variable of a module may decide what its code gives, ``own`` being the package of the code."""
    if isinstance(value, (type, FunctionType)) and root_of(value) == OWN_ROOT:
        return own == OWN_ROOT  # else an import of this package, which is known by its results
    return own != OWN_ROOT or isinstance(value, (type, FunctionType)) or _is_data(value)


def _is_data(value):
    """Numbers, text, arrays, and collections of them."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_data, value))
    if isinstance(value, dict):
        return all(map(_is_data, value.values()))
    return value is None or isinstance(value, (bool, int, float, str, np.ndarray, np.generic, torch.Tensor))


def _key(key):
    """A text for a key that says what it is; None for others."""
    plain = isinstance(key, (str, int, float, bool, torch.dtype)) or key is None
    return f"{key}" if plain else None


def _names(slots):
    return (slots,) if isinstance(slots, str) else tuple(slots)
