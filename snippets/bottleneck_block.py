"""A bottleneck block: 1x1, 3x3 and 1x1 convolution and a shortcut around them.

What: the block of ResNet-50, 101 and 152. It returns relu(F(x) + s(x)), where F is
conv-BN-ReLU three times without the last ReLU: 1x1 to `width` channels, 3x3 at that
width, 1x1 to `width * expansion` channels. s is the identity where stride is 1 and
the channels agree, and a 1x1 convolution with BatchNorm otherwise. The keys of its
state_dict are those of torchvision's Bottleneck.

When to use: in a convolutional network with wide maps. At 256 channels it takes about
a seventeenth of the multiply-adds of two 3x3 convolutions. Take
`stride_in_1x1=True` for weights that were trained with the stride in the first 1x1
(the paper, the Caffe models), and leave it False for torchvision's.

When not: in a shallow or narrow network take `ResidualBlock`, two 3x3 convolutions. In
training with very small batches replace BatchNorm. Where full backward hooks must sit
on a BatchNorm or `relu`, write the addition and the ReLU out of place: autograd refuses
the in-place ones there.

Source: He et al. 2015, Deep Residual Learning for Image Recognition,
https://arxiv.org/abs/1512.03385, section 4.1 and figure 5 (right). The stride in the
3x3 convolution, called v1.5, is torchvision's:
https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html
"""

# --8<-- [start:bottleneck_block]
import torch
from torch import nn

__all__ = ["BottleneckBlock"]


class BottleneckBlock(nn.Module):
    """Bottleneck block of He et al. 2015, figure 5, stride as in torchvision.

    Input (N, in_channels, H, W), output (N, width * expansion, H', W') with
    H' = (H - 1) // stride + 1 and W' likewise. Any floating dtype that Conv2d takes;
    the output has the dtype and device of input and parameters, which must agree.

    Args:
        in_channels: channels of the input, at least 1.
        width: channels of the 3x3 convolution, at least 1.
        stride: stride of the block, at least 1.
        expansion: output channels divided by width, at least 1.
        stride_in_1x1: whether the first 1x1 convolution has the stride (v1) or the
            3x3 convolution (v1.5). Names and shapes of the parameters are the same.

    Raises:
        ValueError: a number is not an int (a bool is refused) or is below 1, or
            stride_in_1x1 is not a bool.

    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        expansion: int = 4,
        stride_in_1x1: bool = False,
    ) -> None:
        """Build the layers; see the class for arguments and errors."""
        super().__init__()
        for name, value in (
            ("in_channels", in_channels),
            ("width", width),
            ("stride", stride),
            ("expansion", expansion),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
        if not isinstance(stride_in_1x1, bool):
            raise ValueError(f"stride_in_1x1 must be a bool, got {stride_in_1x1!r}")
        # --8<-- [start:layers]
        out_channels = width * expansion
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        if stride == 1 and in_channels == out_channels:
            self.downsample = nn.Sequential()  # no module inside: returns its input
        else:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        # --8<-- [end:layers]

    # --8<-- [start:forward]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return relu(F(x) + downsample(x)): (N, C, H, W) to (N, C', H', W').

        x is left unchanged. It is not checked here; the layers refuse it themselves.

        Raises:
            RuntimeError: from conv1, where the channel count or the dtype is wrong or
                x has neither three nor four dimensions.
            ValueError: from bn1, where x is 3-D (no batch dimension), or from a norm in
                training, where N * H * W or N * H' * W' is 1.

        """
        out: torch.Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)  # in place on bn3's output, never on x
        out = self.relu(out)
        return out

    # --8<-- [end:forward]


# --8<-- [end:bottleneck_block]
