"""The criterion of several labels a sample, term by term."""

import pytest
import torch
from torch.testing import assert_close

from sklearn_clce import label_aware_contrastive_loss, label_set_pairs
from sklearn_clce.losses import MultilabelCLCELoss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 3, generator=generator)
    embeddings = torch.randn(8, 4, generator=generator)
    labels = (torch.rand(8, 3, generator=generator) < 0.5).long()
    weights = torch.rand(8, 1, generator=generator).repeat(1, 3)
    weights[2, 1] = weights[5] = 0
    return logits, embeddings, labels, weights


def test_cross_entropy_is_the_weighted_mean_of_a_loop(batch):
    logits, _, labels, weights = batch
    expected = 0.0
    for logit, label, weight in zip(logits.ravel(), labels.ravel(), weights.ravel(), strict=True):
        target = 0.9 * label + 0.05
        p = torch.sigmoid(logit)
        expected -= weight * (target * p.log() + (1 - target) * (1 - p).log())
    found = MultilabelCLCELoss(weight=0, label_smoothing=0.1, gather=False).terms(*batch)
    assert list(found) == ["cross_entropy"]
    assert_close(found["cross_entropy"], expected / weights.sum())


@pytest.mark.parametrize("positives", ["each", "mean"])
def test_contrastive_term_is_that_of_label_sets(batch, positives):
    _, embeddings, labels, weights = batch
    targets = torch.where(weights > 0, labels.float(), torch.nan)
    expected = label_aware_contrastive_loss(
        embeddings,
        positives=positives,
        hardness=0.5,
        sample_weight=weights.amax(dim=1),
        **label_set_pairs(targets),
    )
    criterion = MultilabelCLCELoss(0.3, hardness=0.5, positives=positives, gather=False)
    terms = criterion.terms(*batch)
    assert_close(terms["contrastive"], expected)
    assert_close(criterion.weigh(terms), 0.7 * terms["cross_entropy"] + 0.3 * expected)


def test_label_that_is_not_known_changes_nothing(batch):
    logits, embeddings, labels, weights = batch
    other = torch.where(weights > 0, labels, 1 - labels)
    criterion = MultilabelCLCELoss(gather=False)
    assert_close(
        criterion.terms(*batch), criterion.terms(logits, embeddings, other, weights), rtol=0, atol=0
    )


def test_half_precision_is_computed_in_float32(batch):
    logits, *others = batch
    terms = MultilabelCLCELoss(weight=0, gather=False).terms(logits.bfloat16(), *others)
    assert terms["cross_entropy"].dtype == torch.float32
