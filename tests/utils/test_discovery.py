"""The list of methods is complete, and tests take it from one place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sklearn_source
from sklearn_source.base import BaseAttribution
from sklearn_source.utils.discovery import all_attributions


def test_every_public_method_is_listed():
    public = {name for name in sklearn_source.__all__ if isinstance(getattr(sklearn_source, name), type)}
    public = {name for name in public if issubclass(getattr(sklearn_source, name), BaseAttribution)}
    assert {name for name, _ in all_attributions()} == public
    assert len(public) >= 6


def test_kinds():
    gradient, feature, network = (dict(all_attributions(kind)) for kind in ("gradient", "feature", "network"))
    assert set(gradient) | set(feature) <= set(network) < set(dict(all_attributions()))
    assert not set(gradient) & set(feature)
    with pytest.raises(ValueError, match="expected kind to be one of"):
        all_attributions("tracin")


def test_no_test_has_a_list_of_its_own():
    tests = Path(__file__).resolve().parent.parent
    names = "|".join(name for name, _ in all_attributions("network"))
    listed = re.compile(rf"^\w+ = [\[(](({names})(\(\))?(, )?){{3,}}", re.MULTILINE)
    assert not [path for path in tests.rglob("*.py") if listed.search(path.read_text())]
