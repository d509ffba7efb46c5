"""SequentialPlus and Pick: equality with calls by hand, errors, tools and mutants."""

import copy
import pickle
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.fx.proxy import TraceError

import snippets.sequential_plus as real
from snippets.sequential_plus import Pick, SequentialPlus
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

torch.set_num_threads(1)

SOURCE = Path(real.__file__).read_text(encoding="utf-8")

Tensor = torch.Tensor


class Pair(NamedTuple):
    """A named pair."""

    a: Tensor
    b: Tensor


class Mix(nn.Module):
    """Two values in, a tuple of two out; not symmetric in them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(a) - b, a


class Named(Mix):
    """The same, by name."""

    def forward(self, a: Tensor, b: Tensor) -> Any:
        left, right = super().forward(a, b)
        return {"b": right, "a": left}


class Seen(nn.Module):
    """Keeps the arguments of its call and returns a value of its own."""

    def __init__(self, value: Any = None) -> None:
        super().__init__()
        self.value = value
        self.args: tuple[Any, ...] | None = None
        self.kwargs: dict[str, Any] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.args, self.kwargs = args, kwargs
        return self.value


def refused(error: type[Exception], call: Any, *args: Any, **kwargs: Any) -> str:
    """The message of the error that the call must raise."""
    try:
        call(*args, **kwargs)
    except error as caught:
        return str(caught)
    raise AssertionError(f"accepted: {args} {kwargs}")


# --- The battery --------------------------------------------------------------------


def check(module: types.ModuleType) -> None:
    """Assert all that the docstrings promise."""
    torch.manual_seed(0)
    check_arguments(module)
    check_between(module)
    check_whole(module)
    check_values(module)
    check_container(module)
    check_pick(module)
    check_errors(module)


def check_arguments(module: types.ModuleType) -> None:
    """What the first layer gets, and what an empty chain returns."""
    x, y = torch.randn(2, 3, 4)
    calls: tuple[Any, ...] = (
        # args, kwargs, args of the first layer, its kwargs, value of the empty chain
        ((x,), {}, (x,), {}, x),
        ((x, y), {}, (x, y), {}, (x, y)),
        (((x, y),), {}, (x, y), {}, (x, y)),
        (((x,),), {}, (x,), {}, (x,)),
        (({"a": x},), {}, (), {"a": x}, {"a": x}),
        ((), {"a": x, "b": y}, (), {"a": x, "b": y}, {"a": x, "b": y}),
        (([x, y],), {}, ([x, y],), {}, [x, y]),
        ((x, (x, y)), {}, (x, (x, y)), {}, (x, (x, y))),
        ((None,), {}, (None,), {}, None),
        ((), {}, (), {}, ()),
    )
    for args, kwargs, first_args, first_kwargs, value in calls:
        first = Seen()
        module.SequentialPlus(first)(*args, **kwargs)
        assert str(first.args) == str(first_args), "arguments of the first layer"
        assert str(first.kwargs) == str(first_kwargs), "keywords of the first layer"
        returned = module.SequentialPlus()(*args, **kwargs)
        assert str(returned) == str(value), "empty chain"


def check_between(module: types.ModuleType) -> None:
    """How one layer's value reaches the next, and that the last one's is returned."""
    x, y = torch.randn(2, 3, 4)
    values: tuple[Any, ...] = (
        (x, (x,), {}),
        ((x, y), (x, y), {}),
        (Pair(x, y), (x, y), {}),
        ((x,), (x,), {}),
        ((), (), {}),
        ([x, y], ([x, y],), {}),
        ({"a": x}, (), {"a": x}),
        (OrderedDict(a=x, b=y), (), {"a": x, "b": y}),
        ({}, (), {}),
        ("text", ("text",), {}),
        (None, (None,), {}),
        ((x, (x, y)), (x, (x, y)), {}),
    )
    for value, args, kwargs in values:
        second = Seen(value)
        returned = module.SequentialPlus(Seen(value), second)(x)
        kind = type(value).__name__
        assert str(second.args) == str(args), f"arguments from {kind}"
        assert str(second.kwargs) == str(kwargs), f"keywords from {kind}"
        assert returned is value, f"returned {kind}"


def check_whole(module: types.ModuleType) -> None:
    """Pick gets tuples and dicts whole; a chain in a chain does what it does alone."""
    x, y = torch.randn(2, 3, 4)
    plus, pick = module.SequentialPlus, module.Pick
    assert plus(Seen((x, y)), pick(1))(x) is y, "pick from a tuple"
    assert plus(Seen({"a": x, "b": y}), pick("b"))(x) is y, "pick from a dict"
    assert plus(Seen(((x, y),)), pick(0), pick(1))(x) is y, "pick from a tuple"
    assert plus(Seen((x, [{"k": y}])), pick(1), pick(0), pick("k"))(x) is y, "nested"
    last = Seen()
    plus(Seen((x, (y, x))), pick(1), last)(x)
    assert last.args == (y, x), "a picked tuple"
    assert nn.Sequential(Seen((x, y)), plus(pick(1)))(x) is y, "in a plain chain"
    assert plus(plus(Seen((x, y))), plus(pick(1)))(x) is y, "in a chain"


def check_values(module: types.ModuleType) -> None:
    """Outputs and gradients equal calls by hand, with slices at every place."""
    layers = (Mix(), Named(), Mix(), module.Pick(0), nn.Linear(4, 2))
    net = module.SequentialPlus(*layers)
    x, y = torch.randn(2, 3, 4, requires_grad=True)
    c, d = layers[0](x, y)
    found = layers[1](c, d)
    wanted = layers[4](layers[2](found["a"], found["b"])[0])
    for output in (net(x, y), net(b=y, a=x), net((x, y)), net({"a": x, "b": y})):
        assert torch.equal(output, wanted), "output"
        inputs = [x, y, *net.parameters()]
        left = torch.autograd.grad(output.sum(), inputs, allow_unused=True)
        right = torch.autograd.grad(wanted.sum(), inputs, retain_graph=True)
        assert all(g is not None for g in left), "no gradient"
        assert all(torch.equal(g, h) for g, h in zip(left, right, strict=True))
    for k in range(len(net) + 1):
        assert torch.equal(net[k:](net[:k](x, y)), wanted), "slices"
    calls = []
    net[1].register_forward_hook(lambda *_: calls.append(1))
    net(x, y)
    assert calls == [1], "hooks skipped"


def check_container(module: types.ModuleType) -> None:
    """It is a Sequential: names, indices, slices and keys."""
    parts = OrderedDict(mix=Mix(), pick=module.Pick(0), head=nn.Linear(4, 2))
    net = module.SequentialPlus(parts)
    assert isinstance(net, nn.Sequential), "no Sequential"
    assert [*net.state_dict()] == [*nn.Sequential(parts).state_dict()], "keys"
    assert net.head is net[-1], "index"
    assert type(net[1:]) is type(net), "type of a slice"
    assert [name for name, _ in net[1:].named_children()] == ["pick", "head"], "names"
    del net.append(nn.ReLU())[0]
    assert [*map(type, net)] == [module.Pick, nn.Linear, nn.ReLU], "append and delete"
    assert type(net + net) is type(net * 2) is nn.Sequential, "the docstring's warning"


def check_pick(module: types.ModuleType) -> None:
    """Elements as they are, in a plain Sequential too."""
    x, y = torch.randn(2, 3, 4)
    assert module.Pick(-1)((x, y)) is y, "element"
    assert module.Pick(0)([x, y]) is x, "element"
    assert module.Pick("b")({"a": x, "b": y}) is y, "element"
    assert module.Pick(0)(Pair(x, y)) is x, "element"
    assert nn.Sequential(Seen((x, y)), module.Pick(1))(x) is y, "in a plain chain"
    assert [*module.Pick(0).state_dict()] == [], "keys"
    assert repr(module.Pick("b")) == "Pick('b')", "repr"


def check_errors(module: types.ModuleType) -> None:
    """Each documented error, with its message."""
    x = torch.randn(3, 4)
    bad: tuple[Any, ...] = (True, None, 1.0, (0,), slice(1))
    for key in bad:
        message = refused(ValueError, module.Pick, key)
        assert message == f"key must be an int or a str, got {key!r}"
    message = refused(ValueError, module.Pick(0), x)
    assert message == "nothing to pick: got a tensor (3, 4)"
    refused(IndexError, module.Pick(2), (x, x))
    refused(KeyError, module.Pick("c"), {"a": x})
    refused(TypeError, module.Pick("c"), (x, x))
    message = refused(ValueError, module.SequentialPlus(Seen()), x, x, b=x, a=x)
    wanted = "arguments must be all positional or all by keyword, got 2 positional"
    assert message == f"{wanted} and ['a', 'b']", "message"
    message = refused(TypeError, module.SequentialPlus(Mix(), nn.Linear(4, 4)), x, x)
    assert "takes 2 positional arguments but 3 were given" in message
    refused(TypeError, module.SequentialPlus(Seen({1: x}), Seen()), x)


def test_battery() -> None:
    check(real)


# --- More of the real module --------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind: Any) -> None:
    layer, head = kind(4, 5, batch_first=True), nn.Linear(5, 2)
    x = torch.randn(2, 3, 4)
    wanted = head(layer(x)[0])
    assert torch.equal(nn.Sequential(layer, Pick(0), head)(x), wanted)
    net = SequentialPlus(layer, Pick(0), head)
    assert torch.equal(net(x), wanted)
    state = layer(x)[1]
    assert torch.equal(net(x, state), head(layer(x, state)[0]))


def test_equals_sequential_on_tensors() -> None:
    layers = (nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    x = torch.randn(3, 4)
    assert torch.equal(SequentialPlus(*layers)(x), nn.Sequential(*layers)(x))


def test_train_and_eval() -> None:
    net = SequentialPlus(nn.Dropout(1.0))
    assert torch.equal(net(torch.ones(3)), torch.zeros(3))
    assert torch.equal(net.eval()(torch.ones(3)), torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype(dtype: torch.dtype) -> None:
    net = SequentialPlus(Mix(), Mix(), Pick(0)).to(dtype)
    assert net(*torch.ones(2, 3, 4, dtype=dtype)).dtype == dtype


def test_meta() -> None:
    x = torch.empty(3, 4, device="meta")
    out = SequentialPlus(Seen((x, x)), Pick(1))(x)
    assert (out.device.type, out.shape) == ("meta", (3, 4))


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies(twin: Any) -> None:
    net = SequentialPlus(OrderedDict(mix=Mix(), pick=Pick(0)))
    x, y = torch.randn(2, 3, 4)
    assert torch.equal(twin(net)(x, y), net(x, y))


def test_symbolic_trace_refuses() -> None:
    """The module docstring's warning."""
    with pytest.raises(TraceError):
        torch.fx.symbolic_trace(SequentialPlus(Mix(), Pick(0)))


def test_export() -> None:
    net = SequentialPlus(Mix(), Named(), Pick("a"))
    x, y = torch.randn(2, 3, 4)
    assert torch.equal(torch.export.export(net, (x, y)).module()(x, y), net(x, y))


def test_compile() -> None:
    torch._dynamo.reset()
    net = SequentialPlus(Mix(), Named(), Pick("a"))
    x, y = torch.randn(2, 3, 4)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, y), net(x, y))


# --- Mutants ------------------------------------------------------------------------

PACK = "kwargs or (args[0] if len(args) == 1 else args)"
WHOLE = " and not isinstance(module, Pick)"
ON_TUPLE = f"isinstance(value, tuple){WHOLE}"
ON_DICT = f"isinstance(value, dict){WHOLE}"

MUTANTS = (
    # The arguments of the call.
    one("always packed", PACK, "kwargs or args", "^empty chain"),
    one("first only", PACK, "kwargs or args[0]", "arguments of the first"),
    one("keywords lost", PACK, "args[0] if len(args) == 1 else args", "keywords of"),
    one("keywords as values", PACK, PACK.replace("kwargs", "(*kwargs.values(),)"), "f"),
    one(
        "none is nothing",
        PACK,
        "kwargs or (args[0] if any(args) else args)",
        "^Bool",
        RuntimeError,
    ),
    one("mixed pass", "if args and kwargs:", "if False:", "accepted"),
    one("either refused", "args and kwargs:", "args or kwargs:", "got 1", ValueError),
    # Between the layers.
    one("tuples whole", "module(*value)", "module(value)", "arguments of the first"),
    one("dicts whole", "module(**value)", "module(value)", "arguments of the first"),
    one("keys spread", "module(**value)", "module(*value)", "arguments of the first"),
    one("values spread", "**value)", "*value.values())", "arguments of the first"),
    one("lists spread", "(value, tuple)", "(value, tuple | list)", "arguments of the"),
    one("plain tuples", "isinstance(value, tuple)", "type(value) is tuple", "Pair"),
    one("plain dicts", "isinstance(value, dict)", "type(value) is dict", "OrderedDict"),
    one("pairs only", ON_TUPLE, f"{ON_TUPLE} and len(value) > 1", "arguments of"),
    one("full dicts only", ON_DICT, f"{ON_DICT} and value", "arguments from dict"),
    one(
        "pick gets arguments",
        ON_TUPLE,
        "isinstance(value, tuple)",
        "positional",
        TypeError,
    ),
    one("pick gets keywords", ON_DICT, "isinstance(value, dict)", "key", TypeError),
    one("last skipped", "for module in self:", "for module in self[:-1]:", "first"),
    one("first skipped", "for module in self:", "for module in self[1:]:", "first"),
    one("backwards", "in self:", "in reversed(self):", "arguments from tuple"),
    one("forward called", "= module(", "= module.forward(", "hooks skipped"),
    one("returns a tuple", "return value\n\n\n", "return (value,)\n\n\n", "empty"),
    one(
        "detached",
        "return value\n\n\n",
        "return getattr(value, 'data', value)\n\n\n",
        "returned Tensor|empty chain",
    ),
    one(
        "no list",
        "SequentialPlus(nn.Sequential)",
        "SequentialPlus(nn.Module)",
        "1 pos",
        TypeError,
    ),
    # Pick.
    one("first element", "value[self.key]", "value[0]", "pick from a tuple"),
    one("tensors picked", "isinstance(value, torch.Tensor)", "False", "accepted"),
    one("bool is an int", "isinstance(key, bool) or ", "", "accepted"),
    one("ints only", "int | str):", "int):", "got 'b'", ValueError),
    one("any key", "not isinstance(key, int | str)", "False", "accepted"),
    one("no repr", "return repr(self.key)", 'return ""', "repr"),
    one("str for repr", "return repr(self.key)", "return str(self.key)", "repr"),
    one("no value in the message", "got {key!r}", "got it", "got"),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_battery_kills(mutant: Mutant) -> None:
    kill(mutant, SOURCE, check)


def test_mutants_are_distinct() -> None:
    assert_distinct(MUTANTS)


def test_battery_accepts_equivalents() -> None:
    """The battery judges behaviour: a rewriting that changes none passes."""
    check(build(SOURCE, (("for module in self:", "for module in iter(self):"),)))
