"""Squeeze-and-excitation: scale each channel by a gate computed from the whole map.

What: `SqueezeExcitation(channels)` returns x * g(x). The gate g is one number in (0, 1)
for each sample and channel: global average, 1x1 convolution to channels // reduction,
ReLU, 1x1 convolution back, sigmoid.

When to use: at the end of a residual branch, behind its last BatchNorm and before the
addition. The branch changes and the skip stays as it is.

When not: behind the addition, where the gate scales the skip too; before a BatchNorm,
which undoes a constant gate. Not for sequences (N, C, T): three dimensions are read as
one map (C, H, W) without a batch.

Source: Hu et al. 2017, Squeeze-and-Excitation Networks,
https://arxiv.org/abs/1709.01507, section 3, equations 2 to 4, and figure 3 for the
place in a residual block. As in torchvision the two layers are 1x1 convolutions.
"""

# --8<-- [start:squeeze_excitation]
import torch
from torch import nn

__all__ = ["SqueezeExcitation"]


class SqueezeExcitation(nn.Module):
    """Return x times a gate in (0, 1) for each sample and channel.

    Input (N, C, H, W) or (C, H, W) of any H and W; output of the same shape. Any
    floating dtype that Conv2d takes; input and parameters agree in dtype and device.

    Args:
        channels: C, at least 1.
        reduction: the hidden width is channels // reduction; from 1 to channels.

    Raises:
        ValueError: an argument is not an int (a bool is refused) or is below 1, or
            reduction is above channels.

    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        """Build the two layers; see the class for arguments and errors."""
        super().__init__()
        for name, value in (("channels", channels), ("reduction", reduction)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
        if reduction > channels:
            raise ValueError(
                f"reduction must be at most channels ({channels}), got {reduction}"
            )
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    # --8<-- [start:forward]
    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gate of x, (N, C, 1, 1) or (C, 1, 1)."""
        squeezed = x.mean((-2, -1), keepdim=True)
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x * gate(x), in the shape of x, which is left unchanged.

        Raises:
            RuntimeError: from fc1, where the channel count or the dtype is wrong or x
                has neither three nor four dimensions.
            IndexError: from mean, where x has fewer than two dimensions.

        """
        return x * self.gate(x)

    # --8<-- [end:forward]


# --8<-- [end:squeeze_excitation]
