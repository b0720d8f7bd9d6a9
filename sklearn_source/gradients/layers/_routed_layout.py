"""Rows of vectors that a network picked out of the batch: tokens sent to experts, at most so many to each."""

from __future__ import annotations

import torch

from ._row_layout import RowLayout

# Rows are numbered by digits of this base, so that a digit shows through what single precision leaves of it.
_BASE = 32


class RoutedLayout(RowLayout):
    """Rows found by what comes back: every row's cotangent is multiplied by a number of the row's own.

    Parameters
    ----------
    n_rows : int
    pull : callable
        ``pull(factors)``: dict of use to the gradient of what came out of it, with every row's cotangent multiplied by
        its factor (B,).
    """

    def __init__(self, n_rows, pull):
        super().__init__(n_rows, rows_first=False)
        number, ones = torch.arange(n_rows), torch.ones(n_rows)
        pulled = [pull(ones)]
        size = 1
        while size < n_rows:
            pulled.append(pull(1 + number // size % _BASE))
            size *= _BASE
        object.__setattr__(self, "pulled_back", pulled)

    def agrees(self, use, layout):
        """Whether the rows that come back to a use are those of another layout, as far as they can be told."""
        length = use.n_positions_seen()
        try:
            rows = self.of(use).rows(length, use)
        except (ValueError, RuntimeError):
            return True  # gradients of other axes, or of several rows: the check of the gradients judged it
        rows = layout.split(rows)
        return bool(((rows == torch.arange(self.n_rows, device=rows.device).unsqueeze(1)) | (rows < 0)).all())

    def of(self, use):
        return _RoutedUse(self.n_rows, [grads[use] for grads in self.pulled_back])


class _RoutedUse(RowLayout):
    """The rows of what one use saw, from what came back to it for every digit of the rows' numbers."""

    def __init__(self, n_rows, pulled):
        super().__init__(n_rows, rows_first=False)
        object.__setattr__(self, "pulled_back", pulled)

    def split(self, x):
        return self.split_groups(x.unsqueeze(0), lambda grad: grad.reshape(1, len(x), -1)).squeeze(1)

    def rows(self, length, use):
        """(length,) rows of the vectors that a use saw."""
        arrange = getattr(use.rule, "arranged", lambda use, grad: grad.reshape(1, length, -1))
        return self._rows([arrange(use, grad) for grad in self.pulled_back])[0]

    def presence(self, length):
        like = self.pulled_back[0]
        return self.split(like.new_ones(length))

    def split_groups(self, x, arrange):
        if not x.shape[1]:
            return x.new_zeros((self.n_rows, len(x), 1, *x.shape[2:]))
        rows = self._rows([arrange(grad) for grad in self.pulled_back])  # (k, n)
        k, n = rows.shape
        place = rows + self.n_rows * torch.arange(k, device=x.device).unsqueeze(1)
        place = place.where(rows >= 0, self.n_rows * k).flatten()  # those of no row come last, and are left out
        order = place.argsort(stable=True)
        counts = torch.bincount(place, minlength=self.n_rows * k + 1)
        kept = order[: k * n - int(counts[-1])]
        most = max(1, int(counts[:-1].max()) if len(kept) else 1)
        starts = counts.cumsum(0) - counts
        slot = torch.arange(len(kept), device=x.device) - starts[place[kept]]
        out = x.new_zeros((self.n_rows * k, most, *x.shape[2:]))
        out[place[kept], slot] = x.reshape(k * n, *x.shape[2:])[kept]
        return out.view(k, self.n_rows, most, *x.shape[2:]).transpose(0, 1)

    def _rows(self, pulled):
        """(k, n) rows of the vectors (k, n, width), -1 for those that nothing comes back to."""
        first, *digits = pulled
        norm = (first * first).sum(-1)
        rows, size = torch.zeros_like(norm, dtype=torch.long), 1
        tiny = 1e3 * torch.finfo(first.dtype).eps * norm.max().sqrt() if norm.numel() else 0
        dead = norm.sqrt() <= tiny
        for of_digit in digits:
            ratio = torch.where(dead, 1.0, (of_digit * first).sum(-1) / norm)
            digit = ratio.round()
            rest = (of_digit - digit.unsqueeze(-1) * first).norm(dim=-1)
            if bool(((rest > 1e-2 * of_digit.norm(dim=-1)) & ~dead).any()):
                raise ValueError(
                    "the vectors that a layer sees are of several rows each, so that it is not known which belong to "
                    "which row. Use layers= to leave its parameters out"
                )
            rows += (digit.long() - 1).clamp(0, _BASE - 1) * size
            size *= _BASE
        return rows.where(~dead, -1)
