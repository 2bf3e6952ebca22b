"""How training went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._plotting import class_style, new_axes, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = ("-", "--", ":", "-.")


class TrainingCurveDisplay:
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
    ax_ : matplotlib Axes
        The axes that the panels divide; their title is the title of all.
    axes_ : ndarray of matplotlib Axes
        The panels, from top to bottom.
    figure_ : matplotlib Figure
        Figure containing the axes.

    See Also
    --------
    TrainingCurveDisplay.from_estimator : Draw the history of a fitted classifier.

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

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None) -> Self:
        """Draw how a classifier was trained.

        Parameters
        ----------
        estimator : CLCEClassifier
            Fitted.
        ax : matplotlib Axes, default=None
            Axes to divide into panels; None makes a figure.

        Returns
        -------
        TrainingCurveDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the classifier is not fitted.
        """
        check_is_fitted(estimator)
        rows = list(estimator.history_)
        scored = "valid_score" if any("valid_score" in row for row in rows) else "valid_acc"
        columns = {
            "cross_entropy": "train_cross_entropy",
            "contrastive": "train_contrastive",
            "loss": "train_loss",
            "validation_loss": "valid_loss",
            "validation_score": scored,  # models of before know accuracy alone
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

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw a panel for each kind of curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to divide into panels; None makes a figure.

        Returns
        -------
        TrainingCurveDisplay
            The same display.
        """
        drawn = {
            "loss": self._losses(),
            self.score_name: self._validation(),
            "learning rate": {"": self.learning_rate} if self.learning_rate is not None else {},
        }
        drawn = {name: curves for name, curves in drawn.items() if curves}
        self.ax_ = new_axes(ax, (6.4, 1.2 + 1.6 * len(drawn)))
        self.figure_ = self.ax_.figure
        self.axes_ = panels(self.ax_, len(drawn), 1, gap=0.25, sharex=True)[:, 0]
        for axis, (name, curves) in zip(self.axes_, drawn.items(), strict=True):
            self._draw(axis, name, curves)
        self.axes_[-1].set_xlabel("epoch")
        self.axes_[-1].xaxis.get_major_locator().set_params(integer=True)
        for axis in self.axes_[:-1]:
            axis.tick_params(labelbottom=False)
        return self

    def _losses(self) -> dict[str, np.ndarray]:
        losses = {
            "cross-entropy": self.cross_entropy,
            "contrastive": self.contrastive,
            "weighted sum": None if self.contrastive is None else self.loss,
            "validation": self.validation_loss,
        }
        return {name: values for name, values in losses.items() if values is not None}

    def _validation(self) -> dict[str, np.ndarray]:
        if self.validation_score is None:
            return {}
        if np.isnan(self.validation_score).all():
            return {"validation": self.validation_score}
        best = int(np.nanargmax(self.validation_score))
        name = f"validation; best {self.validation_score[best]:.3f} in epoch {best + 1}"
        return {name: self.validation_score}

    def _draw(self, axis: Axes, name: str, curves: dict[str, np.ndarray]) -> None:
        """Draw the curves of one panel; they differ in colour and in the kind of line."""
        for number, (label, values) in enumerate(curves.items()):
            epochs = np.arange(1, len(values) + 1)
            marker = "o" if len(values) == 1 else None
            line = LINES[number]
            colour = class_style(number)["color"]
            axis.plot(epochs, values, line, color=colour, label=label, marker=marker)
            if name == self.score_name and not np.isnan(values).all():
                best = int(np.nanargmax(values))
                axis.plot(epochs[best], values[best], "o", color=colour)
        axis.set_ylabel(name, parse_math=False)
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
