"""What ``verbose`` shows of a fit."""

from __future__ import annotations

import math
import time
from typing import Any

from skorch.callbacks import Callback

from .._system import bar, duration, is_main, write_line
from .optim import trained_blocks

SHOWN = {"train_loss": "loss", "valid_loss": "validation loss", "valid_acc": "validation accuracy"}


class Progress(Callback):
    """Says how much there is to do, leaves a line for each epoch, and shows a bar of its steps."""

    bar_ = None

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Say how much there is to do."""
        self.shown_ = bool(net.verbose) and is_main()
        if not self.shown_:
            return
        parameters = list(net.module_.parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        total = sum(p.numel() for p in parameters)
        n_steps, n_epochs = len(net.run.batch_sampler), net.run.n_epochs
        limited = math.isfinite(net.run.time.seconds)
        what = f"trainable={trained_blocks(net.module_)!r}"
        write_line(
            f"training {trained:,} of {total:,} parameters ({what}) "
            f"on {len(X):,} samples, on {net.device}: "
            f"{'up to ' if net.patience or limited else ''}{n_epochs} epochs of {n_steps} steps"
            f"{f', {duration(net.run.time.left)} left' if limited else ''}"
        )
        self.n_before_, self.start_ = net.run.epochs_done, time.monotonic()

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Begin a bar."""
        if self.shown_:
            self.bar_ = bar(total=len(net.run.batch_sampler), unit="step")

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Move on by a step."""
        if self.bar_ is not None and training:
            self.bar_.update()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Leave a line with the epoch's figures, its time, and the time that is left."""
        if not self.shown_:
            return
        self._close()
        done, n_epochs = net.run.epochs_done, net.run.n_epochs
        epoch = net.history[-1]
        passed = time.monotonic() - self.start_
        left = passed / max(done - self.n_before_, 1) * (n_epochs - done)
        left = min(left, net.run.time.left)
        shown = dict(SHOWN)
        if net.run.score is not None and net.run.score.of_batches is None:
            shown["valid_score"] = f"validation {net.run.score.name}"
        figures = [f"{name} {epoch[key]:.3f}" for key, name in shown.items() if key in epoch]
        ending = "" if net.run.is_over else f", {duration(left)} left"
        number = f"{done:>{len(str(n_epochs))}}/{n_epochs}"
        write_line(f"epoch {number}: {', '.join([*figures, duration(epoch['dur'])])}{ending}")

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Close the bar of an epoch that was cut short."""
        self._close()

    def _close(self) -> None:
        if self.bar_ is not None:
            self.bar_.close()
        self.bar_ = None
