"""What several processes compare of a call, with simulated processes."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from sklearn_clce import CLCEClassifier
from sklearn_clce._system import joint, joint_calls, summaries
from sklearn_clce._system.joint_calls import difference
from sklearn_clce._system.summaries import summarize

N = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 6, 5, 3), dtype=np.uint8)


class Samples(Dataset):
    def __init__(self, images, is_random=False):
        self.images = images
        self.is_random = is_random

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        noise = torch.rand(1).item() if self.is_random else 0.0
        return self.images[index] + noise, index


class Stored:
    """An array that is read in rows, such as one of h5py."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        return self.array[index]


def encoded(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def paths(images):
    return [f"folder/{image.sum()}-{image.ravel()[0]}.png" for image in images]


KINDS = {  # of X, from images
    "array": lambda images: images.copy(),
    "float array": lambda images: images / 255,
    "features": lambda images: images.reshape(len(images), -1).astype(np.float32),
    "tensor": torch.tensor,
    "bfloat16 tensor": lambda images: torch.tensor(images).to(torch.bfloat16),
    "list of arrays": list,
    "list of tensors": lambda images: [*torch.tensor(images)],
    "PIL images": lambda images: [Image.fromarray(image) for image in images],
    "bytes": lambda images: [encoded(image) for image in images],
    "files": lambda images: [io.BytesIO(encoded(image)) for image in images],
    "dicts": lambda images: [{"bytes": encoded(image), "path": None} for image in images],
    "tuples": lambda images: [(image, 1) for image in images],
    "paths": paths,
    "array of paths": lambda images: np.array(paths(images)),
    "array of objects": lambda images: np.array(paths(images), dtype=object),
    "array of StringDType": lambda images: np.array(paths(images), dtype=np.dtypes.StringDType()),
    "Series": lambda images: pd.Series(paths(images)),
    "frame": lambda images: pd.DataFrame({"path": paths(images)}),
    "frame of features": lambda images: pd.DataFrame(images.reshape(len(images), -1)),
    "array on disk": Stored,
    "Dataset": Samples,
    "TensorDataset": lambda images: TensorDataset(torch.tensor(images)),
}
CHANGES = {  # of images, other ones
    "fewer": lambda images: images[:-1],
    "every second": lambda images: images[::2],
    "order": lambda images: images[::-1].copy(),
    "another first": lambda images: np.concatenate([images[1:2], images[1:]]),
}


def differs(one, other):
    return bool(difference([{"X": summarize(one)}, {"X": summarize(other)}]))


@given(kind=st.sampled_from([*KINDS]), change=st.sampled_from([*CHANGES]))
@settings(max_examples=200, deadline=None)
def test_equal_samples_agree_and_others_do_not(kind, change):
    make = KINDS[kind]
    assert not differs(make(IMAGES), make(IMAGES.copy()))
    assert differs(make(IMAGES), make(CHANGES[change](IMAGES)))


@given(
    labels=st.lists(st.integers(-3, 3) | st.text(max_size=3), min_size=1, max_size=40),
    place=st.integers(0, 39),
    form=st.sampled_from([list, tuple, lambda labels: np.array(labels, dtype=object)]),
)
@settings(deadline=None)
def test_any_label_that_differs_is_found(labels, place, form):
    other = list(labels)
    other[place % len(labels)] = "another"
    assert not differs(form(labels), form(list(labels)))
    assert differs(form(labels), form(other))


@given(n=st.integers(200_000, 400_000), place=st.floats(0, 1, exclude_max=True))
@settings(max_examples=10, deadline=None)
def test_long_labels_and_weights_are_compared_whole(n, place):
    weights = np.ones(n)
    other = weights.copy()
    other[int(n * place)] = 2
    assert differs(weights, other)
    assert not differs(weights, weights.copy())


VALUES = st.sampled_from(
    [
        *(None, True, False, 0, 1, 2, 0.1, 0.5, "auto", "head", {"lr": 0.1}, {"lr": 0.2}),
        *({"optimizer": torch.optim.SGD}, {"optimizer": torch.optim.AdamW}, nn.ReLU, nn.GELU),
    ]
)


@given(one=VALUES, other=VALUES, n_processes=st.integers(2, 4), rank=st.integers(0, 3))
@settings(deadline=None)
def test_parameter_of_one_process_is_named(one, other, n_processes, rank):
    each = [{"weight": summarize(one), "tol": summarize(0)} for _ in range(n_processes)]
    each[rank % n_processes]["weight"] = summarize(other)
    problem = difference(each)
    if repr(one) == repr(other):
        assert not problem
    else:
        assert problem.startswith("weight is ")
        assert "Pass all samples to every process, in the same order" in problem


def test_argument_that_one_process_leaves_out_is_named():
    problem = difference([{"y": summarize([0, 1])}, {}])
    assert problem.startswith("y is [0, 1] in process 0 and None in process 1")
    assert not difference([{"sample_weight": summarize(None)}, {}])


def test_module_with_other_weights_is_named():
    modules = [nn.Linear(2, 2) for _ in range(2)]
    assert differs(*modules)
    modules[1].load_state_dict(modules[0].state_dict())
    assert not differs(*modules)
    assert differs(nn.ReLU(), nn.GELU())


def test_random_dataset_is_compared_by_length_and_indices():
    one, other = (Samples(IMAGES, is_random=True) for _ in range(2))
    assert not differs(one, other)
    assert differs(one, Samples(IMAGES[1:], is_random=True))
    assert not differs(Subset(one, [0, 2]), Subset(other, [0, 2]))
    assert differs(Subset(one, [0, 2]), Subset(other, [1, 3]))


def test_unreadable_samples_are_left_to_the_call():
    class Unreadable(Samples):
        def __getitem__(self, index):
            raise OSError("gone")

    assert not differs(Unreadable(IMAGES), Unreadable(IMAGES))
    closed = Stored(IMAGES)
    closed.array = None
    assert summarize(closed) == ("Stored",)


def test_large_arrays_are_read_in_part(monkeypatch):
    monkeypatch.setattr(summaries, "WHOLE_BYTES", IMAGES[0].nbytes)
    read = []

    class Counted(Stored):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    many = np.repeat(IMAGES, 10, axis=0)
    summarize(Counted(many))
    assert len(read) == summaries.STORED_ROWS
    assert (read[0], read[-1]) == (0, len(many) - 1)
    assert differs(many, many[::-1])


def test_single_process_compares_nothing(monkeypatch):
    monkeypatch.setattr(joint_calls, "summarize", None)
    monkeypatch.setattr(joint_calls, "gather_objects", None)
    X = np.arange(16.0).reshape(8, 2)
    clf = CLCEClassifier("precomputed", max_epochs=1).fit(X, [0, 1] * 4)
    assert clf.predict(X).shape == (8,)


def test_parameters_of_a_machine_are_not_compared(tmp_path):
    apart = {"verbose": 1, "num_workers": 2, "device": "cpu", "cache_size": 0, "random_state": 1}
    one = CLCEClassifier(memory=tmp_path / "a")
    other = CLCEClassifier(memory=tmp_path / "b", callbacks=[object()], **apart)
    compared = [joint_calls._parameters(each) for each in (one, other)]
    assert compared[0] == compared[1]
    assert joint_calls._parameters(CLCEClassifier()) != compared[0]


def test_joint_method_keeps_its_signature():
    class Estimator(LogisticRegression):
        @joint
        def predict(self, X):
            """Say nothing."""
            return X

    assert Estimator().predict(3) == 3
    assert Estimator.predict.__doc__ == "Say nothing."
    with pytest.raises(TypeError, match="missing"):
        Estimator().predict()
