"""The contrastive term as the formula reads, one anchor at a time, in float64."""

import torch


def slow_anchor_losses(
    embeddings, positives, *, temperature, hardness, references=None, statement="each"
):
    """Return the loss of each anchor, 0 without a positive; ``positives[i]`` are its columns."""
    rows = embeddings if references is None else torch.cat([embeddings, references])
    z = rows / rows.square().sum(dim=1, keepdim=True).sqrt()
    return torch.stack(
        [
            _anchor_loss(z, i, positives[i], temperature, hardness, statement)
            for i in range(len(embeddings))
        ]
    )


def _anchor_loss(z, i, positives, temperature, hardness, statement):
    if not positives:
        return z.new_zeros(())
    s = z @ z[i] / temperature
    positives = sorted(positives)
    negatives = sorted(set(range(len(z))) - {i} - set(positives))
    top = s.max()
    positive, negative = (s[positives] - top).exp(), z.new_zeros(())
    if negatives:
        w = len(negatives) * torch.softmax(hardness * s[negatives], dim=0)
        negative = (w * (s[negatives] - top).exp()).sum()
    if statement == "mean":
        return torch.log1p(negative / positive.mean())
    return ((positive.sum() + negative).log() + top - s[positives]).mean()


def positives_by_label(labels, reference_labels=()):
    columns = [*labels, *reference_labels]
    return [
        [j for j, other in enumerate(columns) if other == label and j != i]
        for i, label in enumerate(labels)
    ]


def positives_by_mask(mask):
    return [[j for j, yes in enumerate(row) if yes and j != i] for i, row in enumerate(mask)]
