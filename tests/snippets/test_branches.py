"""Branches: equality with functions, outputs by name, errors, tools and mutants."""

import copy
import pickle
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.proxy import TraceError

import snippets.branches as real
from snippets.branches import Branches
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

torch.set_num_threads(1)

SOURCE = Path(real.__file__).read_text(encoding="utf-8")
JOINS = ("cat", "sum", "dict", "tuple")


def parts(b: int = 4) -> dict[str, nn.Module]:
    """Three branches, not in the order of the alphabet; the last is the identity."""
    return {"z": nn.Linear(4, 4), "b": nn.Linear(4, b, bias=False), "a": nn.Identity()}


def reference(x: torch.Tensor, state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The outputs of the branches with functions alone, from a state dict's tensors."""
    z = F.linear(x, state["z.weight"], state["z.bias"])
    return [z, F.linear(x, state["b.weight"]), x]


def refused(error: type[Exception], call: Any, *args: Any) -> str:
    """The message of the error that the call must raise."""
    try:
        call(*args)
    except error as caught:
        return str(caught)
    raise AssertionError(f"accepted: {args}")


# --- The battery --------------------------------------------------------------------

KEYS = ["z.weight", "z.bias", "b.weight"]


def check(module: types.ModuleType) -> None:
    """Assert all that the docstrings promise."""
    torch.manual_seed(0)
    check_joined(module)
    check_by_name(module)
    check_parts(module)
    check_input_kept(module)
    check_fx(module)
    check_repr(module)
    check_construction(module)
    check_calls(module)


def check_joined(module: types.ModuleType) -> None:
    """Keys in order; output and every gradient of "cat" and "sum", bit for bit."""
    for dim in (0, 1, -1, 2):
        check_one(module.Branches(parts(), dim=dim), lambda y, d=dim: torch.cat(y, d))
    check_one(module.Branches(parts(2), "cat", -1), lambda y: torch.cat(y, -1))
    check_one(module.Branches(parts()), lambda y: torch.cat(y, 1))
    check_one(module.Branches(parts(), "sum"), lambda y: y[0] + y[1] + y[2])
    single = module.Branches({"z": nn.Linear(4, 4)}, "sum")
    x = torch.randn(5, 4)
    assert torch.equal(single(x), single["z"](x)), "one branch"


def check_one(net: nn.Module, join: Any) -> None:
    """Compare one module with the joined reference."""
    assert [*net.state_dict()] == KEYS, "keys"
    state = {
        name: tensor.detach().clone().requires_grad_()
        for name, tensor in net.state_dict().items()
    }
    x = torch.randn(2, 3, 4, requires_grad=True)
    y, wanted = net(x), join(reference(x, state))
    assert torch.equal(y, wanted), "output"
    left = [x, *net.parameters()]
    found = torch.autograd.grad(y.square().sum(), left, allow_unused=True)
    right = torch.autograd.grad(wanted.square().sum(), [x, *state.values()])
    for one_, other in zip(found, right, strict=True):
        assert one_ is not None, "no gradient"
        assert torch.equal(one_, other), "gradient"


def check_by_name(module: types.ModuleType) -> None:
    """ "dict" and "tuple" hand the outputs on as they are, in order, of any type."""
    gru, x = nn.GRU(4, 3), torch.randn(5, 4)
    inner = {"z": gru, "b": nn.Linear(4, 1), "a": nn.Identity()}
    named = module.Branches(inner, "dict")(x)
    assert type(named) is dict, "type"
    assert [*named] == ["z", "b", "a"], "order"
    assert named["a"] is x, "as it is"
    assert torch.equal(named["z"][0], gru(x)[0]), "output of the GRU"
    listed = module.Branches(inner, "tuple")(x)
    assert type(listed) is tuple, "type"
    assert listed[2] is x, "order"
    assert torch.equal(listed[1], named["b"]), "order"
    both = module.Branches({"a": nn.Identity(), "b": nn.Identity()}, "dict")((x, x))
    assert both["b"][1] is x, "a tuple is one input"


def check_parts(module: types.ModuleType) -> None:
    """The given modules under the given names; a repeated one counts each time."""
    inner = parts()
    for given in (inner, OrderedDict(inner), nn.ModuleDict(inner)):
        net = module.Branches(given, join="sum")
        assert dict(net.items()) == inner, "other branches"
    assert [name for name, _ in net.named_children()] == ["z", "b", "a"], "names"
    shared, x = nn.Linear(4, 4), torch.randn(5, 4)
    net = module.Branches({"a": shared, "b": shared}, "sum")
    assert torch.equal(net(x), 2 * shared(x)), "repeated"
    del net["b"]
    net["c"] = nn.Identity()
    assert torch.equal(net(x), shared(x) + x), "edited"


def check_input_kept(module: types.ModuleType) -> None:
    """The joins are out of place, also where branches return x itself."""
    for join in JOINS:
        x = torch.ones(5, 4)
        module.Branches({"a": nn.Identity(), "b": nn.Identity()}, join)(x)
        assert torch.equal(x, torch.ones(5, 4)), "input modified"


def check_fx(module: types.ModuleType) -> None:
    """symbolic_trace follows every join, with at most one function per pair."""
    x = torch.randn(5, 4)
    for join, functions in zip(JOINS, (1, 2, 0, 0), strict=True):
        net = nn.Sequential(module.Branches(parts(), join))
        traced = torch.fx.symbolic_trace(net)
        nodes = [node.op for node in traced.graph.nodes]
        assert nodes.count("call_function") == functions, "graph"
        torch.testing.assert_close(traced(x), net(x), rtol=0, atol=0)


def check_repr(module: types.ModuleType) -> None:
    """The printed model says how the outputs are joined."""
    shown = [module.Branches(parts(), join, 2).extra_repr() for join in JOINS]
    assert shown == ["join='cat', dim=2", "join='sum'", "join='dict'", "join='tuple'"]


def check_construction(module: types.ModuleType) -> None:
    """Each documented error of the constructor, with its message."""
    new, good = module.Branches, parts()
    bad: Any
    for bad in ({}, nn.ModuleDict(), [nn.Identity()], nn.Identity(), None, "cat"):
        message = refused(ValueError, new, bad)
        want = f"branches must be a non-empty mapping of modules, got {bad!r}"
        assert message == want, "message"
    for join in ("add", "CAT", None, 1, ("cat",)):
        message = refused(ValueError, new, good, join)
        assert message == f"join must be one of {JOINS}, got {join!r}", "message"
    for dim in (True, None, "1", 1.0):
        message = refused(ValueError, new, good, "cat", dim)
        assert message == f"dim must be an int, got {dim!r}", "message"
    for name in (0, None, "", "a.b", "type", "items", "join", "dim", "training"):
        message = refused(ValueError, new, {"z": nn.Identity(), name: nn.Identity()})
        assert message == f"branches cannot have the name {name!r}", "message"
    for value in (None, [nn.Identity()], torch.relu, nn.Linear):
        message = refused(ValueError, new, {"z": nn.Identity(), "b": value})
        want = f"branches['b'] must be an nn.Module, got {value!r}"
        assert message == want, "message"


def check_calls(module: types.ModuleType) -> None:
    """Each documented error of a call."""
    new, x = module.Branches, torch.randn(5, 4)
    mixed = {"z": nn.Linear(4, 4), "b": nn.Linear(4, 4), "a": nn.Linear(4, 1)}
    message = refused(ValueError, new(mixed, "sum"), x)
    shapes = "{'z': (5, 4), 'b': (5, 4), 'a': (5, 1)}"
    assert message == f"branches to sum must return one shape, got {shapes}"
    message = refused(RuntimeError, new(mixed, "cat", 0), x)
    assert "must match except in dimension 0" in message
    refused(IndexError, new(mixed, "cat", 2), x)
    for join in ("cat", "sum"):
        for first, second in ((nn.GRU, nn.Linear), (nn.Linear, nn.GRU), (nn.GRU,) * 2):
            refused(TypeError, new({"a": first(4, 4), "b": second(4, 4)}, join), x)


def test_battery() -> None:
    check(real)


# --- More of the real module --------------------------------------------------------


def test_train_and_eval_reach_every_branch() -> None:
    net = Branches({"a": nn.Dropout(1.0), "b": nn.Dropout(1.0)}, "sum")
    x = torch.ones(5, 4)
    assert torch.equal(net(x), torch.zeros(5, 4))
    assert torch.equal(net.eval()(x), 2 * x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("join", ["cat", "sum"])
def test_dtype(join: Any, dtype: torch.dtype) -> None:
    net = Branches(parts(), join).to(dtype)
    assert net(torch.ones(5, 4, dtype=dtype)).dtype == dtype


def test_meta() -> None:
    x = torch.empty(5, 4, device="meta")
    y = Branches(parts(2)).to("meta")(x)
    assert (y.device.type, y.shape) == ("meta", (5, 10))
    with pytest.raises(ValueError, match="one shape"):
        Branches(parts(2), "sum").to("meta")(x)


def test_inception() -> None:
    paths = {f"k{k}": nn.Conv2d(3, k, k, padding=k // 2) for k in (1, 3, 5)}
    x = torch.randn(2, 3, 7, 8)
    wanted = torch.cat([paths["k1"](x), paths["k3"](x), paths["k5"](x)], 1)
    assert torch.equal(nn.Sequential(Branches(paths))(x), wanted)


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies(twin: Any, join: Any) -> None:
    net, x = Branches(parts(), join, -1), torch.randn(2, 5, 4)
    torch.testing.assert_close(twin(net)(x), net(x), rtol=0, atol=0)


def test_a_state_dict_loads_by_name() -> None:
    net, x = Branches(parts()), torch.randn(5, 4)
    other = Branches(dict(reversed(parts().items())))
    other.load_state_dict(net.state_dict())
    first, second, third = net(x).split(4, 1)
    assert torch.equal(other(x), torch.cat([third, second, first], 1))


def test_an_inplace_branch_overwrites_x_for_the_next() -> None:
    """The module docstring's warning."""
    for inplace in (False, True):
        paths = {"a": nn.ReLU(inplace), "b": nn.Identity()}
        y = Branches(paths, "dict")(-torch.ones(3))["b"]
        assert torch.equal(y, torch.zeros(3) if inplace else -torch.ones(3))


def test_the_traced_graph_has_no_check() -> None:
    """The docstring of forward says so."""
    net = Branches({"a": nn.Linear(4, 1), "b": nn.Identity()}, "sum")
    assert torch.fx.symbolic_trace(net)(torch.randn(5, 4)).shape == (5, 4)


def test_export_and_compile() -> None:
    """All joins in one model, with a dynamic batch."""
    heads = Branches({"x": nn.Linear(12, 2), "y": nn.ReLU()}, "tuple")
    last = Branches({"heads": heads, "z": nn.Identity()}, "dict")
    net = nn.Sequential(Branches(parts(), "sum"), Branches(parts()), last)
    x, batch = torch.randn(3, 4), torch.export.Dim("batch")
    program = torch.export.export(net, (x,), dynamic_shapes={"input": {0: batch}})
    more = torch.cat([x, x])
    torch.testing.assert_close(program.module()(more), net(more), rtol=0, atol=0)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x), rtol=0, atol=0)


# --- Mutants ------------------------------------------------------------------------

RUN = "name: branch(x) for name, branch in self.items()"
EMPTY = "isinstance(branches, Mapping | nn.ModuleDict) or not branches"
CAT = "torch.cat([*outputs.values()], self.dim)"
SUM = "reduce(torch.add, outputs.values())"
PLAIN = "isinstance(output, torch.Tensor)"
MAP = "mapping of modules, got ModuleDict"
LAST_FIRST = "[*outputs.values()][::-1]"
FIRST_TWO = "[*pairwise(shapes.values())][:1]"
PLUS = "lambda a, b: a + b"

MUTANTS = (
    # The branches.
    one("a chain", "branch(x) for", "(x := branch(x)) for", "^output"),
    one("the first for all", "branch(x) for", "self['z'](x) for", "^output"),
    one("sorted", RUN, RUN.replace("self.items()", "sorted(self.items())"), "^output"),
    one("repeats dropped", RUN, RUN.replace("items", "named_children"), "repeated"),
    one("unpacked", "branch(x)", "branch(*x)", "takes 2 positional", TypeError),
    one("x copied", "branch(x)", "branch(x.clone())", "as it is"),
    one("x cut off", "branch(x) for", "branch(x.detach()) for", "no gradient"),
    # The joins.
    one("always along 1", CAT, CAT.replace("self.dim", "1"), "^output"),
    one("stacked", CAT, CAT.replace("cat", "stack"), "^output"),
    one("backwards", CAT, CAT.replace("[*outputs.values()]", LAST_FIRST), "^output"),
    one("mean", SUM, f"{SUM} / len(self)", "^output"),
    one("product", SUM, SUM.replace("add", "mul"), "^output"),
    one("in place", SUM, SUM.replace("torch.add", "torch.Tensor.add_"), "input modif"),
    one("sum from zero", SUM, "sum(outputs.values())", "graph"),
    one("plus adds tuples", SUM, SUM.replace("torch.add", PLUS), "accepted"),
    one("dict for tuple", "tuple(outputs.values())", "outputs", "type"),
    one("list for tuple", "tuple(outputs.values())", "[*outputs.values()]", "type"),
    one("names for outputs", "tuple(outputs.values())", "tuple(outputs)", "order"),
    one("sum is cat", 'self.join == "cat"', 'self.join in ("cat", "sum")', "^output"),
    # The check of the shapes.
    one("no shape check", "if any(", "if False and any(", "accepted"),
    one("dimensions only", "one != other", "len(one) != len(other)", "accepted"),
    one("the first two", "pairwise(shapes.values())", FIRST_TWO, "accepted"),
    one("proxies checked", PLAIN, "True", "control flow", TraceError),
    # The constructor.
    one("default sum", '"cat",\n', '"sum",\n', "^output"),
    one("default dim", "dim: int = 1", "dim: int = -1", "^output"),
    one("no super", "super().__init__()", "pass", "attribute '_modul", AttributeError),
    one("loose", "self[name] = branch", "self.__dict__[name] = branch", "keys"),
    one("copied", "= branch\n", "= __import__('copy').copy(branch)\n", "other bran"),
    one("empty", EMPTY, EMPTY.partition(" or")[0], "accepted"),
    one("no ModuleDict", EMPTY, EMPTY.replace(" | nn.ModuleDict", ""), MAP, ValueError),
    one(
        "lists",
        "not " + EMPTY,
        "not branches",
        "has no attribute 'items'",
        AttributeError,
    ),
    one("any join", "join not in get_args(_Join)", "not join", "accepted"),
    one("a bool is an int", "isinstance(dim, bool) or ", "", "accepted"),
    one("floats", "isinstance(dim, int)", "isinstance(dim, int | float)", "accepted"),
    one(
        "attributes", "not valid or hasattr(self, name)", "not valid", "type", KeyError
    ),
    one("empty name", ' and name != ""', "", "empty string", KeyError),
    one("dotted", ' and "." not in name', "", "can.*t contain", KeyError),
    one("numbers", "isinstance(name, str) and", "", "not iterable", TypeError),
    one(
        "callables",
        "isinstance(branch, nn.Module)",
        "callable(branch)",
        "relu",
        TypeError,
    ),
    one("no value", "got {join!r}", "got it", "message"),
    # The printed model.
    one("no repr", "def extra_repr", "def _extra_repr", "join="),
    one("dim always", ' if self.join == "cat" else ""', "", "join="),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_battery_kills(mutant: Mutant) -> None:
    kill(mutant, SOURCE, check)


def test_mutants_are_distinct() -> None:
    assert_distinct(MUTANTS)


def test_battery_accepts_equivalents() -> None:
    """The battery judges behaviour: a rewriting that changes none passes."""
    check(build(SOURCE, ((CAT, "torch.concat(tuple(outputs.values()), self.dim)"),)))
