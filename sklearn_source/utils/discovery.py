"""All attribution methods of the package, for tests and tools that go through them."""

from __future__ import annotations

import inspect

from .. import attribution
from ..base import BaseAttribution, FeatureAttribution, GradientAttribution, NetworkAttribution

__all__ = ["all_attributions"]

_KINDS = {
    None: BaseAttribution,
    "network": NetworkAttribution,
    "gradient": GradientAttribution,
    "feature": FeatureAttribution,
}


def all_attributions(kind: str | None = None) -> list[tuple[str, type[BaseAttribution]]]:
    """The attribution methods of the package, as :func:`sklearn.utils.discovery.all_estimators` lists estimators.

    Read more in the :ref:`User Guide <attribution_checks>`.

    Parameters
    ----------
    kind : {"network", "gradient", "feature"}, default=None
        Only those that look into a trained network, that are built on per-row gradients, or on features of rows. None:
        all, those too that know no network (:class:`~sklearn_source.EmpiricalInfluence`).

    Returns
    -------
    attributions : list of (str, class)
        Names and classes, sorted by name.

    Raises
    ------
    ValueError
        If ``kind`` is unknown.

    Examples
    --------
    >>> from sklearn_source.utils.discovery import all_attributions
    >>> [name for name, _ in all_attributions("feature")]
    ['RepresentationSimilarity', 'TRAK']
    """
    if kind not in _KINDS:
        raise ValueError(f"expected kind to be one of {list(_KINDS)}, got {kind!r}")
    exported = [(name, getattr(attribution, name)) for name in attribution.__all__]
    return sorted(
        (name, cls)
        for name, cls in exported
        if inspect.isclass(cls) and issubclass(cls, _KINDS[kind]) and not inspect.isabstract(cls)
    )
