"""Fingerprints: two things share one, in any process, only if running them reads the same."""

import builtins
import collections
import copy
import functools
import io
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from sklearn_clce.backbones import UndescribableError, fingerprint


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images)


class Linear(nn.Module):
    """A layer of fixed weights, with attributes to set."""

    def __init__(self, **attributes):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(4, 4)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, images):
        return self.layer(images)


def changed(module, change):
    change(module)
    return module


def in_namespace(source, **names):
    """Run source, as a file or a cell of a notebook is run, and return what it defines."""
    namespace = {"__name__": "__main__", "torch": torch, "nn": nn, "functools": functools, **names}
    exec(textwrap.dedent(source), namespace)
    return namespace


def network(body, *, before="", attributes="pass", **names):
    """A module whose forward has this body, in a namespace with other code before it."""
    source = f"""
{textwrap.dedent(before)}
class Net(nn.Module):
    {attributes}
    def forward(self, x):
        {body}
"""
    return in_namespace(source, **names)["Net"]()


def closing_over(value):
    return lambda x: x * value


def with_default(value):
    def scale(x, by=value, *, plus=0):
        return x * by + plus

    return scale


class Scale:
    """An object that can be called."""

    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x * self.by

    def times(self, x):
        return x * self.by


class Slotted:
    __slots__ = ("by",)

    def __init__(self, by):
        self.by = by


@dataclass
class Config:
    depth: int
    name: str = "net"


class Doubled(nn.Module):
    def forward(self, weight):
        return weight * 2


class Tripled(nn.Module):
    def forward(self, weight):
        return weight * 3


def hooked(hook, kind="register_forward_hook", **kwargs):
    return changed(Linear(), lambda net: getattr(net.layer, kind)(hook, **kwargs))


def tied(together):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].load_state_dict(net[0].state_dict())
    if together:
        net[1].weight = net[0].weight
    with torch.no_grad():
        net[0].weight.zero_()
        net[1].weight.zero_()
        net[0].bias.zero_()
        net[1].bias.zero_()
    return net


def buffered(value, persistent):
    return changed(
        Linear(), lambda net: net.register_buffer("b", torch.tensor(value), persistent=persistent)
    )


class Slim(Scale):
    def __getstate__(self):
        return {}


class Named(list):
    def __init__(self, values, name):
        super().__init__(values)
        self.name = name


def bare(source):
    """Run source in a namespace without a name, as `runpy` and templates do."""
    namespace = {}
    exec(source, namespace)
    return namespace


def hooked_everywhere(number):
    """A layer under a hook that is there for all layers, until the next one."""
    for handle in EVERYWHERE:
        handle.remove()
    hook = nn.modules.module.register_module_forward_hook(lambda m, i, o: o * number)
    EVERYWHERE.append(hook)
    return Linear()


def package(source):
    """Put a package of the user's with one module into `sys.modules`."""
    part = types.ModuleType("users_package.part")
    exec(source, vars(part))
    whole = types.ModuleType("users_package")
    whole.part, whole.__path__ = part, []
    sys.modules.update({"users_package": whole, "users_package.part": part})
    return "users_package"


EVERYWHERE = []
DECORATED = """
@torch.no_grad()
def forward(self, x):
    return x.{reduction}((2, 3))
Net = type("Net", (nn.Module,), {{"forward": forward}})
"""
HELPER = "def pool(x):\n    return x.{}((2, 3))\n"
NESTED_HELPER = (
    "def inner(x): return x.{}((2, 3))\ndef pool(x): return [inner(part) for part in [x]][0]\n"
)

# name: what makes two of it, and the two values that differ
PAIRS = {
    "a lambda": (Lambda, lambda x: x.mean((2, 3)), lambda x: x[:, :, 0, 0]),
    "a constant in code": (Lambda, lambda x: x + 1, lambda x: x + 2),
    "a constant of another type": (Lambda, lambda x: x + 1, lambda x: x + 1.0),
    "a closure": (Lambda, closing_over(1), closing_over(2)),
    "a closure over a tensor": (Lambda, closing_over(torch.ones(1)), closing_over(torch.zeros(1))),
    "a default": (Lambda, with_default(1), with_default(2)),
    "a default of a keyword": (
        lambda value: Lambda(
            changed(with_default(1), lambda f: f.__kwdefaults__.update(plus=value))
        ),
        1,
        2,
    ),
    "a partial function": (
        lambda value: Lambda(functools.partial(torch.mul, other=value)),
        1,
        2,
    ),
    "a function under a decorator of torch": (
        lambda reduction: in_namespace(DECORATED.format(reduction=reduction))["Net"](),
        "mean",
        "amax",
    ),
    "a helper function": (
        lambda reduction: network("return pool(x)", before=HELPER.format(reduction)),
        "mean",
        "amax",
    ),
    "a helper of a helper, in a comprehension": (
        lambda reduction: network("return pool(x)", before=NESTED_HELPER.format(reduction)),
        "mean",
        "amax",
    ),
    "a cached helper": (
        lambda k: network("return x * k()", before=f"@functools.cache\ndef k(): return {k}"),
        1,
        2,
    ),
    "a global number": (lambda k: network("return x * K", K=k), 1.0, 2.0),
    "a global tensor": (lambda k: network("return x * K", K=k), torch.ones(2), torch.zeros(2)),
    "a global list": (lambda k: network("return x * K[0]", K=k), [1.0], [2.0]),
    "a setting of a global object": (
        lambda k: network("return x * C.depth", C=Config(k)),
        1,
        2,
    ),
    "a function in a module of the user's": (
        lambda k: network("return h.pool(x)", h=module_with(f"def pool(x): return x * {k}")),
        1,
        2,
    ),
    "a number in a module of the user's": (
        lambda k: network("return x * h.sub.K", h=module_with("", sub=module_with(f"K = {k}"))),
        1,
        2,
    ),
    "a module that is passed on": (
        lambda k: network("return x * getattr(h, 'K')", h=module_with(f"K = {k}")),
        1,
        2,
    ),
    "a function of torch that was replaced": (
        lambda k: network("return F.relu(x)", F=types.SimpleNamespace(relu=closing_over(k))),
        1,
        2,
    ),
    "the class of a global": (
        lambda k: network("return x * S.k", before=f"class S:\n    k = {k}"),
        1,
        2,
    ),
    "an attribute of the class": (
        lambda k: network("return x * self.k", attributes=f"k = {k}"),
        1,
        2,
    ),
    "an attribute of a base class": (
        lambda k: type("Net", (type(network("return x", attributes=f"k = {k}")),), {})(),
        1,
        2,
    ),
    "a property": (
        lambda k: network("return x * self.k", attributes=f"k = property(lambda self: {k})"),
        1,
        2,
    ),
    "a static method": (
        lambda k: network("return self.f(x)", attributes=f"f = staticmethod(lambda x: x * {k})"),
        1,
        2,
    ),
    "a class method": (
        lambda k: network("return self.f(x)", attributes=f"f = classmethod(lambda c, x: x * {k})"),
        1,
        2,
    ),
    "a cached property": (
        lambda k: network(
            "return x * self.k", attributes=f"k = functools.cached_property(lambda self: {k})"
        ),
        1,
        2,
    ),
    "a method of the instance": (
        lambda k: changed(
            Linear(),
            lambda net: setattr(net, "forward", types.MethodType(lambda self, x: x * k, net)),
        ),
        1,
        2,
    ),
    "a bound method": (lambda k: Lambda(Scale(k).times), 1, 2),
    "an object that is called": (lambda k: Lambda(Scale(k)), 1, 2),
    "an object with slots": (lambda k: Linear(config=Slotted(k)), 1, 2),
    "an attribute": (lambda k: Linear(power=k), 1.0, 2.0),
    "a string": (lambda k: Linear(mode=k), "mean", "max"),
    "an array": (lambda k: Linear(scale=np.array(k)), [1.0, 2.0], [1.0, 3.0]),
    "the dtype of an array": (lambda k: Linear(scale=np.ones(2, k)), "f4", "f8"),
    "a tensor attribute": (lambda k: Linear(scale=[torch.tensor(k)]), 1.0, 2.0),
    "a plain tensor attribute": (lambda k: Linear(scale=torch.tensor(k)), 1.0, 2.0),
    "the last bit of a tensor": (
        lambda k: Linear(scale=torch.tensor(k)),
        1.0,
        1.0 + 2.0**-23,
    ),
    "a weight": (lambda k: changed(Linear(), lambda n: n.layer.bias.data.fill_(k)), 1, 2),
    "the dtype of weights": (lambda k: Linear().to(k), torch.float32, torch.float64),
    "a buffer": (functools.partial(buffered, persistent=True), 1.0, 2.0),
    "a buffer that is not saved": (functools.partial(buffered, persistent=False), 1.0, 2.0),
    "what trains": (lambda k: Linear().requires_grad_(k), True, False),
    "a mode": (lambda k: Linear().train(k), True, False),
    "tied weights": (tied, True, False),
    "a lambda in a list": (lambda k: Linear(steps=[lambda x: x, closing_over(k)]), 1, 2),
    "a lambda in a dict": (lambda k: Linear(steps={"a": closing_over(k)}), 1, 2),
    "a dataclass": (lambda k: Linear(config=Config(k)), 1, 2),
    "a namespace": (lambda k: Linear(config=types.SimpleNamespace(k=k)), 1, 2),
    "an ordered dict": (lambda k: Linear(config=collections.OrderedDict(k=k)), 1, 2),
    "the factory of a dict": (
        lambda k: Linear(config=collections.defaultdict(k)),
        int,
        float,
    ),
    "a deque": (lambda k: Linear(config=collections.deque([k])), 1, 2),
    "a set": (lambda k: Linear(config={"a", k}), "b", "c"),
    "the order of layers": (
        lambda k: nn.Sequential(*[nn.ReLU(), nn.GELU()][::k]),
        1,
        -1,
    ),
    "an activation": (lambda k: nn.Sequential(nn.Flatten(), k()), nn.ReLU, nn.GELU),
    "a setting of a layer": (lambda k: nn.Sequential(nn.LeakyReLU(k)), 0.1, 0.2),
    "a hook": (lambda k: hooked(lambda m, i, o: o * k), 1, 2),
    "a hook or none": (lambda k: hooked(lambda m, i, o: o) if k else Linear(), 1, 0),
    "a hook before": (lambda k: hooked(lambda m, i: i[0] * k, "register_forward_pre_hook"), 1, 2),
    "a hook with keywords": (
        lambda k: hooked(lambda m, *i: i[-1], with_kwargs=k),
        True,
        False,
    ),
    "a parametrization": (
        lambda k: changed(
            Linear(), lambda n: parametrize.register_parametrization(n.layer, "bias", k())
        ),
        Doubled,
        Tripled,
    ),
    "the dimension of a weight norm": (
        lambda k: changed(Linear(), lambda n: weight_norm(n.layer, dim=k)),
        0,
        1,
    ),
    "the state of a generator": (
        lambda k: Linear(generator=torch.Generator().manual_seed(k)),
        1,
        2,
    ),
    "the order of a dict": (lambda k: Linear(steps=dict(["ab", "ba"][::k])), 1, -1),
    "a container of the user's": (lambda k: Linear(scale=Named([1], k)), 1, 2),
    "a property of the user's kind": (
        lambda k: network(
            "return self.k",
            attributes=f"""k = type("P", (property,), {{
            "__get__": lambda self, *of: {k}}})()""",
        ),
        1,
        2,
    ),
    "a class without a module": (
        lambda k: Linear(kind=bare(f"class A:\n    k = {k}")["A"]()),
        1,
        2,
    ),
    "a default in a function of a package": (
        lambda k: Lambda(types.FunctionType(F.relu.__code__, vars(F), "f", (k, False))),
        1,
        2,
    ),
    "a hook of all layers": (hooked_everywhere, 1, 2),
    "a class that a function makes": (
        lambda k: network("class A:\n            k = K\n        return x * A.k", K=k),
        1,
        2,
    ),
    "a submodule imported in forward": (
        lambda k: (
            network("from users_package import part\n        return part.f(x)")
            if package(f"def f(x): return x * {k}")
            else None
        ),
        1,
        2,
    ),
    "a relative import in forward": (
        lambda k: network(
            "from .part import f\n        return f(x)", __package__=package(f"f = {k}")
        ),
        1,
        2,
    ),
    "an import in forward": (
        lambda k: changed(
            network("import users_own\n        return users_own.f(x)"),
            lambda net: sys.modules.update(users_own=module_with(f"f = lambda x: x * {k}")),
        ),
        1,
        2,
    ),
}


def module_with(source, **names):
    module = types.ModuleType("users_own")
    exec(source, vars(module))
    for name, value in names.items():
        setattr(module, name, value)
    return module


@pytest.fixture(autouse=True)
def _no_trace(monkeypatch):
    """Leave neither modules of the user's nor hooks of all layers."""
    for name in ("users_own", "users_package", "users_package.part"):
        monkeypatch.setitem(sys.modules, name, None)
    yield
    while EVERYWHERE:
        EVERYWHERE.pop().remove()


@pytest.mark.parametrize("pair", PAIRS)
def test_fingerprint_differs(pair):
    make, one, other = PAIRS[pair]
    first, second = fingerprint(make(one)), fingerprint(make(other))
    assert first != second
    assert fingerprint(make(one)) == first  # made again, from the same


# in a copy of theirs a property refers to the layer that was copied
OF_TORCH = {"a parametrization", "the dimension of a weight norm"}


@pytest.mark.parametrize("pair", [name for name in PAIRS if name not in OF_TORCH])
def test_copy_is_the_same(pair):
    net = PAIRS[pair][0](PAIRS[pair][1])
    assert fingerprint(copy.deepcopy(net)) == fingerprint(net)


@pytest.mark.parametrize("decorator", [lambda function: function, torch.no_grad()])
def test_replaced_method_of_torch_counts(monkeypatch, decorator):
    before = fingerprint(nn.Flatten())
    monkeypatch.setattr(nn.Flatten, "forward", decorator(lambda self, x: x.mean((2, 3))))
    pooling = fingerprint(nn.Flatten())
    monkeypatch.setattr(nn.Flatten, "forward", decorator(lambda self, x: x.amax((2, 3))))
    assert len({before, pooling, fingerprint(nn.Flatten())}) == 3


def keeping_its_name(function):
    return functools.wraps(RELU)(function)


RELU = F.relu


@pytest.mark.parametrize("decorator", [lambda f: f, torch.no_grad(), keeping_its_name])
@pytest.mark.parametrize(
    "make", [nn.ReLU, lambda: network("return F.relu(x)", F=F)], ids=["layer", "global"]
)
def test_replaced_function_of_torch_counts(monkeypatch, make, decorator):
    found = {fingerprint(make())}
    for number in (1, 2):
        monkeypatch.setattr(F, "relu", decorator(closing_over(number)))
        found.add(fingerprint(make()))
    assert len(found) == 3


def test_function_of_torch_wrapped_by_torch_is_the_same(monkeypatch):
    net = network("torch.manual_seed(0)\n        return x")
    before = fingerprint(net)
    monkeypatch.setattr(torch, "manual_seed", torch.no_grad()(torch.manual_seed))
    assert fingerprint(net) == before


def test_functions_that_refer_to_each_other_are_described():
    def one(x, n=3):
        return other(x, n - 1) if n else x

    def other(x, n):
        return one(x, n)

    net = type("Net", (nn.Module,), {"forward": one, "again": one})
    net.itself = net
    assert fingerprint(net()) == fingerprint(net())


def generator():
    yield 1


@pytest.mark.parametrize(
    "thing",
    {
        "a generator": lambda: Linear(steps=generator()),
        "a lock": lambda: Lambda(closing_over(threading.Lock())),
        "an open file": lambda: Linear(file=open(__file__)),  # noqa: SIM115
        "a stream": lambda: Linear(file=memoryview(b"a")),
        "TorchScript": lambda: torch.jit.trace(nn.ReLU(), torch.ones(1)),
        "code made from text": lambda: network("return eval('x * 2')"),
        "code made from text by a module": lambda: network("return b.eval('x * 2')", b=builtins),
        "a file that is read": lambda: network("return x * float(open('k').read())"),
        "a file that NumPy reads": lambda: network("return x * np.load(self.path)", np=np),
        "a file that a path reads": lambda: network("return x * len(P.read_text())", P=Path("k")),
        "a file in another namespace": lambda: network("return io.open('k')", io=io),
        "a variable of the system": lambda: network("return x * len(os.environ['k'])", os=os),
        "a pickle of the user's": lambda: Linear(scale=Slim(1)),
        "a sparse tensor": lambda: Linear(scale=torch.eye(2).to_sparse()),
        "a tensor without memory": lambda: Linear(scale=torch.empty(1, device="meta")),
        "layers without a size": lambda: nn.LazyLinear(2),
        "a ufunc of the user's": lambda: Lambda(np.frompyfunc(lambda x: x, 1, 1)),
        "endless nesting": lambda: Linear(
            chain=functools.reduce(lambda a, _: [a], range(2000), [])
        ),
    }.items(),
    ids=lambda thing: thing[0],
)
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
def test_undescribable_thing_raises(thing):
    with pytest.raises(UndescribableError):
        fingerprint(thing[1]())


def test_error_names_the_place():
    net = nn.Sequential(nn.ReLU(), Linear(steps=[threading.Lock()]))
    with pytest.raises(UndescribableError, match=r"^lock has no description \(modules\.1\.steps"):
        fingerprint(net)


def test_counter_that_code_reads_counts():
    source = """
        class Net(nn.Module):
            seen = 1
            def forward(self, x):
                Net.seen += 1
                return x * Net.seen
    """
    net = in_namespace(source)["Net"]()
    before = fingerprint(net)
    net(torch.ones(2))
    assert fingerprint(net) != before


def test_lines_of_code_do_not_count():
    one = network("return pool(x)", before=HELPER.format("mean"))
    other = network("return pool(x)", before="# moved\n\n" + HELPER.format("mean"))
    assert fingerprint(one) == fingerprint(other)


def test_another_process_gives_the_same_fingerprint(tmp_path):
    source = """
import sys, numpy as np, torch
from torch import nn
K = {"b", "a", "c", "d"}
def pool(x):
    return x.mean((2, 3)) if "a" in {"a", "e", "f", "g"} else torch.relu(x)
class Net(nn.Module):
    options = frozenset(["x", "y", "z"])
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 2, 1)
        self.layer.register_forward_hook(lambda module, inputs, output: output)
        self.scale = np.arange(3)
    def forward(self, x):
        return pool(self.layer(x)) * len(K)
"""
    (tmp_path / "users_own_net.py").write_text(source)
    code = (
        "from users_own_net import Net; from torch import nn;"
        "from sklearn_clce.backbones import fingerprint;"
        "[nn.ReLU().register_forward_hook(print) for _ in range({})]; print(fingerprint(Net()))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code.format(n_hooks)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for n_hooks in (0, 5)
    }
    assert len(found) == 1


def test_pickle_is_the_same():
    net = Linear(config=Config(2), steps=[Scale(2)], path=Path("a"), kind=np.float32(1))
    assert fingerprint(pickle.loads(pickle.dumps(net))) == fingerprint(net)


def test_layer_of_torch_that_ran_is_the_same():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()).eval()
    net.append(nn.LSTM(16, 2))
    before = fingerprint(net)
    net(torch.ones(1, 3, 4, 4)[..., :4, :4])
    assert fingerprint(net) == before


def test_weights_from_a_file_are_the_same():
    net, file = Linear(), io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    loaded = Linear()
    loaded.load_state_dict(torch.load(file))
    assert fingerprint(loaded) == fingerprint(net)


def test_function_of_torch_wrapped_by_the_user_counts(monkeypatch):
    net = network("return wrapped(x)")
    namespace = type(net).forward.__globals__
    descriptions = set()
    for axis in (0, 1):
        monkeypatch.setitem(
            namespace, "wrapped", torch.vmap(torch.nn.functional.normalize, in_dims=axis)
        )
        descriptions.add(fingerprint(net))
    assert len(descriptions) == 2


def test_file_named_like_the_standard_library_is_the_users(tmp_path, monkeypatch):
    found = set()
    for number in (1, 2):
        (tmp_path / "code.py").write_text(f"def pool(x):\n    return x * {number}\n")
        source = "import code; from sklearn_clce.backbones import fingerprint;"
        program = [sys.executable, "-B", "-c", source + "print(fingerprint(code.pool))"]
        found.add(subprocess.run(program, cwd=tmp_path, capture_output=True, check=True).stdout)
    assert len(found) == 2


def test_loading_in_a_constructor_does_not_count():
    source = """
        class Net(nn.Module):
            def __init__(self, path=None):
                super().__init__()
                self.weight = torch.ones(1) if path is None else torch.load(path)
            def forward(self, x):
                return self.eval() and x * self.weight
    """
    assert fingerprint(in_namespace(source)["Net"]())
