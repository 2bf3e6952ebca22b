"""A check of images before hours are spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib

from .._system import bar
from ._kinds import as_items


def find_unreadable(
    X: Any,
    *,
    image_shape: Sequence[int] | None = None,
    max_pixel_value: float | None = None,
    n_channels: int | None = None,
    verbose: int = 1,
) -> dict[int, str]:
    """Find all images that can't be read, in parallel.

    Every image is decoded, as ``fit`` and ``predict`` do. What a classifier is told of its
    images must be told here too.

    Parameters
    ----------
    X : array-like of images
        Paths, or images of any kind that :class:`CLCEClassifier` takes.
    image_shape : tuple of int, default=None
        Shape of one image where X has two axes; as in :class:`CLCEClassifier`.
    max_pixel_value : float, default=None
        Value of white in images of integers; as in :class:`CLCEClassifier`.
    n_channels : int, default=None
        Channels of each image, all of which are kept; as in :class:`CLCEClassifier`.
    verbose : int, default=1
        0 prints nothing, 1 draws a progress bar.

    Returns
    -------
    dict of int to str
        Indices of the images that can't be read, in order, and what is wrong with each.

    Raises
    ------
    TypeError
        If X is nothing that holds images.
    ValueError
        If X is empty.

    See Also
    --------
    load_image_folder : Paths and labels from a folder for each class.

    Examples
    --------
    Leave them out:

    >>> import numpy as np
    >>> from sklearn_clce import find_unreadable
    >>> X, y = np.array(["no_such.png", "missing.jpg"]), np.array(["cat", "dog"])
    >>> bad = find_unreadable(X, verbose=0)
    >>> bad[0]
    "X[0]: there is no file 'no_such.png'"
    >>> X, y = np.delete(X, list(bad)), np.delete(y, list(bad))
    """
    images = as_items(
        X, image_shape=image_shape, max_pixel_value=max_pixel_value, n_channels=n_channels
    )

    def complaint(index: int) -> str | None:
        try:
            images.picture(index)
        except (ValueError, TypeError, OSError) as error:
            return str(error)
        return None

    n_threads = joblib.cpu_count() if images.is_thread_safe else 1
    with ThreadPoolExecutor(n_threads) as pool:
        complaints = pool.map(complaint, range(len(images)))
        progress = bar(complaints, total=len(images), unit="image", shown=bool(verbose))
        return {index: found for index, found in enumerate(progress) if found is not None}
