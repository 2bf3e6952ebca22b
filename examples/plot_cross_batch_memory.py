"""
=================================================
A memory of older batches: references of the loss
=================================================

The contrastive term compares the samples of a batch, and a batch of eight has few pairs. If a large
batch does not fit, compare with the embeddings of older batches as well. This is the cross-batch
memory of `Wang et al. (2020) <https://arxiv.org/abs/1912.06798>`_. It takes ten lines around the
``references`` of the loss.
"""

# %%
# The memory
# ----------
# The memory is a queue of the last embeddings and their labels. They carry no gradient. They become
# outdated as the network changes, so keep the queue short.
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from sklearn_clce import label_aware_contrastive_loss

torch.set_num_threads(1)


class CrossBatchMemory:
    """The last ``size`` embeddings and labels, oldest first."""

    def __init__(self, size, n_dims):
        self.size = size
        self.embeddings = torch.empty(0, n_dims)
        self.labels = torch.empty(0, dtype=torch.int64)

    def add(self, embeddings, labels):
        self.embeddings = torch.cat([self.embeddings, embeddings.detach()])[-self.size :]
        self.labels = torch.cat([self.labels, labels])[-self.size :]


# %%
# Your own training loop
# ----------------------
# A small network learns embeddings of handwritten digits with the contrastive term alone. Each
# variant takes the same number of steps. Only the samples that an anchor is compared with differ.
X, y = load_digits(return_X_y=True)
X = torch.tensor(X / 16, dtype=torch.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=0)
labels = torch.tensor(y_train)


def embeddings_after(batch_size, memory_size, seed, n_steps=300):
    """Train, and return the embeddings of training and test digits."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    memory = CrossBatchMemory(memory_size, 16)
    for _ in range(n_steps):
        batch = torch.randint(len(X_train), (batch_size,))
        embeddings = network(X_train[batch])
        loss = label_aware_contrastive_loss(
            embeddings,
            labels[batch],
            temperature=0.1,
            references=memory.embeddings,
            reference_labels=memory.labels,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if memory_size:
            memory.add(embeddings, labels[batch])
    with torch.no_grad():
        return network(X_train), network(X_test)


def accuracy_of_neighbours(train, test):
    """Share of test digits whose nearest training digit, by angle, has their label."""
    neighbours = KNeighborsClassifier(n_neighbors=1, metric="cosine").fit(train, y_train)
    return neighbours.score(test, y_test)


# %%
# What the memory gains here
# --------------------------
# The figure shows the mean of five seeds and their standard deviation. The large batch compares an
# anchor with as many others as the memory does, but it also sees sixteen times as many digits. That
# explains part of its lead. Nearest neighbours of the pixels themselves are more accurate than all
# three after so few steps: only the comparison between the three matters.
arms = {"batch of 8": (8, 0), "8, and 120 remembered": (8, 120), "batch of 128": (128, 0)}
scores = {
    name: [accuracy_of_neighbours(*embeddings_after(*arm, seed)) for seed in range(5)]
    for name, arm in arms.items()
}
print(f"{'pixels':<22} {accuracy_of_neighbours(X_train, X_test):.3f}")
for name, values in scores.items():
    print(f"{name:<22} {np.mean(values):.3f} ± {np.std(values):.3f}")

_, ax = plt.subplots(figsize=(6.4, 2.4), layout="constrained")
ax.barh(list(scores), [np.mean(v) for v in scores.values()], color="tab:blue", alpha=0.4)
for row, values in enumerate(scores.values()):
    ax.plot(values, [row] * len(values), "k.")
ax.set(xlabel="accuracy of the nearest neighbour; points are seeds", xlim=(0.8, 1))
ax.invert_yaxis()
plt.show()
