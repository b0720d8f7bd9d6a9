"""What caches are keyed by: equal things alike in every process, different ones differently."""

from __future__ import annotations

import functools
import logging
import os
import re
import subprocess
import sys
import textwrap
from collections import deque
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import sklearn_source
from sklearn_source.rows import RowStream
from sklearn_source.utils._code import named_by
from sklearn_source.utils._digest import digest, identify, tensor_digest
from sklearn_source.utils._locks import ThreadLock

FACTOR = 1.0


def scaled(output, target, factor=1.0):
    return factor * output[:, 0]


def by_a_variable(output, target):
    return FACTOR * output[:, 0]


def helper(output):
    return output[:, 0]


def by_a_helper(output, target):
    return helper(output)


def enclosing(factor):
    def measure(output, target):
        return factor * output[:, 0]

    return measure


def with_default(factor):
    def measure(output, target, *, factor=factor):
        return factor * output[:, 0]

    return measure


def of_class(width):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(width, 1)

    return Net


class Measure:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, output, target):
        return self.factor * output[:, 0]

    def method(self, output, target):
        return self(output, target)


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor


class Base:
    def forward(self, x):
        return x


class Child(Base):
    pass


def typed(body):
    """A class as an interpreter makes it: of no file."""
    names = {"__name__": "__main__"}
    exec(f"class Net:\n    scale = 1\n    def forward(self, x):\n        {body}\n", names)
    return names["Net"]


PAIRS = {
    "enclosed": (enclosing(1.0), enclosing(2.0)),
    "default": (with_default(1.0), with_default(2.0)),
    "one line": (lambda o, t: o[:, 0] + 1, lambda o, t: o[:, 0] - 1),
    "enclosed by a class": (of_class(3), of_class(4)),
    "partial": (functools.partial(scaled, factor=1.0), functools.partial(scaled, factor=2.0)),
    "object": (Measure(1.0), Measure(2.0)),
    "method": (Measure(1.0).method, Measure(2.0).method),
    "slots": (Slotted(1.0), Slotted(2.0)),
    "typed": (typed("return x"), typed("return -x")),
    "array": (np.zeros(2), np.ones(2)),
    "dtype": (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
    "library": (torch.relu, torch.tanh),
    "library class": (nn.ReLU, nn.Tanh),
    "module": (nn.Linear(2, 1), nn.Linear(2, 1)),
    "logger": (logging.getLogger("a"), logging.getLogger("b")),
    "path": (Path("a"), Path("b")),
    "set": ({"a", "b"}, {"a", "c"}),
    "nested": ({"a": [1, (2, None)]}, {"a": [1, (2, False)]}),
}


@pytest.mark.parametrize("name", PAIRS)
def test_different_things_differ(name):
    one, other = PAIRS[name]
    assert digest(one) != digest(other)
    assert digest({"a": one}) != digest({"a": other})
    assert digest(one) == digest(one)


@pytest.mark.parametrize("value", [by_a_variable, by_a_helper, Child])
def test_what_code_refers_to_is_part_of_it(value, monkeypatch):
    before = digest(value)
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    monkeypatch.setitem(globals(), "helper", by_a_variable)
    monkeypatch.setattr(Base, "forward", by_a_variable)
    assert digest(value) != before
    monkeypatch.undo()
    assert digest(value) == before


def test_equal_things_are_alike():
    for make in (lambda: enclosing(2.0), lambda: of_class(3), lambda: Measure(1.0).method, lambda: typed("return x")):
        assert digest(make()) == digest(make())
    used = Path("a")
    assert {used: str(used)}
    assert digest(used) == digest(Path("a"))
    shared = [1, 2]
    assert digest([shared, shared]) == digest([[1, 2], [1, 2]])
    assert digest([Slotted(1), Slotted(1)]) == digest([Slotted(1)] * 2)


def test_what_refers_to_itself():
    knot = {}
    knot["knot"] = knot

    def calls_itself(n):
        return calls_itself(n - 1) if n else knot

    assert digest(calls_itself) == digest(calls_itself)
    assert digest(knot) == digest(knot)


SCRIPT = """
import importlib.util
from sklearn_source.utils._digest import digest
from sklearn_source.utils._locks import ThreadLock

spec = importlib.util.spec_from_file_location("the_tests", PATH)
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
found = digest([pair for name, pair in tests.PAIRS.items() if name != "module"])
"""


def test_alike_in_every_process():
    environment = {**os.environ, "PYTHONPATH": str(Path(sklearn_source.__file__).parents[1]), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", f"PATH = {__file__!r}\n{SCRIPT}\nprint(found)"]
    there = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    here = {"PATH": __file__}
    exec(SCRIPT, here)
    assert there == here["found"]


def test_tensors_by_name_type_shape_and_bits():
    tensor = torch.arange(6.0).reshape(2, 3)
    others = [
        {"b": tensor}, {"a": tensor.double()}, {"a": tensor.reshape(3, 2)}, {"a": tensor + 1e-6}, {"a": -tensor},
        {"a": tensor, "b": tensor}, {},
    ]  # fmt: skip
    assert len({tensor_digest(tensors) for tensors in [{"a": tensor}, *others]}) == 1 + len(others)
    for same in (tensor.clone(), tensor.mT.contiguous().mT, nn.Parameter(tensor.clone())):
        assert tensor_digest({"a": same}) == tensor_digest({"a": tensor})
        assert digest(same.detach()) == digest(tensor)
    assert tensor_digest({"a": tensor.bfloat16()}) != tensor_digest({"a": tensor})


def test_stored_trajectories_stay_readable():
    assert (
        tensor_digest({"weight": torch.tensor([[1.0, -2.0]]), "bias": torch.tensor([0.5])})
        == "50fb2adc37122f2edd3ab74da445e2aa"
    )


class Held:
    """What one object of it holds."""

    def __init__(self, value):
        self.value = value


def settings(value):
    return SimpleNamespace(a=[Held(value)])


DEEP = {
    "collections of other kinds": lambda n: deque([n]),
    "decimals": lambda n: Decimal(n),
    "dates": lambda n: date(2000, 1, n),
    "objects in objects": settings,
    "arrays of objects": lambda n: np.array([Held(n), None]),
    "masked arrays": lambda n: np.ma.masked_array([1, 2], [n == 1, True]),
    "texts longer than their repr": lambda n: re.compile("a" * 500 + str(n)),
    "generators of random numbers": lambda n: [np.random.default_rng(n), torch.Generator().manual_seed(n)],
    "keys that are objects": lambda n: {(n, "a"): 1},
    "sparse tensors": lambda n: torch.tensor([[0.0, n]]).to_sparse(),
    "scripts": lambda n: torch.jit.script(nn.Sequential(*[nn.ReLU()] * n)),
    "frames": lambda n: pytest.importorskip("pandas").DataFrame({"a": np.arange(2000) * n}),
    "dictionaries of one's own": lambda n: type("Own", (dict,), {})(a=n),
}


@pytest.mark.parametrize("name", DEEP)
def test_whatever_it_holds_is_part_of_it(name):
    one, same, other = (identify({"held": DEEP[name](n)}) for n in (1, 1, 2))
    assert one == same
    assert one.key != other.key
    assert not one.unknown


@pytest.mark.parametrize("value", [open(__file__), (n for n in ()), open], ids=["file", "generator", "function"])  # noqa: SIM115
def test_what_says_nothing_of_itself_is_named(value):
    unknown = identify({"net": {"source": [value]}}).unknown
    assert len(unknown) == (value is not open)
    assert value is open or "source" in unknown[0]


class Timed(nn.Module):
    def __init__(self):
        super().__init__()
        self.began = nn.Linear(2, 1)

    def forward(self, X):
        return self.began(X)


class Scaled(Timed):
    def forward(self, X):
        return began * self.began(X)


began = 1.0


def test_an_attribute_is_no_variable_of_its_name(monkeypatch):
    """A script's ``start = time.time()`` does not make another network of one that has a layer ``self.start``."""
    before, scaled = named_by(Timed.forward), named_by(Scaled.forward)
    monkeypatch.setattr(sys.modules[__name__], "began", 2.0)
    assert named_by(Timed.forward) == before == {}
    assert named_by(Scaled.forward) == {"began": 2.0} != scaled


def test_no_set_decides_an_order():
    """What this package's code names at its top stands in one order, whatever a process hashes texts to."""
    script = f"""
    import importlib.util
    spec = importlib.util.spec_from_file_location("a.b.c", {sys.modules[named_by.__module__].__file__!r})
    module = importlib.util.module_from_spec(spec)
    module.__package__ = "a.b"
    spec.loader.exec_module(module)
    print({{name: value for name, value in vars(module).items() if isinstance(value, (tuple, list))}})
    """
    said = {
        subprocess.run(
            [sys.executable, "-S", "-c", textwrap.dedent(script)],
            env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True,
        ).stdout
        for seed in ("1", "2", "3", "4")
    }  # fmt: skip
    assert len(said) == 1
    assert b"builtins" in said.pop()


def test_locks_that_others_hold_are_no_part_of_what_names_their_class():
    before = digest(RowStream)
    held = ThreadLock()
    assert digest(RowStream) == before
    del held
