"""One argument of one entry and a bad value for it, and how calls with it are made."""

from __future__ import annotations

import functools
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A call with one bad argument."""

    entry: str
    argument: str
    value: str
    call: object

    def __str__(self):
        return f"{self.entry}, {self.argument}: {self.value}"


def of(entry, function, good, **arguments):
    """Cells of a function that is called with good arguments but for one, by tables of bad values for it."""
    return [
        Cell(entry, argument, name, functools.partial(_with_one, function, good, argument, value))
        for argument, values in arguments.items()
        for name, value in values.items()
    ]


def _with_one(function, good, argument, value):
    return function(**{**good, argument: value})


def only(table, *names):
    """Those values of a table."""
    return {name: table[name] for name in names}


def but(table, *names):
    """All values of a table but those, which are none that are bad here."""
    return {name: value for name, value in table.items() if name not in names}
