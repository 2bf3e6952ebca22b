"""Pairs of samples with several labels: by hand, against loops, and where labels are not known."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sklearn_clce import label_aware_contrastive_loss, label_set_pairs

NAN = math.nan
SIMILARITIES = ("jaccard", "per_label", "similarity_dissimilarity", "any")


def random_targets(n, k, seed=0, unknown=0.0):
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, k)) < 0.4).astype(float)
    targets[rng.random((n, k)) < unknown] = NAN
    return torch.tensor(targets)


@pytest.mark.parametrize(
    ("similarity", "weights"),
    [
        ("any", [0, 1, 1, 1]),
        ("jaccard", [0, 2 / 3, 1 / 2, 1 / 4]),
        ("similarity_dissimilarity", [0, 2 / 3, 1 / 3, 1 / 3 / 2]),
        # labels 0, 1 and 2 have 2, 2 and 0 positives
        ("per_label", [0, 1 / 2 + 1 / 2, 1 / 2, 1 / 2]),
    ],
)
def test_weights_by_hand(similarity, weights):
    targets = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1]])
    weights = [*weights, 0]
    if similarity == "jaccard":
        weights[2] = 1 / 3
    found = label_set_pairs(targets, similarity=similarity)["positive_weights"][0]
    assert_allclose(found[1:], weights[1:], rtol=1e-6)


def test_masks_by_hand():
    targets = torch.tensor([[1.0, 0, 0], [1, NAN, 0], [0, NAN, 0], [0, 1, NAN], [0, 0, 0]])
    pairs = label_set_pairs(targets)
    positive, negative = pairs["positive_mask"], pairs["negative_mask"]
    assert positive[0].tolist() == [True, True, False, False, False]
    assert negative[0].tolist() == [False, False, True, True, True]
    assert positive[1].tolist() == [True, True, False, False, False]
    assert negative[1].tolist() == [False, False, False, False, True]  # 2 and 3 may share label 1


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_certain_whatever_the_labels_that_are_not_known(seed):
    targets = random_targets(5, 3, seed, unknown=0.3)
    pairs = label_set_pairs(targets)
    unknown = targets.isnan()
    shares = []
    for values in itertools.product([0.0, 1.0], repeat=int(unknown.sum())):
        complete = targets.clone()
        complete[unknown] = torch.tensor(values, dtype=torch.float64)
        shares.append(complete @ complete.T > 0)
    shares = torch.stack(shares)
    others = ~torch.eye(5, dtype=torch.bool)  # an unknown label of one sample is one label
    assert torch.equal(pairs["positive_mask"][others], shares.all(dim=0)[others])
    assert torch.equal(pairs["negative_mask"][others], (~shares).all(dim=0)[others])


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_weights_use_labels_that_both_are_annotated_for(similarity):
    """As if the others were not there; the positives of a label are those known to have it."""
    targets = random_targets(6, 5, unknown=0.3)
    found = label_set_pairs(targets, similarity=similarity)
    counts = (targets == 1).sum(dim=0)
    for i, j in itertools.permutations(range(6), 2):
        kept = ~(targets[i].isnan() | targets[j].isnan())
        own, other = ({*torch.where(kept & (targets[row] == 1))[0].tolist()} for row in (i, j))
        shared = own & other
        expected = {
            "any": float(bool(shared)),
            "jaccard": len(shared) / max(len(own | other), 1),
            "per_label": sum(1 / (int(counts[label]) - 1) for label in shared),
            "similarity_dissimilarity": len(shared) / max(len(own), 1) / (1 + len(other - own)),
        }[similarity]
        assert_allclose(found["positive_weights"][i, j], expected, rtol=1e-12)
        assert found["positive_mask"][i, j] == bool(shared)


def test_per_label_is_one_mean_for_each_label_of_an_anchor():
    """The loss of MulSupCon in loops: a softmax over all others, and a mean for each label."""
    targets = random_targets(14, 4)
    z = torch.nn.functional.normalize(torch.randn(14, 6, dtype=torch.float64))
    assert (targets.sum(dim=0) >= 2).all()
    terms = []
    for i, label in itertools.product(range(14), range(4)):
        if targets[i, label]:
            others = [j for j in range(14) if j != i]
            log_p = (z[others] @ z[i] / 0.1).log_softmax(dim=0)
            terms.append(-log_p[targets[others, label] == 1].mean())
    found = label_aware_contrastive_loss(
        z,
        **label_set_pairs(targets, similarity="per_label"),
        sample_weight=targets.sum(dim=1),
        temperature=0.1,
        hardness=0.0,
    )
    assert_allclose(found, torch.stack(terms).mean(), rtol=1e-12)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("positives", ["each", "mean"])
def test_one_label_each_is_the_loss_of_labels(similarity, positives):
    labels = torch.arange(12) % 4
    embeddings = torch.randn(12, 5, dtype=torch.float64)
    pairs = label_set_pairs(torch.nn.functional.one_hot(labels), similarity=similarity)
    found = label_aware_contrastive_loss(embeddings, **pairs, positives=positives)
    expected = label_aware_contrastive_loss(embeddings, labels, positives=positives)
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_references_are_further_columns(similarity):
    targets = random_targets(9, 4, unknown=0.2)
    together = label_set_pairs(targets, similarity=similarity)
    apart = label_set_pairs(targets[:5], similarity=similarity, reference_targets=targets[5:])
    for name, matrix in apart.items():
        assert torch.equal(matrix, together[name][:5])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16])
def test_dtype_of_targets_does_not_matter(dtype):
    targets = random_targets(8, 3).float()
    expected = label_set_pairs(targets)
    found = label_set_pairs(targets.to(dtype))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("row", [0.0, NAN])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_samples_without_a_known_label_are_no_anchors(row, similarity):
    targets = random_targets(8, 3)
    targets[2] = row
    embeddings = torch.randn(8, 4).requires_grad_()
    losses = label_aware_contrastive_loss(
        embeddings, **label_set_pairs(targets, similarity=similarity), reduction="none"
    )
    losses.sum().backward()
    assert losses[2] == 0
    assert losses.isfinite().all()
    assert embeddings.grad.isfinite().all()
    is_compared = embeddings.grad[2].abs().max() > 0
    assert is_compared == (row == 0)  # as a negative of the others, or not at all


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"targets": [[1, 0]]}, TypeError, "targets is a list: a torch.Tensor is required"),
        ({"targets": torch.ones(3)}, ValueError, r"targets of shape \(3,\)"),
        ({"targets": torch.full((2, 2), 0.5)}, ValueError, "targets holds 0.5: 1 for a label"),
        ({"targets": torch.full((2, 2), -1)}, ValueError, "targets holds -1.0"),
        ({"similarity": "cosine"}, ValueError, "similarity='cosine': one of 'jaccard', 'per_la"),
        (
            {"reference_targets": torch.ones(2, 5)},
            ValueError,
            r"reference_targets of shape \(2, 5\): a column for each of the 3 labels",
        ),
    ],
    ids=str,
)
def test_bad_arguments_are_rejected(arguments, error, message):
    with pytest.raises(error, match=message):
        label_set_pairs(**{"targets": torch.ones(4, 3)} | arguments)
