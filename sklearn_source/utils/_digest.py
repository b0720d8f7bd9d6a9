"""Digests of any value, by what it says of itself alike in every process: what caches are keyed by."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ._checksums import bytes_digest, checksum, tensor_digest
from ._description import Description

__all__ = ["Identity", "bytes_digest", "checksum", "digest", "identify", "tensor_digest"]


class Identity(NamedTuple):
    """What a value is known by, and how far.

    Attributes
    ----------
    key : str
        32 hexadecimal digits, alike for equal values in every process.
    unknown : tuple of str
        Names of the parts that say nothing of themselves (an open file, a compiled object): two values that differ in
        these alone have the same key, so that nothing may be kept under it.
    """

    key: str
    unknown: tuple[str, ...]


def identify(value: Any, own: dict[int, str] | None = None) -> Identity:
    """The :class:`Identity` of any value.

    Numbers by their values, objects by their class and what they hold, code by its text and by all that it refers to:
    defaults, enclosed variables, and whatever of its module, and of other modules of the user, it names. Installed
    packages are known by name and version.

    Parameters
    ----------
    value : object
    own : dict from int to str, optional
        By ``id``, names of objects that are known by these names alone.
    """
    description = Description(own)
    described = description.of(value)
    return Identity(bytes_digest(json.dumps(described, sort_keys=True).encode()), tuple(description.unknown))


def digest(value: Any) -> str:
    """The key of :func:`identify`."""
    return identify(value).key
