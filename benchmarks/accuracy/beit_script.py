"""Fine-tuning as the script of BEiT does it at its defaults, in plain torch.

AdamW at 5e-4, each layer at 0.9 of the rate above, 30 epochs of which five warm up, a cosine to
1e-6, weight decay 0.05, drop path 0.1, label smoothing 0.1, RandAugment and random erasing, a
classifier that starts at a thousandth of its size; mixup and cutmix off. Batches are of 32, not
64, and none is dropped, because of a few pictures a larger one leaves a step an epoch or none.
RandAugment is torchvision's: timm's asks a new Pillow for what that refuses.
"""

import math

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.random_erasing import RandomErasing
from timm.optim import param_groups_layer_decay
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

from .fine_tuner import FineTuner

RATE, LEAST_RATE, LAYER_DECAY, WEIGHT_DECAY = 5e-4, 1e-6, 0.9, 0.05
EPOCHS, WARM_UP, BATCH_SIZE = 30, 5, 32
DROP_PATH, SMOOTHING, HEAD_SCALE = 0.1, 0.1, 1e-3


class BeitScript(FineTuner):
    """A classifier of images, fine-tuned by that recipe."""

    def fit(self, images, y):
        """Fine-tune on images (n, H, W, 3) in 0..255 and their labels (n,)."""
        self.classes_, labels = np.unique(y, return_inverse=True)
        labels = torch.from_numpy(labels).to(self.device)
        self.seed_all()
        self.model = self._start()
        groups = param_groups_layer_decay(self.model, WEIGHT_DECAY, layer_decay=LAYER_DECAY)
        optimizer = torch.optim.AdamW(groups, lr=RATE)
        augment = self._augmentation()
        n_batches = math.ceil(len(images) / BATCH_SIZE)
        for epoch in range(EPOCHS):
            for number, rows in enumerate(torch.randperm(len(images)).tensor_split(n_batches)):
                share = rate_of(epoch * n_batches + number, n_batches)
                for group in optimizer.param_groups:
                    group["lr"] = share * group["lr_scale"]
                batch = torch.stack([augment(Image.fromarray(images[row])) for row in rows])
                logits = self.model(batch.to(self.device))
                loss = cross_entropy(logits, labels[rows], label_smoothing=SMOOTHING)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.budget = {"epochs": EPOCHS, "steps": EPOCHS * n_batches, "batch_size": BATCH_SIZE}
        return self

    def predict_proba(self, images):
        """Return probabilities (n, n_classes)."""
        side = self.config.image_size
        prepare = create_transform(
            (3, side, side),
            mean=self.config.mean,
            std=self.config.std,
            interpolation=self.config.interpolation,
            crop_pct=self.config.crop_pct,
        )
        self.model.eval()
        parts = []
        with torch.no_grad():
            for start in range(0, len(images), BATCH_SIZE):
                part = [prepare(Image.fromarray(one)) for one in images[start : start + BATCH_SIZE]]
                parts.append(self.model(torch.stack(part).to(self.device)).softmax(dim=1).cpu())
        return torch.cat(parts).numpy()

    def _start(self):
        n_classes = len(self.classes_)
        model = timm.create_model(
            self.config.name, num_classes=n_classes, drop_path_rate=DROP_PATH, **self._input()
        )
        model.load_state_dict(self.backbone.state_dict(), strict=False)
        with torch.no_grad():
            model.get_classifier().weight.mul_(HEAD_SCALE)
            model.get_classifier().bias.zero_()
        return model.to(self.device).train()

    def _input(self):
        fixed = timm.get_pretrained_cfg(self.config.name).fixed_input_size
        return {"img_size": self.config.image_size} if fixed else {}

    def _augmentation(self):
        """Crops, mirror images, RandAugment and erased parts, to a normalised image (3, H, W)."""
        return v2.Compose(
            [
                v2.RandomResizedCrop(
                    self.config.image_size, interpolation=v2.InterpolationMode.BICUBIC
                ),
                v2.RandomHorizontalFlip(),
                v2.RandAugment(num_ops=2, magnitude=9),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(self.config.mean, self.config.std),
                RandomErasing(probability=0.25, mode="pixel", device="cpu"),
            ]
        )


def rate_of(step, n_batches):
    """Return the learning rate of a step: a linear warm-up, then a cosine."""
    warm, steps = WARM_UP * n_batches, EPOCHS * n_batches
    if step < warm:
        return LEAST_RATE + (RATE - LEAST_RATE) * step / warm
    gone = (step - warm) / (steps - warm)
    return LEAST_RATE + (RATE - LEAST_RATE) * (1 + math.cos(math.pi * gone)) / 2
