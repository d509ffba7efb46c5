"""Get the outputs of named layers inside a model.

What: `FeatureExtractor(model, layers)` is a module that runs the model and returns a
dict of the outputs of the named layers, by forward hooks that exist during the call
only. The outputs are copies, so that a later in-place operation cannot overwrite them.

When to use: for the features of hidden layers of a model whose code you do not want to
change: a loss on them, Grad-CAM, a detector's maps, a look at statistics.

When not: for the first layers of a Sequential take a slice, `model[:5]`, which copies
nothing. A function called in `forward` (`torch.relu`, `+`) is no module and has no
hook; write a `forward` that returns it, also for export. Give it the plain model and
not the result of `torch.compile`, which does not run hooks that come after its first
call.

Source: own code; forward hooks of
https://docs.pytorch.org/docs/2.13/generated/torch.nn.Module.html.
"""

# --8<-- [start:feature_extractor]
from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import nn

__all__ = ["FeatureExtractor"]


class _EnoughError(Exception):
    """Every layer has been called; never leaves this module."""


class FeatureExtractor(nn.Module):
    """Return the outputs of named layers, `{name: output}`, in the order of `layers`.

    Input: whatever the model takes. Outputs: as the layers return them, of any shape
    and dtype, tensors copied, also those in tuples, lists and dicts. The model is the
    child `model`: its parameters, mode and device stay as they are.

    Args:
        model: the model; it is not changed.
        layers: dotted names as in `model.named_modules()`; `""` is the model itself.
        detach: cut the outputs off the graph, so that they keep no activations alive.
        stop_early: leave the model's forward once each layer has been called.
        every_call: give a list of the outputs of all calls of each layer, in the order
            of the calls; otherwise the last one counts (with `stop_early`: the last one
            so far).

    Raises:
        ValueError: no layer, a string in place of the names, a name that the model
            does not have (the message lists near ones), or `every_call` with
            `stop_early`.

    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[str],
        *,
        detach: bool = False,
        stop_early: bool = False,
        every_call: bool = False,
    ) -> None:
        """Check the names; see the class for arguments and errors."""
        super().__init__()
        self.layers = () if isinstance(layers, str) else tuple(dict.fromkeys(layers))
        if not self.layers:
            raise ValueError(f"layers must be names of layers, got {layers!r}")
        if every_call and stop_early:
            raise ValueError("every_call=True needs the whole forward: no stop_early")
        known = [name for name, _ in model.named_modules(remove_duplicate=False)]
        for name in self.layers:
            if name not in known:
                near = get_close_matches(name, known) or known[1:4]
                raise ValueError(f"no layer {name!r}; there are, for example, {near}")
        self.model = model
        self.detach, self.stop_early, self.every_call = detach, stop_early, every_call

    # --8<-- [start:forward]
    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run the model and return the outputs; no hook stays, whatever happens.

        Raises:
            RuntimeError: the model did not call a layer: it is unused for this input,
                or the model calls its `forward` or its weights, past the hooks.

        """
        calls: dict[str, list[Any]] = {name: [] for name in self.layers}

        def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name].append(_copied(output, self.detach))
            if self.stop_early and all(calls.values()):
                raise _EnoughError

        handles = []
        try:
            for name in self.layers:
                module = self.model.get_submodule(name)
                handles.append(module.register_forward_hook(partial(keep, name)))
            self.model(*args, **kwargs)
        except _EnoughError:
            pass
        finally:
            for handle in handles:
                handle.remove()
        silent = [name for name, outputs in calls.items() if not outputs]
        if silent:
            raise RuntimeError(f"the model did not call {silent}")
        if self.every_call:
            return dict(calls)
        return {name: outputs[-1] for name, outputs in calls.items()}

    # --8<-- [end:forward]


def _copied(value: Any, detach: bool) -> Any:
    """Return the value with its tensors copied."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if detach else value.clone()
    if isinstance(value, dict):
        return {key: _copied(item, detach) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_copied(item, detach) for item in value]
        named = hasattr(value, "_fields")
        return type(value)(*items) if named else type(value)(items)
    return value


# --8<-- [end:feature_extractor]
