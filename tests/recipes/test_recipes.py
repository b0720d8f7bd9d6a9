"""Every recipe of training is right to 5 %, refused, or warned of in the fitting words; never silently wrong."""

from __future__ import annotations

import numpy as np
import pytest

from sklearn_source import SourceAttribution
from sklearn_source.curvature import EKFAC

from ._finite_differences import error_of, outcome, recorded, slopes
from ._matrix import CELLS, RECIPES
from ._recipe import METHODS


def _marked(recipe, method):
    marks = []
    if recipe.skip:
        marks.append(pytest.mark.skip(reason=recipe.skip))
    return pytest.param(recipe, method, id=f"{recipe.name}, {method}", marks=marks)


@pytest.mark.parametrize(("recipe", "method"), [_marked(*cell) for cell in CELLS])
def test_scores_are_right_or_not_given_in_silence(recipe, method, record_property):
    found = outcome(recipe, method, measured="warned" not in recipe.expect)
    record_property("error", found.error)
    assert found.kind != "crashed", found.words
    assert found.satisfies(recipe), f"{found.kind} ({found.error:.1%}): {found.words}"


def test_the_differences_are_derivatives():
    """Half the step changes nothing, and more directions say the same."""
    control, (training, estimator) = RECIPES[0], METHODS["SOURCE"]
    truth = slopes(control, training, n_directions=4)
    assert np.allclose(truth, slopes(control, training, control.eps / 2, n_directions=4), rtol=1e-5, atol=1e-8)
    scores = control.scores(estimator(), recorded(control, training)[0])
    assert error_of(scores, truth) < 0.03
    # What is wrong in size, sign or order is seen.
    for wrong in (1.1 * scores, scores / 1.1, -scores, scores[:, ::-1], scores[::-1]):
        assert error_of(wrong, truth) > 0.05


@pytest.mark.parametrize(("name", "most"), [("SGD", 0.05), ("momentum", 0.12), ("full batch", 0.19)])
def test_layers_coupled_or_not(name, most):
    """How far off EK-FAC is on a network of two layers: a third and more, a fifth at most where they are coupled."""
    recipe = next(recipe for recipe in RECIPES if recipe.name == name)
    truth, net = slopes(recipe, "plain"), recorded(recipe, "plain")[0]
    coupled, apart = (
        error_of(recipe.scores(SourceAttribution(n_segments=6, curvature=EKFAC(coupling=coupling)), net), truth)
        for coupling in ("layers", None)
    )
    assert coupled < most
    assert apart > 0.3


def test_forty_recipes_by_their_names():
    names = [recipe.name for recipe in RECIPES]
    assert len(set(names)) == len(names) >= 40
