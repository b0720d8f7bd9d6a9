"""The API reference names what there is, all that is public, and the user guide and it lead to each other."""

from __future__ import annotations

import inspect
import re

import pytest

from tests.docs._reference import FOR_OTHER_ROOMS, exported, labels, listed, resolve

LISTED = listed()
LABELS = labels()


def test_the_reference_is_read():
    assert "sklearn_source.SourceAttribution" in LISTED
    assert "sklearn_source.metrics.top_k_overlap" in LISTED
    assert len(LISTED) == len(set(LISTED)) > 40


@pytest.mark.parametrize("name", LISTED)
def test_every_name_of_the_reference_exists(name):
    assert inspect.getdoc(resolve(name))


def test_every_public_name_is_in_the_reference():
    assert [name for name in exported() if name not in LISTED] == []


def test_what_is_left_out_of_the_reference_exists_and_is_not_in_it():
    for name in FOR_OTHER_ROOMS:
        resolve(name)
    assert FOR_OTHER_ROOMS.isdisjoint(LISTED)


@pytest.mark.parametrize("name", LISTED)
def test_docstrings_and_user_guide_lead_to_each_other(name):
    found = re.findall(r"Read more in the :ref:`User Guide <([\w-]+)>`\.", inspect.getdoc(resolve(name)))
    assert len(found) == 1, f"expected one line 'Read more in the :ref:`User Guide <label>`.' in {name}"
    assert found[0] in LABELS, f"no page under docs/ has the label {found[0]!r}"
    page = LABELS[found[0]].read_text(encoding="utf-8")
    assert re.search(rf":`~{re.escape(name)}`", page), f"{LABELS[found[0]]} does not link to {name}"
