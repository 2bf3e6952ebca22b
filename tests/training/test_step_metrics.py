"""Metrics of the steps reach the history, and no step waits for them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cuda.synchronisation import waits_of_a_step
from sklearn_clce import CLCEClassifier
from sklearn_clce._training import CLCENet, step_metrics
from sklearn_clce._training.step_metrics import NonFiniteError, StepMetrics
from sklearn_clce.losses import _checks
from small_fits import head

CPU = torch.device("cpu")
HOST_READS = {
    getattr(torch.ops.aten, name).default
    for name in ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2")
}


class HostReads(TorchDispatchMode):
    """Counts operations that would make the host wait for a GPU."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func in HOST_READS
        return func(*args, **(kwargs or {}))


class ReadsBySteps(Callback):
    """Records the number of reads at each step."""

    def __init__(self, reads):
        self.reads, self.counts = reads, []

    def on_batch_end(self, net, training, **kwargs):
        self.counts.append(self.reads.n)


def images_fit(tiny_backbone, X, y, **parameters):
    settings = {"batch_size": 4, "max_epochs": 1, "augment": None, "random_state": 0}
    return CLCEClassifier(tiny_backbone, **settings | parameters).fit(X, y)


def steps(*losses):
    return [{"train_loss": torch.tensor(loss), "train_batch_size": 4} for loss in losses]


@pytest.mark.parametrize("lag", [0, 1, 3, 99])
def test_delayed_metrics_report_first_non_finite_step(monkeypatch, lag):
    monkeypatch.setitem(step_metrics.LAG, "cpu", lag)
    batches = steps(1.0, 2.0, float("inf"), float("nan"), 5.0)
    taken = []

    def take_steps():
        reading = StepMetrics(CPU, epoch=7)
        for batch in batches:
            taken.append(batch)
            reading.add(batch)
        reading.take_all()

    with pytest.raises(NonFiniteError, match="the loss is inf in epoch 7, step 3: likely"):
        take_steps()
    assert len(taken) == min(3 + lag, 5)
    assert [batch["train_loss"] for batch in batches[:2]] == [1.0, 2.0]
    assert {type(batch["train_loss"]) for batch in batches[:3]} == {float}


def test_cuda_metrics_lag_eight_steps(monkeypatch):
    log = []

    class Stream:
        def record_event(self):
            number = sum(one[0] == "recorded" for one in log)
            log.append(("recorded", number))
            return SimpleNamespace(synchronize=lambda: log.append(("waited", number)))

    monkeypatch.setattr("torch.cuda.current_stream", lambda device: Stream())
    reading = StepMetrics(torch.device("cuda"), epoch=1)
    batches = steps(*map(float, range(10)))
    for batch in batches:
        reading.add(batch)
    of_waits = [number for what, number in log if what == "waited"]
    assert of_waits == [0, 1]
    assert log.index(("waited", 0)) > log.index(("recorded", 8))
    assert [type(batch["train_loss"]) for batch in batches] == [float] * 2 + [torch.Tensor] * 8
    reading.take_all()
    assert [batch["train_loss"] for batch in batches] == list(range(10))


def test_non_finite_gradient_is_reported(monkeypatch, clouds):
    get_loss = CLCENet.get_loss

    def with_infinite_slope(net, *args, **kwargs):
        loss = get_loss(net, *args, **kwargs)
        return loss + (loss - loss.detach()).abs().sqrt()

    monkeypatch.setattr(CLCENet, "get_loss", with_infinite_slope)
    with pytest.raises(ValueError, match="the norm of the gradient is nan in epoch 1, step 1"):
        head().fit(*clouds)


@pytest.mark.parametrize("max_grad_norm", [1.0, None])
@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_training_step_reads_no_device_values(
    monkeypatch, tiny_backbone, colour_images, colour_labels, max_grad_norm, micro_batch_size
):
    monkeypatch.setitem(step_metrics.LAG, "cpu", 99)
    monkeypatch.setattr(_checks, "is_readable", lambda tensor: False)  # as on a GPU
    with HostReads() as reads:
        by_step = ReadsBySteps(reads)
        clf = images_fit(
            tiny_backbone,
            colour_images,
            colour_labels,
            max_grad_norm=max_grad_norm,
            micro_batch_size=micro_batch_size,
            callbacks=[by_step],
        )
    assert len(by_step.counts) == 3
    assert by_step.counts[0] == by_step.counts[-1]
    assert reads.n > by_step.counts[-1]  # they are read when the epoch ends
    batches = clf.history_[-1]["batches"]
    assert all(np.isfinite(batch["train_grad_norm"]) for batch in batches)


def test_history_is_independent_of_lag(monkeypatch, clouds):
    def history(lag):
        monkeypatch.setitem(step_metrics.LAG, "cpu", lag)
        clf = head(max_epochs=3, early_stopping=True).fit(*clouds)
        return [{k: v for k, v in epoch.items() if k != "dur"} for epoch in clf.history_]

    assert history(0) == history(2) == history(99)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("augment", ["auto", None])
@pytest.mark.parametrize("trainable", ["all", "head"])
def test_cuda_step_does_not_synchronise(tiny_backbone, trainable, augment):
    X = np.random.default_rng(0).random((16, 16, 16, 3))

    def fit(steps):
        images_fit(
            tiny_backbone,
            X,
            np.arange(len(X)) % 2,
            device="cuda",
            trainable=trainable,
            sampler="shuffle",
            augment=augment,
            callbacks=[steps],
        )

    assert waits_of_a_step(fit) == {}
