"""checkpoint_migration: new keys, kept tensors and versions, errors and mutants."""

import copy
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import snippets.checkpoint_migration as real
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

torch.set_num_threads(1)

SOURCE = Path(real.__file__).read_text(encoding="utf-8")


class Net(nn.Module):
    """The chain below, with names."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.fc2 = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc2(torch.relu(self.norm(self.fc1(x))))
        return out


def chain() -> nn.Sequential:
    """The same layers by position."""
    layers = (nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    return nn.Sequential(*layers)


class Wrapper(nn.Module):
    """What DistributedDataParallel does to the names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def versions(state: Any) -> dict[str, int]:
    """The version of each module that the state tells."""
    return {name: said["version"] for name, said in state._metadata.items()}


def refused(call: Any, *args: Any, error: type[Exception] = ValueError) -> str:
    """The message of the error that the call must raise."""
    try:
        call(*args)
    except error as caught:
        return str(caught)
    raise AssertionError(f"accepted by {call.__name__}: {args[-1]!r}")


# --- The battery --------------------------------------------------------------------


def check(module: types.ModuleType) -> None:
    """Assert all that the docstrings promise."""
    torch.manual_seed(0)
    check_strip_prefix(module)
    check_rename(module)
    check_match_by_order(module)
    check_load(module)


def check_strip_prefix(module: types.ModuleType) -> None:
    plain = chain().state_dict()
    wrapped = Wrapper(Wrapper(chain())).state_dict()
    inner = module.strip_prefix(wrapped, "module.")
    assert [*wrapped] == [f"module.module.{key}" for key in plain], (
        "strip: input changed"
    )
    assert [*inner] == [f"module.{key}" for key in plain], "strip: one occurrence"
    assert [*inner] == [*module.strip_prefix(wrapped, "module")], "strip: last dot"
    both = module.strip_prefix(wrapped, "module.module.")
    assert [*both] == [*plain], "strip: nested"
    assert all(both[key] is wrapped[f"module.module.{key}"] for key in both), (
        "strip: values"
    )
    same = module.strip_prefix(plain, "module.")
    assert [*same] == [*plain], "strip: plain state"
    assert same is not plain, "strip: the same object"
    dotless = module.strip_prefix({"modules.weight": 0}, "module")
    assert dotless == {"modules.weight": 0}, "strip: part of a name"
    assert versions(inner)["module.1"] == 2, "strip: version"
    assert "module.module.1" not in versions(inner), "strip: version"
    assert "got ''" in refused(module.strip_prefix, plain, ""), "strip: message"
    mixed = {"module.a": 0, "b": 1}
    message = refused(module.strip_prefix, mixed, "module.")
    assert message == "prefix 'module.' is on some keys and not on 'b'"


def check_rename(module: types.ModuleType) -> None:
    state: dict[str, Any] = {"abc.0.w": 0, "abc.1.w": 1, "abcd.w": 2}
    kept = dict(state)
    renamed = module.rename(state, {"abc": "def"})
    expected = {"def.0.w": 0, "def.1.w": 1, "abcd.w": 2}
    assert renamed == expected, "rename: whole components"
    assert [*renamed] == [*expected], "rename: order"
    assert state == kept, "rename: input changed"
    assert not hasattr(renamed, "_metadata"), "rename: versions invented"
    for names, keys in (
        ({"abc.": "x.y."}, ["x.y.0.w", "x.y.1.w", "abcd.w"]),
        ({"abc": "def", "abc.1": "last"}, ["def.0.w", "last.w", "abcd.w"]),
        ({"abc.0": "abc.1", "abc.1": "abc.0"}, ["abc.1.w", "abc.0.w", "abcd.w"]),
        ({"abc.0.w": "abc.0.v"}, ["abc.0.v", "abc.1.w", "abcd.w"]),
        ({"abc": ""}, ["0.w", "1.w", "abcd.w"]),
        ({"": "net"}, ["net.abc.0.w", "net.abc.1.w", "net.abcd.w"]),
        ({"": "net", "abcd": "d"}, ["net.abc.0.w", "net.abc.1.w", "d.w"]),
        ({}, [*state]),
    ):
        assert [*module.rename(state, names)] == keys, f"rename: {names}"
    moved = module.rename(chain().state_dict(), {"": "net", "1": "norm"})
    assert versions(moved) == {"net": 1, "net.0": 1, "norm": 2, "net.2": 1, "net.3": 1}
    for names, part in (
        ({"ab": "x"}, "names has 'ab', and no key begins with it"),
        ({"abc.0": "abc.1"}, "'abc.0.w' and 'abc.1.w' would both become 'abc.1.w'"),
        ({"abcd.w": ""}, "names leaves nothing of the key 'abcd.w'"),
    ):
        assert refused(module.rename, state, names) == part, "rename: message"


def check_match_by_order(module: types.ModuleType) -> None:
    for source, target in ((chain(), Net()), (Net(), chain())):
        state = randomised(source).state_dict()
        before = [*state]
        matched = module.match_by_order(state, target)
        assert [*matched] == [*target.state_dict()], "match: keys"
        pairs = zip(matched.values(), state.values(), strict=True)
        assert all(left is right for left, right in pairs), "match: values"
        assert [*state] == before, "match: input changed"
        owners = {key.rpartition(".")[0] for key in matched}
        assert set(versions(matched)) == owners, "match: version"
        assert sorted(versions(matched).values()) == [1, 1, 2], "match: version"
        target.load_state_dict(matched)
        x = torch.randn(5, 3)
        assert torch.equal(target.eval()(x), source.eval()(x)), "match: output"
    state = chain().state_dict()
    wider = chain()
    wider[3] = nn.Linear(4, 5)
    message = refused(module.match_by_order, state, wider)
    assert message == (
        "tensor 8: the state has '3.weight' (2, 4), the model has '3.weight' (5, 4)"
    )
    message = refused(module.match_by_order, state, chain()[:3])
    assert message.endswith("has '3.weight' (2, 4), the model has nothing")
    message = refused(module.match_by_order, chain()[:1].state_dict(), Net())
    assert message.endswith("has nothing, the model has 'norm.weight' (4,)")
    swapped = OrderedDict(reversed([*nn.LayerNorm(4).state_dict().items()]))
    message = refused(module.match_by_order, swapped, nn.LayerNorm(4))
    assert "'bias' (4,), the model has 'weight' (4,)" in message
    extra = {"_extra_state": 1, **nn.LayerNorm(4).state_dict()}
    message = refused(module.match_by_order, extra, nn.LayerNorm(4))
    assert "'_extra_state' None" in message


def check_load(module: types.ModuleType) -> None:
    model, state = Net(), randomised(Net()).state_dict()
    assert module.load(model, state) is None
    assert_equal(model.state_dict(), state, "load: values")
    for wrong in (
        {**randomised(Net()).state_dict(), "fc2.bias": torch.zeros(7)},
        randomised(Net().norm).state_dict(),
        {**randomised(Net()).state_dict(), "fc3.bias": torch.zeros(7)},
    ):
        message = refused(module.load, model, wrong, error=RuntimeError)
        assert "Error(s) in loading state_dict for Net" in message
        assert_equal(model.state_dict(), state, "load: half loaded")


def assert_equal(left: Any, right: Any, said: str) -> None:
    assert [*left] == [*right], said
    assert all(torch.equal(left[key], right[key]) for key in left), said


def randomised(model: nn.Module) -> nn.Module:
    """The model with every floating value drawn anew."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0)
    return model


def test_battery() -> None:
    check(real)


# --- More of the real module --------------------------------------------------------


def test_data_parallel() -> None:
    """The page shows the same with torch.compile, which takes seconds to import."""
    state = real.strip_prefix(nn.DataParallel(chain()).state_dict(), "module.")
    assert str(chain().load_state_dict(state)) == "<All keys matched successfully>"


def test_equality_with_torch_in_place() -> None:
    """torch's own helper, which changes its argument, gives the same keys."""
    state = Wrapper(chain()).state_dict()
    theirs = copy.copy(state)
    nn.modules.utils.consume_prefix_in_state_dict_if_present(theirs, "module.")
    ours = real.strip_prefix(state, "module.")
    assert_equal(ours, theirs, "keys")
    assert versions(ours) == versions(theirs)


def test_versions_decide_how_a_state_is_read() -> None:
    """A BatchNorm state without versions may lack the counter; one with may not."""
    state = chain().state_dict()
    del state["1.num_batches_tracked"]
    renamed = real.rename(state, {"0": "fc1", "1": "norm", "3": "fc2"})
    with pytest.raises(RuntimeError, match=r"Missing key.*norm\.num_batches_tracked"):
        Net().load_state_dict(renamed)
    Net().load_state_dict(dict(renamed))


def test_a_lazy_layer_has_no_shape() -> None:
    """match_by_order passes torch's error on."""
    with pytest.raises(RuntimeError, match="uninitialized parameter"):
        real.match_by_order(chain().state_dict(), nn.Sequential(nn.LazyLinear(4)))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_and_device_are_the_state_s(dtype: torch.dtype, device: str) -> None:
    state = chain().to(device=device, dtype=dtype).state_dict()
    moved = real.match_by_order(real.rename(state, {"0": "first"}), Net())
    assert moved["fc1.weight"].dtype == dtype
    assert moved["fc1.weight"].device.type == device


def test_values_need_not_be_tensors() -> None:
    """Extra state is moved as any other value."""
    state = {"a._extra_state": {"scale": 2}}
    assert real.rename(state, {"a": "b"}) == {"b._extra_state": {"scale": 2}}


# --- Mutants ------------------------------------------------------------------------

WHOLE = 'if old and not any(f"{key}.".startswith(f"{old}.") for key in state):'
RESTORE = "        model.load_state_dict(before)\n"

MUTANTS = (
    # strip_prefix
    one(
        "any start",
        'key.startswith(f"{name}.")',
        "key.startswith(name)",
        "no key beg",
        ValueError,
    ),
    one("mixed keys pass", "if without and len", "if False and len", "accepted"),
    one("empty prefix passes", "if not name:", "if name is None:", "accepted .*: ''"),
    one("dot kept", 'prefix.removesuffix(".")', "prefix", "strip: one occurrence"),
    one(
        "all occurrences",
        "new = moved(key)\n",
        'new = moved(key).replace("module.", "")\n',
        "strip: one occurrence",
    ),
    # rename
    one("rest lost", "*parts[length:]) if", ") if", "leaves nothing", ValueError),
    one("empty components kept", ") if part)", "))", "strip: one occurrence"),
    one(
        "shortest name first",
        "range(len(parts), -1, -1)",
        "range(len(parts) + 1)",
        "rename: {'abc': 'def', 'abc.1'",
    ),
    one("no name for all", "-1, -1)", "0, -1)", "rename: {'': 'net'}"),
    one("typo passes", "if old and not any", "if False and any", "accepted .*'ab'"),
    one("typo in a component", 'startswith(f"{old}.")', "startswith(old)", "accepted"),
    one("collision passes", "if new in origin:", "if False:", "rename: message"),
    one("empty key passes", "if not new:", "if False:", "accepted .*'abcd.w'"),
    one("versions stay", "path: moved(path)", "path: path", "module.1", KeyError),
    one("versions dropped", "metadata is not None", "False", "_met", AttributeError),
    one(
        "versions invented",
        "    if metadata is not None:",
        "    metadata = metadata or {}\n    if True:",
        "versions invented",
    ),
    # match_by_order
    one("nothing compared", "if kind != wanted:", "if False:", "accepted by match"),
    one("no names compared", "return f\"{key.rpartition('.')[2]} ", 'return f"', "acc"),
    one("no shapes compared", '[2]} {told}",', '[2]}",', "accepted by match"),
    one(
        "the shorter side ends it",
        "zip_longest(state, target)",
        "zip(state, target)",
        "zip\\(\\) argument 2 is shorter|has nothing",
    ),
    one(
        "owners crossed",
        "map(_owner, state), map(_owner, target)",
        "map(_owner, target), map(_owner, state)",
        "match: version",
    ),
    # all of them
    one(
        "values copied",
        "zip(keys, state.values(),",
        "zip(keys, map(copy.copy, state.values()),",
        "strip: values",
    ),
    one(
        "input emptied",
        "    return new\n",
        "    state.clear()\n    return new\n",
        "strip: input changed",
    ),
    # load
    one("not restored", "        model.load_state_dict(before)\n", "", "half loaded"),
    one("error swallowed", "        raise\n", "", "accepted by load"),
    one("not strict", "_dict(state)", "_dict(state, strict=False)", "accepted by load"),
    one(
        "nothing kept",
        "copy.deepcopy(model.state_dict())",
        "model.state_dict()",
        "half",
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_battery_kills(mutant: Mutant) -> None:
    kill(mutant, SOURCE, check)


def test_mutants_are_distinct() -> None:
    assert_distinct(MUTANTS)


def test_battery_accepts_equivalents() -> None:
    """The battery judges behaviour: a rewriting that changes none passes."""
    check(
        build(
            SOURCE, (("range(len(parts), -1, -1)", "reversed(range(len(parts) + 1))"),)
        )
    )
