"""FeatureExtractor: equality with outputs kept by hand, no hook left, mutants."""

import copy
import pickle
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import snippets.feature_extractor as real
from snippets.feature_extractor import FeatureExtractor
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

torch.set_num_threads(1)

SOURCE = Path(real.__file__).read_text(encoding="utf-8")


class Two(NamedTuple):
    """A named pair."""

    high: torch.Tensor
    low: torch.Tensor


class Net(nn.Module):
    """Calls `shared` twice, rewrites `first`'s output in place, never calls `idle`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.relu = nn.ReLU(inplace=True)
        self.shared = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.alias = self.first
        self.idle = nn.Linear(1, 1)
        self.last = nn.Linear(4, 2)
        self.reached = False

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        x = self.relu(self.first(x)) * scale
        x = self.shared(self.shared(x))
        self.reached = True
        out: torch.Tensor = self.last(x)
        return out


class Returns(nn.Module):
    """Returns a value that is not a tensor alone."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self) -> Any:
        return self.value


def by_hand(net: Net, x: torch.Tensor, scale: float) -> dict[str, torch.Tensor]:
    """The same outputs, out of place and without hooks."""
    first = net.first(x)
    once = net.shared(torch.relu(first) * scale)
    twice = net.shared(once)
    last = net.last(twice)
    return {"first": first, "once": once, "twice": twice, "last": last}


def hooks(model: nn.Module) -> int:
    """How many forward hooks the model has."""
    return sum(len(module._forward_hooks) for module in model.modules())


def refused(error: type[Exception], call: Any, *args: Any, **kwargs: Any) -> str:
    """The message of the error that the call must raise."""
    try:
        call(*args, **kwargs)
    except error as caught:
        return str(caught)
    raise AssertionError(f"accepted: {args[1:]} {kwargs}")


# --- The battery --------------------------------------------------------------------


def check(module: types.ModuleType) -> None:
    """Assert all that the docstrings promise."""
    torch.manual_seed(0)
    check_outputs(module)
    check_gradients(module)
    check_stop_early(module)
    check_structures(module)
    check_errors(module)


def check_outputs(module: types.ModuleType) -> None:
    net, x = Net(), torch.randn(5, 3)
    wanted = by_hand(net, x, 2.0)
    extractor = module.FeatureExtractor(net, ["last", "first", "shared", "last"])
    for _ in range(2):
        found = extractor(x, scale=2.0)
        assert [*found] == ["last", "first", "shared"], "order"
        assert torch.equal(found["first"], wanted["first"]), "overwritten in place"
        assert torch.equal(found["shared"], wanted["twice"]), "last call"
        assert torch.equal(found["last"], wanted["last"]), "output"
        assert hooks(net) == 0, "hook left"
    every = module.FeatureExtractor(net, ["shared", "first"], every_call=True)
    found = every(x, scale=2.0)
    assert [len(outputs) for outputs in found.values()] == [2, 1], "calls"
    pairs = zip(found["shared"], [wanted["once"], wanted["twice"]], strict=True)
    assert all(torch.equal(left, right) for left, right in pairs), "every call"
    names = (name for name in ("", "shared.0", "alias"))
    found = module.FeatureExtractor(net, names)(x, 2.0)
    assert torch.equal(found[""], wanted["last"]), "the model itself"
    assert torch.equal(found["alias"], wanted["first"]), "second name"
    assert [*extractor.state_dict()] == [f"model.{key}" for key in net.state_dict()]
    net.first.register_forward_hook(lambda module, args, output: output + 1)
    found = extractor(x)["first"]
    assert torch.equal(found, wanted["first"] + 1), "own hook"
    assert hooks(net) == 1, "own hook removed"


def check_gradients(module: types.ModuleType) -> None:
    net, x = Net(), torch.randn(5, 3, requires_grad=True)
    found = module.FeatureExtractor(net, ["first", "shared"])(x)
    assert all(output.requires_grad for output in found.values()), "detached"
    inputs = [x, *net.first.parameters(), *net.shared.parameters()]
    wanted = by_hand(net, x, 1.0)
    left = found["first"].square().sum() + found["shared"].square().sum()
    right = wanted["first"].square().sum() + wanted["twice"].square().sum()
    pairs = zip(*(torch.autograd.grad(y, inputs) for y in (left, right)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs), "gradient"
    cut = module.FeatureExtractor(net, ["first"], detach=True)(x)["first"]
    assert not cut.requires_grad, "not detached"
    assert torch.equal(cut, wanted["first"]), "overwritten in place"


def check_stop_early(module: types.ModuleType) -> None:
    net, x = Net(), torch.randn(5, 3)
    wanted = by_hand(net, x, 1.0)
    extractor = module.FeatureExtractor(net, ["shared", "first"], stop_early=True)
    found = extractor(x)
    assert not net.reached, "did not stop"
    assert [*found] == ["shared", "first"], "order"
    assert torch.equal(found["first"], wanted["first"]), "stopped too early"
    assert torch.equal(found["shared"], wanted["once"]), "stopped late"
    assert hooks(net) == 0, "hook left"
    module.FeatureExtractor(net, ["first"])(x)
    assert net.reached, "stopped unasked"


def check_structures(module: types.ModuleType) -> None:
    a, b = torch.zeros(2), torch.ones(2)
    for value in ((a, b), [a, (b, None)], {"a": a, "b": [b]}, Two(a, b), "text"):
        found = module.FeatureExtractor(Returns(value), [""])()[""]
        assert type(found) is type(value), "type"
        assert str(found) == str(value), "values"
        kept = tensors(found)
        assert len(kept) == len(tensors(value)), "values"
        assert all(tensor is not a and tensor is not b for tensor in kept), "copies"
    a.requires_grad_()
    (found,) = module.FeatureExtractor(Returns([{"a": (a,)}]), [""], detach=True)()[""]
    assert not found["a"][0].requires_grad, "not detached within"


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = [*value.values()]
    nested = isinstance(value, list | tuple)
    return [tensor for item in value for tensor in tensors(item)] if nested else []


def check_errors(module: types.ModuleType) -> None:
    net, x = Net(), torch.randn(5, 3)
    new = module.FeatureExtractor
    bad: tuple[Any, ...] = ([], "first")
    for layers in bad:
        message = refused(ValueError, new, net, layers)
        assert message == f"layers must be names of layers, got {layers!r}"
    message = refused(ValueError, new, net, ["last", "shared.1.0"])
    near = "['shared.1', 'shared.0', 'shared']"
    assert message == f"no layer 'shared.1.0'; there are, for example, {near}", "near"
    message = refused(ValueError, new, net, ["fc"])
    assert message.endswith("example, ['first', 'relu', 'shared']"), "message"
    refused(ValueError, new, net, ["first"], every_call=True, stop_early=True)
    message = refused(RuntimeError, new(net, ["first", "idle"]), x)
    assert message == "the model did not call ['idle']"
    assert hooks(net) == 0, "hook left"
    assert "shapes" in refused(RuntimeError, new(net, ["first"]), torch.zeros(5, 7))
    assert hooks(net) == 0, "hook left after an error"
    gone = new(net, ["first", "idle"])
    del net.idle
    refused(AttributeError, gone, x)
    assert hooks(net) == 0, "hook left after an error"


def test_battery() -> None:
    check(real)


# --- More of the real module --------------------------------------------------------


def test_a_slice_gives_the_same() -> None:
    layers = (nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    chain, x = nn.Sequential(*layers), torch.randn(5, 3)
    found = FeatureExtractor(chain, ["1"], stop_early=True)(x)["1"]
    assert torch.equal(found, chain[:2](x))


def test_several_outputs_of_an_lstm() -> None:
    lstm, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
    output, (hidden, cell) = FeatureExtractor(nn.Sequential(lstm), ["0"])(x)["0"]
    wanted, (hidden_wanted, cell_wanted) = lstm(x)
    assert torch.equal(output, wanted)
    assert torch.equal(hidden, hidden_wanted)
    assert torch.equal(cell, cell_wanted)


def test_an_ordered_dict_comes_back_as_a_dict() -> None:
    model = Returns(OrderedDict(a=torch.ones(1)))
    assert FeatureExtractor(model, [""])()[""] == {"a": torch.ones(1)}


def test_train_and_eval_reach_the_model() -> None:
    net = Net().eval()
    extractor = FeatureExtractor(net, ["first"])
    assert not net.training
    extractor.train()
    assert net.first.training
    extractor.eval()
    assert not net.first.training


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype(dtype: torch.dtype) -> None:
    extractor = FeatureExtractor(Net(), ["first"]).to(dtype)
    assert extractor(torch.randn(5, 3, dtype=dtype))["first"].dtype == dtype


def test_meta() -> None:
    chain = nn.Sequential(nn.Tanh(), nn.ReLU())
    found = FeatureExtractor(chain, ["0"])(torch.empty(5, 3, device="meta"))["0"]
    assert (found.device.type, found.shape) == ("meta", (5, 3))


def test_inference_mode() -> None:
    with torch.inference_mode():
        found = FeatureExtractor(Net(), ["first"])(torch.randn(5, 3))
    assert found["first"].is_inference()


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies(twin: Any) -> None:
    extractor, x = FeatureExtractor(Net(), ["first"], detach=True), torch.randn(5, 3)
    assert torch.equal(twin(extractor)(x)["first"], extractor(x)["first"])


# --- Mutants ------------------------------------------------------------------------

RUN = "self.model(*args, **kwargs)"
DIRECT = RUN.replace("(", ".forward(")

MUTANTS = (
    # The hooks.
    one("hooks stay", "handle.remove()", "pass", "hook left"),
    one(
        "hooks stay after errors", "        finally:\n", "        else:\n", "hook left"
    ),
    one("pre hook", "forward_hook(", "forward_pre_hook(", "missing 1", TypeError),
    one("keywords lost", RUN, "self.model(*args)", "overwritten|last call"),
    one("forward called", RUN, DIRECT, "not call \\[''\\]", RuntimeError),
    one("silent layers pass", "if silent:", "if False:", "list index", IndexError),
    # The copies.
    one("no copy", "else value.clone()", "else value", "overwritten"),
    one("no copy of a cut one", "value.detach().clone()", "value.detach()", "overwri"),
    one("always cut", "clone() if detach else", "clone() if True else", "detached"),
    one("never cut", "clone() if detach else", "clone() if False else", "not detached"),
    one(
        "cut at the top", "(item, detach) for item", "(item, False) for item", "within"
    ),
    one("dicts skipped", "isinstance(value, dict)", "isinstance(value, set)", "copies"),
    one("lists skipped", "list | tuple", "tuple", "copies"),
    one("named pair lost", "(*items) if named", "(items) if named", "missi", TypeError),
    # The calls.
    one("first call", "outputs[-1]", "outputs[0]", "last call"),
    one("every call always", "if self.every_call:", "if True:", "must be T", TypeError),
    one("every call never", "if self.every_call:", "if False:", "calls"),
    one(
        "order of names",
        "for name in self.layers}",
        "for name in sorted(self.layers)}",
        "order",
    ),
    one("always stops", "if self.stop_early and all", "if all", "calls"),
    one(
        "never stops", "if self.stop_early and all", "if False and all", "did not stop"
    ),
    one("stops at once", "all(calls", "any(calls", "not call", RuntimeError),
    # The checks.
    one("no layers pass", "not self.layers:", "self.layers is None:", "accepted"),
    one("string as names", "() if isinstance(layers, str) else ", "", "no layer 'f'"),
    one("unknown name passes", "if name not in known:", "if False:", "accepted"),
    one("no near names", "get_close_matches(name, known)", "[]", "near"),
    one("no names at all", "known) or known[1:4]", "known)", "message"),
    one("one name each", "remove_duplicate=False", "", "no layer 'alias'", ValueError),
    one("both options pass", "if every_call and", "if False and", "accepted"),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_battery_kills(mutant: Mutant) -> None:
    kill(mutant, SOURCE, check)


def test_mutants_are_distinct() -> None:
    assert_distinct(MUTANTS)


def test_battery_accepts_equivalents() -> None:
    """The battery judges behaviour: a rewriting that changes none passes."""
    check(build(SOURCE, (("outputs[-1] for", "outputs.pop() for"),)))
