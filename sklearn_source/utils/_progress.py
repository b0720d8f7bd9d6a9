"""Progress of long loops."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # In a notebook without ipywidgets tqdm says so as it is imported, whether a bar is wanted or not; it draws in text.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

__all__ = ["counter", "progress", "tqdm"]


def progress(iterable, *, verbose, desc=""):
    """``iterable``, with a bar on the standard error where ``verbose``."""
    return tqdm(iterable, desc=desc, leave=False) if verbose else iterable


def counter(total, *, done=0, verbose, desc="", unit="it"):
    """A bar to be updated by hand, with the time that remains; silent unless ``verbose``. A context manager."""
    return tqdm(total=total, initial=done, desc=desc, unit=unit, leave=False, disable=not verbose)
