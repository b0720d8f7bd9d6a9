"""How soon wrong labels are found by inspecting the rows of highest score."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ...metrics import mislabel_detection_score, mislabelled_mask
from ._matplotlib import REFERENCE, add_legend, axes_for, count_curve, finite_vector, next_curve, require_matplotlib


class MislabelDisplay:
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
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from sklearn_source.inspection import MislabelDisplay
    >>> display = MislabelDisplay.from_predictions([3.0, 0.1, 2.0, 0.2], [True, False, True, False])
    >>> display.auc, display.found
    (1.0, array([0. , 0.5, 1. , 1. , 1. ]))
    """

    def __init__(self, *, n_inspected, found, n_mislabelled, auc, name="self-influence"):
        self.n_inspected = n_inspected
        self.found = found
        self.n_mislabelled = n_mislabelled
        self.auc = auc
        self.name = name

    @classmethod
    def from_estimator(cls, estimator, is_mislabelled, *, name=None, show_references=True, ax=None):
        """Inspect training rows by their self-influence.

        Parameters
        ----------
        estimator : BaseAttribution
            Fitted.
        is_mislabelled : array-like of bool of shape (n_train,), or of int
            Which of the rows given to ``fit`` have a wrong label: a mask, or their positions.
        name : str, optional
            In the legend; default: self-influence by the class.
        show_references, ax : as in :meth:`from_predictions`

        Returns
        -------
        display : MislabelDisplay
            Drawn.

        Raises
        ------
        ValueError
            As :meth:`from_predictions`.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        mask = mislabelled_mask(is_mislabelled, estimator.n_train_)  # what is wrong with it is said before the work
        name = f"self-influence by {type(estimator).__name__}" if name is None else name
        return cls.from_predictions(estimator.self_influence(), mask, name=name, show_references=show_references, ax=ax)

    @classmethod
    def from_predictions(cls, scores, is_mislabelled, *, name="self-influence", show_references=True, ax=None):
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
        """
        require_matplotlib(f"{cls.__name__}.from_predictions")
        scores = finite_vector(scores, "scores")
        mask = mislabelled_mask(is_mislabelled, len(scores))
        result = mislabel_detection_score(scores, mask)
        return cls(
            n_inspected=result.n_inspected,
            found=result.found,
            n_mislabelled=int(mask.sum()),
            auc=result.score,
            name=name,
        ).plot(ax=ax, show_references=show_references)

    def plot(self, ax=None, *, show_references=True, color=None):
        """Draw.

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
        """
        from matplotlib.ticker import PercentFormatter

        ax = axes_for(ax, f"{type(self).__name__}.plot", (6.0, 4.6))
        n_train = int(self.n_inspected[-1])
        own, style, _ = next_curve(ax)
        self.random_ = self.ideal_ = None
        (self.line_,) = ax.plot(
            self.n_inspected,
            self.found,
            color=color or own,
            ls=style,
            lw=2.2,
            label=f"{self.name} (AUC {_short(self.auc)})",
            zorder=3,
        )
        count_curve(self.line_)
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
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _short(auc):
    """Two decimals, or three near the ends of the scale; 0 and 1 are written for nothing but themselves."""
    if abs(auc - 0.5) < 0.45:
        return f"{auc:.2f}"
    return f"{auc if auc in (0, 1) else np.clip(auc, 0.001, 0.999):.3f}"
