"""How training went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._plotting import Display, class_style, new_axes, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = ("-", "--", ":", "-.")


class TrainingCurveDisplay(Display):
    """Losses of the training and validation samples, the score and the learning rate by epoch.

    Parameters
    ----------
    cross_entropy : array-like of shape (n_epochs,)
        Mean cross-entropy of the training batches.
    contrastive : array-like of shape (n_epochs,), default=None
        Mean contrastive term; None where its weight is 0.
    loss : array-like of shape (n_epochs,), default=None
        Their weighted sum, which is what training lowers.
    validation_loss : array-like of shape (n_epochs,), default=None
        The same sum on the validation samples; None where there are none. Where it rises
        while the training loss falls, the classifier overfits.
    validation_score : array-like of shape (n_epochs,), default=None
        Score of the validation samples; None where there are none.
    learning_rate : array-like of shape (n_epochs,), default=None
        Rate at the end of each epoch.
    score_name : str, default="accuracy"
        What the validation score is.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        What the panels divide; the title of ``ax_`` is the title of all.
    axes_ : ndarray of matplotlib Axes
        The panels, from top to bottom.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_clce import CLCEClassifier, TrainingCurveDisplay
    >>> digits = load_digits(n_class=3)
    >>> clf = CLCEClassifier(image_size=32, trainable="head", max_epochs=5, random_state=0)
    >>> clf.fit(digits.images[:90] / 16, digits.target[:90])
    CLCEClassifier(image_size=32, max_epochs=5, random_state=0, trainable='head')
    >>> display = TrainingCurveDisplay.from_estimator(clf)
    >>> [axis.get_ylabel() for axis in display.axes_]
    ['loss', 'learning rate']
    """

    def __init__(
        self,
        cross_entropy: np.ndarray,
        *,
        contrastive: np.ndarray | None = None,
        loss: np.ndarray | None = None,
        validation_loss: np.ndarray | None = None,
        validation_score: np.ndarray | None = None,
        learning_rate: np.ndarray | None = None,
        score_name: str = "accuracy",
    ) -> None:
        self.cross_entropy = cross_entropy
        self.contrastive = contrastive
        self.loss = loss
        self.validation_loss = validation_loss
        self.validation_score = validation_score
        self.learning_rate = learning_rate
        self.score_name = score_name

    def __repr__(self) -> str:
        names = ", ".join(self._panels())
        return f"TrainingCurveDisplay({len(self.cross_entropy)} epochs: {names})"

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None) -> Self:
        """Draw how a classifier was trained.

        Parameters
        ----------
        estimator : CLCEClassifier
            Fitted, or a NotFittedError is raised.
        ax : matplotlib Axes, default=None
            Axes to divide into panels; None makes a figure.

        Returns
        -------
        TrainingCurveDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        rows = list(estimator.history_)
        columns = {
            "cross_entropy": "train_cross_entropy",
            "contrastive": "train_contrastive",
            "loss": "train_loss",
            "validation_loss": "valid_loss",
            "validation_score": "valid_score",
            "learning_rate": "lr",
        }
        display = cls(
            **{
                name: np.array([row.get(key, np.nan) for row in rows])
                for name, key in columns.items()
                if any(key in row for row in rows)
            },
            score_name=_score_name(estimator.scoring),
        )
        return display.plot(ax)

    def _draw(self, ax: Axes | None) -> None:
        drawn = self._panels()
        self.ax_ = new_axes(ax, (6.4, 1.2 + 1.6 * len(drawn)))
        self.axes_ = panels(self.ax_, len(drawn), 1, gap=0.25, sharex=True)[:, 0]
        for axis, (name, curves) in zip(self.axes_, drawn.items(), strict=True):
            axis.set_ylabel(name, parse_math=False)
            axis.tick_params(labelbottom=axis is self.axes_[-1])
            self._draw_curves(axis, curves, marks_best=name == self.score_name)
        self.axes_[-1].set_xlabel("epoch")
        self.axes_[-1].xaxis.get_major_locator().set_params(integer=True)

    def _panels(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the curves of each panel, by name."""
        panels: dict[str, dict[str, np.ndarray | None]] = {
            "loss": {
                "cross-entropy": self.cross_entropy,
                "contrastive": self.contrastive,
                "weighted sum": None if self.contrastive is None else self.loss,
                "validation": self.validation_loss,
            },
            self.score_name: {"validation": self.validation_score},
            "learning rate": {"": self.learning_rate},
        }
        given = {
            panel: {name: values for name, values in curves.items() if values is not None}
            for panel, curves in panels.items()
        }
        return {panel: curves for panel, curves in given.items() if curves}

    def _draw_curves(self, axis: Axes, curves: dict[str, np.ndarray], *, marks_best: bool) -> None:
        """Draw the curves of one panel; they differ in colour and in the kind of line."""
        for number, (label, values) in enumerate(curves.items()):
            marked = [0] if len(values) == 1 else []
            if marks_best and not np.isnan(values).all():
                marked = [int(np.nanargmax(values))]
                label += f"; best {values[marked[0]]:.3f} in epoch {marked[0] + 1}"
            axis.plot(
                np.arange(1, len(values) + 1),
                values,
                LINES[number],
                color=class_style(number)["color"],
                label=label,
                marker="o" if marked else None,
                markevery=marked or None,
            )
        if any(curves):
            axis.legend(
                loc="lower left",
                bbox_to_anchor=(0, 1),
                borderaxespad=0.1,
                ncols=4,
                frameon=False,
                fontsize=9,
            )


def _score_name(scoring: Any) -> str:
    """Name what ``scoring`` gives."""
    if scoring is None:
        return "accuracy"
    if isinstance(scoring, str):
        return {"loss": "negative loss"}.get(scoring, scoring)
    return getattr(scoring, "__name__", "score")
