"""
===============================================
Retrieval: nearest neighbours of the embeddings
===============================================

``transform`` gives embeddings of length 1, in which images of a class lie together.
scikit-learn's :class:`~sklearn.neighbors.NearestNeighbors` searches them.
"""

# %%
# Learn some classes, search among these and others
# -------------------------------------------------
# The classifier learns eight kinds of images, cut from eight photographs. Two galleries are
# searched: other images of these kinds, and images of four kinds that it has never seen.
import matplotlib.pyplot as plt
import numpy as np
from photographs import NAMES, cut
from sklearn.neighbors import NearestNeighbors

from sklearn_clce import BackboneFeatures, CLCEClassifier

X, y = cut(NAMES, size=48, n=50)
is_new = np.isin(y, ["cat", "grass", "stars", "tissue"])
learned, unseen = np.flatnonzero(~is_new), np.flatnonzero(is_new)
train, others = learned[::4], np.setdiff1d(learned, learned[::4])

clf = CLCEClassifier(image_size=64, max_epochs=8, learning_rate=3e-3, random_state=0)
clf.fit(X[train], y[train])


# %%
# Precision among the five nearest
# --------------------------------
# How many of the five nearest images are of the class of the query? The embeddings are compared
# with the features of the pretrained backbone. Embeddings are trained for the learned classes. For
# other classes, training may discard what they would need.
def five_nearest(embed, gallery, queries):
    """Return the places of the images in the gallery nearest to each query."""
    index = NearestNeighbors(n_neighbors=5, metric="cosine").fit(embed(X[gallery]))
    return gallery[index.kneighbors(embed(X[queries]), return_distance=False)]


spaces = {"features": BackboneFeatures(image_size=64).transform, "embeddings": clf.transform}
tasks = {"unseen classes": unseen, "learned classes": others}
for task, indices in tasks.items():
    gallery, queries = indices[::2], indices[1::2]
    for name, embed in spaces.items():
        nearest = five_nearest(embed, gallery, queries)
        precision = (y[nearest] == y[queries][:, None]).mean()
        print(f"{task}, {name:>10}: precision at 5 is {precision:.1%}")

# %%
# Some queries and their neighbours
# ---------------------------------
# These are learned classes, searched by embeddings. A cross marks an image of another class.
mistaken = np.flatnonzero((y[nearest] != y[queries][:, None]).any(axis=1))
chosen = [*range(0, len(queries), 50), *mistaken[::10][:3]]
figure, axes = plt.subplots(len(chosen), 6, figsize=(6.4, 1.15 * len(chosen)), layout="constrained")
for row, query in zip(axes, chosen, strict=True):
    for ax, number in zip(row, [queries[query], *nearest[query]], strict=True):
        ax.imshow(X[number])
        ax.set(xticks=[], yticks=[])
        if y[number] != y[queries[query]]:
            ax.plot(42, 5, "x", color="#D55E00", markersize=11, markeredgewidth=3)
axes[0, 0].set_title("query", size=10)
axes[0, 1].set_title("nearest", size=10)
plt.show()
