"""Everything that can be set survives a model file and a pickle, or is rejected or named."""

import copy
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.utils._param_validation import Interval, StrOptions
from skorch.callbacks import Callback

from model_files import on_features, vectors
from sklearn_clce import CLCEClassifier

CONSTRAINTS = CLCEClassifier._parameter_constraints
DEFAULTS = CLCEClassifier().get_params(deep=False)
OF_THE_MACHINE = ("device", "memory", "checkpoint")


def flip(images):
    return images.flip(-1)


class Noted(Callback):
    """A callback that does nothing."""


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**300, 10**400),
    st.floats(),
    st.text(st.characters(exclude_categories=()), max_size=5),  # surrogates too
    st.sampled_from(
        [np.float32(0.1), np.int64(3), np.bool_(True), np.str_("head"), 0.5, 1, "auto"]
    ),
)
KEYS = st.sampled_from(
    [
        "left",
        1,
        "optimizer__betas",
        "optimizer__eps",
        "optimizer__no",
        "callbacks__no__x",
        "optimizer",
    ]
)
OBJECTS = st.sampled_from([
    flip, Noted, [Noted()], [("noted", Noted())], Path("folder") / "w.pth", np.zeros(2),
    np.random.RandomState(0), (0.8, 0.9), {"optimizer__betas": (0.8, 0.9)},
])  # fmt: skip
ANYTHING = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.lists(SCALARS, max_size=3).map(tuple),
    st.dictionaries(KEYS, SCALARS, max_size=2),
    OBJECTS,
)


def allowed(constraint):
    """Return a strategy for the values that a constraint of scikit-learn allows."""
    if isinstance(constraint, StrOptions):
        return st.sampled_from(sorted(constraint.options))
    if isinstance(constraint, Interval):
        low, high = constraint.left, constraint.right
        numbers = st.floats if constraint.type.__name__ == "Real" else st.integers
        return numbers(low, high)
    return {"boolean": st.booleans(), None: st.none()}.get(constraint, st.nothing())


@st.composite
def settings_of_an_estimator(draw):
    """Draw an attribute and a value, half of them such as the constraints allow."""
    name = draw(st.sampled_from([*CONSTRAINTS, "offset_"]))
    fitting = st.one_of(*map(allowed, CONSTRAINTS.get(name, [])), st.floats())
    return name, draw(st.one_of(fitting, ANYTHING))


@pytest.fixture(scope="module")
def fitted_head():
    return on_features(max_epochs=1).fit(vectors(), np.arange(12) % 2)


def same(value, other):
    """Compare two values; NaN is the same as NaN, and objects are if their pickles are."""
    if repr(value) == repr(other) or pickle.dumps(value) == pickle.dumps(other):
        return True
    return bool(np.all(value == other))


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(settings_of_an_estimator())
def test_settings_survive_or_are_rejected(fitted_head, tmp_path, setting):
    name, value = setting
    path = tmp_path / "model.safetensors"
    path.unlink(missing_ok=True)
    clf = copy.copy(fitted_head)
    try:
        setattr(clf, name, value)
    except (ValueError, TypeError, OverflowError):
        assert name == "offset_"
        return
    value = getattr(clf, name)  # of an int with many digits, a float
    assert same(getattr(pickle.loads(pickle.dumps(clf)), name), value)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            clf.save(path)
        except ValueError:
            assert not path.exists()
            return
    loaded = CLCEClassifier.load(path)
    if name == "pretrained" and isinstance(value, (str, Path)):
        assert loaded.pretrained == "path not stored"
    elif name in OF_THE_MACHINE or any(f"{name}=" in str(warning.message) for warning in caught):
        assert same(getattr(loaded, name), DEFAULTS[name])
    else:
        assert same(getattr(loaded, name), value)
    assert_array_equal(
        loaded.module_.head.classifier.weight.detach(), clf.module_.head.classifier.weight.detach()
    )
