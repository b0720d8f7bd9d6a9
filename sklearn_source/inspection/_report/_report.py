"""What a report found, as tables and as a page."""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import Bunch

from ...utils._argument_checks import check_count, check_path
from ...utils._atomic import atomic_write
from ...utils._random import draw_seed
from .._table import make_table
from ._page import render
from ._question import Question
from ._readable import ReadableRows

if TYPE_CHECKING:
    import pandas

_HEIGHT = 720  # pixels of the page inside a notebook


class AttributionReport:
    """What stands behind the errors of a network: issues of training rows, actions with their effects, and a page.

    Made by :func:`attribution_report`. In a notebook it shows itself.

    Read more in the :ref:`User Guide <attribution_report>`.

    Parameters
    ----------
    question : Question
        What was asked.
    rows : ReadableRows
        The rows as people read them.
    found : Bunch
        What was found.

    Attributes
    ----------
    issues_ : DataFrame or recarray
        Training rows to look at, worst first: ``row``, its place; ``suggestion`` and ``reason``; whether it is an issue
        of its label, a near duplicate or does harm (``is_label_issue``, ``is_near_duplicate_issue``,
        ``is_harmful_issue``); ``label_score``, how well the label fits, from 0 to 1; ``label`` and ``suggested_label``;
        ``harm``, how far it pushed the queries looked at towards their error, summed, in the unit of the scores, and
        ``n_harmed``, of how many it is among the strongest that did; ``loss`` and ``self_influence``. Columns that the
        method does not tell are left out.
    actions_ : DataFrame or recarray
        What might be done, best first: ``action``, ``description``, ``n_rows``; the predicted change of the number of
        errors, the mean loss and the mean measurement over all held-out rows with the ends of its interval
        (``errors_change``, ``errors_low``, ``errors_high``, ...), of the accuracy (``accuracy_change``); ``rows``,
        ``labels`` and ``cautions``. NaN where nothing is predicted, ``cautions`` then says why.
    groups_ : BehaviourGroups
        Groups of training rows behind the errors, from :func:`behaviour_groups`; empty where there are none.
    regions_ : list of Bunch
        Thinly covered places: ``queries`` that rest on few training rows, and these ``rows``; largest first.
    queries_ : ndarray of int
        The held-out rows looked at.
    confirmed_ : DataFrame, recarray or None
        What :meth:`confirm` found last.
    tables : dict of int to recarray
        What it found of each action so far, by the action's place, for the page.

    See Also
    --------
    attribution_report : Makes it.
    """

    def __init__(self, question: Question, rows: ReadableRows, found: Bunch):
        self.question = question
        self.rows = rows
        self.found = found
        issues = dict(found.issues)
        for name in ("label", "suggested_label"):
            if name in issues:
                issues[name] = np.array([rows.answer(value) for value in issues[name]], dtype=object)
        self.issues_: pandas.DataFrame | np.recarray = make_table(issues)
        self.actions_: pandas.DataFrame | np.recarray = make_table(found.actions)
        self.groups_: Any = found.groups
        self.regions_: list[Bunch] = found.regions
        self.queries_: np.ndarray = question.asked
        self.confirmed_: pandas.DataFrame | np.recarray | None = None
        self.tables: dict[int, np.ndarray] = {}

    def save(self, path: str | os.PathLike) -> Path:
        """Write the page, one file that needs neither server nor network.

        Parameters
        ----------
        path : path-like
            Of the file, ``report.html`` say; one that is there is replaced.

        Returns
        -------
        path : Path
            Where it is.

        Raises
        ------
        ImportError
            Without jinja2.
        FileNotFoundError
            If there is no such folder.
        """
        place: Path = check_path("path", path)
        if place.is_dir():
            raise IsADirectoryError(f"expected the path of a file, got the folder {place}: name a file in it")
        if not place.parent.is_dir():
            raise FileNotFoundError(f"expected a path in a folder that exists, got {place}: there is no {place.parent}")
        page = self.to_html().encode("utf-8")
        with atomic_write(place) as part:
            part.write_bytes(page)
        return place

    def to_html(self) -> str:
        """Write the page into a string.

        Returns
        -------
        page : str
            A whole document.

        Raises
        ------
        ImportError
            Without jinja2.
        """
        return render(self)

    def confirm(
        self,
        actions: Sequence[int] | None = None,
        *,
        n_repeats: int = 5,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        engine: str = "auto",
        cache: str | os.PathLike | None = None,
        verbose: int = 0,
        as_frame: bool | str = "auto",
    ) -> pandas.DataFrame | np.recarray:
        """Train with actions and without, and tell what was predicted beside what happened.

        The page then shows both.

        Parameters
        ----------
        actions : sequence of int, optional
            Which, by their places in ``actions_``; all whose effect is predicted.
        n_repeats : int, default=5
            Networks of each kind; see :meth:`ActionEffect.confirm`.
        random_state : int, RandomState instance or None, default=None
            Decides initial weights, batch order and whatever else is drawn.
        n_jobs : int or None, default=None
            Processes among which networks are shared out.
        engine : {"auto", "vectorized", "joblib"}, default="auto"
            See :func:`~sklearn_source.retraining.retrain_on_subsets`.
        cache : path-like, optional
            A folder where finished networks are kept. Without it those trained on all rows are shared by the actions
            of one call.
        verbose : int, default=0
            Show progress.
        as_frame : bool or "auto", default="auto"
            A pandas DataFrame, or else a NumPy record array. "auto": a frame where pandas is installed.

        Returns
        -------
        table : DataFrame or recarray
            Columns ``action``, its place; ``quantity``; ``predicted`` and ``retrained`` change over all held-out rows,
            ``predicted_error`` and ``retrained_error``, standard errors: the first over held-out rows and networks, the
            second over the repeats. Also in ``confirmed_``.

        Raises
        ------
        ValueError
            If an action does not exist, nothing is predicted of it, or the network cannot be retrained.
        """
        check_count("n_repeats", n_repeats)
        effects = self.found.effects
        chosen = [i for i, e in enumerate(effects) if e is not None] if actions is None else [int(i) for i in actions]
        wrong = [i for i in chosen if not 0 <= i < len(effects) or effects[i] is None]
        if wrong or not chosen:
            known = [i for i, effect in enumerate(effects) if effect is not None]
            raise ValueError(f"expected actions whose effect is predicted, of {known}, got {wrong or 'none'}")
        # The same networks for all actions, and those that an action alone would be confirmed by.
        seed = random_state if isinstance(random_state, Integral) else draw_seed(random_state)
        with tempfile.TemporaryDirectory() as folder:
            for i in chosen:
                self.tables[i] = effects[i].confirm(
                    n_repeats=n_repeats, random_state=seed, n_jobs=n_jobs, engine=engine,
                    cache=folder if cache is None else cache, verbose=verbose, as_frame=False,
                ).table  # fmt: skip
        lines = [(i, *line) for i in chosen for line in self.tables[i].tolist()]
        names = ("action", "quantity", "predicted", "retrained", "predicted_error", "retrained_error")
        columns = {name: np.array(column) for name, column in zip(names, zip(*lines))}
        self.confirmed_ = make_table(columns, as_frame)
        return self.confirmed_

    def _repr_html_(self) -> str | None:
        try:
            page = html.escape(self.to_html(), quote=True)
        except ImportError:  # without jinja2 a notebook shows the words of __repr__
            return None
        style = f"width:100%;height:{_HEIGHT}px;border:1px solid #8884;border-radius:6px"
        name = html.escape(self.found.title, quote=True)
        return f'<iframe srcdoc="{page}" title="{name}" style="{style}" sandbox="allow-scripts"></iframe>'

    def __repr__(self) -> str:
        return (
            f"AttributionReport of {len(self.queries_)} held-out rows by {type(self.question.estimator).__name__}: "
            f"{len(self.found.issues['row'])} issues, {len(self.found.actions['action'])} actions, "
            f"{len(self.found.groups)} groups, {len(self.regions_)} regions; save('report.html') writes the page"
        )
