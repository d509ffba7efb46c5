"""Stochastic depth (DropPath): drop a residual branch at random in training.

What: `StochasticDepth(p)` sets its input to zero with probability p and divides what it
keeps by 1 - p, in training; in evaluation it is the identity. `linear_schedule` gives
the rates of the blocks of a network, rising linearly with depth.

When to use: as the last module of a residual branch, to regularise a deep residual
network: `Residual(nn.Sequential(..., StochasticDepth(0.2)))`.

When not: behind the addition, where it drops the skip too, on the shortcut, or before
the last BatchNorm of the branch. To save the computation of a dropped branch write an
`if` in the forward of the block: here the branch has already run.

Source: Huang et al. 2016, Deep Networks with Stochastic Depth,
https://arxiv.org/abs/1603.09382, section 3 for the decision per mini-batch (`batch`)
and the linear decay of the survival probability. The paper multiplies by 1 - p in
evaluation; dividing in training gives the same mean. `row` decides per sample.
"""

# --8<-- [start:stochastic_depth]
import torch
from torch import nn

__all__ = ["StochasticDepth", "linear_schedule"]


def _rate(name: str, value: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < 1:
        raise ValueError(f"{name} must be a number in [0, 1), got {value!r}")
    return float(value)


class StochasticDepth(nn.Module):
    """Drop the whole input with probability p in training; the identity in evaluation.

    Input (N, ...) of any shape and device and any floating dtype; output of the same
    shape, dtype and device. No parameters, no buffers.

    Args:
        p: probability of a drop, in [0, 1).
        mode: "row" decides for each sample, the first dimension; "batch" decides once
            for the whole input.

    Raises:
        ValueError: p is not a number in [0, 1), or mode is neither "row" nor "batch".

    """

    def __init__(self, p: float, mode: str = "row") -> None:
        """Keep the two settings; see the class for arguments and errors."""
        super().__init__()
        self.p = _rate("p", p)
        if mode not in ("row", "batch"):
            raise ValueError(f"mode must be 'row' or 'batch', got {mode!r}")
        self.mode = mode

    # --8<-- [start:forward]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x, in training x / (1 - p) with dropped parts set to zero.

        Where nothing can be dropped the result is x itself, not a copy. What is dropped
        is zero even where x is infinite or NaN.
        """
        if not self.training or self.p == 0:
            return x
        rows = x.shape[:1] if self.mode == "row" else (1,)
        ones = (1,) * (x.dim() - 1)
        drop = x.new_empty(rows + ones, dtype=torch.bool).bernoulli_(self.p)
        return (x / (1 - self.p)).masked_fill(drop, 0)

    # --8<-- [end:forward]

    def extra_repr(self) -> str:
        """Return the settings for print(module)."""
        return f"p={self.p}, mode={self.mode!r}"


# --8<-- [start:schedule]
def linear_schedule(blocks: int, last: float) -> list[float]:
    """Return the drop rate of each block: last / blocks, 2 last / blocks, ..., last.

    Args:
        blocks: number of residual blocks, at least 1.
        last: rate of the last block, in [0, 1).

    Raises:
        ValueError: blocks is not an int (a bool is refused) or is below 1, or last is
            not a number in [0, 1).

    """
    if isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < 1:
        raise ValueError(f"blocks must be an int of at least 1, got {blocks!r}")
    last = _rate("last", last)
    return [last * (block / blocks) for block in range(1, blocks + 1)]


# --8<-- [end:schedule]
# --8<-- [end:stochastic_depth]
