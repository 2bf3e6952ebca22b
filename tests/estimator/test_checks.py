"""scikit-learn's estimator checks: every check passes and no tag switches one off."""

import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

from sklearn_clce import CLCEClassifier

# Weighted samples form other batches and contrastive pairs than repeated ones;
# scikit-learn lists the same check for its MLPClassifier.
EXPECTED_TO_FAIL = {"check_sample_weight_equivalence_on_dense_data": "mini-batches"}


@pytest.mark.filterwarnings("default")
def test_check_estimator_passes():
    clf = CLCEClassifier("precomputed", max_epochs=3)
    results = check_estimator(
        clf, expected_failed_checks=EXPECTED_TO_FAIL, on_fail=None, on_skip=None
    )
    by_status = {}
    for result in results:
        by_status.setdefault(result["status"], []).append(result["check_name"])
    assert by_status.pop("xfail") == list(EXPECTED_TO_FAIL)
    passed = by_status.pop("passed")
    assert len(passed) >= 71
    assert sum("multilabel" in name for name in passed) == 4
    assert by_status == {}


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_mixin_order",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_estimators_unfitted",
    ],
)
@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "module"])
def test_data_free_checks_pass_on_image_backbones(check, backbone, tiny_backbone):
    backbone = tiny_backbone if backbone == "module" else backbone
    getattr(estimator_checks, check)("CLCEClassifier", CLCEClassifier(backbone))


def test_unfitted_methods_raise_not_fitted_error(colour_images):
    clf = CLCEClassifier()
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        with pytest.raises(NotFittedError, match="CLCEClassifier instance is not fitted"):
            getattr(clf, method)(colour_images)
    assert not hasattr(clf, "module_")
    assert not hasattr(clf, "history_")


def test_clone_copies_a_module_backbone(tiny_backbone):
    copy = clone(CLCEClassifier(tiny_backbone))
    assert copy.backbone is not tiny_backbone
    assert type(copy.backbone) is type(tiny_backbone)
