"""What is measured on the test images beside accuracy: calibration and embedding."""

import numpy as np
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestNeighbors

N_BINS = 15


def classification_metrics(classes, y, probabilities):
    """Measure predicted probabilities.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Sorted labels; the columns of ``probabilities``.
    y : ndarray of shape (n,)
        True labels.
    probabilities : ndarray of shape (n, n_classes)
        Predicted.

    Returns
    -------
    dict of str to float
        Accuracy, log-loss and expected calibration error.
    """
    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return {
        "accuracy": float(np.mean(classes[probabilities.argmax(axis=1)] == y)),
        "log_loss": float(log_loss(y, probabilities, labels=classes)),
        "calibration_error": calibration_error(classes, y, probabilities),
    }


def calibration_error(classes, y, probabilities, n_bins=N_BINS):
    """Compute the expected calibration error.

    Test images are put into bins of equal width by their highest probability. The
    error is the mean over images of the distance, in their bin, between accuracy and
    mean highest probability.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Sorted labels; the columns of ``probabilities``.
    y : ndarray of shape (n,)
        True labels.
    probabilities : ndarray of shape (n, n_classes)
        Predicted.
    n_bins : int, default=15
        Number of bins.

    Returns
    -------
    float
        In [0, 1]; 0 is best.
    """
    confidence = probabilities.max(axis=1)
    correct = classes[probabilities.argmax(axis=1)] == y
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(y))


def embedding_metrics(train_embeddings, y_train, embeddings, y):
    """Measure embeddings by cosine similarity.

    Parameters
    ----------
    train_embeddings : ndarray of shape (n_train, d)
        Those of the training images, L2-normalised.
    y_train : ndarray of shape (n_train,)
        Their labels.
    embeddings : ndarray of shape (n, d)
        Those of the test images, L2-normalised.
    y : ndarray of shape (n,)
        Their labels.

    Returns
    -------
    dict of str to float
        ``recall_at_1``, the share of test images whose nearest other test image has
        their label, and ``class_mean_accuracy``, that of the classifier which takes the
        nearest mean of a class's training embeddings.
    """
    nearest = NearestNeighbors(n_neighbors=1).fit(embeddings).kneighbors(return_distance=False)
    classes = np.unique(y_train)
    means = np.stack([train_embeddings[y_train == label].mean(axis=0) for label in classes])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    by_mean = classes[(embeddings @ means.T).argmax(axis=1)]
    return {
        "recall_at_1": float(np.mean(y[nearest[:, 0]] == y)),
        "class_mean_accuracy": float(np.mean(by_mean == y)),
    }


def retrieval_metrics(embeddings, y):
    """Measure how images of a label are found by one of them, by cosine similarity.

    Parameters
    ----------
    embeddings : ndarray of shape (n, d)
        Those of images, L2-normalised.
    y : ndarray of shape (n,)
        Their labels.

    Returns
    -------
    dict of str to float
        ``recall_at_1``, the share of images whose nearest other image has their label, and
        ``mean_average_precision`` of all other images in the order of their similarity. Images
        whose label no other has are left out.
    """
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -np.inf)  # itself comes last, and is left out
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :-1]
    hits = y[order] == y[:, None]
    hits = hits[hits.any(axis=1)]
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    average = (precision * hits).sum(axis=1) / hits.sum(axis=1)
    return {
        "recall_at_1": float(hits[:, 0].mean()),
        "mean_average_precision": float(average.mean()),
    }
