"""The walk of query gradients back through the segments of a training."""

from __future__ import annotations

from ..base import Term
from ..curvature import decode_queries_or_rotate_rows


def walk_in_eigencoordinates(segments, queries, final, probe):
    """Score a segment with F, pass it with S, score the one before: the terms of SOURCE without preconditioner.

    The vectors go from one segment's eigencoordinates to the next one's in one change of basis, and meet the training
    rows in or outside of them, whichever is less work.
    """
    terms = []
    encoded = previous = None
    for segment in reversed(segments):
        curvature = segment.curvature.within(queries.coupling_tol)
        if previous is None:
            encoded = queries.encoded(final, curvature.encode)
        else:
            encoded = previous.curvature.change(curvature, encoded)
        encoded = times(encoded, segment.metric, 0.5)
        last = segment is segments[0]
        scored, *passed = curvature.scale_all([segment.integration, segment.propagation][: 1 if last else 2], encoded)
        scored = [v * (-(p**0.5) / segment.n_rows) for v, p in zip(scored, segment.metric)]
        values, bases = decode_queries_or_rotate_rows(
            curvature, scored, probe, n_rows=queries.n_met, n_checkpoints=len(segment.states), tol=queries.tol
        )
        terms.append(Term(segment.states, segment.weights, values, bases, segment.credited))
        if not last:
            encoded = times(passed[0], segment.metric, -0.5)
        previous = segment
    return terms


def times(vectors, metric, power):
    """Every block's vectors times a power of its rate relative to the largest; most often that is one, or None."""
    if metric is None:
        return vectors
    return [v if p == 1 else v * p**power for v, p in zip(vectors, metric)]


def walk_in_parameters(segments, queries, final):
    """The same with a metric of its own for every element: between segments the vectors are parameters' gradients."""
    terms = []
    vectors = queries.encoded(final, lambda blocks: [gradient.matrix() for gradient in blocks])
    for segment in reversed(segments):
        integrated, vectors = segment.integrated_and_propagated(vectors, propagate=segment is not segments[0])
        values = [v.reshape(v.shape[0], -1) / -segment.n_rows for v in integrated]
        values = queries.within_tol(values, len(segment.states))
        terms.append(Term(segment.states, segment.weights, values, None, segment.credited))
    return terms
