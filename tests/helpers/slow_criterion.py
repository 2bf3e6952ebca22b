"""The contrastive term as the formula reads, one anchor at a time, in float64."""

import torch


def slow_anchor_losses(
    embeddings,
    positives,
    *,
    temperature,
    hardness,
    references=None,
    statement="each",
    negatives=None,
    weights=None,
):
    """Return the loss of each anchor, 0 without a positive.

    ``positives[i]`` are the columns of its positives, ``negatives[i]`` those of its negatives,
    all others by default, and ``weights[i][j]`` is the weight of a positive, 1 by default.
    """
    rows = embeddings if references is None else torch.cat([embeddings, references])
    z = rows / rows.square().sum(dim=1, keepdim=True).sqrt()
    losses = []
    for i, own in enumerate(positives):
        others = set(range(len(z))) - {i} - set(own) if negatives is None else negatives[i]
        of_own = [1.0 if weights is None else weights[i][j] for j in sorted(own)]
        s = z @ z[i] / temperature
        losses.append(_anchor_loss(s, sorted(own), of_own, sorted(others), hardness, statement))
    return torch.stack(losses)


def _anchor_loss(s, positives, weights, negatives, hardness, statement):
    if sum(weights) == 0:
        return s.new_zeros(())
    top = s.max()
    positive, negative = (s[positives] - top).exp(), s.new_zeros(())
    if negatives:
        w = len(negatives) * torch.softmax(hardness * s[negatives], dim=0)
        negative = (w * (s[negatives] - top).exp()).sum()
    shares = s.new_tensor(weights) / sum(weights)
    if statement == "mean":
        return torch.log1p(negative / (shares * positive).sum())
    return (shares * ((positive.sum() + negative).log() + top - s[positives])).sum()


def positives_by_label(labels, reference_labels=()):
    columns = [*labels, *reference_labels]
    return [
        [j for j, other in enumerate(columns) if other == label and j != i]
        for i, label in enumerate(labels)
    ]


def positives_by_mask(mask):
    return [[j for j, yes in enumerate(row) if yes and j != i] for i, row in enumerate(mask)]
