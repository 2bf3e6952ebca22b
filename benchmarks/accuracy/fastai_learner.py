"""fastai's ``vision_learner(...).fine_tune``, at its defaults but for the size of the batch.

Its own is 64 and drops what is left over: of 70 pictures a step an epoch.
"""

import numpy as np
import torch

from .fine_tuner import FineTuner

EPOCHS, BATCH_SIZE = 20, 16


class FastaiLearner(FineTuner):
    """A classifier of images: one epoch of a new head, then all layers."""

    def __init__(self, *args, **named):
        import fastai.vision.all  # noqa: F401  (its seconds are not those of a fit)

        super().__init__(*args, **named)

    def fit(self, images, y):
        """Fine-tune on images (n, H, W, 3) in 0..255 and their labels (n,)."""
        from fastai.vision.all import (
            CategoryBlock,
            DataBlock,
            ImageBlock,
            Normalize,
            Resize,
            aug_transforms,
            vision_learner,
        )

        self.classes_ = np.unique(y)
        self.seed_all()
        block = DataBlock(
            blocks=(ImageBlock, CategoryBlock(vocab=self.classes_.tolist())),
            get_x=lambda row: images[row],
            get_y=lambda row: y[row],
            splitter=lambda rows: (list(range(len(rows))), [0]),
            item_tfms=Resize(self.config.image_size),
            batch_tfms=[
                *aug_transforms(),
                Normalize.from_stats(self.config.mean, self.config.std, cuda=False),
            ],
        )
        loaders = block.dataloaders(
            list(range(len(images))), bs=BATCH_SIZE, num_workers=0, device=self.device
        )
        self.learner = vision_learner(loaders, self.config.name, pretrained=False)
        self.learner.model[0].model.load_state_dict(self.backbone.state_dict())
        self.learner.freeze()
        with self.learner.no_bar(), self.learner.no_logging():
            self.learner.fine_tune(EPOCHS)
        steps = (1 + EPOCHS) * len(loaders.train)
        self.budget = {"epochs": 1 + EPOCHS, "steps": steps, "batch_size": BATCH_SIZE}
        return self

    def predict_proba(self, images):
        """Return probabilities (n, n_classes)."""
        from fastai.vision.all import PILImage

        pictures = [PILImage.create(image) for image in images]
        loader = self.learner.dls.test_dl(pictures, with_labels=False)
        with self.learner.no_bar(), torch.no_grad():
            probabilities, _ = self.learner.get_preds(dl=loader)
        return probabilities.numpy()
