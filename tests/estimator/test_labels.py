"""Labels of any container and dtype mean the same at each entrance, or raise one clear error."""

import datetime
import json
import pickle
import re
import warnings
from decimal import Decimal
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.dtypes import StringDType
from numpy.testing import assert_array_equal
from sklearn.exceptions import DataConversionWarning

from sklearn_clce import CLCEClassifier, EpisodeSplit, TopLossesDisplay, compare, few_shot_score
from small_fits import head

many = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

N = 12
CODES = np.arange(N) % 3
X = np.random.default_rng(0).normal(size=(N, 4)) + 3 * np.eye(3, 4)[CODES]
TEXT, INTS, BOOLS = ("ant", "bee", "çow\n"), (7, -1, 300), (True, False)

# Each form that labels may come in, and the plain ones that it is made of.
FORMS = {
    "StringDType": (TEXT, lambda y: np.array(y, dtype=StringDType())),
    "StringDType with NA": (TEXT, lambda y: np.array(y, dtype=StringDType(na_object=None))),
    "array of strings": (TEXT, np.array),
    "object strings": (TEXT, lambda y: np.array(y, dtype=object)),
    "list of np.str_": (TEXT, lambda y: list(np.array(y))),
    "tuple": (TEXT, tuple),
    "values of a dict": (TEXT, lambda y: dict(enumerate(y)).values()),
    "Series": (TEXT, pd.Series),
    "Series of objects": (TEXT, lambda y: pd.Series(y, dtype=object)),
    "nullable strings": (TEXT, lambda y: pd.Series(y, dtype="string")),
    "Index": (TEXT, pd.Index),
    "Categorical": (TEXT, pd.Categorical),
    "categorical Series": (TEXT, lambda y: pd.Series(y, dtype="category")),
    "frame": (TEXT, lambda y: pd.DataFrame({"label": y})),
    "trailing null": (("a", "a\0", "b"), list),
    "object ints": (INTS, lambda y: np.array(y, dtype=object)),
    "frame.to_numpy()": (
        INTS,
        lambda y: pd.DataFrame({"path": ["x"] * len(y), "label": y}).to_numpy()[:, 1],
    ),
    "int16": (INTS, lambda y: np.array(y, dtype=np.int16)),
    "big endian": (INTS, lambda y: np.array(y, dtype=">i4")),
    "list of np.int64": (INTS, lambda y: list(np.array(y))),
    "nullable ints": (INTS, lambda y: pd.Series(y, dtype="Int64")),
    "categorical ints": (INTS, lambda y: pd.Series(y, dtype="category")),
    "floats": (INTS, lambda y: np.array(y, dtype=float)),
    "object floats": (INTS, lambda y: np.array([float(label) for label in y], dtype=object)),
    "tensor": (INTS, torch.tensor),
    "list of tensors": (INTS, lambda y: list(torch.tensor(y))),
    "masked array": (INTS, np.ma.array),
    "object bools": (BOOLS, lambda y: np.array(y, dtype=object)),
    "list of np.bool_": (BOOLS, lambda y: list(np.array(y))),
    "nullable bools": (BOOLS, lambda y: pd.Series(y, dtype="boolean")),
}


def through_fit(make, plain):
    clf = head(max_epochs=1).fit(X, make(plain))
    return clf.classes_, clf.predict(X)


def through_classes(make, plain):
    clf = head(max_epochs=1).partial_fit(X, plain, classes=make(sorted(set(plain), key=str)))
    return clf.classes_, clf.predict(X)


def through_partial_fit(make, plain):
    clf = head(max_epochs=1).fit(X, plain).partial_fit(X, make(plain))
    return clf.classes_, clf.predict(X)


def through_new_classes(make, plain):
    is_new = np.array([label == plain[-1] for label in plain])
    others = [label for label in plain if label != plain[-1]]
    if len(set(others)) < 2:
        return through_fit(make, plain)  # bools have no third
    clf = head(max_epochs=1).fit(X[~is_new], make(others))
    clf.add_classes(X[is_new], make([label for label in plain if label == plain[-1]]))
    return clf.classes_, clf.predict(X)


def through_validation(make, plain):
    clf = head(max_epochs=2, early_stopping=True).fit(X, plain, X_val=X, y_val=make(plain))
    return np.array(clf.validation_scores_), clf.predict(X)


def through_score(make, plain):
    clf = head(max_epochs=1).fit(X, plain)
    return np.array([clf.score(X, make(plain)), clf.score(X[:6], make(plain[:6]))]), clf.predict(X)


def through_class_weight(make, plain):
    labels = make(sorted(set(plain), key=str))
    labels = labels.iloc[:, 0] if isinstance(labels, pd.DataFrame) else labels
    clf = head(max_epochs=1, class_weight=dict(zip(labels, [1, 5, 2], strict=False)))
    clf.fit(X, plain)
    return clf.classes_, clf.decision_function(X)


def through_few_shot(make, plain):
    options = {"n_way": 2, "n_queries": 1, "n_episodes": 2, "random_state": 0}
    classes = make(sorted(set(plain), key=str))
    few_shot = head(max_epochs=1, weight=0)
    scored = few_shot_score(few_shot, X, make(plain), classes=classes, **options)
    return scored.scores, np.array(scored.interval)


def through_load(make, plain):
    clf = head(max_epochs=1).fit(X, make(plain))
    file = through_load.folder / "model.safetensors"
    clf.save(file)
    loaded = CLCEClassifier.load(file)
    return loaded.classes_, loaded.predict(X)


def through_pickle(make, plain):
    clf = pickle.loads(pickle.dumps(head(max_epochs=1).fit(X, make(plain))))
    return clf.classes_, clf.predict(X)


def through_display(make, plain):
    clf = head(max_epochs=1).fit(X, plain)
    images = np.zeros((N, 4, 4))
    display = TopLossesDisplay.from_predictions(
        make(plain), clf.predict_proba(X), X=images, classes=clf.classes_, n_images=3
    )
    plt.close("all")
    return display.labels, display.predictions


ENTRANCES = [value for name, value in list(globals().items()) if name.startswith("through_")]


@pytest.fixture(autouse=True)
def _folder(tmp_path):
    through_load.folder = tmp_path


@cache
def of_plain_labels(entrance, plain):
    return entrance(list, list(plain))


@pytest.mark.parametrize("entrance", ENTRANCES, ids=lambda entrance: entrance.__name__)
@many
@given(form=st.sampled_from(sorted(FORMS)), shift=st.integers(0, 2))
def test_labels_mean_the_same_in_each_form(entrance, form, shift):
    labels, make = FORMS[form]
    plain = [labels[(code + shift) % len(labels)] for code in CODES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataConversionWarning)
        found, expected = entrance(make, plain), of_plain_labels(entrance, tuple(plain))
    for one, other in zip(found, expected, strict=True):
        assert one.tolist() == other.tolist()


REJECTED = {
    "mixed list": (lambda y: [1, *y[1:]], ValueError, r"1 \(int\) and 'bee' \(str\): one kind is"),
    "mixed objects": (lambda y: np.array([True, *y[1:]], object), ValueError, r"True \(bool\) and"),
    "bool and int": (
        lambda y: [True, *range(1, len(y))],
        ValueError,
        "kinds, such as True",
    ),
    "bytes": (
        lambda y: [b"x"] * len(y),
        TypeError,
        r"b'x', of type bytes.*\[label\.decode",
    ),
    "array of bytes": (lambda y: np.array(["x"] * len(y), "S"), TypeError, r"label\.decode\(\)"),
    "datetimes": (
        lambda y: [datetime.datetime(2020, 1, 1)] * len(y),
        TypeError,
        r"of type datetime: strings, .* NumPy's dates are required; \[str\(label\) for",
    ),
    "days": (lambda y: [datetime.date(2020, 1, 1)] * len(y), TypeError, "of type date: strings"),
    "timestamps": (lambda y: [pd.Timestamp("2020-01-01")] * len(y), TypeError, "type Timestamp"),
    "decimals": (lambda y: [Decimal(1)] * len(y), TypeError, "of type Decimal"),
    "complex": (lambda y: np.ones(len(y), complex), TypeError, "of type complex"),
    "huge ints": (lambda y: [2**70, *range(1, len(y))], ValueError, "numbers that no dtype"),
    "one string": (lambda y: "ab", TypeError, "is str: a list or array of labels is required"),
    "dict": (lambda y: dict.fromkeys(y), TypeError, "is dict: a list or array"),
    "number": (lambda y: 3, TypeError, "is int: a list or array of labels is required"),
    "lists": (lambda y: [[1], [1, 2]] * (len(y) // 2), ValueError, r"MultiLabelBinarizer\(\)\."),
    "sets": (lambda y: [{"a", "b"}] * len(y), ValueError, r"indicator, .* MultiLabelBinarizer\(\)"),
    "NaT": (lambda y: np.array(["NaT"] * len(y), "M8[D]"), ValueError, r"\[0\]=.*NaT.* leave"),
    "masked": (lambda y: np.ma.array([1] * len(y), mask=1), ValueError, r"\[0\]=None.* leave"),
    "missing StringDType": (
        lambda y: np.array([None, *y[1:]], dtype=StringDType(na_object=None)),
        ValueError,
        r"\[0\]=None: .* 1 of",
    ),
}


def calls(clf, y, classes):
    """Return a call for each entrance of labels."""
    weighted = head(early_stopping=True, max_epochs=1)
    return {
        "fit": lambda: clf.fit(X, y),
        "partial_fit": lambda: clf.partial_fit(X, y),
        "classes": lambda: head().partial_fit(X, ["ant", "bee"] * 6, classes=classes),
        "add_classes": lambda: clf.add_classes(X, y),
        "y_val": lambda: weighted.fit(X, ["ant", "bee"] * 6, X_val=X, y_val=y),
        "score": lambda: clf.score(X, y),
        "few_shot_score": lambda: few_shot_score(head(), X, y),
        "few_shot_score, classes": lambda: few_shot_score(
            head(), X, ["ant", "bee"] * 6, n_way=2, n_queries=1, classes=classes
        ),
    }


@pytest.mark.parametrize("form", REJECTED)
def test_labels_that_are_not_supported_raise_one_error(form):
    make, error, message = REJECTED[form]
    plain = ["ant", "bee"] * 6
    clf = head(max_epochs=1).fit(X, plain)
    before = clf.predict_proba(X)
    for name, call in calls(clf, make(plain), make(plain[:2])).items():
        if name == "few_shot_score, classes" and form == "number":
            continue  # scikit-learn's check of parameters names it
        with pytest.raises(error, match=message):
            call()
        assert clf.classes_.tolist() == ["ant", "bee"], name
    assert_array_equal(clf.predict_proba(X), before)


@pytest.mark.parametrize("kind", [set, frozenset])
def test_set_is_rejected_as_labels_of_samples(kind):
    labels = kind(range(N))
    for call in [
        lambda: head().fit(X, labels),
        lambda: head(max_epochs=1).fit(X, CODES).score(X, labels),
        lambda: few_shot_score(head(), X, labels),
    ]:
        with pytest.raises(TypeError, match=f"y is {kind.__name__}, which has no order: pass a l"):
            call()


@pytest.mark.parametrize(
    "container",
    [
        set,
        frozenset,
        iter,
        lambda names: dict.fromkeys(names).keys(),
        pd.Index,
        pd.Categorical,
        lambda names: pd.Series(names, dtype="category").cat.categories,
        lambda names: pd.Series(names * 5).unique(),
        lambda names: np.array(names, dtype=StringDType()),
    ],
)
def test_classes_may_come_unordered_in_any_container(container):
    names = ["cow", "ant", "bee"]
    y = np.array(names)[CODES]
    plain = head(max_epochs=1).partial_fit(X, y, classes=names)
    clf = head(max_epochs=1).partial_fit(X, y, classes=container(names))
    assert clf.classes_.tolist() == ["ant", "bee", "cow"]
    assert_array_equal(clf.predict_proba(X), plain.predict_proba(X))
    clf.partial_fit(X, y, classes=container(names))  # the same again
    episodes = EpisodeSplit(2, 1, 1, 2, classes=container(names), random_state=0)
    assert len(list(episodes.split(X, y))) == 2


@pytest.mark.parametrize("unit", ["D", "s", "ns"])
def test_numpy_dates_are_labels(unit, tmp_path):
    y = np.array(["2020-01-01", "2021-01-01", "2022-01-01"], f"M8[{unit}]")[CODES]
    clf = head(max_epochs=3).fit(X, y)
    assert clf.classes_.dtype == y.dtype
    assert clf.score(X, y) == clf.score(X, list(y)) == clf.score(X, pd.Series(y)) > 0.5
    clf.save(tmp_path / "model.safetensors")
    assert_array_equal(CLCEClassifier.load(tmp_path / "model.safetensors").predict(X), y)


@pytest.mark.parametrize("form", ["StringDType", "object ints"])
def test_onnx_holds_the_names_of_each_form(form, tmp_path):
    onnx = pytest.importorskip("onnx")
    labels, make = FORMS[form]
    head(max_epochs=1).fit(X, make([labels[code] for code in CODES])).export_onnx(tmp_path / "m")
    held = {prop.key: prop.value for prop in onnx.load(tmp_path / "m").metadata_props}
    assert json.loads(held["classes"]) == sorted(labels)


def test_labels_of_another_kind_are_rejected_by_score():
    clf = head(max_epochs=1).fit(X, CODES)
    with pytest.raises(ValueError, match=r"y holds labels such as '0', .* one kind is required"):
        clf.score(X, CODES.astype(str))
    assert clf.score(X, CODES + 100) == 0


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({"0": 2}, "class_weight holds labels such as '0', .*one kind is required"),
        ({0: 1, 9: 2}, "class_weight names 9, which is not a class: the classes are 0, 1, 2"),
        ({0: 1, "a": 2}, r"class_weight holds labels of several kinds, such as 0 \(int\) and 'a'"),
        ({None: 1}, r"class_weight\[0\]=None"),
    ],
)
def test_class_weight_of_no_class_is_reported(class_weight, message):
    with pytest.raises(ValueError, match=message):
        head(class_weight=class_weight).fit(X, CODES)


def test_class_weight_may_name_absent_classes_if_all_present_are_named():
    weights = {0: 1, 1: 2, 2: 1, 3: 4}
    clf = head(max_epochs=1, class_weight=weights).fit(X, CODES)
    same = head(max_epochs=1, class_weight={1: 2}).fit(X, CODES)
    assert_array_equal(clf.predict_proba(X), same.predict_proba(X))


def test_other_columns_are_rejected():
    with pytest.raises(ValueError, match=r"y should be a 1d array, .* one label for each sample"):
        head().fit(X, np.arange(2 * N).reshape(N, 2))


ONE_HOT = np.eye(3, dtype=int)[CODES]


@pytest.mark.parametrize(
    ("y", "remedy"),
    [
        (ONE_HOT, lambda y: y.argmax(axis=1)),
        (ONE_HOT.astype(bool), lambda y: y.argmax(axis=1)),
        (torch.from_numpy(ONE_HOT).float(), lambda y: y.argmax(axis=1)),
        (pd.get_dummies(pd.Series(list("abc"))[CODES]), lambda y: y.idxmax(axis=1)),
        (ONE_HOT.tolist(), lambda y: np.argmax(y, axis=1)),
    ],
)
def test_one_hot_labels_get_their_remedy_where_one_label_is_required(y, remedy):
    clf = head(max_epochs=1).fit(X, remedy(y))
    way = {pd.DataFrame: r"y\.idxmax\(", list: r"np\.argmax\(y, "}.get(type(y), r"y\.argmax\(")
    with pytest.raises(
        ValueError, match=rf"\(12, 3\) .* one label for each .* labels: {way}axis=1"
    ):
        clf.partial_fit(X, y)
    clf.partial_fit(X, remedy(y))


@pytest.mark.parametrize(
    ("what", "score"),
    [
        ("episodes are", few_shot_score),
        ("episodes are", lambda clf, X, y: list(EpisodeSplit().split(X, y))),
        ("the comparison is", lambda clf, X, y: compare(X, y, clf)),
    ],
)
def test_what_is_of_one_label_says_so(what, score):
    with pytest.raises(ValueError, match=f"{what} for classes that exclude .*one label for each"):
        score(head(), X, ONE_HOT)


def early(**params):
    return head(max_epochs=1, weight=0, early_stopping=True, **params)


def test_class_of_one_sample_is_named_under_early_stopping():
    y = np.array(["ant", "bee"])[(np.arange(N) > 0).astype(int)]
    with pytest.raises(ValueError, match=r"one sample of 'ant', .* set aside: add .* X_val and y_"):
        early().fit(X, y)
    early().fit(X, y, X_val=X, y_val=y)  # the remedy


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("n", [6, 7, 11, N])
@pytest.mark.parametrize("fraction", [0.01, 0.95])
def test_validation_fraction_in_the_message_suffices(n, n_classes, fraction):
    y = np.array(["ant", "bee", "cow"])[np.arange(n) % n_classes]
    try:
        early(validation_fraction=fraction).fit(X[:n], y)
    except ValueError as error:
        message = str(error)
    else:
        return
    names = ", ".join(map(repr, np.unique(y).tolist()))
    assert f"each of {n_classes} classes, {names}, needs one" in message
    assert message.endswith("or pass X_val and y_val")
    bound = float(re.search(r"at (least|most) ([\d.]+),", message)[2])
    early(validation_fraction=bound).fit(X[:n], y)


def test_validation_fraction_for_seven_samples():
    message = r"sets 1 of 7 samples aside .* 'ant', 'bee', .* to at least 0\.29, or pass X_val"
    with pytest.raises(ValueError, match=message):
        early().fit(X[:7], np.array(["ant", "bee"])[np.arange(7) % 2])
