"""A skip around any module: branch(x) + shortcut(x).

What: `Residual(branch)` returns branch(x) + x, and `Residual(branch, shortcut)` returns
branch(x) + shortcut(x). It is one module with one input and one output, so it can be a
child of an `nn.Sequential`.

When to use: to put a skip into a chain without a class of your own: residual MLPs,
pre-norm transformer blocks, residual blocks out of layers you already have.

When not: for the block of ResNet-18 itself take `ResidualBlock`, whose names match its
parts. Where the paths are concatenated, scaled or dropped at random, or the branch
needs a second input such as a mask, write the `forward`. The branch must not start with
an in-place layer such as `nn.ReLU(inplace=True)`: it would overwrite x for the skip.

Source: own code; y = F(x) + x and y = F(x) + W x are equations 1 and 2 of He et al.
2015, Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385.
"""

# --8<-- [start:residual]
import torch
from torch import nn

__all__ = ["Residual"]


class Residual(nn.Module):
    """Return branch(x) + shortcut(x); the shortcut is the identity if none is given.

    Input (...) of any shape, dtype and device that branch and shortcut take; output of
    the shape that both return, in the dtype that `+` gives. x itself is not modified.

    Args:
        branch: the module around which the skip goes.
        shortcut: the module on the skip, such as a 1x1 convolution where the branch
            changes the shape.

    Raises:
        ValueError: branch is not a Module, or shortcut is neither a Module nor None.

    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        """Register the two paths; see the class for arguments and errors."""
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        for name, value in (("branch", branch), ("shortcut", self.shortcut)):
            if not isinstance(value, nn.Module):
                raise ValueError(f"{name} must be an nn.Module, got {value!r}")

    # --8<-- [start:forward]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of the two paths, which must have the same shape.

        torch.fx.symbolic_trace knows no shapes and leaves the check out of its graph.

        Raises:
            ValueError: the shapes differ, also where `+` would broadcast in silence.
            TypeError: from `+`, where one of the paths returns a tuple.

        """
        out: torch.Tensor = self.branch(x)
        skip: torch.Tensor = self.shortcut(x)
        tensors = isinstance(out, torch.Tensor) and isinstance(skip, torch.Tensor)
        if tensors and out.shape != skip.shape:
            raise ValueError(
                f"branch returns {tuple(out.shape)}, shortcut {tuple(skip.shape)}: "
                "both must have the same shape"
            )
        return out + skip

    # --8<-- [end:forward]


# --8<-- [end:residual]
