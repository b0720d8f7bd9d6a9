"""Running the checks: on one estimator, or as a pytest parametrization."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sklearn.base import clone

from . import _errors, _scores, _state
from ._cases import TASKS, make_case
from ._size import check_attribution_size
from ._unit import check_attribution_unit

if TYPE_CHECKING:
    import pytest

CHECKS = (
    _scores.check_attribution_output,
    _scores.check_attribution_query_batches,
    _scores.check_attribution_batch_size,
    _scores.check_attribution_permuted_rows,
    _scores.check_attribution_top_influences,
    _scores.check_attribution_self_influence,
    _scores.check_attribution_float64,
    _state.check_attribution_net_untouched,
    _state.check_attribution_frozen_net,
    _state.check_attribution_bare_net,
    _state.check_attribution_pickle,
    _state.check_attribution_refit,
    _state.check_attribution_failed_fit,
    _errors.check_attribution_unfitted,
    _errors.check_attribution_untrained_net,
    _errors.check_attribution_other_rows,
    _errors.check_attribution_not_finite,
    _errors.check_attribution_width,
    _errors.check_attribution_k,
)


def check_attribution_estimator(
    estimator: Any,
    *,
    has_unit: bool | str = "auto",
    unit_factor: float = 2.5,
    tasks: Sequence[str] = TASKS,
    expected_failed_checks: Mapping[str, str] | None = None,
    on_fail: str | None = "raise",
) -> list[dict[str, Any]]:
    """Check that an estimator keeps the contract of attribution methods.

    The checks train tiny networks (24 rows, 3 features) with skorch and hand them to the estimator. They come on top of
    scikit-learn's own ``check_estimator``, which an estimator passes through a bare net in its constructor.

    Read more in the :ref:`User Guide <attribution_checks>`.

    Parameters
    ----------
    estimator : estimator object
        An instance without a net: ``fit(net, X, y)`` gives it one. A constructor parameter ``net``, where there is one,
        is checked too; so are ``measurement``, ``batch_size`` and ``random_state``.
    has_unit : bool or "auto", default="auto"
        Whether scores carry the unit of the measurement, so that their sign and size are compared with retraining: of a
        linear model, and of a network of two layers, where sums over groups have to be within a factor of 4/3.
        ``"auto"`` asks the estimator's attribute ``has_unit``; without one, no.
    unit_factor : float, default=2.5
        How far scores may be from the effect measured by retraining a linear model, half-way to convergence. SOURCE
        stands 1.2.
    tasks : sequence of {"regression", "classification"}, default=both
        The networks it can serve. The unit is checked on a regression.
    expected_failed_checks : dict of str to str, optional
        Names of checks that may fail, and why. First-order methods fail ``"check_attribution_size"``: nothing in them
        says that later steps take back what earlier ones did.
    on_fail : {"raise", None}, default="raise"
        None: go on after a failure, which the result then tells.

    Returns
    -------
    results : list of dict
        Per check: ``estimator``, ``check_name``, ``task``, ``status`` ("passed", "failed" or "xfail") and ``exception``
        (None where it passed).

    Raises
    ------
    AssertionError
        From the first check that fails, with ``on_fail="raise"``. It says what was expected and what came.

    Examples
    --------
    >>> from sklearn_source import GradientSimilarity
    >>> from sklearn_source.utils.estimator_checks import check_attribution_estimator
    >>> results = check_attribution_estimator(GradientSimilarity(), tasks=["regression"])
    >>> {result["status"] for result in results}
    {'passed'}
    """
    if on_fail not in ("raise", None):
        raise ValueError(f"expected on_fail to be 'raise' or None, got {on_fail!r}")
    allowed = dict(expected_failed_checks or {})
    results = []
    for check_name, task, check in _checks(estimator, has_unit, unit_factor, tasks):
        status, exception = "passed", None
        try:
            check(estimator)
        except Exception as error:
            status, exception = ("xfail" if check_name in allowed else "failed"), error
            if status == "failed" and on_fail == "raise":
                raise
        results.append(
            {
                "estimator": estimator,
                "check_name": check_name,
                "task": task,
                "status": status,
                "exception": exception,
            }
        )
    return results


def parametrize_with_attribution_checks(
    estimators: Sequence[Any],
    *,
    has_unit: bool | str = "auto",
    unit_factor: float = 2.5,
    tasks: Sequence[str] = TASKS,
    expected_failed_checks: Callable[[Any], Mapping[str, str]] | None = None,
) -> pytest.MarkDecorator:
    """Parametrize a pytest test by estimators and the checks of :func:`check_attribution_estimator`.

    Read more in the :ref:`User Guide <attribution_checks>`.

    Parameters
    ----------
    estimators : list of estimator objects
        Instances without a net.
    has_unit : bool or "auto", default="auto"
        Whether their scores carry the unit of the measurement; ``"auto"`` asks each estimator's attribute ``has_unit``.
    unit_factor : float, default=2.5
        How far scores may be from the effect measured by retraining.
    tasks : sequence of {"regression", "classification"}, default=both
        The networks they can serve.
    expected_failed_checks : callable, optional
        ``expected_failed_checks(estimator)`` gives the dict of names to reasons for one of them, as in scikit-learn's
        ``parametrize_with_checks``.

    Returns
    -------
    decorator : pytest.MarkDecorator
        For a test of two arguments, ``estimator`` and ``check``; the test calls ``check(estimator)``.

    Examples
    --------
    >>> from sklearn_source import TracIn
    >>> from sklearn_source.utils.estimator_checks import parametrize_with_attribution_checks
    >>> @parametrize_with_attribution_checks([TracIn()])
    ... def test_attribution(estimator, check):
    ...     check(estimator)
    """
    import pytest  # only who writes tests needs it

    parameters = []
    for estimator in estimators:
        allowed = {} if expected_failed_checks is None else expected_failed_checks(estimator)
        for check_name, task, check in _checks(estimator, has_unit, unit_factor, tasks):
            marks = [pytest.mark.xfail(reason=allowed[check_name])] if check_name in allowed else []
            label = f"{estimator!r}-{check_name}-{task}".replace("\n", "").replace(" ", "")
            parameters.append(pytest.param(estimator, check, marks=marks, id=label))
    return pytest.mark.parametrize("estimator, check", parameters)


def _run(check, task, estimator):
    """Run a check on a clone of an estimator, with the rows and the net of a task."""
    check(type(estimator).__name__, clone(estimator), make_case(task))


def _checks(estimator, has_unit, unit_factor, tasks):
    """(name of the check, task, what checks an estimator) for all that apply to this one."""
    if has_unit not in (True, False, "auto"):
        raise ValueError(f"expected has_unit to be True, False or 'auto', got {has_unit!r}")
    tasks = list(tasks)
    if not tasks or not set(tasks) <= set(TASKS):
        raise ValueError(f"expected tasks to be some of {TASKS}, got {tasks}")
    if isinstance(estimator, type):
        raise TypeError(f"expected an instance, got the class {estimator.__name__}: pass {estimator.__name__}()")
    if estimator.get_params(deep=False).get("net") is not None:
        raise ValueError(
            "expected an estimator without a net, as the checks bring their own, got one with: pass it with net=None"
        )
    checks = [(check.__name__, task, check) for task in tasks for check in CHECKS]
    unit = getattr(estimator, "has_unit", False) if has_unit == "auto" else has_unit
    if unit and "regression" in tasks:
        check = partial(check_attribution_unit, factor=unit_factor)
        checks.append((check_attribution_unit.__name__, "regression", check))
        checks.append((check_attribution_size.__name__, "regression", check_attribution_size))
    return [(name, task, partial(_run, check, task)) for name, task, check in checks]
