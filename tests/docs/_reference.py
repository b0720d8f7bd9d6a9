"""What the documentation names: entries of the API reference, labels of the pages; and what the package exports."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# The rooms whose exports are for users.
ROOMS = (
    "sklearn_source",
    "sklearn_source.retraining",
    "sklearn_source.metrics",
    "sklearn_source.model_selection",
    "sklearn_source.inspection",
    "sklearn_source.datasets",
    "sklearn_source.modules",
    "sklearn_source.utils.estimator_checks",
    "sklearn_source.utils.discovery",
    "sklearn_source.curvature",
    "sklearn_source.base",
    "sklearn_source.diffusion",
    "sklearn_source.stochastic",
)
# Exported for other rooms of the house, which may import from a room's `__init__` only.
FOR_OTHER_ROOMS = {
    *(
        f"sklearn_source.curvature.{name}"
        for name in (
            "CURVATURES",
            "GaussNewtonRefit",
            "GramCurvature",
            "Inverse",
            "Metric",
            "choose_fisher",
            "decode_queries_or_rotate_rows",
            "fit_curvature",
            "moments",
            "refit_columns",
            "refit_draws",
            "resolve_curvature",
        )
    ),
    *(
        f"sklearn_source.stochastic.{name}"
        for name in (
            "DrawnRows",
            "draws_examples",
            "fresh_draws",
            "join_draws",
            "split_draws",
            "stacked_examples",
            "step_examples",
        )
    ),
    "sklearn_source.base.keep_refits",
    "sklearn_source.base.make_projection",
    "sklearn_source.base.net_first",
    "sklearn_source.base.net_with_steps",
    "sklearn_source.base.open_pipeline",
    "sklearn_source.base.require_trained",
    "sklearn_source.base.scores_by_term",
    "sklearn_source.base.unwrap",
    "sklearn_source.metrics.check_scores",
    "sklearn_source.metrics.mean_interval",
    "sklearn_source.metrics.student_interval",
    "sklearn_source.metrics.check_truth",
    "sklearn_source.metrics.mislabelled_mask",
    "sklearn_source.model_selection.queries_of",
    "sklearn_source.model_selection.scores_for",
    "sklearn_source.retraining.kept_fit",
    "sklearn_source.retraining.train_networks",
}


def listed():
    """Full names of what docs/api.rst lists, in its order."""
    names, module, inside = [], "", False
    for line in (DOCS / "api.rst").read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule::"):
            module = line.split("::")[1].strip()
        elif line.startswith(".. autosummary::"):
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        elif inside and re.fullmatch(r"   [A-Za-z_][\w.]*", line):
            names.append(f"{module}.{line.strip()}")
    return names


def resolve(name):
    """The object of a full name; AttributeError or ModuleNotFoundError where there is none."""
    parts = name.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError as error:
            if not name.startswith(f"{error.name}."):
                raise
            continue
        for part in parts[n:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def exported():
    """Full names of the public classes and functions of the rooms for users."""
    names = []
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in module.__all__:
            if inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name)):
                names.append(f"{room}.{name}")
    return [name for name in names if name not in FOR_OTHER_ROOMS]


def labels():
    """Label -> the page that has it."""
    return {
        label: page
        for page in sorted(DOCS.rglob("*.rst"))
        if not {"_build", "generated", "auto_examples", "_templates"} & set(page.relative_to(DOCS).parts)
        for label in re.findall(r"^\.\. _([\w-]+):$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
