"""PreActivationBlock: equality with a reference, the identity path, errors, mutants."""

import copy
import itertools
import types
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import snippets.preactivation_block as real
from snippets.preactivation_block import PreActivationBlock
from snippets.residual_block import ResidualBlock
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

SOURCE = Path(real.__file__).read_text(encoding="utf-8")

State = dict[str, torch.Tensor]


class Config(NamedTuple):
    """Arguments of one block."""

    in_channels: int
    out_channels: int
    stride: int

    @property
    def projects(self) -> bool:
        """Whether the shapes of the two paths differ."""
        return self.stride != 1 or self.in_channels != self.out_channels


IDENTITY = Config(4, 4, 1)
WIDER = Config(4, 6, 1)
STRIDED = Config(4, 4, 2)
BOTH = Config(3, 5, 2)
CONFIGS = (IDENTITY, WIDER, STRIDED, BOTH)


# --- The independent reference: functions and a dict, no Module, nothing in place ---


def expected_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Keys of the state dict, in order, with the shape of each tensor."""
    cin, cout, _ = config
    shapes: dict[str, tuple[int, ...]] = {}
    for number, channels in ((1, cin), (2, cout)):
        for key in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"bn{number}.{key}"] = (channels,)
        shapes[f"bn{number}.num_batches_tracked"] = ()
        shapes[f"conv{number}.weight"] = (cout, channels, 3, 3)
    if config.projects:
        shapes["shortcut.weight"] = (cout, cin, 1, 1)
    return shapes


def reference(
    x: torch.Tensor, state: State, config: Config, training: bool
) -> torch.Tensor:
    """Return figure 4 (e) of He et al. 2016 in functions; moves buffers in training."""

    def active(out: torch.Tensor, name: str) -> torch.Tensor:
        if training:
            state[f"{name}.num_batches_tracked"] += 1
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.relu(F.batch_norm(out, mean, var, weight, bias, training=training))

    first = active(x, "bn1")
    out = F.conv2d(first, state["conv1.weight"], stride=config.stride, padding=1)
    out = F.conv2d(active(out, "bn2"), state["conv2.weight"], padding=1)
    if config.projects:
        x = F.conv2d(first, state["shortcut.weight"], stride=config.stride)
    return x + out


# --- The battery, the same for the real module and for every mutant ----------------


def randomised(module: types.ModuleType, config: Config) -> nn.Module:
    """Return a block with every parameter and buffer away from its initial value."""
    torch.manual_seed(0)
    block: nn.Module = module.PreActivationBlock(*config)
    with torch.no_grad():
        for name, tensor in block.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if "var" in name else tensor.normal_()
    return block


def sample(config: Config, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return an input (2, in_channels, 8, 7) with both signs."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, config.in_channels, 8, 7, generator=generator, dtype=dtype)


def check_output(
    module: types.ModuleType, config: Config, training: bool, dtype: torch.dtype
) -> None:
    """Keys, output, gradients and buffers equal the reference's; x is left alone."""
    mode = "train" if training else "eval"
    block = randomised(module, config).to(dtype).train(training)
    found = {name: tuple(t.shape) for name, t in block.state_dict().items()}
    assert list(found.items()) == list(expected_shapes(config).items()), "state_dict"
    parameters = dict(block.named_parameters())
    state = {
        name: tensor.detach().clone().requires_grad_(name in parameters)
        for name, tensor in block.state_dict().items()
    }
    x, z = (sample(config, dtype).requires_grad_() for _ in range(2))
    given = x * 1
    y, wanted = block(given), reference(z, state, config, training)
    assert given._version == 0, "input modified"
    assert isinstance(y, torch.Tensor), "forward returns no tensor"
    assert y.shape == wanted.shape, "output shape"
    assert torch.equal(y, wanted), f"{mode} output"
    torch.autograd.backward([y, wanted], [torch.cos(wanted)] * 2)
    for name, mine, other in [("x", x, z)] + [
        (name, parameter, state[name]) for name, parameter in parameters.items()
    ]:
        assert mine.grad is not None, f"no gradient: {name}"
        assert other.grad is not None
        assert torch.equal(mine.grad, other.grad), f"gradient: {name}"
        assert mine.grad.count_nonzero() > 0, f"zero gradient: {name}"
    for name, buffer in block.named_buffers():
        assert torch.equal(buffer, state[name]), f"buffer: {name}"


def check_identity(module: types.ModuleType) -> None:
    """With conv2 at zero the block is the identity, to the bit, for both signs."""
    block, x = module.PreActivationBlock(4, 4), sample(IDENTITY)
    nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(x), x), "identity"


def check_parts(module: types.ModuleType) -> None:
    """Kinds of the layers; x is kept where bn1 is taken out, too."""
    block = randomised(module, BOTH).eval()
    kinds = {name: type(child) for name, child in block.named_children()}
    assert kinds == {
        "bn1": nn.BatchNorm2d,
        "conv1": nn.Conv2d,
        "bn2": nn.BatchNorm2d,
        "conv2": nn.Conv2d,
        "relu": nn.ReLU,
        "shortcut": nn.Conv2d,
    }, "attributes"
    x = sample(BOTH)
    block.bn1 = nn.Identity()
    block(x)
    assert x._version == 0, "input modified without bn1"


BAD_ARGUMENTS: tuple[tuple[str, object], ...] = tuple(
    itertools.product(
        ("in_channels", "out_channels", "stride"), (0, -1, 1.5, True, "3", None)
    )
)


def check_argument(module: types.ModuleType, name: str, value: object) -> None:
    """A bad argument is refused with its name and value."""
    arguments: dict[str, object] = {"in_channels": 4, "out_channels": 4, name: value}
    message = "accepted"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a layer without elements
        try:
            module.PreActivationBlock(**arguments)
        except ValueError as error:
            message = str(error)
    wanted = f"{name} must be an int of at least 1, got {value!r}"
    assert message == wanted, "argument"


def check(module: types.ModuleType) -> None:
    """Run the whole battery; raises on the first thing that is wrong."""
    for name, value in BAD_ARGUMENTS:
        check_argument(module, name, value)
    for training, config in itertools.product((False, True), CONFIGS):
        check_output(module, config, training, torch.float32)
    assert module.PreActivationBlock(4, 4).conv1.stride == (1, 1), "default stride"
    check_identity(module)
    check_parts(module)


def test_battery_accepts_the_snippet() -> None:
    """The real module passes what every mutant has to fail."""
    check(real)


# --- Single properties --------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_equals_reference_in_float64(config: Config, training: bool) -> None:
    """Bit-equal output, gradients and buffers in double precision."""
    check_output(real, config, training, torch.float64)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("channels", [(1, 1), (3, 4), (4, 2)])
def test_shape(channels: tuple[int, int], stride: int) -> None:
    """The documented size holds for odd, single-pixel and empty-batch inputs."""
    cin, cout = channels
    block = PreActivationBlock(cin, cout, stride).eval()
    for batch, height, width in itertools.product((0, 2), (1, 8), (1, 7)):
        y = block(torch.zeros(batch, cin, height, width))
        size = (height - 1) // stride + 1, (width - 1) // stride + 1
        assert y.shape == (batch, cout, *size)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_gradcheck(config: Config, training: bool) -> None:
    """Analytic and numerical gradients agree in float64."""
    block = randomised(real, config).double().train(training)
    x = sample(config, torch.float64)[:, :, :3, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True)


def test_chain_is_a_sum_of_branches() -> None:
    """Equation 4 of the paper: x_L is x_0 plus the branches of all blocks."""
    blocks = [randomised(real, IDENTITY).double().eval() for _ in range(4)]
    x = start = sample(IDENTITY, torch.float64)
    total = torch.zeros_like(x)
    for block in blocks:
        y = block(x)
        total, x = total + (y - x), y
    assert torch.allclose(x, start + total)


def test_first_unit_of_a_network() -> None:
    """Behind BatchNorm and ReLU, bn1 may go: x is then the activated map."""
    block = randomised(real, BOTH).eval()
    x = sample(BOTH)
    active, wanted = block.get_submodule("bn1")(x).relu(), block(x)
    block.add_module("bn1", nn.Identity())
    assert torch.equal(block(active), wanted)


@pytest.mark.parametrize("channels", [(4, 4), (4, 6), (6, 4)])
def test_parameters_against_the_basic_block(channels: tuple[int, int]) -> None:
    """Same number with an identity shortcut, 4 * out - 2 * in fewer with stride 2."""
    cin, cout = channels
    for stride in (1, 2):
        new, old = (
            sum(p.numel() for p in block.parameters())
            for block in (
                PreActivationBlock(cin, cout, stride),
                ResidualBlock(cin, cout, stride),
            )
        )
        projects = Config(cin, cout, stride).projects
        assert old - new == (4 * cout - 2 * cin if projects else 0)


def test_train_and_eval_differ_in_batchnorm_alone() -> None:
    """Training moves the statistics; eval leaves the state and repeats itself."""
    block, x = PreActivationBlock(*BOTH), sample(BOTH)
    block(x)
    assert block.bn2.num_batches_tracked == 1
    before = copy.deepcopy(block.eval().state_dict())
    assert torch.equal(block(x), block(x))
    assert torch.allclose(block(x[:1]), block(x)[:1], atol=1e-5)
    for name, tensor in block.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("config", CONFIGS)
def test_dtype_moves(config: Config, dtype: torch.dtype) -> None:
    """`.to(dtype)` moves every floating tensor, and output and gradients follow."""
    block = PreActivationBlock(*config).to(dtype)
    y = block(sample(config).to(dtype))
    assert y.dtype == dtype
    y.sum().backward()
    for parameter in block.parameters():
        assert parameter.dtype == dtype
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_autocast_keeps_the_skip_in_float32() -> None:
    """The addition is out of place: an identity skip is not rounded to bfloat16."""
    block, x = PreActivationBlock(*IDENTITY), sample(IDENTITY)
    nn.init.zeros_(block.conv2.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = block(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, x)


@pytest.mark.parametrize("config", CONFIGS)
def test_meta_device(config: Config) -> None:
    """`.to("meta")` moves every tensor; the block computes shapes there."""
    block = PreActivationBlock(*config).to("meta")
    assert {t.device.type for t in block.state_dict().values()} == {"meta"}
    y = block(sample(config).to("meta"))
    assert (y.device.type, y.shape[1]) == ("meta", config.out_channels)


@pytest.mark.parametrize("config", CONFIGS)
def test_copies(config: Config) -> None:
    """A strict load and a deep copy reproduce the output and share no tensor."""
    block, loaded = randomised(real, config).eval(), PreActivationBlock(*config).eval()
    loaded.load_state_dict(block.state_dict(), strict=True)
    mine = {tensor.data_ptr() for tensor in block.state_dict().values()}
    for twin in (loaded, copy.deepcopy(block)):
        assert torch.equal(twin(sample(config)), block(sample(config)))
        assert mine.isdisjoint(t.data_ptr() for t in twin.state_dict().values())


@pytest.mark.parametrize("name", ["bn1", "conv1", "bn2", "conv2", "relu", "shortcut"])
def test_full_backward_hook(name: str) -> None:
    """The module docstring's promise: every layer takes a full backward hook."""
    block, calls = PreActivationBlock(*BOTH), []
    block.get_submodule(name).register_full_backward_hook(lambda *_: calls.append(1))
    block(sample(BOTH).requires_grad_()).sum().backward()
    assert len(calls) == (2 if name == "relu" else 1)


# --- Documented errors --------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), BAD_ARGUMENTS)
def test_bad_argument(name: str, value: object) -> None:
    """ValueError names the argument and its value."""
    check_argument(real, name, value)


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (torch.zeros(2, 3, 4, 4), RuntimeError, "should contain 3 elements not 8"),
        (torch.zeros(2, 8, 4, 4).double(), RuntimeError, "mixed dtype"),
        (torch.zeros(2, 8, 4, 4).bfloat16(), RuntimeError, "expected scalar type"),
        (torch.zeros(8, 4, 4), ValueError, r"expected 4D input \(got 3D input\)"),
        (torch.zeros(1, 2, 8, 4, 4), ValueError, r"expected 4D input \(got 5D"),
        (torch.zeros(1, 8, 1, 1), ValueError, "Expected more than 1 value"),
        (torch.zeros(1, 8, 2, 2), ValueError, "Expected more than 1 value"),
    ],
)
def test_layers_refuse(x: torch.Tensor, error: type[Exception], match: str) -> None:
    """Another dtype, channel count or dimension, and one value in training."""
    block = PreActivationBlock(8, 8, stride=2)
    with pytest.raises(error, match=match):
        block(x)
    if "more than 1" in match:
        assert block.eval()(x).shape == (1, 8, 1, 1)


# --- Mutants ------------------------------------------------------------------------


CONV2 = "nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)"
PROJECTION = "in_channels, out_channels, 1, stride=stride, bias=False"
ACTIVE = "self.relu(self.bn1(x))"
SKIP = "skip = x if self.shortcut is None else self.shortcut(active)"
OUT = "self.conv2(self.relu(self.bn2(self.conv1(active))))"
ADD = "return skip + out  # nothing after it; out of place, since skip may be x"
CONDITION = "if stride != 1 or in_channels != out_channels:"
MUST = "must match the size"

MUTANTS = (
    one("dropped skip", ADD, "return out", "eval output"),
    one("subtract", ADD, "return skip - out", "eval output"),
    one("skip detached", ADD, "return skip.detach() + out", "gradient: x"),
    one("add into x", ADD, "return skip.add_(out)", "input modified"),
    one("relu after the addition", ADD, "return self.relu(skip + out)", "eval output"),
    one("missing return", ADD, "skip + out", "returns no tensor"),
    one(
        "skip bypasses the projection",
        SKIP,
        "skip = x",
        MUST,
        RuntimeError,
    ),
    one("projects the raw input", "self.shortcut(active)", "self.shortcut(x)", "eval"),
    one("identity skip is activated", "skip = x if", "skip = active if", "eval output"),
    one("first relu dropped", ACTIVE, "self.bn1(x)", "eval output"),
    one("first norm dropped", ACTIVE, "self.relu(x)", "eval output"),
    one("relu before the norm", ACTIVE, "self.bn1(self.relu(x))", "eval output"),
    one(
        "second relu dropped",
        OUT,
        "self.conv2(self.bn2(self.conv1(active)))",
        "eval output",
    ),
    one(
        "second norm dropped",
        OUT,
        "self.conv2(self.relu(self.conv1(active)))",
        "eval output",
    ),
    one("norms exchanged", OUT, OUT.replace("bn2", "bn1"), "eval output"),
    one(
        "post-activation order",
        OUT,
        "self.bn2(self.conv2(self.relu(self.conv1(active))))",
        "eval output",
    ),
    one("branch on the raw input", OUT, OUT.replace("active", "x"), "eval output"),
    one("relu after the branch", OUT, f"self.relu({OUT})", "eval output"),
    one("in-place relu", "nn.ReLU()", "nn.ReLU(inplace=True)", "without bn1"),
    one("another activation", "nn.ReLU()", "nn.GELU()", "eval output"),
    one(
        "norm of the output's width first",
        "self.bn1 = nn.BatchNorm2d(in_channels)",
        "self.bn1 = nn.BatchNorm2d(out_channels)",
        "state_dict",
    ),
    one(
        "norm on the projection",
        f"nn.Conv2d(\n                {PROJECTION}\n            )",
        f"nn.Sequential(nn.Conv2d({PROJECTION}), nn.BatchNorm2d(out_channels))",
        "state_dict",
    ),
    one("bias in conv2", CONV2, CONV2.replace("False", "True"), "state_dict"),
    one(
        "no padding in conv2",
        CONV2,
        CONV2.replace("padding=1, ", ""),
        MUST,
        RuntimeError,
    ),
    one(
        "stride on the branch only",
        PROJECTION,
        PROJECTION.replace("stride=stride, ", ""),
        MUST,
        RuntimeError,
    ),
    one(
        "stride on the shortcut only",
        "3, stride=stride, padding=1",
        "3, padding=1",
        MUST,
        RuntimeError,
    ),
    one("stride alone decides", CONDITION, "if stride != 1:", "state_dict"),
    one(
        "width alone decides",
        CONDITION,
        "if in_channels != out_channels:",
        "state_dict",
    ),
    one("always a projection", CONDITION, "if True:", "state_dict"),
    one("stride 2 by default", "stride: int = 1", "stride: int = 2", "default stride"),
    one(
        "bool accepted",
        "isinstance(value, bool) or ",
        "",
        "must be tuple of ints, not bool",
        TypeError,
    ),
    one("zero accepted", "value < 1", "value < 0", "argument"),
    one("stride unchecked", '            ("stride", stride),\n', "", "argument"),
    one("value not named", ", got {value!r}", "", "argument"),
    one(
        "conv2 in a plain list",
        f"self.conv2 = {CONV2}",
        f"self.__dict__['conv2'] = [{CONV2}][0]",
        "state_dict",
    ),
    one(
        "missing super().__init__()",
        "        super().__init__()\n",
        "",
        "cannot assign module before",
        AttributeError,
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_killed(mutant: Mutant) -> None:
    """The battery refuses each fault, for the stated reason."""
    kill(mutant, SOURCE, check)


def test_the_unedited_source_passes() -> None:
    """The battery accepts what the mutants are made from; no fault twice."""
    check(build(SOURCE))
    assert_distinct(MUTANTS)
