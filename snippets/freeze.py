"""Freeze a model or parts of it, BatchNorm statistics included.

What: `freeze` switches gradients off, drops gradients that are left over and fixes
running statistics, for a whole model or for named parts; `unfreeze` undoes it.
`fix_statistics` keeps running statistics as they are and leaves weight and bias of the
norm trainable. `trainable_parameters` lists what an optimizer should get.

When to use: to train a new head on a pretrained backbone, to fine-tune in stages, and
to train with batches too small for BatchNorm's statistics.

When not: to compute no gradients at all take `torch.no_grad()` or
`torch.inference_mode()`. Dropout in a frozen part still follows `model.train()`; call
`part.eval()` after it. Freeze before DistributedDataParallel wraps the model.

Source: own code; `requires_grad_`, `Module.train` and BatchNorm of
https://docs.pytorch.org/docs/2.13/nn.html.
"""

# --8<-- [start:freeze]
from collections.abc import Iterator
from difflib import get_close_matches
from functools import partial

from torch import nn

__all__ = ["fix_statistics", "freeze", "trainable_parameters", "unfreeze"]


# --8<-- [start:parameters]
def freeze(model: nn.Module, *names: str) -> None:
    """Stop training the named parts, without names all of the model.

    Parameters get `requires_grad=False` and lose their gradient, since an optimizer
    would go on applying one that is left. Running statistics are fixed as by
    `fix_statistics`. The state dict keeps its keys. A parameter that two parts share is
    frozen for both.

    Args:
        model: the model; it is changed in place.
        names: dotted names of submodules (`layer1.0`) or parameters (`fc.bias`).

    Raises:
        ValueError: a name is unknown; then nothing is frozen.

    """
    for part in _parts(model, names):
        for parameter in _parameters(part):
            parameter.requires_grad_(False)
            parameter.grad = None
        if isinstance(part, nn.Module):
            fix_statistics(part)


def unfreeze(model: nn.Module, *names: str) -> None:
    """Train the named parts again, without names all of the model.

    All their parameters get `requires_grad=True`, also those that never had it. Running
    statistics move again wherever the model is in training mode.

    Raises:
        ValueError: a name is unknown; then nothing is changed.

    """
    for part in _parts(model, names):
        for parameter in _parameters(part):
            parameter.requires_grad_(True)
        if isinstance(part, nn.Module):
            for norm in _norms(part):
                vars(norm).pop("train", None)
                norm.train(model.training)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters with `requires_grad`, each once, for an optimizer."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


# --8<-- [end:parameters]
# --8<-- [start:statistics]
def fix_statistics(model: nn.Module, *names: str) -> None:
    """Keep running means and variances, also after `model.train()`.

    Every submodule with running statistics (BatchNorm, SyncBatchNorm, InstanceNorm that
    tracks them) goes to eval mode and ignores `train()`; copies and pickles of it do
    so too. Its weight and bias stay as trainable as they are. `unfreeze` undoes it.

    Raises:
        ValueError: a name is unknown or that of a parameter; then nothing is fixed.

    """
    parts = _parts(model, names)
    modules = [part for part in parts if isinstance(part, nn.Module)]
    if len(modules) < len(parts):
        raise ValueError(f"names must be those of modules, got {names!r}")
    for module in modules:
        for norm in _norms(module):
            # Shadows the method on this one object. A partial can be pickled.
            vars(norm)["train"] = partial(_stay_in_eval, norm)
            norm.eval()


def _stay_in_eval(norm: nn.Module, mode: bool = True) -> nn.Module:
    """Take the place of `norm.train`."""
    return type(norm).train(norm, False)


def _norms(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            yield module


# --8<-- [end:statistics]
def _parts(model: nn.Module, names: tuple[str, ...]) -> list[nn.Module | nn.Parameter]:
    """Return what the names stand for; refuse all if one is unknown."""
    known: dict[str, nn.Module | nn.Parameter] = {
        **dict(model.named_modules(remove_duplicate=False)),
        **dict(model.named_parameters(remove_duplicate=False)),
    }
    for name in names:
        if name not in known:
            near = get_close_matches(name, known) or [*known][1:4]
            raise ValueError(f"no part {name!r}; there are, for example, {near}")
    return [known[name] for name in names] or [model]


def _parameters(part: nn.Module | nn.Parameter) -> Iterator[nn.Parameter]:
    return part.parameters() if isinstance(part, nn.Module) else iter([part])


# --8<-- [end:freeze]
