"""
===============================================
Retrieval: nearest neighbours of the embeddings
===============================================

``transform`` gives embeddings of length 1, in which pictures of a class lie together.
scikit-learn's :class:`~sklearn.neighbors.NearestNeighbors` searches them.
"""

# %%
# Learn on some classes, search among those and others
# ----------------------------------------------------
# The classifier learns the digits 0 to 6 from 50 pictures each. Two galleries are searched:
# other pictures of these classes, and of 7, 8 and 9, which it has never seen.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from sklearn_clce import BackboneFeatures, CLCEClassifier

digits = load_digits()
X, y = digits.images / 16, digits.target
learned, unseen = np.flatnonzero(y < 7), np.flatnonzero(y >= 7)
train, others = learned[:350], learned[350:]

clf = CLCEClassifier(image_size=64, max_epochs=6, random_state=0).fit(X[train], y[train])


# %%
# Precision among the five nearest
# --------------------------------
# Of the five nearest in the gallery, how many are of the query's class? Beside the
# embeddings stand the features of the backbone as it came. The embeddings are made for the
# classes that were learned: there they win. For classes that were not, training has thrown
# away what it had no use for.
def five_nearest(embed, gallery, queries):
    """Return the gallery's rows nearest to each query."""
    index = NearestNeighbors(n_neighbors=5, metric="cosine").fit(embed(X[gallery]))
    return gallery[index.kneighbors(embed(X[queries]), return_distance=False)]


spaces = {"features": BackboneFeatures(image_size=64).transform, "embeddings": clf.transform}
tasks = {"unseen classes": unseen, "learned classes": others}
for task, rows in tasks.items():
    gallery, queries = rows[:300], rows[300:420]
    for name, embed in spaces.items():
        nearest = five_nearest(embed, gallery, queries)
        precision = (y[nearest] == y[queries][:, None]).mean()
        print(f"{task}, {name:>10}: precision at 5 is {precision:.1%}")

# %%
# Some queries and what is found
# ------------------------------
# Learned classes, by embeddings. A cross marks what is of another class.
chosen = np.r_[0:3, np.flatnonzero((y[nearest] != y[queries][:, None]).any(axis=1))[:2]]
figure, axes = plt.subplots(len(chosen), 6, figsize=(6.4, 1.15 * len(chosen)), layout="constrained")
for row, query in zip(axes, chosen, strict=True):
    for ax, number in zip(row, [queries[query], *nearest[query]], strict=True):
        ax.imshow(X[number], cmap="gray_r")
        ax.set(xticks=[], yticks=[])
        if y[number] != y[queries[query]]:
            ax.plot(7, 0, "x", color="#D55E00", markersize=9, markeredgewidth=2.5)
axes[0, 0].set_title("query", size=10)
axes[0, 1].set_title("nearest", size=10)
plt.show()
