"""Where the gradient of the contrastive loss goes among the negatives of an anchor.

For 512 digits of scikit-learn (pixels minus their mean) and for 512 normal vectors of 128
dimensions: the share of the push, of all pairs that a step of descent moves apart, that
falls on the tenth of an anchor's negatives nearest to it, and the share of negatives that
the step pulls nearer instead. Run ``python benchmarks/negative_weights.py``.
"""

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

N = 512


def derivatives(score, same, hardness):
    """Of the formula by the similarities over the temperature, (n, n)."""
    itself = torch.eye(N, dtype=torch.bool)
    score = score.clone().requires_grad_()
    weights = (hardness * score).masked_fill(same, -torch.inf).softmax(dim=1)
    weights = weights * (~same).sum(dim=1, keepdim=True)
    partition = (score.exp() * torch.where(same, (~itself).double(), weights)).sum(dim=1)
    positive = (score * (same & ~itself)).sum(dim=1) / (same.sum(dim=1) - 1)
    return torch.autograd.grad((partition.log() - positive).sum(), score)[0]


def shares(embeddings, labels, temperature, hardness):
    z = F.normalize(embeddings.double())
    score = z @ z.T / temperature
    same = labels[:, None] == labels
    derivative = derivatives(score, same, hardness).masked_fill(same, 0)
    nearest_first = score.masked_fill(same, -torch.inf).argsort(dim=1, descending=True)
    push = derivative.clamp(min=0).gather(1, nearest_first)
    in_nearest_tenth = torch.arange(N) < ((~same).sum(dim=1, keepdim=True) // 10)
    return (push * in_nearest_tenth).sum() / push.sum(), (derivative < 0).sum() / (~same).sum()


def main():
    X, y = load_digits(return_X_y=True)
    labels = torch.tensor(y[:N])
    normal = torch.randn(N, 128, generator=torch.Generator().manual_seed(0))
    for name, embeddings in (
        ("digits", torch.tensor(X[:N] - X[:N].mean(axis=0))),
        ("normal", normal),
    ):
        for temperature in (0.1, 0.5):
            for hardness in (0.0, 1.0):
                push, pulled = shares(embeddings, labels, temperature, hardness)
                print(
                    f"{name}  temperature={temperature}  hardness={hardness}  "
                    f"push on the nearest tenth {push:.2f}  negatives pulled {pulled:.2f}"
                )


if __name__ == "__main__":
    main()
