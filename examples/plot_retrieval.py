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
# The classifier learns eight kinds of pictures, cut from eight photographs. Two galleries are
# searched: other pictures of these kinds, and of four that it has never seen.
import matplotlib.pyplot as plt
import numpy as np
from skimage import color, data
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.neighbors import NearestNeighbors

from sklearn_clce import BackboneFeatures, CLCEClassifier

photographs = {
    "brick": data.brick(),
    "cat": data.cat(),
    "coffee": data.coffee(),
    "coins": data.coins(),
    "flower": load_sample_image("flower.jpg"),
    "grass": data.grass(),
    "gravel": data.gravel(),
    "retina": data.retina(),
    "rocket": data.rocket(),
    "stars": data.hubble_deep_field(),
    "temple": load_sample_image("china.jpg"),
    "tissue": data.immunohistochemistry(),
}
X, y = [], np.repeat(list(photographs), 50)
for photograph in photographs.values():
    rgb = color.gray2rgb(photograph) if photograph.ndim == 2 else photograph
    X.extend(extract_patches_2d(rgb, (48, 48), max_patches=50, random_state=0))
X = np.array(X)
is_new = np.isin(y, ["cat", "grass", "stars", "tissue"])
learned, unseen = np.flatnonzero(~is_new), np.flatnonzero(is_new)
train, others = learned[::4], np.setdiff1d(learned, learned[::4])

clf = CLCEClassifier(image_size=64, max_epochs=8, learning_rate=3e-3, random_state=0)
clf.fit(X[train], y[train])


# %%
# Precision among the five nearest
# --------------------------------
# Of the five nearest in the gallery, how many are of the query's class? Beside the embeddings stand
# the features of the backbone as it came. The embeddings are made for the classes that were
# learned. For other classes training may have thrown away what it had no use for.
def five_nearest(embed, gallery, queries):
    """Return the places of the pictures in the gallery nearest to each query."""
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
# Some queries and what is found
# ------------------------------
# Learned classes, by embeddings. A cross marks what is of another class.
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
