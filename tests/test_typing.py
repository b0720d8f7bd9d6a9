"""The public API is annotated, as py.typed promises; ``python3 tasks.py types`` has mypy check what is said."""

from __future__ import annotations

import functools
import inspect

import pytest

from tests.docs._reference import listed, resolve

# Not annotated when this test came, to be annotated where they stand: the list only shrinks.
BARE = {
    "sklearn_source.retraining.retrain_on_subsets",
    "sklearn_source.retraining.leave_one_out",
    "sklearn_source.retraining.retrain_without",
    "sklearn_source.retraining.Retraining",
    "sklearn_source.metrics.linear_datamodeling_score",
    "sklearn_source.metrics.linear_datamodeling_difference",
    "sklearn_source.metrics.leave_one_out_correlation",
    "sklearn_source.metrics.subset_removal_score",
    "sklearn_source.metrics.top_k_removals",
    "sklearn_source.metrics.mislabel_detection_score",
    "sklearn_source.metrics.class_detection_score",
    "sklearn_source.metrics.model_randomization_score",
    "sklearn_source.metrics.top_k_overlap",
    "sklearn_source.model_selection.make_lds_scorer",
    "sklearn_source.model_selection.FullTrainingSet",
    "sklearn_source.model_selection.held_out_score",
    "sklearn_source.utils.estimator_checks.check_attribution_estimator",
    "sklearn_source.utils.estimator_checks.parametrize_with_attribution_checks",
}


def functions(obj):
    """Name -> function: of a function itself, of a class its constructor, public methods and properties."""
    if not inspect.isclass(obj):
        return {obj.__name__: obj}
    functions = {}
    for name, member in vars(obj).items():
        if isinstance(member, property):
            member = member.fget
        elif isinstance(member, functools.cached_property):
            member = member.func
        member = inspect.unwrap(getattr(member, "__func__", member))
        if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
            functions[name] = member
    return functions


def lacking(name, function):
    """What a function's signature does not say."""
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    lacks = [f"{name}({p.name})" for p in parameters if p.annotation is p.empty]
    if signature.return_annotation is signature.empty and name != "__init__":
        lacks.append(f"{name} -> ?")
    return lacks


@pytest.mark.parametrize("name", listed())
def test_public_signatures_are_annotated(name):
    lacks = [lack for called, function in functions(resolve(name)).items() for lack in lacking(called, function)]
    if name in BARE:
        assert lacks, "annotated: take it off the list"
    else:
        assert lacks == []


def test_the_list_names_what_there_is():
    assert BARE <= set(listed())


def test_what_a_signature_lacks():
    """The check itself sees parameters, results and the members of a class."""

    class Example:
        def __init__(self, a, b: int = 0):
            pass

        @property
        def size(self):
            return 0

        @functools.cached_property
        def kept(self):
            return 0

        @classmethod
        def make(cls, a: int):
            pass

        def said(self, a: int) -> int:
            return a

        def _private(self, a):
            pass

    lacks = [lack for name, function in functions(Example).items() for lack in lacking(name, function)]
    assert lacks == ["__init__(a)", "size -> ?", "kept -> ?", "make -> ?"]
