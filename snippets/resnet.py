"""ResNet-18 to ResNet-152 for images of ImageNet's size, ResNet-20 to 110 for CIFAR's.

What: both families of He et al. 2015. The blocks are Modules, since a skip needs a
forward of its own; a stage is an `nn.Sequential` of blocks. The ImageNet networks have
torchvision's state_dict keys in its order, and its initial weights for a given seed.

When to use: to read, change or load a ResNet without torchvision.

When not: where torchvision is at hand and nothing is to be changed. For images below
about 100 px take `cifar_resnet`, whose stem does not shrink them.

Source: He et al. 2015, https://arxiv.org/abs/1512.03385, table 1 and section 4.2. As in
torchvision, a bottleneck has its stride in the 3x3 convolution ("v1.5"); the paper has
it in the first 1x1. Zero gammas: Goyal et al. 2017, https://arxiv.org/abs/1706.02677.
"""

# --8<-- [start:resnet]
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "ResNet",
    "cifar_resnet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
]


# --8<-- [start:blocks]
Skip = nn.Module | None  # None: the identity


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class _Block(nn.Module):
    """relu(branch(x) + shortcut(x)): a subclass has the layers and the branch."""

    expansion: int
    last: str  # the name of the branch's last BatchNorm

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is added to the shortcut; x is left unchanged."""
        raise NotImplementedError

    def _finish(self, downsample: Skip) -> None:
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.branch(x)
        out += x if self.downsample is None else self.downsample(x)
        out = self.relu(out)
        return out


class BasicBlock(_Block):
    """Two 3x3 convolutions: (N, inputs, H, W) to (N, width, H/stride, W/stride)."""

    expansion, last = 1, "bn2"

    def __init__(self, inputs: int, width: int, stride: int, downsample: Skip) -> None:
        """Register the branch, then the shortcut."""
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self._finish(downsample)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is added to the shortcut; x is left unchanged."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return x


class Bottleneck(_Block):
    """1x1, 3x3, 1x1: (N, inputs, H, W) to (N, 4 width, H/stride, W/stride)."""

    expansion, last = 4, "bn3"

    def __init__(self, inputs: int, width: int, stride: int, downsample: Skip) -> None:
        """Register the branch, then the shortcut."""
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        outputs = self.expansion * width
        self.conv3, self.bn3 = _conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self._finish(downsample)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is added to the shortcut; x is left unchanged."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return x


# --8<-- [end:blocks]
# --8<-- [start:stage]
class _Pad(nn.Module):
    """Option A: every stride-th pixel, channels of zeros around, no parameters."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.pad, self.stride = (channels // 2, channels - channels // 2), stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.pad))


def _stage(
    block: type[_Block], inputs: int, width: int, blocks: int, stride: int, option: str
) -> nn.Sequential:
    outputs, layers = width * block.expansion, []
    for _ in range(blocks):
        changes = stride != 1 or inputs != outputs
        downsample: Skip = None
        if changes and option == "A":
            downsample = _Pad(outputs - inputs, stride)
        elif changes or option == "C":
            projection = _conv(inputs, outputs, 1, stride)
            downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        layers.append(block(inputs, width, stride, downsample))
        inputs, stride = outputs, 1  # only the first block of a stage changes the shape
    return nn.Sequential(*layers)


# --8<-- [end:stage]
def _initialise(net: nn.Module, zero_init_residual: bool) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif zero_init_residual and isinstance(module, _Block):
            nn.init.zeros_(getattr(module, module.last).weight)


# --8<-- [start:network]
class ResNet(nn.Module):
    """Stem, four stages, average, linear: (N, 3, H, W) to (N, num_classes).

    Args:
        block: BasicBlock or Bottleneck.
        depths: blocks in each of the four stages.
        num_classes: outputs of the last layer, at least 1.
        zero_init_residual: start every block as relu(shortcut(x)).

    Raises:
        ValueError: depths are not four, or one of them or num_classes is below 1.

    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
    ) -> None:
        """Build the layers; see the class for arguments and errors."""
        super().__init__()
        if len(depths) != 4 or min(depths) < 1:
            raise ValueError(f"depths must be four ints of at least 1, got {depths!r}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes!r}")
        self.conv1, self.bn1 = _conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        e = block.expansion
        self.layer1 = _stage(block, 64, 64, depths[0], 1, "B")
        self.layer2 = _stage(block, 64 * e, 128, depths[1], 2, "B")
        self.layer3 = _stage(block, 128 * e, 256, depths[2], 2, "B")
        self.layer4 = _stage(block, 256 * e, 512, depths[3], 2, "B")
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(512 * e, num_classes)
        _initialise(self, zero_init_residual)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return one score a class, before any softmax."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.fc(torch.flatten(self.avgpool(x), 1))
        return x


def resnet18(num_classes: int = 1000, zero_init_residual: bool = False) -> ResNet:
    """Return a ResNet-18; see ResNet for shapes, arguments and errors."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, zero_init_residual)


def resnet34(num_classes: int = 1000, zero_init_residual: bool = False) -> ResNet:
    """Return a ResNet-34; see ResNet for shapes, arguments and errors."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, zero_init_residual)


def resnet50(num_classes: int = 1000, zero_init_residual: bool = False) -> ResNet:
    """Return a ResNet-50; see ResNet for shapes, arguments and errors."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, zero_init_residual)


def resnet101(num_classes: int = 1000, zero_init_residual: bool = False) -> ResNet:
    """Return a ResNet-101; see ResNet for shapes, arguments and errors."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, zero_init_residual)


def resnet152(num_classes: int = 1000, zero_init_residual: bool = False) -> ResNet:
    """Return a ResNet-152; see ResNet for shapes, arguments and errors."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, zero_init_residual)


# --8<-- [end:network]
# --8<-- [start:cifar]
def cifar_resnet(
    depth: int,
    num_classes: int = 10,
    option: str = "A",
    zero_init_residual: bool = False,
    in_channels: int = 3,
) -> nn.Sequential:
    """Return the ResNet of section 4.2 as one Sequential.

    It takes (N, in_channels, H, W) and returns (N, num_classes).

    Args:
        depth: 6 n + 2 layers for n blocks in each of the three stages, at least 8.
        num_classes: outputs of the last layer, at least 1.
        option: shortcut where the shape changes: "A" pads with zeros, "B" projects;
            "C" projects everywhere.
        zero_init_residual: start every block as relu(shortcut(x)).
        in_channels: channels of the images, at least 1.

    Raises:
        ValueError: an argument is none of these.

    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth must be 6 n + 2 and at least 8, got {depth!r}")
    if option not in ("A", "B", "C"):
        raise ValueError(f'option must be "A", "B" or "C", got {option!r}')
    for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
    blocks = depth // 6
    layers: dict[str, nn.Module] = {
        "conv1": _conv(in_channels, 16, 3),
        "bn1": nn.BatchNorm2d(16),
        "relu": nn.ReLU(inplace=True),
        "layer1": _stage(BasicBlock, 16, 16, blocks, 1, option),
        "layer2": _stage(BasicBlock, 16, 32, blocks, 2, option),
        "layer3": _stage(BasicBlock, 32, 64, blocks, 2, option),
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(64, num_classes),
    }
    net = nn.Sequential(OrderedDict(layers))
    _initialise(net, zero_init_residual)
    return net


# --8<-- [end:cifar]
# --8<-- [end:resnet]
