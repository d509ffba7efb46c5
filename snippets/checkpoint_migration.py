"""Load a checkpoint whose keys differ from those of the model.

What: four functions on state dicts. `strip_prefix` takes off what a wrapper put in
front of every key (`module.`, `_orig_mod.`), `rename` moves keys by dotted name,
`match_by_order` gives a state the keys of a model that has the same tensors in the same
order, and `load` loads strictly, all or nothing. The first three return a new state of
the same tensors, leave the old one as it is and move its module versions along.

When to use: the weights fit and the names do not, because the model was wrapped when
it was saved, a module was renamed, or a Sequential became a Module or the reverse.

When not: where a tensor itself must change (split, transposed, averaged), write that
step by hand. `match_by_order` cannot see that two layers of equal shape were registered
in another order: compare outputs afterwards, or use `rename`. To accept every old
checkpoint for good, put the renaming into the class, in a
`register_load_state_dict_pre_hook`.

Source: own code; `Module.state_dict` and `Module.load_state_dict`,
https://docs.pytorch.org/docs/2.13/generated/torch.nn.Module.html; module versions are
in the state's attribute `_metadata`, by module name.
"""

# --8<-- [start:checkpoint_migration]
import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

from torch import nn

__all__ = ["load", "match_by_order", "rename", "strip_prefix"]


# --8<-- [start:strip_prefix]
def strip_prefix(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the state without one dotted prefix; its last dot may be left out.

    A state in which no key has the prefix comes back with the same keys, so that one
    line serves wrapped and plain checkpoints. Only one occurrence is taken off; give
    nested wrappers in one string, outermost first: `"module._orig_mod."`.

    Raises:
        ValueError: the prefix is empty, or some keys have it and others have not.

    """
    name = prefix.removesuffix(".")
    if not name:
        raise ValueError(f"prefix must name something, got {prefix!r}")
    without = [key for key in state if not key.startswith(f"{name}.")]
    if without and len(without) < len(state):
        raise ValueError(f"prefix {prefix!r} is on some keys and not on {without[0]!r}")
    return rename(state, {} if without else {name: ""})


# --8<-- [end:strip_prefix]
# --8<-- [start:rename]
def rename(state: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the state with new names for modules or parameters, `{old: new}`.

    An old name is the first components of a key, whole ones only: `layer1` does not
    touch `layer10.weight`. Of two names that fit, the longer one counts. All are
    applied at once, so `{"a": "b", "b": "a"}` swaps. `{"neck": ""}` takes a component
    off, `{"": "backbone"}` puts one before every key that no other name fits.

    Raises:
        ValueError: no key has an old name, two keys would become one, or a key would
            become empty.

    """
    names = {old.removesuffix("."): new.removesuffix(".") for old, new in names.items()}

    def moved(path: str) -> str:
        parts = path.split(".") if path else []
        for length in range(len(parts), -1, -1):
            old = ".".join(parts[:length])
            if old in names:
                return ".".join(part for part in (names[old], *parts[length:]) if part)
        return path

    for old in names:
        if old and not any(f"{key}.".startswith(f"{old}.") for key in state):
            raise ValueError(f"names has {old!r}, and no key begins with it")
    origin: dict[str, str] = {}
    for key in state:
        new = moved(key)
        if not new:
            raise ValueError(f"names leaves nothing of the key {key!r}")
        if new in origin:
            raise ValueError(f"{origin[new]!r} and {key!r} would both become {new!r}")
        origin[new] = key
    paths = getattr(state, "_metadata", ())
    return _rebuilt(state, origin, {path: moved(path) for path in paths})


# --8<-- [end:rename]
# --8<-- [start:match_by_order]
def match_by_order(state: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Return the state under the model's keys, first to first, second to second.

    The order is that of registration, not that of calls. Each pair must agree in shape
    and in the last component of the name (`weight`, `running_mean`, …).

    Raises:
        ValueError: a pair does not agree, or one side has more tensors; it names the
            first such keys with their shapes.

    """
    target = model.state_dict()
    for number, (old, new) in enumerate(zip_longest(state, target), start=1):
        (kind, told), (wanted, model_told) = _told(old, state), _told(new, target)
        if kind != wanted:
            raise ValueError(
                f"tensor {number}: the state has {told}, the model has {model_told}"
            )
    owners = (map(_owner, state), map(_owner, target))
    return _rebuilt(state, target, dict(zip(*owners, strict=True)))


# --8<-- [end:match_by_order]
# --8<-- [start:load]
def load(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load the state strictly; where it does not fit, the model keeps its values.

    `load_state_dict` alone copies what fits before it raises. The values are kept in a
    copy meanwhile, which costs the memory of one more state.

    Raises:
        RuntimeError: from `load_state_dict`, with every key and shape that differs.

    """
    before = copy.deepcopy(model.state_dict())
    try:
        model.load_state_dict(state)
    except RuntimeError:
        model.load_state_dict(before)
        raise


# --8<-- [end:load]
def _owner(key: str) -> str:
    return key.rpartition(".")[0]


def _told(key: str | None, state: Mapping[str, Any]) -> tuple[str, str]:
    """Return what must agree, and how a message names the tensor."""
    if key is None:
        return "", "nothing"
    shape = getattr(state[key], "shape", None)  # extra state need not be a tensor
    told = None if shape is None else tuple(shape)
    return f"{key.rpartition('.')[2]} {told}", f"{key!r} {told}"


def _rebuilt(
    state: Mapping[str, Any], keys: Iterable[str], paths: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values under new keys, and the module versions under new paths."""
    new = OrderedDict(zip(keys, state.values(), strict=True))
    metadata = getattr(state, "_metadata", None)
    if metadata is not None:
        kept = {paths[path]: metadata[path] for path in metadata if path in paths}
        vars(new)["_metadata"] = kept
    return new


# --8<-- [end:checkpoint_migration]
