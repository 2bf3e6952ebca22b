"""Any input gives a correct result or a documented error, which changes nothing."""

import copy
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_array_equal
from torch import nn

from sklearn_clce import CLCEClassifier

DOCUMENTED = (ValueError, TypeError, FileNotFoundError)
many = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

float_dtypes = st.sampled_from([np.float16, np.float32, np.float64, ">f8", np.longdouble])
int_dtypes = st.sampled_from([np.uint8, np.int8, np.uint16, np.int64, np.uint64, ">i4"])
odd_dtypes = st.sampled_from([bool, complex, "U3", "S3", "M8[s]", object])
any_dtype = st.one_of(float_dtypes, int_dtypes, odd_dtypes)
THREE = st.integers(0, 2)


def filled(dtype, shape, wild):
    """Fill an array with values: within 0..1 or 0..255, or any that the dtype has."""
    dtype = np.dtype(dtype)
    elements = None
    if dtype.kind == "f" and not wild:
        elements = st.floats(0, 1, width=16).map(float)
    elif dtype.kind in "iu" and not wild:
        elements = st.integers(0, 100)
    elif dtype.kind == "O":
        elements = st.sampled_from([0.5, 1, "a", None, float("nan"), (1, 2), b"x"])
    if dtype.kind == "f" and dtype.itemsize > 8:
        return arrays.arrays(np.float64, shape, elements=elements).map(lambda a: a.astype(dtype))
    return arrays.arrays(dtype, shape, elements=elements)


@st.composite
def label_arrays(draw, n, sound):
    """Draw labels of any kind, of about n rows; sound ones are n, of two or three classes."""
    kinds = [
        ["ant", "bee", "\ud800\0x"],
        np.array(["ant", "bee", "c\0"], dtype=object),
        [0, 1, 2],
        np.array([200, 255, 0], dtype=np.uint8),
        np.array([-(2**63), 0, 2**63 - 1]),
        [True, False, True],
        [1.0, 2.0, 3.0],
    ]
    if sound:
        y = np.asarray(draw(st.sampled_from(kinds)))[np.arange(n) % 3]
        return draw(st.sampled_from([y, y.tolist()]))
    kinds += [
        ["ant", "ant", "ant"],
        [0.5, 0.25, 1e300],
        [1.0, np.nan, np.inf],
        np.array(["a", None, 1], dtype=object),
        [b"a", b"b", b"c"],
    ]
    n = draw(st.sampled_from([n, max(n - 1, 0), n + 1]))
    y = np.asarray(draw(st.sampled_from(kinds)))[draw(arrays.arrays(int, n, elements=THREE))]
    return draw(st.sampled_from([y, y.tolist(), y[:, None], np.stack([y, y], axis=1)]))


@st.composite
def vectors(draw, sound):
    """Draw feature vectors, or almost; sound ones are as wide as those of the fit."""
    n = draw(st.integers(2 if sound else 0, 7))
    if sound:
        return draw(filled(draw(st.one_of(float_dtypes, int_dtypes)), (n, 3), wild=False))
    shape = draw(st.sampled_from([(n, 3), (n, 3), (n, 2), (n, 0), (n,), (), (n, 3, 1)]))
    X = draw(filled(draw(any_dtype), shape, wild=True))
    return draw(st.sampled_from([X, X.tolist(), X[::-1] if X.ndim else X]))


@st.composite
def images(draw, sound):
    """Draw images, or almost: arrays of one size, or lists of anything."""
    n, side = draw(st.integers(2 if sound else 0, 5)), draw(st.integers(1 if sound else 0, 5))
    shapes = [(side, 4), (side, 4, 3), (3, side, 5), (side, 4, 1), (side, 2, 4)]
    if sound:
        dtype = draw(st.one_of(float_dtypes, int_dtypes, st.just(bool)))
        X = draw(filled(dtype, (n, *draw(st.sampled_from(shapes))), wild=False))
        X.flags.writeable = draw(st.booleans())
        return X if draw(st.booleans()) else list(X)
    shape = draw(st.sampled_from([*shapes, (side,), (4, 2, side), (side, 5, 6, 7)]))
    dtype, wild = draw(any_dtype), draw(st.booleans())
    if draw(st.booleans()):
        return draw(filled(dtype, (n, *shape), wild))
    one = st.one_of(
        filled(dtype, shape, wild),
        filled(np.uint8, (4, 3), wild=False),
        filled(np.uint8, (2, 5, 3), wild=False),
        st.sampled_from([None, 1, "no/such/file.png", "", b"x", [[0.5]], (), np.zeros((2, 2))]),
    )
    return draw(st.lists(one, min_size=n, max_size=n))


@st.composite
def calls(draw, inputs):
    """Draw a method and what it is called with, and whether that is sound."""
    sound = draw(st.booleans())
    X = draw(inputs(sound))
    method = draw(st.sampled_from(["fit", "partial_fit", "predict", "transform"]))
    is_one = np.isscalar(X) or not hasattr(X, "__len__") or getattr(X, "ndim", 1) == 0
    n = 1 if is_one else len(X)
    options = {}
    if method in ("fit", "partial_fit"):
        options["y"] = draw(label_arrays(n, sound))
    if method == "partial_fit" and sound:
        options["y"] = draw(st.lists(st.sampled_from(["ant", "bee"]), min_size=n, max_size=n))
    if options and draw(st.booleans()):
        weights = [0.5, 1, 2] if sound else [0, 0.5, 1, -1, np.nan, np.inf]
        weights = st.lists(st.sampled_from(weights), min_size=n, max_size=n)
        options["sample_weight"] = draw(weights)
    return method, X, options, sound


class Pooled(nn.Module):
    """The quickest backbone for images of any size: means and mean squares of channels."""

    def forward(self, batch):
        flat = batch.flatten(2)
        return nn.functional.pad(flat.mean(2), (0, 1)) + nn.functional.pad(
            (flat**2).mean(2), (1, 0)
        )


def fitted(clf, X):
    return clf.set_params(max_epochs=1, batch_size=4, random_state=0).fit(X, ["ant", "bee"] * 4)


rng = np.random.default_rng(0)
VECTORS = rng.normal(size=(8, 3)).astype(np.float32)
IMAGES = rng.random(size=(8, 5, 4, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def on_vectors():
    return fitted(CLCEClassifier("precomputed", projection_dim=2), VECTORS)


@pytest.fixture(scope="module", params=["all", "head"])
def on_images(request):
    clf = CLCEClassifier(Pooled(), trainable=request.param, image_size=None, augment=None)
    return fitted(clf, IMAGES)


def check_call(clf, call, X_before):
    """Call a method of a copy: a correct result, or a documented error and no change."""
    method, X, options, sound = call
    before = clf.predict_proba(X_before)
    clf = copy.copy(clf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # only errors are tested here
        try:
            result = getattr(clf, method)(X, **options)
        except DOCUMENTED as error:
            outcome, message = type(error).__name__, str(error)
        else:
            outcome, message = "a result", "none"
            check_result(clf, method, X, options, result)
    event(f"{method}: {outcome}")
    assert message.strip()
    assert not sound or outcome == "a result", message
    if outcome != "a result":
        assert_array_equal(clf.predict_proba(X_before), before)


def check_result(clf, method, X, options, result):
    if method == "transform":
        assert result.shape == (len(X), clf.module_.head.n_embedding)
        assert np.isfinite(result).all()
        return
    if method == "fit":
        assert_array_equal(clf.classes_, np.unique(np.array(options["y"], dtype=object)))
    proba = clf.predict_proba(X)
    assert proba.shape == (len(X), len(clf.classes_))
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(clf.predict(X), clf.classes_[proba.argmax(axis=1)])


@many
@given(call=calls(vectors))
def test_any_call_on_features_succeeds_or_changes_nothing(call, on_vectors):
    check_call(on_vectors, call, VECTORS)


@many
@given(call=calls(images))
def test_any_call_on_images_succeeds_or_changes_nothing(call, on_images):
    check_call(on_images, call, IMAGES)
