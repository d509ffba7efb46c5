"""A pre-activation residual block: BatchNorm and ReLU before each convolution.

What: the residual unit of ResNet v2. It returns s + F(x), where F is
BN-ReLU-conv-BN-ReLU-conv and nothing follows the addition. s is x itself where stride
is 1 and the widths agree. Otherwise it is a 1x1 convolution, without BatchNorm, of
relu(bn1(x)), which the branch computes anyway.

When to use: where the skip path has to carry both signs unchanged, so that a chain of
blocks is x plus a sum of branches. End the chain with one more BatchNorm and ReLU
before the pooling.

When not: for the weights of a ResNet v1, `ResidualBlock`: with identity shortcuts they
load without an error and give other outputs. In training with very small batches
replace BatchNorm.

Source: He et al. 2016, Identity Mappings in Deep Residual Networks,
https://arxiv.org/abs/1603.05027, equations 3 to 5, figure 4 (e) and the appendix (first
and last unit of a network). Nothing is in place: bn1 may be replaced by nn.Identity(),
and full backward hooks may sit on every layer.
"""

# --8<-- [start:preactivation_block]
import torch
from torch import nn

__all__ = ["PreActivationBlock"]


class PreActivationBlock(nn.Module):
    """Pre-activation residual block of He et al. 2016, figure 4 (e).

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
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(
            in_channels, out_channels, 3, stride=stride, padding=1, bias=False
        )
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.relu = nn.ReLU()  # not in place: safe on x too, if bn1 is taken out
        self.shortcut: nn.Conv2d | None = None  # the identity
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(
                in_channels, out_channels, 1, stride=stride, bias=False
            )
        # --8<-- [end:layers]

    # --8<-- [start:forward]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return shortcut + F(x): (N, C, H, W) to (N, C', H', W').

        x is left unchanged. It is not checked here; the layers refuse it themselves.

        Raises:
            RuntimeError: from bn1 or conv1, where the channel count or the dtype is
                wrong.
            ValueError: from bn1, where x has not four dimensions, or from a norm in
                training, where N * H * W or N * H' * W' is 1.

        """
        active: torch.Tensor = self.relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(active)
        out: torch.Tensor = self.conv2(self.relu(self.bn2(self.conv1(active))))
        return skip + out  # nothing after it; out of place, since skip may be x

    # --8<-- [end:forward]


# --8<-- [end:preactivation_block]
