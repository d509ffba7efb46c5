"""Print output shape and parameter count of every layer of a model.

What: `summarize(model, *inputs)` runs the model once and returns a `Row` for each
module: name, class, output shape, parameters, trainable parameters and calls. `table`
formats rows as text. The model is left as it was: hooks, modes and buffers.

When to use: to see the order of calls and the shapes that no `print(model)` shows, to
find layers that are registered and never called, and to count parameters by layer, on
the meta device also of a model too big for the memory.

When not: `print(model)` needs no input if the structure is enough. A function called in
`forward` (`torch.relu`, `+`) is no module and has no row. Give it the plain model and
not the result of `torch.compile`, which does not run hooks that come after its first
call.

Source: own code; forward hooks of
https://docs.pytorch.org/docs/2.13/generated/torch.nn.Module.html and
https://docs.pytorch.org/docs/2.13/generated/torch.func.functional_call.html.
"""

# --8<-- [start:module_summary]
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

__all__ = ["Row", "summarize", "table"]


class Row(NamedTuple):
    """One module of a model, as `summarize` saw it.

    Attributes:
        name: dotted name as in `model.named_modules()`; `""` is the model itself.
        kind: name of the class.
        output: shape of the output of the last call, `(N, C, H, W)` for instance;
            tuples, lists and dicts of shapes where the module returns such, the name of
            the type of any other value, and `None` if the module was not called.
        parameters: elements of the module's own parameters, those of its children and
            of rows before this one excluded: the sum over all rows is the model's.
        trainable: those of them with `requires_grad`.
        calls: how often the module was called.

    """

    name: str
    kind: str
    output: Any
    parameters: int
    trainable: int
    calls: int


# --8<-- [start:summarize]
def summarize(model: nn.Module, /, *inputs: Any, **kwargs: Any) -> list[Row]:
    """Call `model(*inputs, **kwargs)` and return a row for each of its modules.

    Rows come in the order in which the first calls begin, so a container stands before
    its parts; those never called follow, in the order of registration. A module with
    several names has one row, with the first of them.

    The call is made in eval mode, without gradients and on copies of the buffers. Modes
    are set back and the hooks removed, also after an error, which is passed on. Model
    and inputs may be of any dtype and on any device, `meta` included.

    Raises:
        ValueError: a shape in place of the input (to pass on a tuple of integers, use
            its keyword), or a lazy parameter or buffer that has no shape yet.

    """
    if len(inputs) == 1 and _is_shape(inputs[0]):
        raise ValueError(f"inputs must be tensors, got the shape {inputs[0]}")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise ValueError(f"model must be called once first: {name!r} has no shape")
    modules = dict(model.named_modules())
    modes = [(module, module.training) for module in modules.values()]
    outputs: dict[str, list[Any]] = {}
    handles = []

    def begin(name: str, module: nn.Module, args: Any) -> None:
        outputs.setdefault(name, [])

    def end(name: str, module: nn.Module, args: Any, output: Any) -> None:
        outputs[name].append(_shapes(output))

    try:
        for name, module in modules.items():
            module.training = False
            handles.append(module.register_forward_pre_hook(partial(begin, name)))
            handles.append(module.register_forward_hook(partial(end, name)))
        with torch.no_grad():
            copies = {buffer: buffer.clone() for buffer in model.buffers()}
            buffers = {
                key: copies[buffer]
                for name, module in modules.items()
                for key, buffer in module.named_buffers(name, False, False)
            }
            # With tie_weights=True a module of two names would not get its own back.
            functional_call(model, buffers, inputs, kwargs, tie_weights=False)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode

    rows, counted = [], set[nn.Parameter]()
    for name in dict.fromkeys([*outputs, *modules]):
        module, shapes = modules[name], outputs.get(name, [])
        own = set(module.parameters(recurse=False)) - counted
        counted |= own
        rows.append(
            Row(
                name=name,
                kind=type(module).__name__,
                output=shapes[-1] if shapes else None,
                parameters=sum(p.numel() for p in own),
                trainable=sum(p.numel() for p in own if p.requires_grad),
                calls=len(shapes),
            )
        )
    return rows


# --8<-- [end:summarize]
def table(rows: Iterable[Row]) -> str:
    """Return the rows as lines of aligned columns, and a last line of their totals."""
    rows = list(rows)
    cells = [("name", "kind", "output", "parameters", "trainable", "calls")]
    for row in rows:
        output = str(row.output) if row.calls else "not called"
        numbers = (f"{row.parameters:,}", f"{row.trainable:,}", str(row.calls))
        cells.append((row.name or "(model)", row.kind, output, *numbers))
    totals = (sum(r.parameters for r in rows), sum(r.trainable for r in rows))
    cells.append(("total", "", "", f"{totals[0]:,}", f"{totals[1]:,}", ""))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        texts = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        texts[3:] = [text.strip().rjust(len(text)) for text in texts[3:]]
        lines.append("  ".join(texts).rstrip())
    return "\n".join(lines)


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(size) is int for size in value)


def _shapes(value: Any) -> Any:
    """Put shapes in the place of tensors and names of types in that of other values."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {key: _shapes(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shapes(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_shapes(item) for item in value)
    return type(value).__name__


# --8<-- [end:module_summary]
