"""New classes in a fitted classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._checks import check_not_swapped, unchanged_on_error
from .._head import Head
from .._system import joint, own_torch
from .._targets import Labels
from .._training import (
    CLCENet,
    Passes,
    Samples,
    check_class_means,
    continue_state,
    infer,
    plan_passes,
    remembered,
    with_changed_head,
)


class NewClassesMixin:
    """What lets a fitted classifier learn further classes."""

    classes_: np.ndarray
    net_: CLCENet

    if TYPE_CHECKING:

        def _read(self, X: Any, *, reset: bool) -> Samples: ...

        def _passes(self) -> Passes: ...

        def _validate_params(self) -> None: ...

    @joint
    def add_classes(self, X: Any, y: Labels) -> Self:
        """Learn new classes from a few images of them, without images of the old ones.

        The classifier gets a column for each new class, fitted to the new images. The columns of
        the old classes and the backbone do not change. ``classes_`` and the columns of every output
        are sorted again; of several labels an image, the new ones come last.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_new)
            Labels, none of them in ``classes_``, of the same kind as those. Of several labels an
            image, a column of 0 and 1 for each new label alone, with images of both kinds; a data
            frame or a Series names them, and what is not annotated is NaN.

        Returns
        -------
        CLCEClassifier
            The estimator.

        Raises
        ------
        ValueError
            If y holds a label that is known already, or is of another kind than ``classes_``; the
            estimator is then as it was before.

        See Also
        --------
        partial_fit : Train on more images of known classes.

        Notes
        -----
        Some old images are then classified as new ones; :doc:`/new_classes` shows how many. If you
        have the old images, ``fit`` on all of them is the alternative.

        ``partial_fit`` and, with ``warm_start``, ``fit`` continue with all classes.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_clce import CLCEClassifier
        >>> data = load_iris()
        >>> X, y = data.data, data.target_names[data.target]
        >>> clf = CLCEClassifier("precomputed", random_state=0).fit(X[50:], y[50:])
        >>> clf.classes_
        array(['versicolor', 'virginica'], dtype='<U10')
        >>> clf = clf.add_classes(X[:5], y[:5])
        >>> clf.classes_
        array(['setosa', 'versicolor', 'virginica'], dtype='<U10')
        >>> clf.predict(X[48:50])
        array(['setosa', 'setosa'], dtype='<U10')
        """
        check_is_fitted(self)
        self._validate_params()
        with own_torch(), unchanged_on_error(self):
            check_not_swapped(X, y)
            samples = self._read(X, reset=False)
            outputs = self.net_.module_.outputs
            classes, add_columns = outputs.new_classes(samples, y, self.classes_)
            self.net_ = self._net_with_columns(samples, add_columns)
            self.classes_ = classes
        return self

    def _net_with_columns(
        self, samples: Samples, add_columns: Callable[[Head, Tensor], None]
    ) -> CLCENet:
        """Return a copy of the net that knows new classes, too."""
        net = self.net_
        check_class_means(net, "add_classes")
        inputs, _ = infer(net, samples, self._passes(), net.classifier_inputs)
        assert net.resume is not None  # it has trained
        resume = continue_state(net.resume, remembered(self), net.module_.backbone)
        return with_changed_head(
            net, resume, plan_passes(self), lambda head: add_columns(head, inputs)
        )
