"""Small pictures inside a page: PNG as a data URI, by the standard library alone."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # channels -> PNG's grey, red-green-blue, and that with opacity


def data_uri(image, value_range, side):
    """An image as ``data:image/png;base64,...``, no larger than ``side`` pixels.

    Parameters
    ----------
    image : ndarray (height, width) or (height, width, 3 or 4)
    value_range : tuple of float
        What is black, and what is white; bytes keep their own.
    side : int

    Returns
    -------
    uri : str
    """
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim == 2:
        low, high = value_range
        pixels = (np.nan_to_num(pixels.astype(np.float64), nan=low) - low) / ((high - low) or 1.0) * 255.0
    pixels = np.clip(np.rint(_shrunk(pixels.astype(np.float64), side)), 0, 255).astype(np.uint8)
    return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode("ascii")


def encode_png(pixels):
    """The bytes of a PNG file of pixels (height, width[, 3 or 4]) of uint8."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    height, width, channels = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), dtype=np.uint8), pixels.reshape(height, -1)], axis=1)  # no filter
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _shrunk(image, side):
    """An image of at most ``side`` pixels, each the mean of a block."""
    height, width = image.shape[:2]
    block = -(-max(height, width) // side)
    if block == 1:
        return image
    down, across = np.arange(0, height, block), np.arange(0, width, block)
    sums = np.add.reduceat(np.add.reduceat(image, down, axis=0), across, axis=1)
    counts = np.outer(np.diff([*down, height]), np.diff([*across, width]))
    return sums / counts.reshape(*counts.shape, *[1] * (image.ndim - 2))
