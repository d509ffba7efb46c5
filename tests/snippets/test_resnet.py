"""ResNets: equality with torchvision and with functions, errors, tools and mutants."""

import ast
import copy
import io
import tokenize
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import snippets.resnet as real
from snippets.resnet import BasicBlock, ResNet, cifar_resnet, resnet18
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

torch.set_num_threads(1)

SOURCE = Path(real.__file__).read_text(encoding="utf-8")
State = dict[str, torch.Tensor]


def reference() -> Any:
    """torchvision's ResNets, without torchvision's compiled operators.

    These do not load with the CPU build of torch that is used here, and the import
    asks for the declarations of two of them. ResNets use none, so declaring is enough.
    """
    if not hasattr(torch.ops.torchvision, "nms"):
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define("torchvision::nms", boxes)
        torch.library.define("torchvision::qnms", boxes)
    import torchvision.models.resnet

    return torchvision.models.resnet


tv = reference()


def bits(left: State, right: State, what: str) -> None:
    """Both have the same keys in the same order, and the same bits under each."""
    assert [*left] == [*right], f"{what}: keys"
    for name, tensor in right.items():
        assert left[name].shape == tensor.shape, f"{what}: shape of {name}"
        assert torch.equal(left[name], tensor), f"{what}: {name}"


class Pass(NamedTuple):
    """What one step in training mode shows."""

    output: torch.Tensor
    gradients: State
    buffers: State


def step(net: nn.Module, x: torch.Tensor) -> Pass:
    """Forward and backward in training mode; the gradient of x has the name x."""
    leaf = x.clone().requires_grad_()
    given = leaf * 1  # unlike a leaf, a layer could overwrite it
    y = net.train()(given)
    assert torch.equal(given, x), "input modified"
    named = {"x": leaf, **dict(net.named_parameters())}
    found = torch.autograd.grad(y.square().sum(), [*named.values()], allow_unused=True)
    gradients = {n: g for n, g in zip(named, found, strict=True) if g is not None}
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    return Pass(y.detach(), gradients, buffers)


def same_step(net: nn.Module, wanted: Pass, x: torch.Tensor, what: str) -> None:
    """Output, every gradient and every buffer of the step are equal, bit for bit."""
    found = step(net, x)
    assert found.output.shape == wanted.output.shape, f"{what}: output shape"
    assert torch.equal(found.output, wanted.output), f"{what}: output"
    bits(found.gradients, wanted.gradients, f"{what}: gradient")
    bits(found.buffers, wanted.buffers, f"{what}: buffer")


def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The message of the ValueError that the call must raise."""
    try:
        call(*args, **kwargs)
    except ValueError as caught:
        return str(caught)
    raise AssertionError(f"accepted: {args[1:] or args} {kwargs}")


# --- The CIFAR networks with functions alone ----------------------------------------


def cifar_reference(
    state: State, x: torch.Tensor, option: str, training: bool = False
) -> torch.Tensor:
    """Section 4.2 of the paper; in training mode the running averages are updated."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.batch_norm(x, mean, var, weight, bias, training, 0.1, 1e-5)

    def conv(x: torch.Tensor, name: str, stride: int, padding: int = 1) -> torch.Tensor:
        return F.conv2d(x, state[f"{name}.weight"], None, stride, padding)

    x = F.relu(norm(conv(x, "conv1", 1), "bn1"))
    blocks = sum(key.endswith("conv1.weight") for key in state) // 3
    for stage in (1, 2, 3):
        for index in range(blocks):
            at, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            out = F.relu(norm(conv(x, f"{at}.conv1", stride), f"{at}.bn1"))
            out = norm(conv(out, f"{at}.conv2", 1), f"{at}.bn2")
            if option == "C" or (option == "B" and stride == 2):
                x = conv(x, f"{at}.downsample.0", stride, 0)
                x = norm(x, f"{at}.downsample.1")
            elif stride == 2:
                zeros = torch.zeros_like(out[:, : out.shape[1] // 4])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1)
            x = F.relu(out + x)
    x = F.adaptive_avg_pool2d(x, 1).flatten(1)
    return F.linear(x, state["fc.weight"], state["fc.bias"])


def cifar_step(net: nn.Module, x: torch.Tensor, option: str) -> Pass:
    """step(net, x), computed by the reference from copies of the net's tensors."""
    x = x.clone().requires_grad_()
    state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    named = {
        "x": x,
        **{n: state[n].requires_grad_() for n, _ in net.named_parameters()},
    }
    y = cifar_reference(state, x, option, training=True)
    found = torch.autograd.grad(y.square().sum(), [*named.values()])
    buffers = {name: state[name] for name, _ in net.named_buffers()}
    for name in buffers:
        if name.endswith("num_batches_tracked"):
            buffers[name] += 1
    return Pass(y.detach(), dict(zip(named, found, strict=True)), buffers)


def scatter(net: nn.Module) -> nn.Module:
    """Give every BatchNorm weights and statistics that are not those of a new one."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)  # type: ignore[arg-type]
            for tensor in (module.bias.data, module.running_mean):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
    return net


# --- The battery --------------------------------------------------------------------


def check(module: types.ModuleType) -> None:
    """Assert all that the docstrings promise, on the smallest networks."""
    check_errors(module)
    for kind in ("BasicBlock", "Bottleneck"):
        for stride in (1, 2):
            for projected in (True, False):
                check_block(module, kind, stride, projected)
    for option in "ABC":
        check_cifar(module, option)
    check_cifar_gammas(module)
    check_network(module)
    check_stage(module)
    check_bottlenecks(module)
    check_names(module)


def check_block(
    module: types.ModuleType, kind: str, stride: int, projected: bool
) -> None:
    """One block does what torchvision's does."""
    inputs = 16 if projected else 8
    width = 8 // getattr(tv, kind).expansion
    if not projected and stride != 1:
        return
    blocks = []
    for new in (getattr(module, kind), getattr(tv, kind)):
        torch.manual_seed(0)
        shortcut = None
        if projected:
            conv = nn.Conv2d(inputs, 8, 1, stride, bias=False)
            shortcut = nn.Sequential(conv, nn.BatchNorm2d(8))
        blocks.append(scatter(new(inputs, width, stride, shortcut)))
    x = torch.randn(2, inputs, 6, 5)
    block, wanted = blocks
    what = f"{kind}, stride {stride}" + (", projected" if projected else "")
    bits(block.state_dict(), wanted.state_dict(), what)
    same_step(block, step(wanted, x), x, what)


def check_cifar(module: types.ModuleType, option: str) -> None:
    """A chain that computes what the functions do, from one block a stage up."""
    what, x = f"cifar {option}", torch.randn(2, 4, 9, 10)
    torch.manual_seed(0)
    net = scatter(module.cifar_resnet(8, 7, option, in_channels=4))
    assert type(net) is nn.Sequential, f"{what}: type"
    names = ["conv1", "bn1", "relu", "layer1", "layer2", "layer3"]
    names += ["avgpool", "flatten", "fc"]
    assert [name for name, _ in net.named_children()] == names, f"{what}: names"
    tensors = sum("downsample" in key for key in net.state_dict())
    assert tensors == {"A": 0, "B": 2 * 6, "C": 3 * 6}[option], f"{what}: projections"
    same_step(net, cifar_step(net, x, option), x, what)
    assert net(x).shape == (2, 7), f"{what}: output shape"
    second = module.cifar_resnet(14, option=option).layer3[1]
    assert (second.downsample is None) == (option != "C"), f"{what}: second block"


def check_cifar_gammas(module: types.ModuleType) -> None:
    """The initial scales, and the defaults: ten classes, option A, three channels."""
    for zero in (False, True):
        net = module.cifar_resnet(8, zero_init_residual=zero)
        for name, weight in net.named_parameters():
            if "bn" in name and name.endswith("weight"):
                off = zero and name.endswith("bn2.weight")
                assert bool((weight == (0 if off else 1)).all()), f"gamma of {name}"
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 10), "cifar defaults"
    assert sum(p.numel() for p in net.parameters()) == 75_290, "cifar defaults"


@cache
def expected(kind: str, zero: bool) -> tuple[State, torch.Tensor, Pass | None]:
    """A small network of torchvision: initial state, images and one training step."""
    torch.manual_seed(0)
    block = getattr(tv, kind)
    net = tv.ResNet(block, [1, 1, 1, 1], num_classes=5, zero_init_residual=zero)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)
    return state, x, step(net, x) if kind == "BasicBlock" else None


def check_network(module: types.ModuleType) -> None:
    """Same seed, same weights as torchvision; same step."""
    state, x, wanted = expected("BasicBlock", False)
    torch.manual_seed(0)
    net = module.ResNet(module.BasicBlock, (1, 1, 1, 1), 5)
    bits(net.state_dict(), state, "network")
    assert wanted is not None
    same_step(net, wanted, x, "network")


def check_stage(module: types.ModuleType) -> None:
    """A stage holds as many blocks as it was asked for, each with its own weights."""
    with torch.device("meta"):
        net = module.ResNet(module.BasicBlock, (3, 1, 1, 1))
    assert len(set(net.layer1)) == 3, "stage: blocks"


def check_bottlenecks(module: types.ModuleType) -> None:
    """Same seed, same weights; the zeros are in the last BatchNorm of each block."""
    state, _, _ = expected("Bottleneck", True)
    torch.manual_seed(0)
    net = module.ResNet(module.Bottleneck, [1, 1, 1, 1], 5, zero_init_residual=True)
    bits(net.state_dict(), state, "bottlenecks")


def check_names(module: types.ModuleType) -> None:
    """The named networks are those of table 1, with both arguments handed on."""
    basic, neck = module.BasicBlock, module.Bottleneck
    for name, block, depths in (
        ("resnet18", basic, (2, 2, 2, 2)),
        ("resnet34", basic, (3, 4, 6, 3)),
        ("resnet50", neck, (3, 4, 6, 3)),
        ("resnet101", neck, (3, 4, 23, 3)),
        ("resnet152", neck, (3, 8, 36, 3)),
    ):
        with mock.patch.object(module, "ResNet", autospec=True) as new:
            getattr(module, name)(7, zero_init_residual=True)
            getattr(module, name)()
        new.assert_any_call(block, depths, 7, True)
        new.assert_any_call(block, depths, 1000, False)


def check_errors(module: types.ModuleType) -> None:
    """Each documented error, with its message."""
    wrong: tuple[Any, ...] = (
        (),
        (2, 2, 2),
        (2, 2, 2, 2, 2),
        (2, 0, 2, 2),
        [1, 1, 1, -1],
    )
    for depths in wrong:
        message = refused(module.ResNet, module.BasicBlock, depths)
        assert message == f"depths must be four ints of at least 1, got {depths!r}"
    for classes in (0, -1):
        least = f"num_classes must be at least 1, got {classes}"
        assert refused(module.resnet18, classes) == least
        assert refused(module.resnet50, num_classes=classes) == least
        assert refused(module.cifar_resnet, 8, num_classes=classes) == least
        message = refused(module.cifar_resnet, 8, in_channels=classes)
        assert message == f"in_channels must be at least 1, got {classes}"
    for depth in (-4, 0, 2, 7, 9, 18, 21):
        message = refused(module.cifar_resnet, depth)
        assert message == f"depth must be 6 n + 2 and at least 8, got {depth}"
    for option in ("D", "a", "", "AB", None):
        message = refused(module.cifar_resnet, 8, option=option)
        assert message == f'option must be "A", "B" or "C", got {option!r}'


def test_battery() -> None:
    check(real)


# --- The networks of the paper ------------------------------------------------------

COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


@pytest.mark.parametrize("name", COUNTS)
def test_equals_torchvision(name: str) -> None:
    """Initial weights of the same seed; then any state_dict loads and does the same.

    The two large networks are built once, so here, with gammas of zero.
    """
    zero = name in ("resnet101", "resnet152")
    torch.manual_seed(1)
    theirs = getattr(tv, name)(zero_init_residual=zero)
    torch.manual_seed(1)
    ours = getattr(real, name)(zero_init_residual=zero)
    bits(ours.state_dict(), theirs.state_dict(), name)
    assert sum(p.numel() for p in ours.parameters()) == COUNTS[name]

    scatter(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs.eval()(x))
    if name in ("resnet18", "resnet50"):
        x = torch.randn(2, 3, 32, 32)
        same_step(ours, step(theirs, x), x, name)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_zero_init_equals_torchvision(name: str) -> None:
    states = []
    for source in (real, tv):
        torch.manual_seed(2)
        net = getattr(source, name)(num_classes=3, zero_init_residual=True)
        states.append(net.state_dict())
    bits(states[0], states[1], name)
    zeros = [
        key for key, tensor in states[0].items() if ".bn" in key and "weight" in key
    ]
    zeros = [key for key in zeros if not states[0][key].any()]
    assert len(zeros) == {"resnet18": 8, "resnet50": 16}[name]


CIFAR = {
    (20, "A"): 269_722,
    (20, "B"): 272_474,
    (20, "C"): 283_962,
    (56, "A"): 853_018,
    (56, "B"): 855_770,
    (56, "C"): 900_858,
    (110, "A"): 1_727_962,
    (110, "B"): 1_730_714,
    (110, "C"): 1_826_202,
}


@pytest.mark.parametrize(("depth", "option"), CIFAR)
def test_cifar_equals_functions(depth: int, option: str) -> None:
    net = scatter(cifar_resnet(depth, option=option)).eval()
    assert sum(p.numel() for p in net.parameters()) == CIFAR[depth, option]
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(net(x), cifar_reference(net.state_dict(), x, option))
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    projections = {"A": 0, "B": 2, "C": depth // 2 - 1}[option]
    assert len(layers) - projections == depth


def test_cifar_is_a_chain_down_to_the_blocks() -> None:
    """It can be sliced, and the rest applied to what the first part returns."""
    net, x = cifar_resnet(8).eval(), torch.randn(2, 3, 32, 32)
    maps = net[:6](x)
    assert maps.shape == (2, 64, 8, 8)
    assert torch.equal(net[6:](maps), net(x))


def test_the_same_network_as_one_flat_sequential() -> None:
    """Blocks are Modules, all around them is a chain: equal outputs and gradients."""
    net, x = resnet18(num_classes=10), torch.randn(2, 3, 64, 64)
    stages = (net.layer1, net.layer2, net.layer3, net.layer4)
    blocks = [block for stage in stages for block in stage]
    head = (net.avgpool, nn.Flatten(), net.fc)
    flat = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, *blocks, *head)
    one_, other = step(net, x), step(flat, x)
    assert torch.equal(one_.output, other.output)
    left, right = one_.gradients.values(), other.gradients.values()
    for found, wanted in zip(left, right, strict=True):
        assert torch.equal(found, wanted)
    with torch.no_grad():
        assert torch.equal(net.eval()(x), flat.eval()(x))


# --- More of the real module --------------------------------------------------------


def small() -> tuple[nn.Module, nn.Module]:
    """One network of each family, with its images of 32 px."""
    return ResNet(BasicBlock, (1, 1, 1, 1), 10), cifar_resnet(8)


def test_zero_gammas_start_a_block_as_its_shortcut() -> None:
    net, x = cifar_resnet(8, zero_init_residual=True), torch.rand(2, 16, 8, 8)
    assert torch.equal(net.get_submodule("layer1")(x), x)


def test_option_a_pads_both_sides_and_has_no_parameters() -> None:
    pad = real._Pad(3, 2)
    y = pad(torch.ones(1, 2, 5, 5))
    assert y.shape == (1, 5, 3, 3)
    assert y[0, :, 0, 0].tolist() == [0, 1, 1, 0, 0]
    assert not pad.state_dict()


def test_a_block_without_a_branch() -> None:
    with pytest.raises(NotImplementedError):
        real._Block().branch(torch.ones(1))


def test_fx_and_copies() -> None:
    x = torch.randn(2, 3, 32, 32)
    for net in small():
        net.eval()
        with torch.no_grad():
            wanted = net(x)
            assert torch.equal(torch.fx.symbolic_trace(net)(x), wanted)
            twin = copy.deepcopy(net)
            nn.init.zeros_(net.get_parameter("conv1.weight"))
            assert torch.equal(twin(x), wanted)
            assert not torch.equal(net(x), wanted)


def test_train_and_eval() -> None:
    x = torch.randn(2, 3, 32, 32)
    for net in small():
        before = net.get_buffer("bn1.running_mean").clone()
        net.eval()(x)
        assert torch.equal(net.get_buffer("bn1.running_mean"), before)
        net.train()(x)
        assert not torch.equal(net.get_buffer("bn1.running_mean"), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 32, 32, dtype=dtype)
    for net in small():
        assert net.to(dtype)(x).dtype == dtype


def test_meta() -> None:
    for net in small():
        y = net.to("meta")(torch.empty(2, 3, 32, 32, device="meta"))
        assert (y.device.type, y.shape) == ("meta", (2, 10))


def test_both_families_take_150_lines_of_code() -> None:
    """Docstrings, comments and blank lines aside."""
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}
    layout |= {tokenize.INDENT, tokenize.DEDENT}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(SOURCE).readline)
        if token.type not in layout
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    assert len(lines) <= 150, len(lines)


# --- Mutants ------------------------------------------------------------------------

SKIP = "x if self.downsample is None else self.downsample(x)"
SUM = f"out += {SKIP}"
FIRST = "self.relu(self.bn1(self.conv1(x)))"
SECOND = "self.relu(self.bn2(self.conv2(x)))"
SUPER = "super().__init__()\n        "
BRANCH = f"{SUPER}self.conv1, self.bn1 = _conv(inputs"
EARLY = BRANCH.replace(SUPER, f"{SUPER}self._finish(downsample)\n        ")
STEM = "self.conv1, self.bn1 = _conv(3, 64, 7, 2), nn.BatchNorm2d(64)"
SWAPPED = "self.bn1, self.conv1 = nn.BatchNorm2d(64), _conv(3, 64, 7, 2)"
STAGE = '_stage(block, 64, 64, depths[0], 1, "B")'
CHANGES, OR_C = "stride != 1 or inputs != outputs", 'changes or option == "C"'
ONE_BY_ONE, STRIDED = "_conv(inputs, width, 1", "_conv(width, width, 3, stride)"
BOTH = "(channels // 2, channels - channels // 2)"
SHORT = "36, 3), num_classes"
FLAT, MATRIX = "(self.avgpool(x), ", "mat1 and mat2 shapes"
POOL = '"avgpool": nn.AdaptiveAvgPool2d(1)'
SIZE = "must match the size"
BASIC, NECK = "BasicBlock, stride 1, projected: ", "Bottleneck, stride 1, projected: "

MUTANTS = (
    # The stage.
    one(
        "one block in every place",
        "return nn.Sequential(*layers)",
        "return nn.Sequential(*[layers[0], *[layers[-1]] * (blocks - 1)])",
        "stage: blocks",
    ),
    # The sum.
    one("no skip added", SUM, "pass", f"{BASIC}output"),
    one("projection ignored", SUM, "out += x", SIZE, RuntimeError),
    one("skip cut off", SUM, f"out += ({SKIP}).detach()", "gradient: keys"),
    one("branch cut off", ".branch(x)", ".branch(x).detach()", "gradient: keys"),
    one("no relu after", "out = self.relu(out)", "pass", f"{BASIC}output"),
    one("relu before", SUM, f"out = out.relu() + ({SKIP})", f"{BASIC}output"),
    # The branches.
    one("x overwritten", FIRST, FIRST.replace("(x)", "(x.relu_())"), "modified"),
    one("no first relu", FIRST, "self.bn1(self.conv1(x))", f"{BASIC}output"),
    one("no second relu", SECOND, "self.bn2(self.conv2(x))", f"{NECK}output"),
    one("no stride", "width, 3, stride", "width, 3", SIZE, RuntimeError),
    Mutant(
        "stride in the first 1x1",
        ((ONE_BY_ONE, f"{ONE_BY_ONE}, stride"), (STRIDED, "_conv(width, width, 3)")),
        AssertionError,
        "Bottleneck, stride 2, projected: output",
    ),
    one("downsample first", BRANCH, EARLY, f"{BASIC}keys"),
    one("convolutions with bias", "bias=False", "bias=True", f"{BASIC}keys"),
    one("no padding", "size // 2", "0", SIZE, RuntimeError),
    one("padding 1 for 7x7", "size // 2", "min(size // 2, 1)", "network: output"),
    # The stages.
    one("strideless", "outputs, 1, stride)", "outputs, 1)", SIZE, RuntimeError),
    one("no BatchNorm", "projection, nn.", "projection) or (nn.", "B: projections"),
    one("projection needs stride", CHANGES, "stride != 1", "bottlenecks: keys"),
    one("projection everywhere", OR_C, "True", "cifar A: projections"),
    one("option C as B", OR_C, "changes", "cifar C: projections"),
    one("option A as B", 'option == "A"', "False", "cifar A: projections"),
    one("option A on one side", BOTH, "(0, channels)", "cifar A: output"),
    one("option A, ones", "*self.pad)", "*self.pad), value=1.0", "cifar A: output"),
    one("option A, no stride", ":: self.stride", "::", SIZE, RuntimeError),
    one("stride kept", "stride = outputs, 1", "_ = outputs, 1", "second block"),
    # The initial weights.
    one("fan_in", "fan_out", "fan_in", "network: conv1.weight"),
    one("uniform", "kaiming_normal_", "kaiming_uniform_", "network: conv1.weight"),
    one("zero gamma in bn1", '1, "bn2"', '1, "bn1"', "gamma of layer1.0.bn1.weight"),
    one("zero gamma in bn2", '4, "bn3"', '4, "bn2"', "bottlenecks: .*0.bn2.weight"),
    one("zero gammas always", "zero_init_residual and is", "is", "gamma of .*bn2"),
    one("zero gammas never", "zero_init_residual and is", "False and is", "gamma of"),
    # The networks.
    one("keys in another order", STEM, SWAPPED, "network: keys"),
    one("blocks in a list", STAGE, f"[*{STAGE}]", "network: keys"),
    one("maxpool 2x2", "MaxPool2d(3, 2, 1)", "MaxPool2d(2, 2)", "network: output"),
    one("flatten from dim 0", f"{FLAT}1)", f"{FLAT}0)", MATRIX, RuntimeError),
    one("no relu in the stem", "maxpool(self.relu(", "maxpool((", "network: output"),
    one(
        "a block less", "(3, 4, 23, 3)", "(3, 4, 22, 3)", r"23, 3\), 7, True\) call not"
    ),
    one("flag dropped", "36, 3), num_classes, zero_init_residual", SHORT, "call not"),
    one("34 as 50", "BasicBlock, (3, 4", "Bottleneck, (3, 4", "BasicBlock.*call not"),
    # The CIFAR networks.
    one("flatten all", "nn.Flatten()", "nn.Flatten(0)", MATRIX, RuntimeError),
    one("no relu in cifar", '"relu": nn.ReLU(inplace=True),', "", "cifar A: names"),
    one("maximum", POOL, POOL.replace("Avg", "Max"), "cifar A: output"),
    one("always RGB", "(in_channels, 16", "(3, 16", "to have 3 channels", RuntimeError),
    one("always ten classes", "(64, num_classes)", "(64, 10)", "A: output shape"),
    one("one block", "blocks = depth // 6", "blocks = 1", "out of range", IndexError),
    one("option B by default", 'option: str = "A"', 'option: str = "B"', "defaults"),
    # The checks.
    one("five stages", "len(depths) != 4", "len(depths) < 4", "accepted"),
    one("an empty stage", "min(depths) < 1", "min(depths) < 0", "accepted"),
    one("no classes", "num_classes < 1", "num_classes < 0", "zero-el", UserWarning),
    one("no channels", "if value < 1", "if value < 0", "zero-element", UserWarning),
    one("depth 2", "depth < 8", "depth < 2", "accepted"),
    one("depth 9", "depth % 6 != 2", "depth % 6 not in (2, 3)", "accepted"),
    one("options as substrings", '("A", "B", "C")', '"ABC"', "accepted"),
    one("no value", "got {option!r}", "not that", "got"),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_battery_kills(mutant: Mutant) -> None:
    kill(mutant, SOURCE, check)


def test_mutants_are_distinct() -> None:
    assert_distinct(MUTANTS)


def test_battery_accepts_equivalents() -> None:
    """Behaviour is judged: in these networks a stride comes with other channels."""
    out = SUM.replace("out += x", "out = out + (x") + ")"
    check(build(SOURCE, ((SUM, out), (CHANGES, "inputs != outputs"))))
