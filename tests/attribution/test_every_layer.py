"""EK-FAC scores of networks of every kind of layer against the dense reference."""

from __future__ import annotations

import pytest

from sklearn_source import InfluenceFunctions, SourceAttribution
from tests.attribution._layers import LAYERS
from tests.attribution._runs import relative
from tests.reference import influence_scores

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


@pytest.mark.parametrize("kind", LAYERS)
def test_scores_are_those_of_the_dense_reference(kind, run):
    r = run(kind, momentum=0.5)
    found = SourceAttribution(n_segments=2).fit(r.net, r.X, r.y).transform(r.X_query)
    assert relative(found, r.source(n_segments=2)) < 1e-7
    last = r.trajectory.n_steps
    for curvature in ("ekfac", "kfac"):
        estimator = InfluenceFunctions(damping=0.05, curvature=curvature).fit(r.net, r.X, r.y)
        blocks = r.curvature([(r.params(last), 1.0)], curvature)
        expected = influence_scores(blocks, r.queries(), r.gradients(last), 0.05)
        assert relative(estimator.transform(r.X_query), expected) < 1e-7, curvature
