"""ResidualBlock: equality with an independent reference, errors, tools and mutants."""

import copy
import itertools
import pickle
import types
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import snippets.residual_block as real
from snippets.residual_block import ResidualBlock
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

torch.set_num_threads(1)

PATH = Path(real.__file__)
SOURCE = PATH.read_text(encoding="utf-8")

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
    norm = {
        "weight": (cout,),
        "bias": (cout,),
        "running_mean": (cout,),
        "running_var": (cout,),
        "num_batches_tracked": (),
    }
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (cout, cin, 3, 3)}
    shapes |= {f"bn1.{key}": shape for key, shape in norm.items()}
    shapes["conv2.weight"] = (cout, cout, 3, 3)
    shapes |= {f"bn2.{key}": shape for key, shape in norm.items()}
    if config.projects:
        shapes["shortcut.0.weight"] = (cout, cin, 1, 1)
        shapes |= {f"shortcut.1.{key}": shape for key, shape in norm.items()}
    return shapes


def reference_norm(
    x: torch.Tensor, state: State, name: str, training: bool
) -> torch.Tensor:
    """BatchNorm with the tensors of `state`; moves its buffers in training."""
    if training:
        state[f"{name}.num_batches_tracked"] += 1
    return F.batch_norm(
        x,
        state[f"{name}.running_mean"],
        state[f"{name}.running_var"],
        state[f"{name}.weight"],
        state[f"{name}.bias"],
        training=training,
        momentum=0.1,
        eps=1e-5,
    )


def reference(
    x: torch.Tensor, state: State, config: Config, training: bool
) -> torch.Tensor:
    """Equations 1 and 2 of He et al. 2015, written with functions alone."""
    branch = F.conv2d(x, state["conv1.weight"], stride=config.stride, padding=1)
    branch = F.relu(reference_norm(branch, state, "bn1", training))
    branch = F.conv2d(branch, state["conv2.weight"], padding=1)
    branch = reference_norm(branch, state, "bn2", training)
    skip = x
    if config.projects:
        skip = F.conv2d(x, state["shortcut.0.weight"], stride=config.stride)
        skip = reference_norm(skip, state, "shortcut.1", training)
    return F.relu(branch + skip)


# --- The battery, the same for the real module and for every mutant ----------------


def randomised(module: types.ModuleType, config: Config) -> nn.Module:
    """Return a block with every parameter and buffer away from its initial value."""
    torch.manual_seed(0)
    block = module.ResidualBlock(*config)
    assert isinstance(block, nn.Module), "not a Module"
    with torch.no_grad():
        for name, tensor in block.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if "var" in name else tensor.normal_()
    return block


def reference_state(block: nn.Module) -> State:
    """Copies of the block's tensors; the parameters are leaves that want gradients."""
    parameters = {name for name, _ in block.named_parameters()}
    return {
        name: tensor.detach().clone().requires_grad_(name in parameters)
        for name, tensor in block.state_dict().items()
    }


def sample(config: Config, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return an input (2, in_channels, 8, 7) with both signs."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, config.in_channels, 8, 7, generator=generator, dtype=dtype)


def check_eval(module: types.ModuleType, config: Config) -> None:
    """Keys, shapes and the output in eval mode, bit for bit; the input is kept."""
    block = randomised(module, config).eval()
    found = {name: tuple(t.shape) for name, t in block.state_dict().items()}
    assert list(found.items()) == list(expected_shapes(config).items()), "state_dict"
    x = sample(config)
    kept = x.clone()
    with torch.no_grad():
        y = block(x)
        wanted = reference(x, reference_state(block), config, training=False)
    assert torch.equal(x, kept), "input modified"
    assert isinstance(y, torch.Tensor), "forward returns no tensor"
    assert y.shape == wanted.shape, "output shape"
    assert torch.equal(y, wanted), "eval output"


def check_train(module: types.ModuleType, config: Config, dtype: torch.dtype) -> None:
    """Output, every gradient and every buffer of a training step, bit for bit."""
    block = randomised(module, config).to(dtype).train()
    state = reference_state(block)
    x = sample(config, dtype).requires_grad_()
    z = x.detach().clone().requires_grad_()
    y, wanted = block(x), reference(z, state, config, training=True)
    assert y.dtype == dtype, "output dtype"
    assert torch.equal(y, wanted), "train output"
    weights = torch.randn_like(wanted)
    torch.autograd.backward([y, wanted], [weights, weights])
    assert x.grad is not None, "no gradient: x"
    assert z.grad is not None
    assert torch.equal(x.grad, z.grad), "gradient of the input"
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, f"no gradient: {name}"
        grad = state[name].grad
        assert grad is not None
        assert torch.equal(parameter.grad, grad), f"gradient: {name}"
        assert parameter.grad.count_nonzero() > 0, f"zero gradient: {name}"
    for name, buffer in block.named_buffers():
        assert torch.equal(buffer, state[name]), f"buffer: {name}"


def check_parts(module: types.ModuleType) -> None:
    """Types of the attributes, and fx traces the block without a branch."""
    block = randomised(module, BOTH).eval()
    kinds = {name: type(child) for name, child in block.named_children()}
    assert kinds == {
        "conv1": nn.Conv2d,
        "bn1": nn.BatchNorm2d,
        "relu": nn.ReLU,
        "conv2": nn.Conv2d,
        "bn2": nn.BatchNorm2d,
        "shortcut": nn.Sequential,
    }, "attributes"
    relu = block.get_submodule("relu")
    assert isinstance(relu, nn.ReLU)
    assert relu.inplace, "relu not in place"
    traced = torch.fx.symbolic_trace(block)
    x = sample(BOTH)
    assert torch.equal(traced(x), block(x)), "fx output"


BAD_ARGUMENTS: tuple[tuple[str, object], ...] = tuple(
    itertools.product(
        ("in_channels", "out_channels", "stride"), (0, -1, 1.5, True, "3", None)
    )
)


def check_argument(module: types.ModuleType, name: str, value: object) -> None:
    """A bad argument is refused with its name and value."""
    arguments: dict[str, object] = {"in_channels": 4, "out_channels": 4, "stride": 1}
    arguments[name] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a layer without elements
        try:
            module.ResidualBlock(**arguments)
            message = None
        except ValueError as error:
            message = str(error)
    assert message is not None, f"accepted: {name}={value!r}"
    assert message == f"{name} must be an int of at least 1, got {value!r}", "message"


def check(module: types.ModuleType) -> None:
    """Run the whole battery; raises on the first thing that is wrong."""
    for config in CONFIGS:
        check_eval(module, config)
    for config in CONFIGS:
        check_train(module, config, torch.float32)
        check_train(module, config, torch.float64)
    check_parts(module)
    for name, value in BAD_ARGUMENTS:
        check_argument(module, name, value)


def test_battery_accepts_the_snippet() -> None:
    """The real module passes what every mutant has to fail."""
    check(real)


# --- Single properties --------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 7])
@pytest.mark.parametrize("height", [1, 8])
@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("channels", [(1, 1), (3, 4), (4, 2)])
def test_shape(
    channels: tuple[int, int], stride: int, batch: int, height: int, width: int
) -> None:
    """The documented size holds for odd, single-pixel and empty-batch inputs."""
    cin, cout = channels
    block = ResidualBlock(cin, cout, stride).eval()
    y = block(torch.zeros(batch, cin, height, width))
    expected = (batch, cout, (height - 1) // stride + 1, (width - 1) // stride + 1)
    assert y.shape == expected


def test_stride_defaults_to_one() -> None:
    """Without stride the map keeps its size and the shortcut is empty."""
    block = ResidualBlock(4, 4)
    assert block(torch.randn(2, 4, 5, 5)).shape == (2, 4, 5, 5)
    assert len(block.shortcut) == 0


@pytest.mark.parametrize("config", CONFIGS)
def test_equals_reference_in_eval(config: Config) -> None:
    """Bit-equal output in eval mode, exact keys, input kept."""
    check_eval(real, config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("config", CONFIGS)
def test_equals_reference_in_training(config: Config, dtype: torch.dtype) -> None:
    """Bit-equal output, gradients and buffers in a training step."""
    check_train(real, config, dtype)


@pytest.mark.parametrize("config", CONFIGS)
def test_gradients_at_initialisation(config: Config) -> None:
    """From the default initialisation a gradient reaches every parameter and x."""
    torch.manual_seed(0)
    block = ResidualBlock(*config)
    x = sample(config).requires_grad_()
    block(x).square().sum().backward()
    for name, tensor in [("x", x), *block.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.count_nonzero() > 0, name


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_gradcheck(config: Config, training: bool) -> None:
    """Analytic and numerical gradients agree in float64, in-place operations too."""
    block = randomised(real, config).double().train(training)
    x = sample(config, torch.float64)[:, :, :3, :3].clone().requires_grad_()
    parameters = tuple(block.parameters())

    def function(*_: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = block(x)
        return output

    assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("training", [False, True])
def test_input_not_modified(training: bool) -> None:
    """Neither values nor the version counter of x change, with or without autograd."""
    for config, grad in itertools.product(CONFIGS, (False, True)):
        block = ResidualBlock(*config).train(training)
        x = sample(config)
        with torch.set_grad_enabled(grad):
            y = block(x)
        assert x._version == 0
        assert torch.equal(x, sample(config))
        assert y.data_ptr() != x.data_ptr()


def test_train_and_eval_differ_in_batchnorm_alone() -> None:
    """Training moves the statistics; eval leaves the state and repeats itself."""
    block = ResidualBlock(*BOTH)
    x = sample(BOTH)
    block(x)
    assert block.state_dict()["bn1.num_batches_tracked"] == 1
    block.eval()
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    assert torch.equal(block(x), block(x))
    alone = block(x[:1])
    assert torch.allclose(alone, block(x)[:1], atol=1e-5)
    for name, tensor in block.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("config", CONFIGS)
def test_dtype_moves(config: Config, dtype: torch.dtype) -> None:
    """`.to(dtype)` moves every floating tensor, and the output follows."""
    block = ResidualBlock(*config).to(dtype)
    for name, tensor in block.state_dict().items():
        assert tensor.dtype == (torch.int64 if "num_batches" in name else dtype), name
    y = block(sample(config).to(dtype))
    assert y.dtype == dtype
    assert y.isfinite().all()
    y.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in block.parameters())


@pytest.mark.parametrize("config", CONFIGS)
def test_device_moves(config: Config) -> None:
    """`.to("meta")` moves every tensor; the block computes shapes there."""
    block = ResidualBlock(*config).to("meta")
    assert {t.device.type for t in block.state_dict().values()} == {"meta"}
    y = block(sample(config).to("meta"))
    assert y.device.type == "meta"
    assert y.shape[1] == config.out_channels
    materialised = block.to_empty(device="cpu")
    materialised.load_state_dict(ResidualBlock(*config).state_dict())
    assert materialised(sample(config)).device.type == "cpu"


@pytest.mark.parametrize("config", CONFIGS)
def test_state_dict_round_trip(config: Config) -> None:
    """A strict load into a fresh block reproduces the output."""
    block = randomised(real, config).eval()
    fresh = ResidualBlock(*config).eval()
    fresh.load_state_dict(block.state_dict(), strict=True)
    assert torch.equal(fresh(sample(config)), block(sample(config)))


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("config", CONFIGS)
def test_copies(config: Config, how: str) -> None:
    """A copy computes the same and shares no tensor."""
    block = randomised(real, config).eval()
    twin: nn.Module
    if how == "deepcopy":
        twin = copy.deepcopy(block)
    else:
        twin = pickle.loads(pickle.dumps(block))
    assert torch.equal(twin(sample(config)), block(sample(config)))
    mine = {t.data_ptr() for t in block.state_dict().values()}
    assert mine.isdisjoint(t.data_ptr() for t in twin.state_dict().values())


# --- Tools --------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_fx(config: Config, training: bool) -> None:
    """symbolic_trace gives the same output and the same buffers."""
    block = randomised(real, config).train(training)
    traced = torch.fx.symbolic_trace(copy.deepcopy(block))
    x = sample(config)
    assert torch.equal(traced(x), block(x))
    for name, tensor in traced.state_dict().items():
        assert torch.equal(tensor, block.state_dict()[name]), name


@pytest.mark.parametrize("config", [IDENTITY, BOTH])
def test_export(config: Config) -> None:
    """torch.export with a dynamic batch gives the same output at another batch."""
    block = randomised(real, config).eval()
    x = sample(config)
    program = torch.export.export(
        block, (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}
    )
    larger = torch.cat([x, -x, 2 * x])
    assert torch.equal(program.module()(larger), block(larger))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("config", [IDENTITY, BOTH])
def test_compile(config: Config, training: bool) -> None:
    """torch.compile captures one whole graph and gives the same gradients."""
    torch._dynamo.reset()
    block = randomised(real, config).train(training)
    twin = copy.deepcopy(block)
    compiled = torch.compile(twin, backend="eager", fullgraph=True)
    x, z = sample(config).requires_grad_(), sample(config).requires_grad_()
    y, wanted = compiled(x), block(z)
    assert torch.equal(y, wanted)
    y.square().sum().backward()
    wanted.square().sum().backward()
    for (name, left), right in zip(
        [("x", x), *twin.named_parameters()], [z, *block.parameters()], strict=True
    ):
        assert left.grad is not None
        assert right.grad is not None
        assert torch.equal(left.grad, right.grad), name


# --- Documented errors --------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), BAD_ARGUMENTS)
def test_bad_argument(name: str, value: object) -> None:
    """ValueError names the argument and its value."""
    check_argument(real, name, value)
    with pytest.raises(ValueError, match=f"^{name} must be an int of at least 1, got "):
        ResidualBlock(**{"in_channels": 4, "out_channels": 4, name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4,), (4, 8), (1, 2, 4, 8, 8)])
def test_neither_three_nor_four_dimensions(shape: tuple[int, ...]) -> None:
    """conv1 refuses x."""
    with pytest.raises(RuntimeError, match=r"Expected 3D \(unbatched\) or 4D"):
        ResidualBlock(4, 4)(torch.zeros(shape))


def test_wrong_channel_count() -> None:
    """conv1 names both counts."""
    with pytest.raises(RuntimeError, match="to have 4 channels, but got 3 channels"):
        ResidualBlock(4, 4)(torch.zeros(2, 3, 8, 8))


def test_wrong_dtype() -> None:
    """conv1 refuses an x of another dtype than its weight."""
    with pytest.raises(RuntimeError, match="expected scalar type Double but found"):
        ResidualBlock(4, 4)(torch.zeros(2, 4, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("training", [False, True])
def test_no_batch_dimension(training: bool) -> None:
    """Conv1 takes (C, H, W); bn1 refuses it, so no 3-D input passes."""
    with pytest.raises(ValueError, match=r"expected 4D input \(got 3D input\)"):
        ResidualBlock(4, 4).train(training)(torch.zeros(4, 8, 8))


def test_one_value_per_channel_in_training() -> None:
    """bn1 cannot take statistics of one value; in eval mode the same x passes."""
    block = ResidualBlock(4, 4, stride=2)
    x = torch.zeros(1, 4, 2, 2)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        block(x)
    assert block.eval()(x).shape == (1, 4, 1, 1)


@pytest.mark.parametrize("name", ["bn1", "bn2", "relu"])
def test_full_backward_hook_is_refused(name: str) -> None:
    """The module docstring's warning: autograd refuses the in-place operation."""
    block = ResidualBlock(4, 4)
    block.get_submodule(name).register_full_backward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        block(torch.randn(2, 4, 8, 8, requires_grad=True))


# --- The file -----------------------------------------------------------------------


def section(name: str) -> str:
    """Return the text between the markers of a pymdownx.snippets section."""
    start, end = f"# --8<-- [start:{name}]\n", f"# --8<-- [end:{name}]"
    assert (SOURCE.count(start), SOURCE.count(end)) == (1, 1), name
    return SOURCE.partition(start)[2].partition(end)[0]


def test_sections_nest() -> None:
    """`layers` holds the lines that build layers, `forward` the one method."""
    assert section("layers") in section("block")
    assert section("forward") in section("block")
    built = [line.strip().split(" =")[0] for line in section("layers").splitlines()]
    assert [name for name in built if name.startswith("self.")] == [
        "self.conv1",
        "self.bn1",
        "self.relu",
        "self.conv2",
        "self.bn2",
        "self.shortcut",
        "self.shortcut",
    ]
    assert section("forward").strip().startswith("def forward(self, x: torch.Tensor)")
    assert section("forward").rstrip().endswith("return out")


def test_public_names_and_docstrings() -> None:
    """`__all__` is exact; module, class and methods say shapes, errors and source."""
    assert real.__all__ == ["ResidualBlock"]
    module, forward = real.__doc__, ResidualBlock.forward.__doc__
    assert module
    assert ResidualBlock.__doc__
    assert ResidualBlock.__init__.__doc__
    assert forward
    for word in ("What:", "When to use:", "When not:", "Source:", "1512.03385"):
        assert word in module, word
    for word in ("(N, in_channels, H, W)", "dtype", "Raises:", "ValueError", "2015"):
        assert word in ResidualBlock.__doc__, word
    for word in ("(N, C, H, W)", "Raises:", "RuntimeError", "ValueError"):
        assert word in forward, word


# --- Mutants ------------------------------------------------------------------------


CONV1 = "in_channels, out_channels, 3, stride=stride, padding=1, bias=False"
CONV2 = "nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)"
PROJECTION = "nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),\n"
PROJECTION_NORM = "                nn.BatchNorm2d(out_channels),\n"
CONDITION = "if stride == 1 and in_channels == out_channels:"
BN1, BN2 = "self.bn1 = nn.BatchNorm2d(out_channels)", "self.bn2 = nn.BatchNorm2d"
FIRST = "out: torch.Tensor = self.relu(self.bn1(self.conv1(x)))"
SECOND = "out = self.bn2(self.conv2(out))"
ADD = "        out += self.shortcut(x)  # in place on bn2's output, never on x\n"
LAST = "        out = self.relu(out)\n"
REFUSAL = "if isinstance(value, bool) or not isinstance(value, int) or value < 1:"


def add(new: str) -> tuple[str, str]:
    """Return an edit that replaces the addition."""
    return ADD, f"        {new}\n"


MUTANTS = (
    # The skip.
    one("dropped skip", ADD, "", "eval output"),
    one("skip after the last relu", ADD + LAST, LAST + ADD, "eval output"),
    one("shortcut reads out", *add("out += self.shortcut(out)"), "eval output"),
    one("multiply", *add("out = out * self.shortcut(x)"), "eval output"),
    one("subtract", *add("out -= self.shortcut(x)"), "eval output"),
    one("half skip", *add("out += 0.5 * self.shortcut(x)"), "eval output"),
    one("skip bypasses shortcut", *add("out += x"), "must match", RuntimeError),
    one(
        "skip in eval alone",
        *add("out += self.shortcut(x) * (not self.training)"),
        "train output",
    ),
    one(
        "skip detached",
        *add("out += self.shortcut(x.detach())"),
        "gradient of the input",
    ),
    one("add into x", *add("out = self.shortcut(x).add_(out)"), "input modified"),
    one(
        "concatenate",
        *add("out = torch.cat([out, self.shortcut(x)], dim=1)"),
        "output shape",
    ),
    # The activations.
    one("last relu dropped", LAST, "", "eval output"),
    one("relu before the addition", ADD + LAST, LAST + ADD + LAST, "eval output"),
    one("first relu dropped", FIRST, FIRST.replace("self.relu", ""), "eval output"),
    one(
        "in-place relu first on x",
        FIRST,
        FIRST.replace("self.conv1(x)", "self.conv1(self.relu(x))"),
        "input modified",
    ),
    one(
        "relu before bn1",
        FIRST,
        "out: torch.Tensor = self.bn1(self.relu(self.conv1(x)))",
        "eval output",
    ),
    one(
        "leaky relu",
        "nn.ReLU(inplace=True)",
        "nn.LeakyReLU(inplace=True)",
        "eval output",
    ),
    one("relu out of place", "nn.ReLU(inplace=True)", "nn.ReLU()", "not in place"),
    # Stride and padding.
    one(
        "stride on the branch only",
        PROJECTION,
        PROJECTION.replace("stride=stride, ", ""),
        "must match",
        RuntimeError,
    ),
    one(
        "stride on the shortcut only",
        CONV1,
        CONV1.replace("stride=stride, ", ""),
        "must match",
        RuntimeError,
    ),
    one(
        "conv2 strided too",
        CONV2,
        CONV2.replace("padding", "stride=stride, padding"),
        "must match",
        RuntimeError,
    ),
    Mutant(
        "stride on conv2 instead of conv1",
        (
            (CONV2, CONV2.replace("padding", "stride=stride, padding")),
            (CONV1, CONV1.replace("stride=stride, ", "")),
        ),
        AssertionError,
        "eval output",
    ),
    one(
        "conv1 without padding",
        CONV1,
        CONV1.replace("padding=1", "padding=0"),
        "must match",
        RuntimeError,
    ),
    one(
        "conv2 without padding",
        CONV2,
        CONV2.replace("padding=1", "padding=0"),
        "must match",
        RuntimeError,
    ),
    one(
        "circular padding",
        CONV2,
        CONV2.replace("bias", "padding_mode='circular', bias"),
        "eval output",
    ),
    one(
        "5x5 kernel",
        CONV2,
        CONV2.replace("3, padding=1", "5, padding=2"),
        "state_dict",
    ),
    # The projection.
    one(
        "no projection at new stride",
        CONDITION,
        "if in_channels == out_channels:",
        "state_dict",
    ),
    one("no projection at new width", CONDITION, "if stride == 1:", "state_dict"),
    one("projection always", CONDITION, "if False:", "state_dict"),
    one("projection without BatchNorm", PROJECTION_NORM, "", "state_dict"),
    one(
        "BatchNorm before the projection",
        PROJECTION.strip() + "\n" + PROJECTION_NORM,
        "nn.BatchNorm2d(in_channels),\n                " + PROJECTION.strip() + "\n",
        "state_dict",
    ),
    one(
        "relu in the projection",
        PROJECTION_NORM,
        PROJECTION_NORM + "                nn.ReLU(),\n",
        "eval output",
    ),
    # Biases and BatchNorm.
    one("bias in conv1", CONV1, CONV1.replace("False", "True"), "state_dict"),
    one("bias in conv2", CONV2, CONV2.replace("False", "True"), "state_dict"),
    one(
        "bias in shortcut",
        PROJECTION,
        PROJECTION.replace("False", "True"),
        "state_dict",
    ),
    one("bn1 dropped", FIRST, FIRST.replace("self.bn1", ""), "eval output"),
    one("bn2 dropped", SECOND, "out = self.conv2(out)", "eval output"),
    one("bn1 used twice", SECOND, "out = self.bn1(self.conv2(out))", "eval output"),
    one(
        "bn2 is bn1",
        BN2 + "(out_channels)",
        "self.bn2 = self.bn1",
        "gradient: bn1.weight",
    ),
    one("another eps", BN1, BN1.replace(")", ", eps=1e-3)"), "eval output"),
    one("another momentum", BN1, BN1.replace(")", ", momentum=0.2)"), "buffer: bn1"),
    one(
        "no running statistics",
        BN1,
        BN1.replace(")", ", track_running_stats=False)"),
        "state_dict",
    ),
    one(
        "instance norm",
        BN2,
        "self.bn2 = nn.InstanceNorm2d",
        "state_dict",
    ),
    # Registration and the shape of the class.
    one(
        "missing super().__init__()",
        "        super().__init__()\n",
        "",
        r"before Module.__init__\(\) call",
        AttributeError,
    ),
    Mutant(
        "layers in a plain list",
        (
            (f"self.conv2 = {CONV2}", f"self.convs = [{CONV2}]"),
            (SECOND, "out = self.bn2(self.convs[0](out))"),
        ),
        AssertionError,
        "state_dict",
    ),
    one(
        "renamed attribute",
        "self.shortcut",
        "self.downsample",
        "state_dict",
    ),
    one("missing return", "        return out\n", "", "returns no tensor"),
    one(
        "forward misspelt",
        "def forward(",
        "def foward(",
        'missing the required "forward"',
        NotImplementedError,
    ),
    one("output cast", "return out\n", "return out.float()\n", "output dtype"),
    one("input detached", FIRST, f"x = x.detach()\n        {FIRST}", "no gradient: x"),
    one(
        "shape check in forward",
        FIRST,
        f"if x.dim() != 4:\n            raise ValueError(x.shape)\n        {FIRST}",
        "cannot be used as inputs to control flow",
        torch.fx.proxy.TraceError,
    ),
    # The checks of the arguments.
    one(
        "zero accepted",
        REFUSAL,
        REFUSAL.replace("< 1", "< 0"),
        "accepted: in_channels=0",
    ),
    one(
        "bool accepted",
        REFUSAL,
        "if not isinstance(value, int) or value < 1:",
        "accepted: in_channels=True",
    ),
    one(
        "type unchecked",
        REFUSAL,
        "if isinstance(value, bool) or value < 1:",
        "message",
    ),
    one(
        "stride unchecked",
        '            ("stride", stride),\n',
        "",
        "accepted: stride=0",
    ),
    one("message without the value", ", got {value!r}", "", "message"),
    one(
        "truth test of the shortcut",
        *add("if self.shortcut:\n            out += self.shortcut(x)"),
        "eval output",
    ),
    one(
        "skip after the first layer", FIRST, f"{FIRST}\n        x = out", "eval output"
    ),
    one(
        "branch twice",
        *add("out = out + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))"),
        "eval output",
    ),
    one(
        "relu on the identity",
        "nn.Sequential()  # no module inside: returns its input",
        "nn.Sequential(nn.ReLU())",
        "eval output",
    ),
    Mutant(
        "BatchNorm after the addition",
        (
            (SECOND, "out = self.conv2(out)"),
            add("out = self.bn2(out + self.shortcut(x))"),
        ),
        AssertionError,
        "eval output",
    ),
    one(
        "pooled projection",
        PROJECTION,
        "nn.AvgPool2d(stride),\n                "
        + PROJECTION.replace("stride=stride, ", ""),
        "state_dict",
    ),
    one(
        "shortcut pooled to 1x1",
        *add("out += self.shortcut(x).mean((2, 3), keepdim=True)"),
        "eval output",
    ),
    Mutant(
        "projection made in forward",
        (
            (CONDITION, "if True:"),
            add("out += nn.Conv2d(x.shape[1], out.shape[1], 1, self.conv1.stride)(x)"),
        ),
        AssertionError,
        "eval output",
    ),
    one(
        "stochastic depth without rescaling",
        SECOND,
        f"{SECOND}\n        if self.training:\n"
        "            out = out * (torch.rand(len(x), 1, 1, 1) < 0.5)",
        "train output",
    ),
    one(
        "dropout on the skip",
        *add("out += nn.functional.dropout(self.shortcut(x), 0.5, self.training)"),
        "train output",
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_battery_kills(mutant: Mutant) -> None:
    """Each fault is refused, for the stated reason."""
    kill(mutant, SOURCE, check)


def test_mutants_are_distinct() -> None:
    """No fault is listed twice, by name or by text."""
    assert_distinct(MUTANTS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        add("out = out + self.shortcut(x)"),
        (CONV1, CONV1.replace("3,", "kernel_size=(3, 3),")),
        (CONDITION, "if not (stride != 1 or in_channels != out_channels):"),
        (
            ADD + LAST + "        return out",
            "        return self.relu(out + self.shortcut(x))",
        ),
    ],
    ids=["out-of-place addition", "kernel as a pair", "condition", "one expression"],
)
def test_battery_accepts_equivalents(old: str, new: str) -> None:
    """The battery judges behaviour: a rewriting that changes none passes."""
    check(build(SOURCE, ((old, new),)))


def test_no_op_edit_is_refused() -> None:
    """The canary of `build`: text that is not there, or replaced by itself."""
    for edit in (("no such text", "x"), (FIRST, FIRST)):
        with pytest.raises(AssertionError, match="no-op edit"):
            build(SOURCE, (edit,))
