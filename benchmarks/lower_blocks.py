"""What lower blocks, beside the last features of a frozen backbone, are worth to a head.

Printed are points of accuracy on test pictures of each set of photographs, in the mean over draws:
of a head on the last features minus ``LogisticRegression()`` on them; and of ``trainable="head"``,
which reads means of lower blocks too, minus the head on the last features.

Run ``python -m benchmarks.lower_blocks --data FOLDER --features FOLDER``, with ``--weights FILE``
for ``vit_tiny`` in place of the bundled backbone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_clce import BackboneFeatures, CLCEClassifier

from .accuracy.frames import estimate
from .photographs import draw_pictures, parser, photographs
from .tables import Table, text

PICTURES = (5, 15)
BUNDLED, TRANSFORMER = "efficientnet_lite0", "vit_tiny"


def measure(
    files: np.ndarray, y: np.ndarray, train: np.ndarray, n: int, seed: int, backbone: dict[str, Any]
) -> np.ndarray:
    """Return how far the head is ahead of the regression, and that with blocks of the head."""
    rows = draw_pictures(y, train, np.unique(y), n, seed)

    def score(model: Any) -> float:
        return 100 * model.fit(files[rows], y[rows]).score(files[~train], y[~train])

    def on_last(classifier: Any) -> float:
        return score(make_pipeline(BackboneFeatures(**backbone), classifier))

    head = on_last(CLCEClassifier("precomputed", random_state=seed))
    regression = on_last(LogisticRegression(max_iter=1000))
    both = score(CLCEClassifier(**backbone, trainable="head", random_state=seed))
    return np.array([head - regression, both - head])


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--weights", help=f"file of the weights of {TRANSFORMER}")
    arguments.add_argument("--pictures", nargs="+", type=int, default=PICTURES, help="of a class")
    options = arguments.parse_args()
    name = BUNDLED if options.weights is None else TRANSFORMER
    pretrained = True if options.weights is None else options.weights
    backbone = {"backbone": name, "pretrained": pretrained, "memory": options.features}
    data = {one: photographs(one, options.data) for one in options.sets}
    rows = []
    for n in options.pictures:
        leads = {
            one: np.mean(
                [measure(*arrays, n, seed, backbone) for seed in range(options.draws)], axis=0
            )
            for one, arrays in data.items()
        }
        for what, values in zip(
            ("head minus regression", "with blocks minus head"),
            np.transpose(list(leads.values())),
            strict=True,
        ):
            mean = str(estimate(values)) if len(values) > 1 else ""
            rows.append([f"{what}, {n} a class", *(f"{value:+.1f}" for value in values), mean])
    print(text(Table(f"{name}, points of accuracy", ["", *data, "mean"], rows)))


if __name__ == "__main__":
    main()
