"""What lower blocks, beside the last features of a frozen backbone, are worth to a head.

Printed are points of accuracy on test pictures of each set of photographs, in the mean over draws:
of a head minus ``LogisticRegression()``, both on the last features; and of a head on the last
features and the means of all blocks, minus the head on the last ones.

Run ``python -m benchmarks.lower_blocks --data FOLDER --features FOLDER``, with ``--weights FILE``
for ``vit_tiny`` in place of the bundled backbone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import normalize

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce.backbones import frozen_backbone

from .accuracy.frames import estimate
from .photographs import draw_pictures, parser, photographs
from .tables import Table, text

PICTURES = (5, 15)
BUNDLED, TRANSFORMER = "efficientnet_lite0", "vit_tiny"


class WithBlocks(nn.Module):
    """The last features of a timm model, and the mean of each block over its places.

    The last features are of length 1, of those behind a ReLU after the root; the blocks together
    are of length 1/2.
    """

    def __init__(self, model: Any, *, root: bool) -> None:
        super().__init__()
        self.model = model
        self.pretrained_cfg = model.pretrained_cfg
        self.root = root

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, H, W) -> features (n, n_features)."""
        last, blocks = self.model.forward_intermediates(images)
        last = self.model.forward_head(last)
        last = normalize(last.relu().sqrt() if self.root else last)
        means = [normalize(block.mean(dim=(2, 3))) for block in blocks]
        return torch.cat([last, torch.cat(means, dim=1) / (2 * len(means) ** 0.5)], dim=1)


def both_features(
    name: str, data: str | None, folder: Path, weights: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return features (n, d), those with blocks, labels (n,) and which are for training (n,)."""
    backbone = BUNDLED if weights is None else TRANSFORMER
    pretrained = True if weights is None else weights
    kept = folder / f"blocks_{backbone}_{name}.npz"
    if not kept.exists():
        files, y, train = photographs(name, data)
        last = BackboneFeatures(backbone, pretrained=pretrained).fit_transform(files)
        model = frozen_backbone(backbone, pretrained=pretrained).module
        blocks = BackboneFeatures(WithBlocks(model, root=bool(last.min() >= 0)))
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(kept, last=last, blocks=blocks.fit_transform(files), y=y, train=train)
    found = np.load(kept)
    return found["last"], found["blocks"], found["y"], found["train"]


def measure(
    last: np.ndarray, blocks: np.ndarray, y: np.ndarray, train: np.ndarray, n: int, seed: int
) -> np.ndarray:
    """Return how far the head is ahead of the regression, and that with blocks of the head."""
    rows = draw_pictures(y, train, np.unique(y), n, seed)

    def score(model: Any, X: np.ndarray) -> float:
        return 100 * model.fit(X[rows], y[rows]).score(X[~train], y[~train])

    def head() -> CLCEClassifier:
        return CLCEClassifier("precomputed", random_state=seed)

    on_last = score(head(), last)
    regression = score(LogisticRegression(max_iter=1000), last)
    return np.array([on_last - regression, score(head(), blocks) - on_last])


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--weights", help=f"file of the weights of {TRANSFORMER}")
    arguments.add_argument("--pictures", nargs="+", type=int, default=PICTURES, help="of a class")
    options = arguments.parse_args()
    data = {
        name: both_features(name, options.data, options.features, options.weights)
        for name in options.sets
    }
    rows = []
    for n in options.pictures:
        leads = {
            name: np.mean([measure(*arrays, n, seed) for seed in range(options.draws)], axis=0)
            for name, arrays in data.items()
        }
        for what, values in zip(
            ("head minus regression", "with blocks minus head"),
            np.transpose(list(leads.values())),
            strict=True,
        ):
            mean = str(estimate(values)) if len(values) > 1 else ""
            rows.append([f"{what}, {n} a class", *(f"{value:+.1f}" for value in values), mean])
    backbone = BUNDLED if options.weights is None else TRANSFORMER
    print(text(Table(f"{backbone}, points of accuracy", ["", *data, "mean"], rows)))


if __name__ == "__main__":
    main()
