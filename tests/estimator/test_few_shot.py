"""few_shot_score: equal episodes for all estimators, intervals, one pass of a frozen backbone."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from sklearn_clce import BackboneFeatures, CLCEClassifier, EpisodeSplit, few_shot_score
from sklearn_clce.features import FeatureStore
from small_backbones import Counting

SHORT = {"n_way": 3, "k_shot": 2, "n_queries": 4, "n_episodes": 6, "random_state": 0}


class Recorder(ClassifierMixin, BaseEstimator):
    """Records its support and queries; predicts the label, which X holds."""

    seen = []

    def __init__(self, wrong=()):
        self.wrong = wrong

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        Recorder.seen.append({"support": X[:, 0], "labels": y})
        return self

    def predict(self, X):
        Recorder.seen[-1]["queries"] = X[:, 0]
        labels = X[:, 1]
        return np.where(np.isin(labels, self.wrong), -1, labels)


@pytest.fixture
def numbered():
    """Indices and labels of 5 classes with 8 samples each, and the labels."""
    y = np.arange(40) % 5
    return np.column_stack([np.arange(40), y]), y


@pytest.fixture
def episodes():
    Recorder.seen = []
    return lambda: Recorder.seen


@pytest.fixture(scope="module")
def images_and_labels():
    data = load_digits(n_class=4)
    rows = np.concatenate([np.flatnonzero(data.target == label)[:12] for label in range(4)])
    return data.images[rows] / 16, data.target[rows]


def test_episode_has_requested_images_per_class(numbered, episodes):
    X, y = numbered
    few_shot_score(Recorder(), X, y, **SHORT)
    assert len(episodes()) == 6
    for episode in episodes():
        classes, counts = np.unique(episode["labels"], return_counts=True)
        assert len(classes) == 3
        assert_array_equal(counts, [2, 2, 2])
        assert_array_equal(y[episode["support"]], episode["labels"])
        assert_array_equal(np.unique(y[episode["queries"]], return_counts=True)[1], [4, 4, 4])
        rows = np.concatenate([episode["support"], episode["queries"]])
        assert len(np.unique(rows)) == len(rows)
    assert len({tuple(episode["support"]) for episode in episodes()}) > 1


def test_score_is_share_of_correct_queries(numbered):
    X, y = numbered
    assert_array_equal(few_shot_score(Recorder(), X, y, **SHORT).scores, np.ones(6))
    wrong = few_shot_score(Recorder(wrong=[0]), X, y, **SHORT)
    assert set(np.round(wrong.scores, 6)) == {1.0, round(2 / 3, 6)}
    all_classes = few_shot_score(Recorder(wrong=[0]), X, y, **SHORT | {"n_way": 5})
    assert_array_equal(all_classes.scores, np.full(6, 0.8))


def test_episodes_are_equal_for_all_estimators(numbered, episodes):
    X, y = numbered
    few_shot_score(Recorder(), X, y, **SHORT)
    few_shot_score(Recorder(wrong=[1]), X, y, **SHORT)
    first, second = episodes()[:6], episodes()[6:]
    for one, other in zip(first, second, strict=True):
        assert_array_equal(one["support"], other["support"])
        assert_array_equal(one["queries"], other["queries"])
    few_shot_score(Recorder(), X, y, **SHORT | {"random_state": 1})
    assert any(
        not np.array_equal(one["support"], other["support"])
        for one, other in zip(first, episodes()[12:], strict=True)
    )


def test_classes_parameter_restricts_episodes(numbered, episodes):
    X, y = numbered
    names = np.array(["ape", "bee", "cat", "dog", "elk"])[y]
    few_shot_score(Recorder(), X, names, **SHORT, classes=["elk", "ape", "bee"])
    for episode in episodes():
        assert set(episode["labels"]) == {"elk", "ape", "bee"}


def test_interval_is_students_t(numbered):
    X, y = numbered
    score = few_shot_score(Recorder(wrong=[0]), X, y, **SHORT)
    expected = stats.t.interval(0.95, 5, loc=score.scores.mean(), scale=stats.sem(score.scores))
    assert score.interval == pytest.approx(expected)
    assert score.mean == pytest.approx(score.scores.mean())
    assert repr(score).startswith(f"FewShotScore(mean={score.mean:.4f}, interval=(")
    assert repr(score).endswith("3-way 2-shot, 6 episodes)")


def test_n_jobs_does_not_change_scores(images_and_labels):
    X, y = images_and_labels
    clf = KNeighborsClassifier(1)
    X = X.reshape(len(X), -1)
    assert_array_equal(
        few_shot_score(clf, X, y, **SHORT, n_jobs=2).scores,
        few_shot_score(clf, X, y, **SHORT).scores,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda backbone: make_pipeline(BackboneFeatures(backbone), LogisticRegression()),
        lambda backbone: CLCEClassifier(
            backbone, trainable="head", max_epochs=1, projection_dim=4, random_state=0
        ),
    ],
    ids=["pipeline", "head"],
)
def test_frozen_backbone_runs_once_per_image(make, images_and_labels, count, episodes):
    X, y = images_and_labels
    options = SHORT | {"n_episodes": 12}
    rows = np.column_stack([np.arange(len(y)), y])
    few_shot_score(Recorder(), rows, y, **options)
    met = {row for one in episodes() for part in ("support", "queries") for row in one[part]}
    classifier = make(Counting())
    few_shot_score(classifier, X, y, **options)
    in_all_episodes = 12 * 3 * (2 + 4)
    assert len(met) <= count() <= len(met) + 1 < in_all_episodes  # one gives the width of features
    for part in [classifier, *classifier.get_params().values()]:
        if isinstance(part, (BackboneFeatures, CLCEClassifier)):
            assert part.memory is None


def test_memory_folder_of_user_is_reused(images_and_labels, count, tmp_path):
    X, y = images_and_labels
    classifier = make_pipeline(
        BackboneFeatures(Counting(), memory=tmp_path), KNeighborsClassifier(1)
    )
    few_shot_score(classifier, X, y, **SHORT)
    first = count()
    few_shot_score(classifier, X, y, **SHORT)
    assert count() == first > 0
    assert FeatureStore(tmp_path).path.exists()


def test_file_paths_are_accepted(images_and_labels, tmp_path):
    from PIL import Image

    X, y = images_and_labels
    paths = []
    for row, image in enumerate(X):
        paths.append(str(tmp_path / f"{row}.png"))
        Image.fromarray((image * 255).astype(np.uint8)).save(paths[-1])
    classifier = make_pipeline(BackboneFeatures(Counting()), KNeighborsClassifier(1))
    assert few_shot_score(classifier, paths, y, **SHORT).mean > 0.5


@pytest.mark.parametrize("kind", ["h5py", "zarr"])
def test_arrays_on_disk_are_accepted(kind, images_and_labels, tmp_path):
    library = pytest.importorskip(kind)
    X, y = images_and_labels
    stored = (
        library.File(tmp_path / "images.h5", "w").create_dataset("X", data=X)
        if kind == "h5py"
        else library.array(X)
    )
    classifier = make_pipeline(BackboneFeatures(Counting()), KNeighborsClassifier(1))
    expected = few_shot_score(classifier, X, y, **SHORT).scores
    assert_array_equal(few_shot_score(classifier, stored, y, **SHORT).scores, expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_way": 6}, r"n_way=6: there are 5 classes to draw from"),
        ({"n_way": 3, "classes": [0, 1]}, r"n_way=3: there are 2 classes to draw from"),
        ({"n_way": 1}, r"'n_way' parameter"),
        ({"n_queries": 7}, r"class 0 has 8 images, but k_shot=2 and n_queries=7 take 9; lower"),
        ({"n_episodes": 1}, r"'n_episodes' parameter"),
        ({"classes": [0, 1, 9]}, r"classes holds labels that are not in y: \[9\]"),
    ],
)
def test_bad_parameters_are_rejected_with_remedy(numbered, changed, message):
    X, y = numbered
    with pytest.raises(ValueError, match=message):
        few_shot_score(Recorder(), X, y, **SHORT | changed)


def test_bad_lengths_and_estimators_are_rejected(numbered):
    X, y = numbered
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        few_shot_score(Recorder(), X, y[:-1], **SHORT)
    with pytest.raises(ValueError, match="'estimator' parameter"):
        few_shot_score("classifier", X, y, **SHORT)


def test_splitter_gives_the_episodes_of_few_shot_score(images_and_labels):
    X, y = images_and_labels
    X = X.reshape(len(X), -1)
    splitter = EpisodeSplit(**SHORT)
    assert splitter.get_n_splits(X, y) == len(list(splitter.split(X, y))) == 6
    clf = KNeighborsClassifier(1)
    assert_array_equal(
        cross_val_score(clf, X, y, cv=splitter), few_shot_score(clf, X, y, **SHORT).scores
    )


def test_splitter_gives_support_and_query_indices(numbered):
    X, y = numbered
    for support, queries in EpisodeSplit(**SHORT).split(X, y):
        assert_array_equal(np.unique(y[support], return_counts=True)[1], [2, 2, 2])
        assert_array_equal(np.unique(y[queries], return_counts=True)[1], [4, 4, 4])
        assert set(y[support]) == set(y[queries])
        assert not set(support) & set(queries)


def test_splitter_works_in_a_search(numbered):
    X, y = numbered
    splitter = EpisodeSplit(2, 3, 4, n_episodes=3, classes=[0, 4], random_state=0)
    search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 3]}, cv=splitter).fit(X, y)
    assert search.n_splits_ == 3
    assert repr(splitter).startswith("EpisodeSplit(classes=[0, 4], k_shot=3, n_episodes=3, ")


def test_splitter_depends_on_random_state_alone(numbered):
    X, y = numbered
    first, again, other = (
        [
            support.tolist()
            for support, _ in EpisodeSplit(**SHORT | {"random_state": seed}).split(X, y)
        ]
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_splitter_checks_its_parameters(numbered):
    with pytest.raises(ValueError, match="'k_shot' parameter of EpisodeSplit"):
        EpisodeSplit(k_shot=0)
    with pytest.raises(ValueError, match="n_way=6: there are 5 classes"):
        next(EpisodeSplit(n_way=6).split(*numbered))
