"""Slow, literal float64 reference for every number the package computes.

Plain torch autograd and explicit matrices: rows one by one, Kronecker products written out, P x P operators. Nothing
here imports the package under test, and nothing here is meant to be fast.

Conventions
-----------
- ``module``: float64, eval mode. ``params``: ``{name: tensor}`` (buffers may be among them); missing names keep the
  module's own values. ``names``: the parameters differentiated, in flat order; default every trainable one that
  ``params`` holds.
- ``loss_fn(output, y)`` and measurements see a batch of one row and return a scalar. ``columns_fn(output, y)`` returns
  a list of tensors like ``output``, the cotangents b_c with ``sum_c b_c b_c^T`` = Hessian (or Fisher) of that row's
  loss in its output.
- ``checkpoints``: list of ``(params, weight)``, weights summing to 1.
- Scores: ``(n_query, n_train)``, positive when the training row raised the measurement.
"""

from __future__ import annotations

from ._columns import (
    bernoulli_columns,
    empirical_columns,
    hessian_columns,
    laplace_columns,
    mse_columns,
    probability_columns,
    softmax_columns,
)
from ._dense import (
    Layout,
    column_gradients,
    ggn,
    ggn_from_columns,
    loss_hessian,
    make_layout,
    mean_hessian,
    row_gradients,
    row_jacobian,
)
from ._factors import Block, apply_phi, block_factors, blocks_matrix, phi_dense
from ._layers import LayerGroup, layer_gradient_matrices, unfold
from ._measurement import (
    log_odds,
    log_odds_binary,
    log_odds_probabilities,
    neg_loss,
    predicted_class,
    prediction,
)
from ._scores import (
    ReferenceSegment,
    auto_damping,
    influence_scores,
    mean_parameters,
    quadrature_weights,
    segment_operators,
    segment_rate,
    segment_second_order,
    source_from_checkpoints,
    source_scores,
    tracin_scores,
)
from ._training import Recipe, finite_difference_effects, leave_one_out_effects, measure, train

__all__ = [
    "Block",
    "LayerGroup",
    "Layout",
    "Recipe",
    "ReferenceSegment",
    "apply_phi",
    "auto_damping",
    "bernoulli_columns",
    "block_factors",
    "blocks_matrix",
    "column_gradients",
    "empirical_columns",
    "finite_difference_effects",
    "ggn",
    "ggn_from_columns",
    "hessian_columns",
    "influence_scores",
    "laplace_columns",
    "layer_gradient_matrices",
    "leave_one_out_effects",
    "log_odds",
    "log_odds_binary",
    "log_odds_probabilities",
    "loss_hessian",
    "make_layout",
    "mean_hessian",
    "mean_parameters",
    "measure",
    "mse_columns",
    "neg_loss",
    "phi_dense",
    "predicted_class",
    "prediction",
    "probability_columns",
    "quadrature_weights",
    "row_gradients",
    "row_jacobian",
    "segment_operators",
    "softmax_columns",
    "source_from_checkpoints",
    "source_scores",
    "segment_rate",
    "segment_second_order",
    "tracin_scores",
    "train",
    "unfold",
]
