"""Concrete compressive strength: the real table that the example and the tests train on."""

from __future__ import annotations

from importlib import resources

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch

from ..utils._argument_checks import check_switch
from ..utils._random import generator_of

_DATA_MODULE = "sklearn_source.datasets.data"
_N_TRAIN, _N_QUERY = 896, 103


def load_concrete(*, return_X_y: bool = False, as_frame: bool = False) -> Bunch | tuple:
    """Load the Concrete compressive strength table (regression, 1030 rows, 8 features).

    The file comes with the package; nothing is downloaded.

    Read more in the :ref:`User Guide <example_data>`.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return `(data, target)` instead of a Bunch.
    as_frame : bool, default=False
        Return `data` as a pandas DataFrame and `target` as a Series.

    Returns
    -------
    concrete : :class:`~sklearn.utils.Bunch` or tuple
        The tuple `(data, target)` if `return_X_y`, else:

        data : ndarray of shape (1030, 8), float32
            The mixes: kg per cubic metre, and the age in days. A DataFrame if `as_frame`.
        target : ndarray of shape (1030,), float32
            Compressive strength in MPa. A Series if `as_frame`.
        feature_names : list of str
            Names of the 8 columns.
        target_names : list of str
            Name of the target.
        frame : DataFrame of shape (1030, 9) or None
            Both together if `as_frame`.
        DESCR : str
            The source, the units and the licence (CC BY 4.0).
        filename, data_module : str
            Where the file lies inside the package.

    Raises
    ------
    ImportError
        If `as_frame` is asked for and pandas is not installed.

    See Also
    --------
    load_concrete_split : Training rows and queries, standardised.

    Examples
    --------
    >>> from sklearn_source.datasets import load_concrete
    >>> X, y = load_concrete(return_X_y=True)
    >>> X.shape, y.shape
    ((1030, 8), (1030,))
    """
    folder = resources.files(_DATA_MODULE)
    with (folder / "concrete.csv").open(encoding="utf-8") as file:
        *feature_names, target_name = file.readline().strip().split(",")
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    data, target = np.ascontiguousarray(table[:, :-1]), table[:, -1].copy()
    frame = None
    check_switch("return_X_y", return_X_y)
    if check_switch("as_frame", as_frame):
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("as_frame=True needs pandas: install it, or leave as_frame=False") from error
        frame = pd.DataFrame(table, columns=[*feature_names, target_name])
        data, target = frame[feature_names], frame[target_name]
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        frame=frame,
        feature_names=feature_names,
        target_names=[target_name],
        DESCR=(folder / "concrete.rst").read_text(encoding="utf-8"),
        filename="concrete.csv",
        data_module=_DATA_MODULE,
    )


def load_concrete_split(*, random_state: int | np.random.RandomState | None = 0) -> Bunch:
    """Load Concrete as the attribution benchmarks use it: 896 training rows, 103 query rows, standardised.

    The scalers are fitted on the training rows alone. The other 31 of the 1030 rows are left out: the sizes
    are those of [1]_.

    Read more in the :ref:`User Guide <example_data>`.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=0
        Decides which rows are training rows and which are queries.

    Returns
    -------
    split : :class:`~sklearn.utils.Bunch`
        X_train, X_query : ndarray of shape (896, 8) and (103, 8), float32
            Standardised features.
        y_train, y_query : ndarray of shape (896, 1) and (103, 1), float32
            Standardised strength, a column as the single output of :class:`~sklearn_source.modules.MLP` is: a flat
            target would be broadcast against it.
        indices_train, indices_query : ndarray of shape (896,) and (103,), int
            The rows of :func:`load_concrete` they are.
        scaler_X, scaler_y : :class:`~sklearn.preprocessing.StandardScaler`
            The fitted scalers; `scaler_y.scale_[0]` is one standardised unit in MPa.
        feature_names : list of str
            Names of the 8 columns.

    See Also
    --------
    load_concrete : All rows, in their own units.

    References
    ----------
    .. [1] J. Bae, W. Lin, J. Lorraine, R. Grosse, "Training Data Attribution via Approximate Unrolled Differentiation",
       2024, arXiv:2405.12186.

    Examples
    --------
    >>> from sklearn_source.datasets import load_concrete_split
    >>> split = load_concrete_split()
    >>> split.X_train.shape, split.y_query.shape
    ((896, 8), (103, 1))
    """
    concrete: Bunch = load_concrete()
    train, query = train_test_split(
        np.arange(len(concrete.data)), train_size=_N_TRAIN, test_size=_N_QUERY, random_state=generator_of(random_state)
    )
    # Fitted in float64: the scalers stay exact, and only what the network sees is rounded to float32.
    X, y = concrete.data.astype(np.float64), concrete.target.astype(np.float64)[:, None]
    scaler_X, scaler_y = StandardScaler().fit(X[train]), StandardScaler().fit(y[train])
    X, y = scaler_X.transform(X).astype(np.float32), scaler_y.transform(y).astype(np.float32)
    return Bunch(
        X_train=X[train],
        y_train=y[train],
        X_query=X[query],
        y_query=y[query],
        indices_train=train,
        indices_query=query,
        scaler_X=scaler_X,
        scaler_y=scaler_y,
        feature_names=concrete.feature_names,
    )
