"""Checksums of tensors and of bytes."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["bytes_digest", "checksum", "tensor_digest"]


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
