"""Sums over several per-row gradients of the same rows, in the form that they have; and the bytes they hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from ._row_gradient import RowGradient


def weighted_sum(gradients: Sequence[RowGradient], weights: Sequence[float]) -> RowGradient:
    """``sum_c w_c G_c`` of the same rows at several checkpoints, all in one form: see :class:`RowGradient`."""
    return type(gradients[0]).weighted_sum(gradients, weights)


def squared_in_basis(
    columns: Sequence[RowGradient], left: torch.Tensor | None, right: torch.Tensor | None
) -> torch.Tensor:
    """Sum over rows and Fisher columns of ``(left^T G right)^2``, elementwise: (groups, out, in).

    Parameters
    ----------
    columns : list of RowGradient
        The gradients of the same rows for each column of the Fisher's root, in one form and with the same inputs.
    left, right : tensor of shape (groups, out, out) and (groups, in, in), or None
        The eigenbases; None stands for the identity.
    """
    return type(columns[0]).squared_in_basis(columns, left, right)


def whole_moments(
    columns: Sequence[RowGradient], wanted_input: bool, wanted_output: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Sums over rows and Fisher columns of ``G^T G`` and of ``G G^T``, None where not wanted.

    Parameters
    ----------
    columns : list of RowGradient
        The gradients of the same rows for each column of the Fisher's root, in one form and with the same inputs.
    wanted_input, wanted_output : bool
    """
    return type(columns[0]).whole_moments(columns, wanted_input, wanted_output)


def output_moments(columns: Sequence[RowGradient]) -> torch.Tensor:
    """Sum over rows and Fisher columns of the outputs' second moment: see :meth:`RowGradient.output_moment`.

    Parameters
    ----------
    columns : list of RowGradient
        The gradients of the same rows for each column of the Fisher's root, in one form.
    """
    return type(columns[0]).output_moments(columns)


def held_bytes(gradients: Iterable[RowGradient]) -> int:
    """Bytes of all the tensors that some gradients hold, those sharing memory counted once."""
    held = {t.data_ptr(): t.numel() * t.element_size() for gradient in gradients for t in gradient.tensors()}
    return sum(held.values())
