"""
==================================
Images and a table in one pipeline
==================================

If an image comes with numbers, such as a weight or a place, use both in one classifier.
:class:`~sklearn_clce.BackboneFeatures` is a transformer, so scikit-learn's
:class:`~sklearn.compose.ColumnTransformer` combines its features with the columns of a table.
"""

# %%
# A table with a column of paths
# ------------------------------
# The images show gravel and grass. Half of each kind is wet. The image does not show this, but the
# weight does. The weights are made up.
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from photographs import save
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklearn_clce import BackboneFeatures, CLCEClassifier, list_images

temporary = tempfile.TemporaryDirectory()
save(temporary.name, ["gravel", "grass"], size=64, n=60)
rng = np.random.default_rng(0)
rows = []
for number, path in enumerate(list_images(temporary.name)):
    wet = number % 2
    rows.append(
        {
            "path": path,
            "weight": rng.normal(1.2 if wet else 1.0, 0.06),
            "yard": rng.choice(["north", "south"]),
            "kind": f"{'wet' if wet else 'dry'} {Path(path).parent.name}",
        }
    )
table = pd.DataFrame(rows)
y = table.pop("kind")
print(table.head(3).assign(path=table["path"].map(lambda path: Path(path).name)))

# %%
# One transformer for each kind of column
# ---------------------------------------
# ``"path"``, without brackets, passes the column as it is. A backbone gives a thousand columns, and
# a single column of the table would have no influence next to them. So ten principal components of
# deviation 1 replace them. ``memory`` keeps the features, so that the backbone runs once per image,
# regardless of the number of folds.
features = BackboneFeatures(image_size=64, memory=Path(temporary.name, "features"))
images = make_pipeline(features, PCA(10, whiten=True, random_state=0))
alone = make_column_transformer((images, "path"))
both = make_column_transformer(
    (images, "path"), (StandardScaler(), ["weight"]), (OneHotEncoder(), ["yard"])
)

# %%
# A classifier on top
# -------------------
# Any classifier will do. ``CLCEClassifier("precomputed")`` accepts features. Compare with the
# images alone, to see what the table adds.
scores = pd.DataFrame(
    {
        name: {
            inputs: cross_val_score(make_pipeline(columns, head), table, y, cv=4).mean()
            for inputs, columns in {"images": alone, "images and table": both}.items()
        }
        for name, head in {
            "CLCE": CLCEClassifier("precomputed", random_state=0),
            "logistic regression": LogisticRegression(),
        }.items()
    }
)
print(scores.round(2))
ax = scores.plot.bar(rot=0, ylim=(0, 1), ylabel="accuracy", figsize=(6, 3))
ax.legend(loc="lower right")
temporary.cleanup()
