"""Tables: pandas where it is installed."""

from __future__ import annotations

import numpy as np


def make_table(columns, as_frame="auto"):
    """Columns of one length as a DataFrame or a record array.

    Parameters
    ----------
    columns : dict of str to array-like
        The columns by name, in order.
    as_frame : bool or "auto"
        "auto": a DataFrame where pandas is installed.

    Returns
    -------
    table : DataFrame or numpy.recarray
        ``table["name"]`` is a column of either.
    """
    if not isinstance(as_frame, (bool, np.bool_)) and not (isinstance(as_frame, str) and as_frame == "auto"):
        raise ValueError(f'expected as_frame to be True, False or "auto", got {as_frame!r}')
    if as_frame:
        try:
            import pandas
        except ImportError:
            if as_frame is True:
                raise ImportError("as_frame=True needs pandas: install it, or pass as_frame=False") from None
        else:
            return pandas.DataFrame(columns)
    return np.rec.fromarrays(list(columns.values()), names=list(columns))
