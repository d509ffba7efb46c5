"""A Sequential whose layers may take and return several values.

What: `SequentialPlus` is an `nn.Sequential` that hands a tuple to the next layer as
positional arguments and a dict as keyword arguments; any other value is one argument.
`Pick(key)` takes one element out of a tuple, list or dict.

When to use: for a chain through layers of several inputs or outputs: `nn.LSTM` and
`nn.GRU`, a pair such as (x, mask) that every layer passes on, two inputs at the start.
For one output of one layer, `Pick` in a plain `nn.Sequential` is enough.

When not: where a value is needed again further down, write a `forward`, which names it.
`torch.fx.symbolic_trace` refuses the chain with a TraceError, since how a value goes on
depends on its type; `torch.export` and `torch.compile` take it. `a + b` and `a * n`
give a plain `nn.Sequential`: write `SequentialPlus(*a, *b)`.

Source: own code; the base class is
https://docs.pytorch.org/docs/2.13/generated/torch.nn.Sequential.html.
"""

# --8<-- [start:sequential_plus]
from typing import Any

import torch
from torch import nn

__all__ = ["Pick", "SequentialPlus"]


class Pick(nn.Module):
    """Return `value[key]` of a tuple, list or dict.

    The element is returned as it is, of any shape and dtype.

    Args:
        key: an index, or the key in a dict.

    Raises:
        ValueError: key is neither an int (a bool is refused) nor a str.

    """

    def __init__(self, key: int | str) -> None:
        """Keep the key; see the class for arguments and errors."""
        super().__init__()
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise ValueError(f"key must be an int or a str, got {key!r}")
        self.key = key

    def forward(self, value: Any) -> Any:
        """Return the element.

        Raises:
            ValueError: value is a tensor: the index would pick from the batch.
            IndexError, KeyError, TypeError: value has no such element.

        """
        if isinstance(value, torch.Tensor):
            raise ValueError(f"nothing to pick: got a tensor {tuple(value.shape)}")
        return value[self.key]

    def extra_repr(self) -> str:
        """Show the key in the printed model."""
        return repr(self.key)


class SequentialPlus(nn.Sequential):
    """Run the layers in order, each on all that the one before returned.

    A tuple (a named one too) is passed on as positional arguments, a dict as keyword
    arguments, everything else, lists included, as one argument; `Pick` gets the value
    whole. Constructor, names, indices, slices and keys are those of `nn.Sequential`,
    and `net(x)` equals `net[k:](net[:k](x))`.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the last layer returns, of any shape and dtype.

        One argument that is a tuple or a dict is passed on like one from a layer, so
        that the chain can stand in a plain `nn.Sequential`.

        Raises:
            ValueError: positional and keyword arguments in one call.
            TypeError: from a layer that does not take what the one before returned.

        """
        if args and kwargs:
            raise ValueError(
                "arguments must be all positional or all by keyword, got "
                f"{len(args)} positional and {sorted(kwargs)}"
            )
        value: Any = kwargs or (args[0] if len(args) == 1 else args)
        for module in self:
            if isinstance(value, tuple) and not isinstance(module, Pick):
                value = module(*value)
            elif isinstance(value, dict) and not isinstance(module, Pick):
                value = module(**value)
            else:
                value = module(value)
        return value


# --8<-- [end:sequential_plus]
