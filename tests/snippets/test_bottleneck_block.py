"""BottleneckBlock: equality with a reference, errors, tools and mutants."""

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

import snippets.bottleneck_block as real
from snippets.bottleneck_block import BottleneckBlock
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

SOURCE = Path(real.__file__).read_text(encoding="utf-8")

State = dict[str, torch.Tensor]


class Config(NamedTuple):
    """Arguments of one block."""

    in_channels: int
    width: int
    stride: int
    expansion: int
    stride_in_1x1: bool

    @property
    def out_channels(self) -> int:
        """Channels that leave the block."""
        return self.width * self.expansion

    @property
    def projects(self) -> bool:
        """Whether the shapes of the two paths differ."""
        return self.stride != 1 or self.in_channels != self.out_channels


IDENTITY = Config(8, 2, 1, 4, False)
WIDER = Config(3, 2, 1, 3, True)
V1 = Config(8, 2, 2, 4, True)
V15 = Config(5, 3, 2, 2, False)
CONFIGS = (IDENTITY, WIDER, V1, V15)


# --- The independent reference: functions and a dict, no Module, nothing in place ---


def expected_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Keys of torchvision's Bottleneck, in its order, with the shape of each."""
    cin, width, cout = config.in_channels, config.width, config.out_channels
    layers = [
        ("conv1", "bn1", width, (width, cin, 1, 1)),
        ("conv2", "bn2", width, (width, width, 3, 3)),
        ("conv3", "bn3", cout, (cout, width, 1, 1)),
    ]
    if config.projects:
        layers.append(("downsample.0", "downsample.1", cout, (cout, cin, 1, 1)))
    shapes: dict[str, tuple[int, ...]] = {}
    for conv, norm, channels, weight in layers:
        shapes[f"{conv}.weight"] = weight
        for key in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{key}"] = (channels,)
        shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes


def reference(
    x: torch.Tensor, state: State, config: Config, training: bool
) -> torch.Tensor:
    """Return figure 5 of He et al. 2015 in functions; moves buffers in training."""

    def norm(out: torch.Tensor, name: str) -> torch.Tensor:
        if training:
            state[f"{name}.num_batches_tracked"] += 1
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.batch_norm(out, mean, var, weight, bias, training)

    first, second = config.stride, 1
    if not config.stride_in_1x1:
        first, second = second, first
    out = F.relu(norm(F.conv2d(x, state["conv1.weight"], stride=first), "bn1"))
    out = F.conv2d(out, state["conv2.weight"], stride=second, padding=1)
    out = norm(F.conv2d(F.relu(norm(out, "bn2")), state["conv3.weight"]), "bn3")
    if config.projects:
        x = F.conv2d(x, state["downsample.0.weight"], stride=config.stride)
        x = norm(x, "downsample.1")
    return F.relu(out + x)


# --- The battery, the same for the real module and for every mutant ----------------


def randomised(module: types.ModuleType, config: Config) -> nn.Module:
    """Return a block with every parameter and buffer away from its initial value."""
    torch.manual_seed(0)
    block: nn.Module = module.BottleneckBlock(*config)
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
    assert torch.equal(given, z), "input modified"
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


def check_defaults(module: types.ModuleType) -> None:
    """Stride 1, expansion 4, v1.5; one ReLU, in place."""
    block = module.BottleneckBlock(8, 2)
    assert block.conv3.out_channels == 8, "default expansion"
    assert len(block.downsample) == 0, "default stride"
    block = module.BottleneckBlock(8, 2, 2)
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2)), "default v1.5"
    assert isinstance(block.relu, nn.ReLU), "relu"
    assert block.relu.inplace, "relu not in place"


NUMBERS = ("in_channels", "width", "stride", "expansion")
BAD_ARGUMENTS: tuple[tuple[str, object, str], ...] = (
    *itertools.product(
        NUMBERS, (0, -1, 1.5, True, "3", None), ("an int of at least 1",)
    ),
    *itertools.product(("stride_in_1x1",), (0, 1, "yes", None), ("a bool",)),
)


def check_argument(
    module: types.ModuleType, name: str, value: object, wanted: str
) -> None:
    """A bad argument is refused with its name and value."""
    arguments: dict[str, object] = {"in_channels": 8, "width": 2, name: value}
    message = "accepted"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a layer without elements
        try:
            module.BottleneckBlock(**arguments)
        except ValueError as error:
            message = str(error)
    assert message == f"{name} must be {wanted}, got {value!r}", "argument"


def check(module: types.ModuleType) -> None:
    """Run the whole battery; raises on the first thing that is wrong."""
    for training, config in itertools.product((False, True), CONFIGS):
        check_output(module, config, training, torch.float32)
    check_defaults(module)
    for name, value, wanted in BAD_ARGUMENTS:
        check_argument(module, name, value, wanted)


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
@pytest.mark.parametrize("v1", [False, True])
def test_shape(v1: bool, stride: int) -> None:
    """The documented size holds for odd, single-pixel and empty-batch inputs."""
    block = BottleneckBlock(3, 2, stride, 3, v1).eval()
    for batch, height, width in itertools.product((0, 2), (1, 8), (1, 7)):
        y = block(torch.zeros(batch, 3, height, width))
        assert y.shape == (
            batch,
            6,
            (height - 1) // stride + 1,
            (width - 1) // stride + 1,
        )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_gradcheck(config: Config, training: bool) -> None:
    """Analytic and numerical gradients agree in float64, in-place operations too."""
    block = randomised(real, config).double().train(training)
    x = sample(config, torch.float64)[:, :, :3, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True)


def test_v1_weights_load_into_v1_5_in_silence() -> None:
    """Same keys and shapes; same output at stride 1 and another at stride 2."""
    for stride, same in ((1, True), (2, False)):
        v1 = randomised(real, Config(8, 2, stride, 4, True)).eval()
        v15 = randomised(real, Config(8, 2, stride, 4, False)).eval()
        v15.load_state_dict(v1.state_dict(), strict=True)
        x = sample(IDENTITY)
        assert torch.equal(v1(x), v15(x)) is same


@pytest.mark.parametrize(("v1", "share"), [(True, 0.25), (False, 1.0)])
def test_pixels_read(v1: bool, share: float) -> None:
    """With the stride in the 1x1 the gradient is zero at three of four pixels."""
    block = randomised(real, Config(8, 4, 2, 4, v1)).double().train()
    x = torch.randn(2, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    block(x).square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(1) > 0).double().mean() == share


def test_train_and_eval_differ_in_batchnorm_alone() -> None:
    """Training moves the statistics; eval leaves the state and repeats itself."""
    block, x = BottleneckBlock(*V15), sample(V15)
    block(x)
    assert block.bn3.num_batches_tracked == 1
    before = copy.deepcopy(block.eval().state_dict())
    assert torch.equal(block(x), block(x))
    assert torch.allclose(block(x[:1]), block(x)[:1], atol=1e-5)
    for name, tensor in block.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("config", CONFIGS)
def test_dtype_moves(config: Config, dtype: torch.dtype) -> None:
    """`.to(dtype)` moves every floating tensor, and output and gradients follow."""
    block = BottleneckBlock(*config).to(dtype)
    y = block(sample(config).to(dtype))
    assert y.dtype == dtype
    y.sum().backward()
    for parameter in block.parameters():
        assert parameter.dtype == dtype
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("config", CONFIGS)
def test_meta_device(config: Config) -> None:
    """`.to("meta")` moves every tensor, and a strict load brings them back."""
    block = BottleneckBlock(*config).to("meta")
    assert {t.device.type for t in block.state_dict().values()} == {"meta"}
    block, source = block.to_empty(device="cpu").eval(), BottleneckBlock(*config).eval()
    block.load_state_dict(source.state_dict(), strict=True)
    assert torch.equal(block(sample(config)), source(sample(config)))


@pytest.mark.parametrize("config", CONFIGS)
def test_copies(config: Config) -> None:
    """A strict load and a deep copy reproduce the output and share no tensor."""
    block, loaded = randomised(real, config).eval(), BottleneckBlock(*config).eval()
    loaded.load_state_dict(block.state_dict(), strict=True)
    mine = {tensor.data_ptr() for tensor in block.state_dict().values()}
    for twin in (loaded, copy.deepcopy(block)):
        assert torch.equal(twin(sample(config)), block(sample(config)))
        assert mine.isdisjoint(t.data_ptr() for t in twin.state_dict().values())


# --- Documented errors --------------------------------------------------------------


@pytest.mark.parametrize(("name", "value", "wanted"), BAD_ARGUMENTS)
def test_bad_argument(name: str, value: object, wanted: str) -> None:
    """ValueError names the argument and its value."""
    check_argument(real, name, value, wanted)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (torch.zeros(8), r"Expected 3D \(unbatched\) or 4D"),
        (torch.zeros(1, 2, 8, 4, 4), r"Expected 3D \(unbatched\) or 4D"),
        (torch.zeros(2, 3, 4, 4), "to have 8 channels, but got 3 channels"),
        (torch.zeros(2, 8, 4, 4).double(), "expected scalar type Double but found"),
    ],
)
def test_conv1_refuses(x: torch.Tensor, match: str) -> None:
    """RuntimeError for another number of dimensions, channels, or another dtype."""
    with pytest.raises(RuntimeError, match=match):
        BottleneckBlock(8, 2)(x)


def test_norm_refuses() -> None:
    """ValueError without a batch dimension, and for one value in training."""
    with pytest.raises(ValueError, match=r"expected 4D input \(got 3D input\)"):
        BottleneckBlock(8, 2)(torch.zeros(8, 4, 4))
    block, x = BottleneckBlock(8, 2, stride=2), torch.zeros(1, 8, 2, 2)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        block(x)
    assert block.eval()(x).shape == (1, 8, 1, 1)


@pytest.mark.parametrize("name", ["bn1", "bn2", "bn3", "relu"])
def test_full_backward_hook_is_refused(name: str) -> None:
    """The module docstring's warning: autograd refuses the in-place operation."""
    block = BottleneckBlock(8, 2)
    block.get_submodule(name).register_full_backward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        block(torch.randn(2, 8, 4, 4, requires_grad=True))


def test_docstrings() -> None:
    """Class and forward say shapes, errors and source; the factor holds."""
    module, said = real.__doc__, BottleneckBlock.forward.__doc__
    assert module
    assert said
    assert "seventeenth" in module
    assert round(2 * 9 * 4**2 / (2 * 4 + 9)) == 17
    for word in ("(N, C, H, W)", "Raises:", "RuntimeError", "ValueError"):
        assert word in said, word


# --- Mutants ------------------------------------------------------------------------


CONV1 = "nn.Conv2d(in_channels, width, 1, stride=first, bias=False)"
CONV2 = "nn.Conv2d(width, width, 3, stride=second, padding=1, bias=False)"
PROJECTION = "nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),\n"
NORM = "                nn.BatchNorm2d(out_channels),\n"
FIRST = "self.relu(self.bn1(self.conv1(x)))"
SECOND = "out = self.relu(self.bn2(self.conv2(out)))"
THIRD = "out = self.bn3(self.conv3(out))"
ADD = "        out += self.downsample(x)  # in place on bn3's output, never on x\n"
LAST = "        out = self.relu(out)\n"
ORDER = "(stride, 1) if stride_in_1x1 else (1, stride)"
CONDITION = "if stride == 1 and in_channels == out_channels:"


def add(new: str) -> tuple[str, str]:
    """Return an edit that replaces the addition."""
    return ADD, f"        {new}\n"


MUTANTS = (
    one("dropped skip", ADD, "", "eval output"),
    one("subtract", *add("out -= self.downsample(x)"), "eval output"),
    one("skip bypasses downsample", *add("out += x"), "must match", RuntimeError),
    one("skip detached", *add("out += self.downsample(x.detach())"), "gradient: x"),
    one("add into x", *add("out = self.downsample(x).add_(out)"), "input modified"),
    one(
        "skip in eval alone",
        *add("out += self.downsample(x) * (not self.training)"),
        "train output",
    ),
    one("skip after the last relu", ADD + LAST, LAST + ADD, "eval output"),
    one("last relu dropped", LAST, "", "eval output"),
    one(
        "relu before the addition",
        ADD + LAST,
        LAST + ADD + LAST,
        "eval output",
    ),
    one("first relu dropped", FIRST, "self.bn1(self.conv1(x))", "eval output"),
    one(
        "second relu dropped", SECOND, "out = self.bn2(self.conv2(out))", "eval output"
    ),
    one(
        "in-place relu first on x",
        FIRST,
        "self.relu(self.bn1(self.conv1(self.relu(x))))",
        "input modified",
    ),
    one("relu out of place", "nn.ReLU(inplace=True)", "nn.ReLU()", "not in place"),
    one(
        "v1 and v1.5 exchanged",
        ORDER,
        "(1, stride) if stride_in_1x1 else (stride, 1)",
        "eval output",
    ),
    one("always v1", ORDER, "(stride, 1)", "eval output"),
    one("always v1.5", ORDER, "(1, stride)", "eval output"),
    one(
        "v1 by default",
        "stride_in_1x1: bool = False",
        "stride_in_1x1: bool = True",
        "default v1.5",
    ),
    one("stride on both", ORDER, "(stride, stride)", "must match", RuntimeError),
    one("stride on the shortcut only", ORDER, "(1, 1)", "must match", RuntimeError),
    one(
        "stride on the branch only",
        PROJECTION,
        PROJECTION.replace("stride=stride, ", ""),
        "must match",
        RuntimeError,
    ),
    one(
        "no padding",
        CONV2,
        CONV2.replace("padding=1, ", ""),
        "must match",
        RuntimeError,
    ),
    one(
        "3x3 first",
        CONV1,
        CONV1.replace("1, stride", "3, padding=1, stride"),
        "state_dict",
    ),
    one("bias in conv1", CONV1, CONV1.replace("False", "True"), "state_dict"),
    one("projection without norm", PROJECTION + NORM, PROJECTION, "state_dict"),
    one("always a projection", CONDITION, "if False:", "state_dict"),
    one(
        "stride alone decides",
        CONDITION,
        "if stride == 1:",
        "state_dict",
    ),
    one("named shortcut", "self.downsample", "self.shortcut", "state_dict"),
    one(
        "one norm used twice",
        THIRD,
        "out = self.bn2(self.conv3(out))",
        "running_mean should contain|weight should contain",
        RuntimeError,
    ),
    one("expansion ignored", "width * expansion", "width * 4", "state_dict"),
    one(
        "expansion 2 by default",
        "expansion: int = 4",
        "expansion: int = 2",
        "default expansion",
    ),
    one("stride 2 by default", "stride: int = 1", "stride: int = 2", "default stride"),
    one("bool accepted", "isinstance(value, bool) or ", "", "argument"),
    one("zero accepted", "value < 1", "value < 0", "argument"),
    one(
        "float accepted",
        "not isinstance(value, int)",
        "not isinstance(value, (int, float))",
        "argument",
    ),
    one(
        "expansion unchecked", '            ("expansion", expansion),\n', "", "argument"
    ),
    one(
        "flag unchecked",
        "if not isinstance(stride_in_1x1, bool):",
        "if False:",
        "argument",
    ),
    one("value not named", ", got {value!r}", "", "argument"),
    one(
        "layers in a plain list",
        "self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)",
        "self.hidden = [nn.Conv2d(width, out_channels, 1, bias=False)]\n"
        "        self.__dict__['conv3'] = self.hidden[0]",
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
