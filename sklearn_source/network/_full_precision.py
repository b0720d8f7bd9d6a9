"""Forward passes in the precision of the weights, whatever ``torch.autocast`` asks for."""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode

# Kinds of devices with an autocast of their own; asked at every call of a function, so found out once.
_KINDS = ("cpu", "cuda") if torch.backends.cuda.is_built() else ("cpu",)


class FullPrecision(TorchFunctionMode):
    """A mode in which ``torch.autocast``, around a forward pass or within it, casts to float32 instead.

    Gradients of a training in mixed precision are those of its float32 weights up to rounding; formed in bfloat16,
    their sums over rows would be nothing but rounding. Autocast is kept on, so that inputs which the network itself
    casts down still meet the weights.

    Parameters
    ----------
    cast : str, optional
        The kind of device on which autocast is turned on, too.
    """

    def __init__(self, cast=None):
        super().__init__()
        self._cast = cast

    def __enter__(self):
        self._before = [(k, torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in _KINDS]
        if self._cast is not None:
            torch.set_autocast_enabled(self._cast, True)
        return super().__enter__()

    def __exit__(self, *exception):
        for kind, enabled, dtype in self._before:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        return super().__exit__(*exception)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        for kind in _KINDS:
            if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) != torch.float32:
                torch.set_autocast_dtype(kind, torch.float32)  # put back as autocast's own context ends
        return func(*args, **(kwargs or {}))
