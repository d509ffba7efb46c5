"""Several branches on one input, joined into one output or returned by name.

What: `Branches({"a": first, "b": second})` gives the same x to every branch and joins
what they return: concatenated ("cat"), added ("sum"), or as a "dict" or "tuple". It is
an `nn.ModuleDict` with a `forward`, so it can be a child of an `nn.Sequential`.

When to use: for parallel paths inside a chain, such as an Inception block or the skip
of a U-Net, and for several heads at its end.

When not: for x + branch(x) take `Residual`. Where the branches take different inputs,
or are joined otherwise (attention, a gate), write the `forward`. No branch may start
with an in-place layer such as `nn.ReLU(inplace=True)`: it would overwrite the x of the
branches after it.

Source: own code; the base class is
https://docs.pytorch.org/docs/2.13/generated/torch.nn.ModuleDict.html, the use of it is
that of Szegedy et al. 2014, Going Deeper with Convolutions,
https://arxiv.org/abs/1409.4842.
"""

# --8<-- [start:branches]
from collections.abc import Mapping
from functools import reduce
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import nn

__all__ = ["Branches"]

_Join = Literal["cat", "sum", "dict", "tuple"]


class Branches(nn.ModuleDict):
    """Return the outputs of all branches for the same input, joined.

    Input: one value of any shape, dtype and device that every branch takes. Output:
    "cat" concatenates along dim, so that (N, A, ...) and (N, B, ...) give
    (N, A + B, ...); "sum" adds outputs of one shape; "dict" returns them by name and
    "tuple" in order, each as it is. Order and state_dict keys are those of branches.

    Args:
        branches: a mapping of names to modules.
        join: "cat", "sum", "dict" or "tuple".
        dim: the dimension along which "cat" concatenates; the others ignore it.

    Raises:
        ValueError: branches is not a mapping or is empty, a name is no str, is empty,
            has a dot or is an attribute of the class (such as "type" or "items"), a
            branch is not a Module, join is unknown, or dim is not an int.

    """

    def __init__(
        self,
        branches: Mapping[str, nn.Module] | nn.ModuleDict,
        join: _Join = "cat",
        dim: int = 1,
    ) -> None:
        """Register the branches; see the class for arguments and errors."""
        super().__init__()
        if not isinstance(branches, Mapping | nn.ModuleDict) or not branches:
            raise ValueError(
                f"branches must be a non-empty mapping of modules, got {branches!r}"
            )
        if join not in get_args(_Join):
            raise ValueError(f"join must be one of {get_args(_Join)}, got {join!r}")
        if isinstance(dim, bool) or not isinstance(dim, int):
            raise ValueError(f"dim must be an int, got {dim!r}")
        self.join: _Join = join
        self.dim = dim
        for name, branch in branches.items():
            valid = isinstance(name, str) and name != "" and "." not in name
            if not valid or hasattr(self, name):
                raise ValueError(f"branches cannot have the name {name!r}")
            if not isinstance(branch, nn.Module):
                raise ValueError(
                    f"branches[{name!r}] must be an nn.Module, got {branch!r}"
                )
            self[name] = branch

    # --8<-- [start:forward]
    def forward(self, x: Any) -> torch.Tensor | dict[str, Any] | tuple[Any, ...]:
        """Return the joined outputs.

        torch.fx.symbolic_trace knows no shapes and leaves the check out of its graph.

        Raises:
            ValueError: "sum" of different shapes, also where `+` would broadcast.
            RuntimeError: "cat" of sizes that differ outside dim.
            IndexError: "cat" along a dim that the outputs do not have.
            TypeError: "cat" or "sum" where one of several branches returns a tuple.

        """
        outputs = {name: branch(x) for name, branch in self.items()}
        if self.join == "dict":
            return outputs
        if self.join == "tuple":
            return tuple(outputs.values())
        if self.join == "cat":
            return torch.cat([*outputs.values()], self.dim)
        shapes = {
            name: tuple(output.shape)
            for name, output in outputs.items()
            if isinstance(output, torch.Tensor)
        }
        if any(one != other for one, other in pairwise(shapes.values())):
            raise ValueError(f"branches to sum must return one shape, got {shapes}")
        total: torch.Tensor = reduce(torch.add, outputs.values())
        return total

    # --8<-- [end:forward]

    def extra_repr(self) -> str:
        """Show how the outputs are joined in the printed model."""
        dim = f", dim={self.dim}" if self.join == "cat" else ""
        return f"join={self.join!r}{dim}"


# --8<-- [end:branches]
