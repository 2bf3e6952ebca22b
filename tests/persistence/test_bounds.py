"""A network of a file is first built without memory, and rejected if it is huge."""

from threading import Event, Thread

import pytest
import torch
from torch import nn

from sklearn_clce.persistence import _module_state
from sklearn_clce.persistence._module_state import check_fits

LIMIT = _module_state.SPARE_LAYERS + _module_state.LAYERS_PER_TENSOR


class Endless(nn.Module):
    """A module of a given number of layers, parameters or buffers."""

    built = 0

    def __init__(self, kind, n=10**6):
        super().__init__()
        for number in range(n):
            Endless.built = number
            if kind == "layers":
                self.add_module(str(number), nn.Identity())
            elif kind == "parameters":
                self.register_parameter(str(number), nn.Parameter(torch.zeros(1)))
            else:
                self.register_buffer(str(number), torch.zeros(1))


@pytest.mark.parametrize("kind", ["layers", "parameters", "buffers"])
def test_endless_module_is_rejected_soon(kind):
    with pytest.raises(ValueError, match="far more layers than tensors"):
        check_fits(lambda: Endless(kind), {"weight": torch.zeros(1)})
    assert Endless.built == LIMIT
    Endless("layers", LIMIT + 1)  # it may be built elsewhere: the count has ended


def test_endless_computation_is_rejected_soon():
    def build():
        for _ in range(10**7):
            torch.zeros(1)

    with pytest.raises(ValueError, match="computes for far too long"):
        check_fits(build, {"weight": torch.zeros(1)})


def test_layers_of_another_thread_are_not_counted():
    """A server may load a file while it builds a network."""
    linear, built = nn.Linear(2, 2), Event()

    def build():
        thread = Thread(target=lambda: (Endless("layers", 2 * LIMIT), built.set()))
        thread.start()
        thread.join()
        return nn.Linear(2, 2)

    check_fits(build, linear.state_dict())
    assert built.is_set()


def test_module_much_larger_than_its_tensors_is_rejected():
    def build():
        module = nn.Linear(2, 2)
        module.register_buffer("table", torch.zeros(10**7), persistent=False)
        return module

    with pytest.raises(ValueError, match="would take 40000024 bytes, far more than its tensors"):
        check_fits(build, nn.Linear(2, 2).state_dict())
