"""SqueezeExcitation: equality with matrices, gradients, errors, tools and mutants."""

import copy
import pickle
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import snippets.squeeze_excitation as real
from snippets.residual import Residual
from snippets.squeeze_excitation import SqueezeExcitation
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

torch.set_num_threads(1)

SOURCE = Path(real.__file__).read_text(encoding="utf-8")
KEYS = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]  # torchvision's names


def reference_gate(x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """The gate (N, C) with matrices alone, in float64."""
    w1, b1, w2, b2 = (state[key].detach().double().squeeze() for key in KEYS)
    hidden = F.linear(x.double().flatten(2).mean(2), w1.reshape(-1, x.shape[1]), b1)
    return F.linear(hidden.clamp(min=0), w2.reshape(x.shape[1], -1), b2).sigmoid()


def reference(x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """Each channel of each sample times its gate, in float64."""
    return torch.einsum("nchw,nc->nchw", x.double(), reference_gate(x, state))


def refused(error: type[Exception], call: Any, *args: Any) -> str:
    """The message of the error that the call must raise."""
    try:
        call(*args)
    except error as caught:
        return str(caught)
    raise AssertionError(f"accepted: {args}")


# --- The battery --------------------------------------------------------------------


def check(module: types.ModuleType) -> None:
    """Assert all that the docstrings promise."""
    torch.manual_seed(0)
    for channels, reduction in ((8, 2), (8, 3), (6, 6), (3, 1)):
        check_layer(module, channels, reduction)
    check_default(module)
    check_independence(module)
    check_fx(module)
    check_errors(module)


def check_layer(module: types.ModuleType, channels: int, reduction: int) -> None:
    """Keys, shapes, output, gate, and the gradient of x and every parameter."""
    layer, hidden = module.SqueezeExcitation(channels, reduction), channels // reduction
    shapes = [tuple(tensor.shape) for tensor in layer.state_dict().values()]
    assert [*layer.state_dict()] == KEYS, "keys"
    wanted = [(hidden, channels, 1, 1), (hidden,), (channels, hidden, 1, 1)]
    assert shapes == [*wanted, (channels,)], "shapes"
    nn.init.normal_(layer.fc1.weight)
    nn.init.normal_(layer.fc2.weight)
    for training in (True, False):
        layer.train(training)
        for height, width in ((4, 5), (1, 1), (7, 2)):
            x = torch.randn(3, channels, height, width)
            before = x.clone()
            y, gate = layer(x), layer.gate(x)
            assert torch.equal(x, before), "input modified"
            assert y.shape == x.shape, "output shape"
            state = layer.state_dict()
            close = torch.allclose(y.double(), reference(x, state), atol=1e-5)
            assert close, "output"
            assert gate.shape == (3, channels, 1, 1), "gate shape"
            right = reference_gate(x, state)
            assert torch.allclose(gate.double().flatten(1), right, atol=1e-5), "gate"
            assert torch.equal(layer(x[0]).unsqueeze(0), layer(x[:1])), "one map"
    check_gradients(layer, channels)


def check_gradients(layer: nn.Module, channels: int) -> None:
    """First derivatives against finite differences of the module itself."""
    layer.double()
    x = torch.randn(2, channels, 2, 3, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.dtype == torch.float64, "dtype"
    assert y.requires_grad, "no gradient"
    left = [x, *layer.parameters()]
    found = torch.autograd.grad(y.square().sum(), left, allow_unused=True)
    for tensor, gradient in zip(left, found, strict=True):
        assert gradient is not None, "no gradient"
        step = 1e-6 * torch.randn_like(tensor)
        with torch.no_grad():
            tensor.add_(step)
            above = layer(x).square().sum()
            tensor.sub_(2 * step)
            slope = above - layer(x).square().sum()
            tensor.add_(step)
        wanted = 2 * (gradient * step).sum()
        assert torch.allclose(slope, wanted, rtol=1e-3, atol=1e-9), "gradient"


def check_default(module: types.ModuleType) -> None:
    """A reduction of 16; zero layers give half of x, an open gate gives x."""
    layer, x = module.SqueezeExcitation(32), torch.randn(2, 32, 3, 3)
    assert layer.fc1.out_channels == 2, "default reduction"
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(layer(x), x / 2), "half"
    nn.init.constant_(layer.fc2.bias, 100.0)
    assert torch.equal(layer(x), x), "open"


def check_independence(module: types.ModuleType) -> None:
    """The gate is computed for each sample, from the whole map of all channels."""
    layer, x = module.SqueezeExcitation(4, 1), torch.randn(3, 4, 5, 5)
    nn.init.constant_(layer.fc1.bias, 10.0)  # no hidden unit is cut by the ReLU
    other = x.clone()
    other[0, 1, 4, 4] += 100
    same = (layer.gate(x) == layer.gate(other)).flatten(1)
    assert same[1:].all(), "samples mix"
    assert not same[0].any(), "the gate overlooks a pixel"
    shuffled = x.flatten(2)[..., torch.randperm(25)].view_as(x)
    assert torch.allclose(layer.gate(x), layer.gate(shuffled), atol=1e-5), "position"


def check_fx(module: types.ModuleType) -> None:
    """symbolic_trace follows the layer."""
    layer, x = module.SqueezeExcitation(8, 2), torch.randn(2, 8, 3, 3)
    assert torch.equal(torch.fx.symbolic_trace(layer)(x), layer(x)), "traced output"


def check_errors(module: types.ModuleType) -> None:
    """Each documented error, with its message."""
    new = module.SqueezeExcitation
    for value in (0, -1, 2.0, True, None, "8"):
        want = f"must be an int of at least 1, got {value!r}"
        assert refused(ValueError, new, value) == f"channels {want}", "message"
        assert refused(ValueError, new, 8, value) == f"reduction {want}", "message"
    message = refused(ValueError, new, 8)
    assert message == "reduction must be at most channels (8), got 16", "message"
    assert new(16).fc1.out_channels == 1, "reduction = channels"
    layer = new(8, 2)
    assert "8 channels" in refused(RuntimeError, layer, torch.zeros(2, 4, 3, 3))
    assert "double" in refused(RuntimeError, layer, torch.zeros(2, 8, 3, 3).double())
    for shape in ((8, 3), (1, 2, 8, 3, 3)):
        message = refused(RuntimeError, layer, torch.zeros(shape))
        assert message.startswith("Expected 3D (unbatched) or 4D"), "message"
    for small in ((8,), ()):
        refused(IndexError, layer, torch.zeros(small))


def test_battery() -> None:
    check(real)


# --- More of the real module --------------------------------------------------------


@pytest.mark.parametrize("channels", [64, 96, 256])
def test_parameter_count(channels: int) -> None:
    """2 C^2 / r in the weights, C / r + C in the biases."""
    count = sum(tensor.numel() for tensor in SqueezeExcitation(channels).parameters())
    assert count == 2 * channels**2 // 16 + channels // 16 + channels


def test_in_a_branch_the_skip_is_untouched() -> None:
    torch.manual_seed(0)
    inner, gate = nn.Conv2d(4, 4, 3, padding=1), SqueezeExcitation(4, 2)
    block, x = Residual(nn.Sequential(inner, gate)), torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), gate(inner(x)) + x)
    nn.init.zeros_(inner.weight)
    nn.init.zeros_(inner.bias)  # type: ignore[arg-type]
    assert torch.equal(block(x), x)
    assert not torch.equal(nn.Sequential(Residual(inner), gate)(x), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype(dtype: torch.dtype) -> None:
    layer = SqueezeExcitation(8, 2).to(dtype)
    assert layer(torch.ones(2, 8, 3, 3, dtype=dtype)).dtype == dtype


def test_meta() -> None:
    y = SqueezeExcitation(8, 2).to("meta")(torch.empty(2, 8, 3, 3, device="meta"))
    assert (y.device.type, y.shape) == ("meta", (2, 8, 3, 3))


def test_channels_last_is_kept() -> None:
    x = torch.randn(2, 8, 3, 3).to(memory_format=torch.channels_last)
    y = SqueezeExcitation(8, 2)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies(twin: Any) -> None:
    layer, x = SqueezeExcitation(8, 2), torch.randn(2, 8, 3, 3)
    assert torch.equal(twin(layer)(x), layer(x))


def test_compile() -> None:
    torch._dynamo.reset()
    layer, x = SqueezeExcitation(8, 2), torch.randn(2, 8, 3, 3)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), layer(x))


# --- Mutants ------------------------------------------------------------------------

SQUEEZE = "squeezed = x.mean((-2, -1), keepdim=True)"
GATE = "return torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed))))"
SCALE = "return x * self.gate(x)"
FC1 = "nn.Conv2d(channels, channels // reduction, 1)"
FC2 = "nn.Conv2d(channels // reduction, channels, 1)"
REFUSAL = "if isinstance(value, bool) or not isinstance(value, int) or value < 1:"

MUTANTS = (
    # The scale.
    one("gate alone", SCALE, "return self.gate(x).expand_as(x)", "^output"),
    one("gate added", SCALE, "return x + self.gate(x)", "^output"),
    one("gate left out", SCALE, "return x", "^output"),
    one("one plus gate", SCALE, "return x * (1 + self.gate(x))", "^output"),
    one("a skip inside", SCALE, "return x + x * self.gate(x)", "^output"),
    one("in place", SCALE, "return x.mul_(self.gate(x))", "input modified"),
    one("gate detached", SCALE, "return x * self.gate(x).detach()", "gradient"),
    one("x detached", SCALE, "return x.detach() * self.gate(x)", "gradient"),
    one("gate of a detached x", SCALE, "return x * self.gate(x.detach())", "gradient"),
    one(
        "training alone",
        SCALE,
        "return x * self.gate(x) if self.training else x",
        "^output",
    ),
    one("rounded gate", SCALE, "return x * self.gate(x).round()", "^output"),
    one("cast", SCALE, "return (x * self.gate(x)).float()", "dtype"),
    # The gate.
    one("no sigmoid", GATE, GATE.replace("torch.sigmoid", ""), "^output"),
    one("tanh", GATE, GATE.replace("sigmoid", "tanh"), "^output"),
    one("softmax", GATE, GATE.replace("sigmoid(", "softmax(dim=-3, input="), "^output"),
    one("hard sigmoid", "torch.sigmoid", "nn.functional.hardsigmoid", "^output"),
    one(
        "twice the sigmoid", "return torch.sigmoid", "return 2 * torch.sigmoid", "^out"
    ),
    one("no relu", GATE, GATE.replace("torch.relu", ""), "^output"),
    one(
        "relu after fc2",
        GATE,
        "return torch.sigmoid(torch.relu(self.fc2(self.fc1(squeezed))))",
        "^out",
    ),
    one("silu", GATE, GATE.replace("torch.relu", "nn.functional.silu"), "^output"),
    # The squeeze.
    one("maximum", "x.mean(", "x.amax(", "^output"),
    one("sum", "x.mean(", "x.sum(", "^output"),
    one("rows alone", "(-2, -1)", "(-1,)", "^output"),
    one("no squeeze", SQUEEZE, "squeezed = x", "^output"),
    one(
        "over the batch",
        SQUEEZE,
        SQUEEZE + "; squeezed = squeezed.mean(0, True).expand_as(squeezed)",
        "^output",
    ),
    one("one corner", SQUEEZE, "squeezed = x[..., :1, :1]", "^output"),
    one("four dimensions only", "(-2, -1)", "(2, 3)", "out of range", IndexError),
    one("no keepdim", ", keepdim=True", "", "Expected 3D", RuntimeError),
    # The layers.
    one("hidden width rounded up", "// reduction", "// reduction + 1", "shapes"),
    one("no bias", FC1, FC1.replace("1)", "1, bias=False)"), "keys"),
    one("other names", "self.fc1", "self.reduce", "keys"),
    one("3x3", FC1, FC1.replace("1)", "3, padding=1)"), "shapes"),
    one("linear layers", FC1, "nn.Linear(channels, channels // reduction)", "shapes"),
    one("not registered", f"self.fc2 = {FC2}", f"self.__dict__['fc2'] = {FC2}", "keys"),
    one("default 8", "reduction: int = 16", "reduction: int = 8", "default reduction"),
    one("no super", "super().__init__()", "pass", "before Module", AttributeError),
    Mutant(
        "layers in a list",
        (
            (f"self.fc2 = {FC2}", f"self.fcs = [{FC2}]"),
            ("self.fc2(", "self.fcs[0]("),
        ),
        AssertionError,
        "keys",
    ),
    # The checks.
    one("zero accepted", REFUSAL, REFUSAL.replace("< 1", "< 0"), "message"),
    one("bool accepted", "isinstance(value, bool) or ", "", "accepted|message"),
    one(
        "reduction unchecked",
        '("channels", channels), ("reduction", reduction)',
        '("channels", channels),',
        "zero",
        ZeroDivisionError,
    ),
    one(
        "hidden width zero",
        "if reduction > channels:",
        "if False:",
        "zero|accepted",
        UserWarning,
    ),
    one(
        "reduction = channels",
        "reduction > channels",
        "reduction >= channels",
        "at most channels .6., got 6",
        ValueError,
    ),
    one("no value", ", got {value!r}", "", "message"),
    one("no channels", " ({channels})", "", "message"),
    one(
        "check in forward",
        SQUEEZE,
        f"if x.dim() < 3:\n            raise IndexError\n        {SQUEEZE}",
        "control flow",
        torch.fx.proxy.TraceError,
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_battery_kills(mutant: Mutant) -> None:
    kill(mutant, SOURCE, check)


def test_mutants_are_distinct() -> None:
    assert_distinct(MUTANTS)


def test_battery_accepts_equivalents() -> None:
    """The battery judges behaviour: a rewriting that changes none passes."""
    pooled = "squeezed = nn.functional.adaptive_avg_pool2d(x, 1)"
    check(build(SOURCE, ((SQUEEZE, pooled), (SCALE, "return self.gate(x) * x"))))
