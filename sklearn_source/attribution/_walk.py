"""The walk of query gradients back through the segments of a training."""

from __future__ import annotations

from ..base import Term
from ..curvature import meeting_place


def walk_in_eigencoordinates(segments, queries, final, probe):
    """Score a segment with F, pass it with S, score the one before: the terms of SOURCE without preconditioner.

    The vectors go from one segment's eigencoordinates to the next one's in one change of basis, and meet the training
    rows in or outside of them, whichever is less work.
    """
    terms = []
    encoded = previous = None
    for segment in reversed(segments):
        curvature = segment.curvature
        if previous is None:
            encoded = queries.encoded(final, curvature.encode)
        else:
            encoded = previous.curvature.change(curvature, encoded)
        encoded = [v * p**0.5 for v, p in zip(encoded, segment.metric)]
        scored = curvature.scale(segment.integrate, encoded)
        factors = [-(p**0.5) / segment.n_rows for p in segment.metric]
        scored = [v.mul_(f) for v, f in zip(scored, factors)]
        values, bases = meeting_place(curvature, scored, probe, n_rows=queries.n_met, n_checkpoints=len(segment.states))
        terms.append(Term(segment.states, segment.weights, values, bases, segment.credited))
        if segment is not segments[0]:
            encoded = curvature.scale(segment.propagate, encoded)
            encoded = [v / p**0.5 for v, p in zip(encoded, segment.metric)]
        previous = segment
    return terms


def walk_in_parameters(segments, queries, final):
    """The same with a metric of its own for every element: between segments the vectors are parameters' gradients."""
    terms = []
    vectors = queries.encoded(final, lambda blocks: [gradient.matrix() for gradient in blocks])
    for segment in reversed(segments):
        scored, vectors = segment.step(vectors)
        values = [v.reshape(v.shape[0], -1) / -segment.n_rows for v in scored]
        terms.append(Term(segment.states, segment.weights, values, None, segment.credited))
    return terms
