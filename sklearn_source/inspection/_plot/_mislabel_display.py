"""How soon wrong labels are found by inspecting the rows of highest score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ...metrics import mislabel_detection_score, mislabelled_mask
from ._curves import add_legend, draw_curve
from ._display import Display, finite_vector
from ._matplotlib import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class MislabelDisplay(Display):
    """The share of wrong labels found in the rows inspected so far, beside random order and the ideal, with the AUC.

    Made by :meth:`from_estimator` or :meth:`from_predictions`. Several scores go into one picture by drawing into the
    same axes with ``show_references=False``.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    n_inspected : ndarray of shape (n_train + 1,)
        Numbers of rows inspected: 0, 1, ..., n_train.
    found : ndarray of shape (n_train + 1,)
        Share of the wrong labels among them; of rows of equal score the mean over all orders.
    n_mislabelled : int
        How many there are.
    auc : float
        Chance that a mislabelled row has a higher score than a correct one: 0.5 for noise, 1 for a perfect order.
    name : str, default="self-influence"
        In the legend.

    Attributes
    ----------
    line_ : Line2D
        The curve: the share found over the number of rows inspected.
    random_, ideal_ : Line2D or None
        What a random order finds, and one with all wrong labels first; None where not shown.
    ax_ : matplotlib Axes
        The axes drawn in.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    sklearn_source.metrics.mislabel_detection_score : The numbers.
    audit_training_rows : Rows that may be mislabelled, where nobody knows which are.

    Examples
    --------
    >>> from sklearn_source.inspection import MislabelDisplay
    >>> display = MislabelDisplay.from_predictions([3.0, 0.1, 2.0, 0.2], [True, False, True, False])
    >>> display.auc, display.found
    (1.0, array([0. , 0.5, 1. , 1. , 1. ]))
    """

    def __init__(
        self,
        *,
        n_inspected: np.ndarray,
        found: np.ndarray,
        n_mislabelled: int,
        auc: float,
        name: str = "self-influence",
    ):
        self.n_inspected = n_inspected
        self.found = found
        self.n_mislabelled = n_mislabelled
        self.auc = auc
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        is_mislabelled: ArrayLike,
        *,
        name: str | None = None,
        show_references: bool = True,
        ax: Axes | None = None,
    ) -> MislabelDisplay:
        """Inspect training rows by their self-influence.

        Parameters
        ----------
        estimator : BaseAttribution
            Fitted.
        is_mislabelled : array-like of bool of shape (n_train,), or of int
            Which of the rows given to ``fit`` have a wrong label: a mask, or their positions.
        name : str, optional
            In the legend; default: self-influence by the class.
        show_references : bool, default=True
            Whether to draw random order and the ideal.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : MislabelDisplay
            Drawn.

        Raises
        ------
        ValueError
            If the mask or the positions are not those of rows, or all or none of the rows are mislabelled.
        ImportError
            Without matplotlib.
        """
        cls._require_matplotlib("from_estimator")
        check_is_fitted(estimator)
        mask = mislabelled_mask(is_mislabelled, estimator.n_train_)  # what is wrong with it is said before the work
        name = f"self-influence by {type(estimator).__name__}" if name is None else name
        return cls.from_predictions(estimator.self_influence(), mask, name=name, show_references=show_references, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        scores: ArrayLike,
        is_mislabelled: ArrayLike,
        *,
        name: str = "self-influence",
        show_references: bool = True,
        ax: Axes | None = None,
    ) -> MislabelDisplay:
        """Inspect training rows by any score: the higher, the sooner.

        Parameters
        ----------
        scores : array-like of shape (n_train,)
            Self-influence, the loss, disagreement of neighbours, ...
        is_mislabelled : array-like of bool of shape (n_train,), or of int
            Which rows have a wrong label: a mask, or their positions.
        name : str, default="self-influence"
            In the legend.
        show_references : bool, default=True
            Whether to draw random order and the ideal.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : MislabelDisplay
            Drawn.

        Raises
        ------
        ValueError
            If lengths differ, scores are not finite, or all or none of the rows are mislabelled.
        ImportError
            Without matplotlib.
        """
        cls._require_matplotlib("from_predictions")
        row_scores = finite_vector(scores, "scores")
        mask = mislabelled_mask(is_mislabelled, len(row_scores))
        result = mislabel_detection_score(row_scores, mask)
        return cls(
            n_inspected=result.n_inspected,
            found=result.found,
            n_mislabelled=int(mask.sum()),
            auc=result.score,
            name=name,
        ).plot(ax=ax, show_references=show_references)

    def plot(self, ax: Axes | None = None, *, show_references: bool = True, color: Any = None) -> MislabelDisplay:
        """Draw the curve, and what it is compared with.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where; default: a new figure.
        show_references : bool, default=True
            Whether to draw random order and the ideal.
        color : matplotlib color, optional
            Of the curve; default: another one for each in the same axes.

        Returns
        -------
        display : MislabelDisplay
            Itself.

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        ax = self._set_axes(ax, (6.0, 4.6))
        from matplotlib.ticker import PercentFormatter

        n_train = int(self.n_inspected[-1])
        self.random_ = self.ideal_ = None
        name = f"{self.name} (AUC {_format_auc(self.auc)})"
        self.line_ = draw_curve(ax, self.n_inspected, self.found, name, color=color, lw=2.2)
        if show_references:
            corner = [0, self.n_mislabelled, n_train]
            (self.ideal_,) = ax.plot(corner, [0, 1, 1], ":", color="black", lw=1.5, label="ideal: wrong labels first")
            (self.random_,) = ax.plot([0, n_train], [0, 1], "-", color=REFERENCE, lw=1.2, label="random order")
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.set_xlim(0, n_train)
        ax.set_ylim(0, 1.03)
        ax.set_xlabel(f"training rows inspected, of {n_train},\nhighest score first")
        ax.set_ylabel(f"wrong labels found, of {self.n_mislabelled}")
        ax.grid(alpha=0.3)
        add_legend(ax, below_diagonal=True)
        return self


def _format_auc(auc):
    """An AUC as str: two decimals, or three near the ends of the scale; 0 and 1 for nothing but themselves."""
    if abs(auc - 0.5) < 0.45:
        return f"{auc:.2f}"
    return f"{auc if auc in (0, 1) else np.clip(auc, 0.001, 0.999):.3f}"
