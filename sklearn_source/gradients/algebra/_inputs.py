"""A layer's inputs, laid out only while they are needed."""

from __future__ import annotations

import functools

import torch

from ._products import rotate_vectors


class Inputs:
    """A layer's inputs, laid out as ``a`` (B, groups, T, in) only while a product needs them.

    Unfolding a convolution's input repeats every value once per place of the kernel: kept as they came, gradients of
    many more rows fit into the same memory, and a chunk of rows laid out stays in the cache.

    Parameters
    ----------
    lay_out : callable
        ``lay_out(sources, rows)``: ``a`` of the rows of a slice with bounds.
    sources : list of tensor
    shape : (B, groups, T, in)
    rows : slice, optional
        Which of the sources' rows; None: all.
    overlap : Overlap, optional
        Of a convolution's windows.
    """

    def __init__(self, lay_out, sources, shape, rows=None, overlap=None):
        self._lay_out, self._sources, self.shape, self.overlap = lay_out, sources, tuple(shape), overlap
        self._rows = slice(0, self.shape[0]) if rows is None else rows

    def __call__(self):
        return self._lay_out(self._sources, self._rows)

    def __getitem__(self, rows):
        start, stop, _ = rows.indices(self.shape[0])
        rows = slice(self._rows.start + start, self._rows.start + max(start, stop))
        return Inputs(self._lay_out, self._sources, (rows.stop - rows.start, *self.shape[1:]), rows, self.overlap)

    @property
    def sources(self):
        """The tensors held, which layers reading the same activations share."""
        return self._sources

    def rotated(self, basis):
        """``a @ basis``, of the rows laid out only."""
        lay_out = functools.partial(_lay_out_rotated, self._lay_out, basis)
        return Inputs(lay_out, self._sources, (*self.shape[:3], basis.shape[2]), self._rows)


# Functions with partial arguments, not closures: a fitted estimator keeps some gradients, and is pickled.
def _lay_out_rotated(lay_out, basis, sources, rows):
    return rotate_vectors(lay_out(sources, rows), basis)


def _lay_out_joined(parts, sources, rows):
    return torch.cat([laid_out(part[rows]) for part in parts], dim=2)


def laid_out(inputs):
    """``a`` of inputs that are it or lay it out."""
    return inputs() if isinstance(inputs, Inputs) else inputs


def held(inputs):
    """The tensors that inputs hold."""
    return inputs.sources if isinstance(inputs, Inputs) else [inputs]


def join_inputs(parts):
    """The positions of several inputs of the same rows, one after the other."""
    shape = (*parts[0].shape[:2], sum(part.shape[2] for part in parts), parts[0].shape[3])
    return Inputs(functools.partial(_lay_out_joined, parts), [t for part in parts for t in held(part)], shape)
