"""64-bit hashes of the rows of a table of numbers."""

from __future__ import annotations

import zlib

import numpy as np

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it is a bijection of the 64-bit words
_CHUNK = 1 << 16  # values hashed at a time: the temporaries stay in the processor's cache


def hash_table(table, dense, exact=False):
    """A hash of every row of a table, a chunk of rows at a time.

    Parameters
    ----------
    table : array or sparse matrix of shape (n, width)
        Of booleans, integers or floats.
    dense : callable
        Turns a slice of its rows into an array.
    exact : bool, default=False
        Tell floats apart that are one float32, as a cache has to.

    Returns
    -------
    hashes : ndarray of uint64, shape (n,)
    """
    n, width = table.shape
    coefficients = _avalanche(np.arange(1, (width + 1) // 2 + 1, dtype=np.uint64) * _MULTIPLIER) | np.uint64(1)
    hashes = np.empty(n, dtype=np.uint64)
    height = max(1, _CHUNK // max(width, 1))
    words = np.zeros((min(height, n), width + width % 2), dtype=np.float32)  # pairs of float32 make 64-bit words
    for start in range(0, n, height):
        rows = dense(table[start : start + height])
        hashes[start : start + height] = _hash_chunk(rows, words[: len(rows)], coefficients, exact)
    return _avalanche(hashes + np.uint64(width))


def pair_hashes(first, second):
    """Hashes of pairs of rows from the hashes of both, ndarray of uint64 or None: the order of the two matters.

    Raises
    ------
    ValueError
        If there are not as many of the one as of the other.
    """
    if first is None or second is None:
        return None
    if len(first) != len(second):
        raise ValueError(f"expected as many targets (or inputs of each kind) as rows, got {len(first)}, {len(second)}")
    hashes = np.empty(len(first), dtype=np.uint64)
    for start in range(0, len(first), _CHUNK):
        some = slice(start, start + _CHUNK)
        hashes[some] = _avalanche(first[some] * _MULTIPLIER + second[some])
    return hashes


def named_hashes(parts, hash_part):
    """Hashes of rows that have a part under each of several names, ndarray of uint64 or None where a part has none.

    Parameters
    ----------
    parts : mapping from name to a container of rows
        By name, not by position: a dict's order is no part of what the module receives.
    hash_part : callable
        From a container to hashes, or None.
    """
    numbered = {zlib.crc32(str(name).encode()): value for name, value in parts.items()}
    hashes = None
    for position, (name, value) in enumerate(sorted(numbered.items(), key=lambda item: item[0])):
        part = hash_part(value)
        if part is None:
            return None
        part = _avalanche(part + np.uint64(name))
        hashes = part if position == 0 else pair_hashes(hashes, part)
    return hashes


def _hash_chunk(rows, buffer, coefficients, exact):
    width = rows.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        # Adding +0.0 turns -0.0 into 0.0.
        np.add(rows, np.float32(0.0), out=buffer[:, :width], dtype=np.float32, casting="unsafe")
    nan = np.isnan(buffer)
    if nan.any():
        buffer[nan] = np.nan
    total = _mix(buffer.view(np.uint64)) @ coefficients
    if rows.dtype.kind in "iu" and rows.dtype.itemsize > 2:
        # Integers that float32 cannot hold (beyond 2**24) are told apart by their own bits.
        with np.errstate(invalid="ignore"):
            inexact = (buffer[:, :width].astype(np.float64) != rows).any(axis=1)
        if inexact.any():
            wide = _mix(rows[inexact].astype(np.int64).view(np.uint64))
            total[inexact] += wide @ _avalanche(np.arange(wide.shape[1], dtype=np.uint64) + _MULTIPLIER)
    if exact and rows.dtype.kind == "f" and rows.dtype.itemsize > 4:
        values = rows.astype(np.float64)
        inexact = ((buffer[:, :width].astype(np.float64) != values) & ~np.isnan(values)).any(axis=1)
        if inexact.any():
            wide = _mix((values[inexact] + 0.0).view(np.uint64))
            total[inexact] += wide @ _avalanche(np.arange(wide.shape[1], dtype=np.uint64) + _MULTIPLIER)
    return total


def _mix(words):
    # A plain linear combination would waste bits: small whole numbers in float32 end in 23 zero bits. Multiply (low
    # bits go up), then fold the high half onto the low one.
    words = words * _MULTIPLIER
    words ^= words >> np.uint64(32)
    return words


def _avalanche(hashes):
    """Bijective avalanche of 64-bit words (the finaliser of the splitmix64 generator)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
