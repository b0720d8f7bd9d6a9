"""Inner products of gradients at the trained weights: a gradient method of few lines."""

from __future__ import annotations

import numpy as np

from sklearn_source.base import GradientAttribution, Term


class GradientDot(GradientAttribution):
    """``tau[q, m] = -< grad f_q, grad l_m >`` at the trained weights; an order, no unit."""

    def __init__(
        self, net=None, *, measurement="auto", output=None, layers=None, batch_size=None, random_state=None, verbose=0
    ):
        self.net = net
        self.measurement = measurement
        self.output = output
        self.layers = layers
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    def _fit_gradients(self):
        """Nothing is learned beyond what the base has read: network, rows, gradients."""

    def _terms(self, queries):
        trained = self._gradients.trained
        # One factor per block of parameters. The sign: following -grad l_m is what training on row m does.
        values = queries.to_meet(trained, [-1.0 for _ in self._gradients.blocks])
        return [Term([trained], np.ones(1), values)]
