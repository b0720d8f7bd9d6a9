"""How a call with a bad argument ended."""

from __future__ import annotations

import re
import traceback
import warnings
from pathlib import Path

import sklearn
from sklearn.exceptions import NotFittedError

import sklearn_source

_OWN, _SKLEARN = (str(Path(package.__file__).parent) for package in (sklearn_source, sklearn))
_SAYS = re.compile(
    r"expect|must|should|pass |found |requires|cannot|needs|has to|unknown|not fitted|NaN|infinit|no such|exists"
    r"|a directory|please|supported|convert your data|not an instance",
    re.IGNORECASE,
)


def judged(cell):
    """("clear", "raw" or "silent", the error as text, or what came back)."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            result = cell.call()
        except Exception as error:
            return ("clear" if is_clear(error, cell.argument) else "raw"), _text(error)
    for one in map(str, (warning.message for warning in said)):
        if cell.argument in one or "NaN" in one:
            return "clear", f"warned: {one[:200]}"
    return "silent", repr(result)[:200]


def is_clear(error, argument):
    """Raised by this package, or by scikit-learn's validation, in words that name the argument or what was expected."""
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    known = isinstance(error, (ValueError, TypeError, OSError, NotFittedError))
    return known and place.startswith((_OWN, _SKLEARN)) and bool(argument in str(error) or _SAYS.search(str(error)))


def _text(error):
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} [{'/'.join(Path(last.filename).parts[-3:])}:{last.lineno}]"
