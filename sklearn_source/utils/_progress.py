"""Progress of long loops."""

from __future__ import annotations

from tqdm.auto import tqdm


def progress(iterable, *, verbose, desc=""):
    """``iterable``, with a bar on the standard error where ``verbose``."""
    return tqdm(iterable, desc=desc, leave=False) if verbose else iterable
