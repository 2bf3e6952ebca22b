"""The few-shot table of the paper: train on base classes, learn new ones in episodes."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from sklearn_clce import BackboneFeatures, EpisodeSplit

from .configuration import OURS
from .metrics import retrieval_metrics
from .models import make_model, resized, timed_fit
from .pictures import COLLECTIONS, rows_of_each

N_WAY, N_QUERIES, SHOTS = 5, 15, (1, 5)
N_EPISODES = 3000
N_PARTS = 30  # means of so many parts of the episodes are kept: what is compared is paired by part


def few_shot(configuration, surroundings):
    """Train on all base classes, then learn novel ones from features and from embeddings."""
    base, y_base, images, labels = COLLECTIONS[configuration.data].load(surroundings.data)
    rows = rows_of_each(y_base, np.unique(y_base), configuration.shots, configuration.seed)
    base, y_base, images, labels = resized(
        (base[rows], y_base[rows], images, labels), configuration, surroundings
    )
    model = make_model(configuration, surroundings)
    training = timed_fit(model, base, y_base, surroundings)
    metrics, parts = {}, {}
    for space, read in spaces_of(model, configuration, surroundings).items():
        values = normalize(read(images))
        for name, value in retrieval_metrics(values, labels).items():
            metrics[f"{space}_{name}"] = value
        for k_shot in SHOTS:
            scores = episode_scores(values, labels, k_shot)
            name = f"{space}_{k_shot}_shot"
            metrics[name] = float(scores.mean())
            parts[name] = [round(float(part.mean()), 5) for part in np.split(scores, N_PARTS)]
    return {
        "metrics": metrics,
        "episodes": parts,
        **training,
        "images": [len(base), len(images)],
    }


def spaces_of(model, configuration, surroundings):
    """Return what maps images to features, and to embeddings where there are any."""
    if configuration.method not in OURS:
        return {"features": model[0].transform}
    tuned = BackboneFeatures(
        model.module_.backbone, image_size=configuration.image_size, device=surroundings.device
    )
    return {"features": tuned.fit_transform, "embedding": model.transform}


def episode_scores(values, labels, k_shot):
    """Return the accuracy of logistic regression in each episode, the same ones for everyone."""
    episodes = EpisodeSplit(N_WAY, k_shot, N_QUERIES, N_EPISODES, random_state=0)
    scores = []
    for support, queries in episodes.split(values, labels):
        # its weights are a sum of support images, so their few directions are all that counts
        directions = np.linalg.qr(values[support].T).Q
        learner = LogisticRegression().fit(values[support] @ directions, labels[support])
        scores.append(learner.score(values[queries] @ directions, labels[queries]))
    return np.array(scores)
