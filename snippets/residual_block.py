"""A residual block: two 3x3 convolutions and a shortcut around them.

What: the basic block of ResNet-18 and ResNet-34. It returns relu(F(x) + s(x)), where F
is conv-BN-ReLU-conv-BN. s is the identity where stride is 1 and the widths agree, and
a 1x1 convolution with BatchNorm otherwise.

When to use: as the unit of a convolutional network that is too deep to train without
skips. Chain blocks with `nn.Sequential`; the skip stays inside the block.

When not: for ResNet-50 and deeper take the bottleneck block (1x1, 3x3, 1x1), which
costs less at the same width. Where no ReLU may stand on the skip path take the
pre-activation block (https://arxiv.org/abs/1603.05027). In training with very small
batches replace BatchNorm. Where full backward hooks must sit on `bn1`, `bn2` or `relu`,
write the addition and the ReLU out of place: autograd refuses the in-place ones there.

Source: He et al. 2015, Deep Residual Learning for Image Recognition,
https://arxiv.org/abs/1512.03385, sections 3.2 and 3.3: figure 2, equation 1 (identity)
and equation 2 (projection, option B); section 3.4 for BatchNorm after each convolution.
"""

# --8<-- [start:block]
import torch
from torch import nn

__all__ = ["ResidualBlock"]


class ResidualBlock(nn.Module):
    """Residual block of He et al. 2015, figure 2, with BatchNorm.

    Input (N, in_channels, H, W), output (N, out_channels, H', W') with
    H' = (H - 1) // stride + 1 and W' likewise. Any floating dtype that Conv2d takes;
    the output has the dtype and device of input and parameters, which must agree.

    Args:
        in_channels: channels of the input, at least 1.
        out_channels: channels of the output and of the map between the convolutions.
        stride: stride of the first convolution and of the projection, at least 1.

    Raises:
        ValueError: an argument is not an int (a bool is refused) or is below 1.

    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        """Build the layers; see the class for arguments and errors."""
        super().__init__()
        for name, value in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("stride", stride),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
        # --8<-- [start:layers]
        self.conv1 = nn.Conv2d(
            in_channels, out_channels, 3, stride=stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        if stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Sequential()  # no module inside: returns its input
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        # --8<-- [end:layers]

    # --8<-- [start:forward]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return relu(F(x) + shortcut(x)): (N, C, H, W) to (N, C', H', W').

        x is left unchanged. It is not checked here, since a branch on its shape would
        stop torch.fx.symbolic_trace; the layers refuse it themselves.

        Raises:
            RuntimeError: from conv1, where the channel count or the dtype is wrong or
                x has neither three nor four dimensions.
            ValueError: from bn1, where x is 3-D (no batch dimension), or in training
                where N * H' * W' is 1.

        """
        out: torch.Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)  # in place on bn2's output, never on x
        out = self.relu(out)
        return out

    # --8<-- [end:forward]


# --8<-- [end:block]
