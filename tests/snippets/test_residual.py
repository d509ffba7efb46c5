"""Residual: equality with functions, errors, tools and mutants."""

import copy
import pickle
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.proxy import TraceError

import snippets.residual as real
from snippets.residual import Residual
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

torch.set_num_threads(1)

SOURCE = Path(real.__file__).read_text(encoding="utf-8")


def branch() -> nn.Sequential:
    """A branch that keeps the last dimension, 4."""
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))


def reference(x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """Branch and shortcut with functions alone, from the tensors of a state dict."""
    hidden = F.linear(x, state["branch.0.weight"], state["branch.0.bias"]).tanh()
    out = F.linear(hidden, state["branch.2.weight"], state["branch.2.bias"])
    if "shortcut.weight" in state:
        return out + F.linear(x, state["shortcut.weight"])
    return out + x


def refused(error: type[Exception], call: Any, *args: Any) -> str:
    """The message of the error that the call must raise."""
    try:
        call(*args)
    except error as caught:
        return str(caught)
    raise AssertionError(f"accepted: {args}")


# --- The battery --------------------------------------------------------------------

KEYS = ["branch.0.weight", "branch.0.bias", "branch.2.weight", "branch.2.bias"]


def check(module: types.ModuleType) -> None:
    """Assert all that the docstrings promise."""
    torch.manual_seed(0)
    projection = nn.Linear(4, 4, bias=False)
    check_path(module.Residual(branch()), KEYS)
    check_path(module.Residual(branch(), projection), [*KEYS, "shortcut.weight"])
    check_parts(module, projection)
    check_input_kept(module)
    check_fx(module)
    check_errors(module)


def check_path(block: nn.Module, keys: list[str]) -> None:
    """Keys in order, and output and every gradient bit for bit."""
    assert [*block.state_dict()] == keys, "keys"
    state = {
        name: tensor.detach().clone().requires_grad_()
        for name, tensor in block.state_dict().items()
    }
    for shape in ((4,), (5, 4), (2, 3, 4)):
        x = torch.randn(shape, requires_grad=True)
        y, wanted = block(x), reference(x, state)
        assert torch.equal(y, wanted), "output"
        left = [x, *block.parameters()]
        assert y.requires_grad, "no gradient"
        found = torch.autograd.grad(y.square().sum(), left, allow_unused=True)
        right = torch.autograd.grad(wanted.square().sum(), [x, *state.values()])
        for one_, other in zip(found, right, strict=True):
            assert one_ is not None, "no gradient"
            assert torch.equal(one_, other), "gradient"


def check_parts(module: types.ModuleType, projection: nn.Module) -> None:
    """The paths are the given modules, and the default is the identity."""
    inner = branch()
    block = module.Residual(inner, projection)
    assert block.branch is inner, "another branch"
    assert block.shortcut is projection, "another shortcut"
    assert [name for name, _ in block.named_children()] == ["branch", "shortcut"]
    plain = module.Residual(branch=inner, shortcut=None)
    assert type(plain.shortcut) is nn.Identity, "default"
    empty = nn.Sequential()
    assert module.Residual(inner, empty).shortcut is empty, "an empty chain is one"


def check_input_kept(module: types.ModuleType) -> None:
    """The addition is out of place, also if the branch returns x itself."""
    x = torch.randn(5, 4)
    kept = x.clone()
    assert torch.equal(module.Residual(nn.Identity())(x), 2 * kept), "twice x"
    assert torch.equal(x, kept), "input modified"


def check_fx(module: types.ModuleType) -> None:
    """symbolic_trace follows the block and gives one addition."""
    chain = nn.Sequential(module.Residual(branch()), nn.ReLU())
    traced, x = torch.fx.symbolic_trace(chain), torch.randn(5, 4)
    assert torch.equal(traced(x), chain(x)), "traced output"
    functions = [n.target for n in traced.graph.nodes if n.op == "call_function"]
    assert len(functions) == 1, "graph"


def check_errors(module: types.ModuleType) -> None:
    """Each documented error, with its message."""
    new = module.Residual
    bad: tuple[Any, ...] = (None, [branch()], torch.relu, nn.Linear, 3)
    for value in bad:
        message = refused(ValueError, new, value)
        assert message == f"branch must be an nn.Module, got {value!r}"
    for value in bad[1:]:
        message = refused(ValueError, new, branch(), value)
        assert message == f"shortcut must be an nn.Module, got {value!r}"
    for width, size in ((1, 5), (3, 5), (4, 1)):
        block = new(nn.Linear(4, width), nn.Unflatten(0, (size, -1)))
        message = refused(ValueError, block, torch.randn(5, 4))
        want = f"branch returns (5, {width}), shortcut ({size}, {5 // size}, 4): "
        assert message == want + "both must have the same shape", "message"
    message = refused(ValueError, new(nn.Linear(4, 1)), torch.randn(5, 4))
    assert message.startswith("branch returns (5, 1), shortcut (5, 4)"), "broadcast"
    refused(TypeError, new(nn.LSTM(4, 4)), torch.randn(5, 4))
    refused(TypeError, new(branch(), nn.LSTM(4, 4)), torch.randn(5, 4))


def test_battery() -> None:
    check(real)


# --- More of the real module --------------------------------------------------------


def test_train_and_eval_reach_both_paths() -> None:
    block = Residual(nn.Dropout(1.0), nn.Dropout(1.0))
    x = torch.ones(5, 4)
    assert torch.equal(block(x), torch.zeros(5, 4))
    assert torch.equal(block.eval()(x), 2 * x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype(dtype: torch.dtype) -> None:
    block = Residual(branch(), nn.Linear(4, 4)).to(dtype)
    assert block(torch.ones(5, 4, dtype=dtype)).dtype == dtype


def test_autocast_promotes() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Residual(nn.Linear(4, 4))(torch.ones(5, 4)).dtype == torch.float32


def test_meta() -> None:
    block = Residual(branch()).to("meta")
    y = block(torch.empty(5, 4, device="meta"))
    assert (y.device.type, y.shape) == ("meta", (5, 4))
    with pytest.raises(ValueError, match="same shape"):
        Residual(nn.Linear(4, 1).to("meta"))(torch.empty(5, 4, device="meta"))


def test_convolutions_with_a_projection() -> None:
    inner = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    projection = nn.Conv2d(3, 8, 1, stride=2)
    x = torch.randn(2, 3, 7, 8)
    wanted = inner(x) + projection(x)
    assert torch.equal(nn.Sequential(Residual(inner, projection))(x), wanted)


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies(twin: Any) -> None:
    block, x = Residual(branch()), torch.randn(5, 4)
    assert torch.equal(twin(block)(x), block(x))


def test_an_inplace_branch_overwrites_the_skip() -> None:
    """The module docstring's warning."""
    x = -torch.ones(5, 4)
    assert torch.equal(Residual(nn.ReLU())(x), -torch.ones(5, 4))
    assert torch.equal(Residual(nn.ReLU(inplace=True))(x), torch.zeros(5, 4))


def test_the_traced_graph_has_no_check() -> None:
    """The docstring of forward says so."""
    traced = torch.fx.symbolic_trace(Residual(nn.Linear(4, 1)))
    assert traced(torch.randn(5, 4)).shape == (5, 4)


def test_export() -> None:
    block, x = Residual(branch()), torch.randn(3, 4)
    batch = torch.export.Dim("batch")
    program = torch.export.export(block, (x,), dynamic_shapes={"x": {0: batch}})
    assert torch.equal(program.module()(torch.cat([x, x])), block(torch.cat([x, x])))


def test_compile() -> None:
    torch._dynamo.reset()
    block, x = Residual(branch()), torch.randn(3, 4)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), block(x))


# --- Mutants ------------------------------------------------------------------------

SUM = "return out + skip"
TEST = "isinstance(value, nn.Module)"

MUTANTS = (
    # The sum.
    one("no skip", SUM, "return out", "^output"),
    one("no branch", SUM, "return skip", "^output"),
    one("difference", SUM, "return out - skip", "^output"),
    one("mean", SUM, "return (out + skip) / 2", "^output"),
    one("in place", SUM, "return out.add_(skip)", "input modified"),
    one("relu after", SUM, "return (out + skip).relu()", "^output"),
    one("skip cut off the graph", SUM, "return out + skip.detach()", "gradient"),
    one("branch cut off the graph", SUM, "return out.detach() + skip", "gradient"),
    # The paths.
    one("shortcut after branch", "self.shortcut(x)", "self.shortcut(out)", "^output"),
    one("shortcut ignored", "self.shortcut(x)", "x", "^output"),
    one("branch twice", "self.shortcut(x)", "self.branch(x)", "^output"),
    one("default is a relu", "nn.Identity()", "nn.ReLU()", "^output"),
    one("default is a chain", "nn.Identity()", "nn.Sequential()", "default"),
    one("an empty chain is none", "if shortcut is None", "if not shortcut", "empty"),
    one("branch loose", "self.branch =", "self.__dict__['branch'] =", "keys"),
    one("branch in a list", "= branch\n", "= [branch]\n", "keys"),
    one("shortcut loose", "self.shortcut =", "self.__dict__['shortcut'] =", "keys"),
    one("other name", "self.branch", "self.body", "keys"),
    Mutant(
        "shortcut first",
        (
            ("        self.branch = branch\n", ""),
            ("else shortcut\n", "else shortcut\n        self.branch = branch\n"),
        ),
        AssertionError,
        "keys",
    ),
    one("no super", "super().__init__()", "pass", "before Module", AttributeError),
    one("copied", "= branch\n", "= __import__('copy').copy(branch)\n", "another br"),
    # The checks.
    one("anything is a module", f"not {TEST}", "False", "accepted|is not callable"),
    one("callables are modules", TEST, "callable(value)", "accepted"),
    one("only the branch", '("shortcut", self.shortcut)', "", "accepted"),
    one("no value", "got {value!r}", "got it", "got"),
    one("no shape check", "if tensors and", "if False and", "accepted"),
    one("dimensions only", "out.shape != skip.shape", "out.ndim != skip.ndim", "acce"),
    one("what + refuses", "and out.shape != skip.shape", "and out.ndim < 0", "accept"),
    one("shapes swapped", "{tuple(out.shape)}", "{tuple(skip.shape)}", "message"),
    one("proxies checked", "if tensors and", "if", "control flow", TraceError),
    one(
        "tuples checked",
        " and isinstance(skip, torch.Tensor)",
        "",
        "no attribute .shape",
        AttributeError,
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_battery_kills(mutant: Mutant) -> None:
    kill(mutant, SOURCE, check)


def test_mutants_are_distinct() -> None:
    assert_distinct(MUTANTS)


def test_battery_accepts_equivalents() -> None:
    """The battery judges behaviour: a rewriting that changes none passes."""
    check(build(SOURCE, ((SUM, "return torch.add(skip, out)"),)))
