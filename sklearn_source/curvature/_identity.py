"""No curvature: the identity matrix."""

from __future__ import annotations

import torch

from ._base import Curvature
from ._eigen import Basis, EigenCurvature
from ._fisher import FisherStream


class Identity(Curvature):
    """``H = I``, whatever the network: a yardstick for the others. After an adaptive optimizer, its preconditioner.

    Read more in the :ref:`User Guide <curvature>`.

    Notes
    -----
    It looks at no row, so its scale has no meaning: neither has the unit of scores made with it.
    """

    def fit(self, stream: FisherStream) -> EigenCurvature:
        """No pass over the stream; see :meth:`Curvature.fit`."""
        values = [torch.ones(block.shape, dtype=stream.dtype, device=stream.device) for block in stream.blocks]
        if stream.metric is not None:
            values = [one * root.square() for one, root in zip(values, stream.metric.roots)]
            values = [v if d is None else v + d for v, d in zip(values, stream.metric.penalty)]
        return EigenCurvature([Basis() for _ in values], values)
