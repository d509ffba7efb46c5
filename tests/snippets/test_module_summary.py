"""module_summary: rows equal those found by hand, nothing is left behind, mutants."""

import types
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import snippets.module_summary as real
from snippets.module_summary import Row, summarize, table
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

torch.set_num_threads(1)

SOURCE = Path(real.__file__).read_text(encoding="utf-8")


class Counter(nn.Module):
    """Moves its buffers in every mode and writes down how it is called."""

    calls: torch.Tensor
    same: torch.Tensor
    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("same", self.calls)
        self.register_buffer("mean", torch.zeros(()))
        self.seen: list[tuple[bool, bool, bool]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shared = self.calls is self.same
        self.seen.append((self.training, torch.is_grad_enabled(), shared))
        self.same += 1
        self.mean = (self.mean + x.detach().mean()) / 2
        return x


class Net(nn.Module):
    """Registered in another order than called; `shared` runs twice, `idle` never."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3, bias=False)
        self.idle = nn.Linear(1, 1)
        self.stem = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Counter())
        self.layers = nn.ModuleList([nn.Linear(4, 4)])
        self.shared = nn.Flatten()
        self.alias = self.stem
        self.tied = nn.Linear(4, 3)
        self.tied.weight = self.head.weight
        self.stem[0].bias.requires_grad_(False)

    def forward(self, x: torch.Tensor, keep: int = 4) -> Any:
        x = self.layers[0](self.shared(self.stem(x.transpose(0, 1)).unsqueeze(1)))
        return self.tied(x), self.head(self.shared(x[:keep, :, None]))


class Returns(nn.Module):
    """Returns the value that it was made with."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, **kwargs: Any) -> Any:
        return self.value


class Pair(NamedTuple):
    """A named pair."""

    left: torch.Tensor
    right: torch.Tensor


# Of Net()(x, keep=2) with x of shape (3, 5): name, class, output, parameters,
# trainable, calls.
WANTED = [
    ("", "Net", ((5, 3), (2, 3)), 0, 0, 1),
    ("stem", "Sequential", (5, 4), 0, 0, 1),
    ("stem.0", "Linear", (5, 4), 16, 12, 1),
    ("stem.1", "BatchNorm1d", (5, 4), 8, 8, 1),
    ("stem.2", "Counter", (5, 4), 0, 0, 1),
    ("shared", "Flatten", (2, 4), 0, 0, 2),
    ("layers.0", "Linear", (5, 4), 20, 20, 1),
    ("tied", "Linear", (5, 3), 15, 15, 1),
    ("head", "Linear", (2, 3), 0, 0, 1),
    ("idle", "Linear", None, 2, 2, 0),
    ("layers", "ModuleList", None, 0, 0, 0),
]
TABLE = """\
name     kind        output            parameters  trainable  calls
(model)  Net         ((5, 3), (2, 3))           0          0      1
stem.0   Linear      (5, 4)                16,000     12,000      1
shared   Flatten     (2, 4)                     0          0      2
layers   ModuleList  not called                 0          0      0
total                                      16,000     12,000"""


def traces(model: nn.Module) -> list[Any]:
    """All that a summary may not change."""
    found: list[Any] = []
    for name, module in model.named_modules():
        found += [name, module.training]
        found += [[*module._forward_hooks], [*module._forward_pre_hooks]]
    for name, buffer in model.named_buffers(remove_duplicate=False):
        found += [name, id(buffer), buffer.tolist()]
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found += [name, id(parameter), parameter.tolist()]
        found += [parameter.requires_grad, parameter.grad]
    return found


def refused(error: type[Exception], call: Any, *args: Any, **kwargs: Any) -> str:
    """The message of the error that the call must raise."""
    try:
        call(*args, **kwargs)
    except error as caught:
        return str(caught)
    raise AssertionError(f"accepted: {args[1:]} {kwargs}")


# --- The battery --------------------------------------------------------------------


def check(module: types.ModuleType) -> None:
    """Assert all that the docstrings promise."""
    torch.manual_seed(0)
    check_rows(module)
    check_left_as_it_was(module)
    check_structures(module)
    check_table(module)
    check_errors(module)


def check_rows(module: types.ModuleType) -> None:
    net, x = Net(), torch.randn(3, 5)
    rows = module.summarize(net, x, keep=2)
    assert [row[0] for row in rows] == [row[0] for row in WANTED], "order"
    assert [row[1] for row in rows] == [row[1] for row in WANTED], "class"
    assert [row[2] for row in rows] == [row[2] for row in WANTED], "shapes"
    assert [row[3] for row in rows] == [row[3] for row in WANTED], "parameters"
    assert [row[4] for row in rows] == [row[4] for row in WANTED], "trainable"
    assert [row[5] for row in rows] == [row[5] for row in WANTED], "calls"
    total = sum(p.numel() for p in net.parameters())
    assert sum(row.parameters for row in rows) == total, "total"
    refused(AttributeError, setattr, rows[0], "calls", 2)


def check_left_as_it_was(module: types.ModuleType) -> None:
    net, x = Net(), torch.randn(3, 5)
    counter = net.stem[2]
    net.eval()
    net.stem.train()
    heard = []
    net.head.register_forward_hook(lambda module, args, output: heard.append(1))
    net.head.register_forward_pre_hook(lambda module, args: heard.append(2))
    before = traces(net)
    module.summarize(net, x)
    assert traces(net) == before, "changed"
    assert heard == [2, 1], "own hooks"
    assert counter.seen == [(False, False, True)], "mode of the call"
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        module.summarize(net, torch.randn(2, 5))
    assert traces(net) == before, "changed by an error"
    x.requires_grad_()
    net.train()
    net(x)[0].sum().backward()
    assert x.grad is not None, "gradient"
    assert net.stem[1].num_batches_tracked == counter.calls == 1, "buffers"


def check_structures(module: types.ModuleType) -> None:
    a, b = torch.zeros(2), torch.ones(3, 1)
    for value, wanted in (
        (a, (2,)),
        ((a, [b, None]), ((2,), [(3, 1), "NoneType"])),
        ({"a": a, "b": (b,)}, {"a": (2,), "b": ((3, 1),)}),
        (OrderedDict(a=a), {"a": (2,)}),
        (Pair(a, b), ((2,), (3, 1))),
        (2.5, "float"),
        (None, "NoneType"),
    ):
        (row,) = module.summarize(Returns(value))
        assert row.output == wanted, f"structure of {value}"
        assert type(row.output) is type(wanted), f"structure of {value}"
        assert row.calls == 1


def check_table(module: types.ModuleType) -> None:
    rows = [module.Row(*row) for row in WANTED]
    rows = [rows[index] for index in (0, 2, 5, 10)]
    rows[1] = rows[1]._replace(parameters=16_000, trainable=12_000)
    assert module.table(row for row in rows) == TABLE, "table"
    assert module.table([]).split()[:-3] == TABLE.split()[:6], "empty"


def check_errors(module: types.ModuleType) -> None:
    net = nn.Sequential(nn.Linear(3, 4))
    message = refused(ValueError, module.summarize, net, (5, 3))
    assert message == "inputs must be tensors, got the shape (5, 3)"
    (row,) = module.summarize(Returns(None), size=(5, 3))
    assert row.calls == 1, "by keyword"
    batch = nn.Sequential(nn.LazyBatchNorm1d(affine=False))
    linear = nn.Sequential(nn.LazyLinear(2))
    for lazy, name in ((linear, "0.weight"), (batch, "0.running_mean")):
        message = refused(ValueError, module.summarize, lazy, torch.randn(5, 3))
        assert message == f"model must be called once first: {name!r} has no shape"
        lazy(torch.randn(5, 3))
        assert module.summarize(lazy, torch.randn(5, 3))[0].calls == 1


def test_battery() -> None:
    check(real)


# --- More of the real module --------------------------------------------------------


def test_rows_count_as_named_parameters_do() -> None:
    """Another way to the same numbers: by the names of the parameters."""
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    owners: dict[str, int] = {}
    for name, parameter in layer.named_parameters():
        owner = name.rpartition(".")[0]
        owners[owner] = owners.get(owner, 0) + parameter.numel()
    rows = summarize(layer, torch.randn(5, 1, 8))
    assert {row.name: row.parameters for row in rows if row.parameters} == owners
    assert {row.name for row in rows} == {name for name, _ in layer.named_modules()}
    assert [row.name for row in rows if not row.calls] == ["self_attn.out_proj"]


def test_shapes_of_a_chain_equal_those_of_its_slices() -> None:
    layers = (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    chain, x = nn.Sequential(*layers), torch.randn(2, 3, 8, 8)
    outputs = [row.output for row in summarize(chain, x)[1:]]
    assert outputs == [tuple(chain[:end](x).shape) for end in range(1, 5)]


def test_several_outputs_of_an_lstm() -> None:
    (row,) = summarize(nn.LSTM(3, 4), torch.randn(5, 2, 3))
    assert row.output == ((5, 2, 4), ((1, 2, 4), (1, 2, 4)))


def test_a_batch_of_one_passes_batchnorm() -> None:
    norm = nn.BatchNorm1d(4)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.randn(1, 4))
    assert summarize(norm, torch.randn(1, 4))[0].output == (1, 4)
    assert norm.training


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype(dtype: torch.dtype) -> None:
    rows = summarize(Net().to(dtype), torch.randn(3, 5, dtype=dtype), keep=2)
    assert rows == WANTED


def test_meta() -> None:
    with torch.device("meta"):
        net, x = Net(), torch.empty(3, 5)
    rows = summarize(net, x, keep=2)
    assert rows == WANTED
    assert {buffer.device.type for buffer in net.buffers()} == {"meta"}


def test_the_table_of_a_summary() -> None:
    rows = summarize(Net(), torch.randn(3, 5), keep=2)
    assert rows[0] == Row("", "Net", ((5, 3), (2, 3)), 0, 0, 1)
    first, *lines, last = table(rows).splitlines()
    assert first.split() == [*Row._fields]
    assert [line.split()[0] for line in lines[1:]] == [row.name for row in rows[1:]]
    assert last.split() == ["total", "61", "57"]


# --- Mutants ------------------------------------------------------------------------

ONCE = "dict.fromkeys([*outputs, *modules])"
ELSE = "    except KeyError:\n        pass\n    else:\n"
FLAG = "module.training = False"
RUN = "functional_call(model, buffers, inputs, kwargs, tie_weights=False)"

MUTANTS = (
    # The rows.
    one("order of registration", ONCE, "modules", "order"),
    one("never called left out", ONCE, "outputs", "order"),
    one("order of the ends", "outputs.setdefault(name, [])", "pass", "0", KeyError),
    one("name of the first class", "type(module)", "type(model)", "class"),
    one("first output", "shapes[-1]", "shapes[0]", "shapes"),
    one("tied counted twice", " - counted", "", "parameters"),
    one("children counted", "parameters(recurse=False)", "parameters()", "parameters"),
    one("all trainable", "own if p.requires_grad", "own", "trainable"),
    one("tensors counted", "sum(p.numel() for p in own)", "len(own)", "parameters"),
    one("calls not counted", "calls=len(shapes)", "calls=bool(shapes)", "calls"),
    # The call.
    one("keywords lost", RUN, RUN.replace("kwargs", "{}"), "shapes"),
    one("positions lost", RUN, RUN.replace("inputs", "()"), "missing 1", TypeError),
    one("buffers moved", RUN, "model(*inputs, **kwargs)", "changed"),
    one("buffers not copied", "buffer.clone()", "buffer", "changed"),
    one("copies tied", "tie_weights=False", "tie_weights=True", "alias", KeyError),
    one("one name a buffer", "(name, False, False)", "(name, False)", "changed"),
    one("copies not shared", "copies[buffer]", "buffer.clone()", "mode of the call"),
    one("training mode", FLAG, "module.training = True", "mode of the call"),
    one("mode as it is", FLAG, "pass", "mode of the call"),
    one("gradients", "torch.no_grad()", "torch.enable_grad()", "mode of the call"),
    one("root alone in eval", FLAG, "model.training = False", "mode of the call"),
    one("modes stay", "module.training = mode", "pass", "changed"),
    one("modes of the root", "= mode\n", "= modes[0][1]\n", "changed"),
    one("hooks stay", "handle.remove()", "pass", "changed"),
    one("one hook stays", "for handle in handles:", "for handle in handles[1:]:", "ch"),
    one("no cleaning after errors", "    finally:\n", ELSE, "by an error"),
    # The structures.
    one("tuples by name", "(value, tuple):", "(value, set):", "shapes"),
    one("lists by name", "(value, list)", "(value, set)", "structure of"),
    one("dicts by name", "(value, dict)", "(value, set)", "structure of"),
    one("values kept", "return type(value).__name__", "return value", "structure of"),
    one("sizes kept", "tuple(value.shape)", "value.shape", "structure of"),
    # The table.
    one("rows read once", "    rows = list(rows)\n", "", "table"),
    one("not called unmarked", ' if row.calls else "not called"', "", "table"),
    one("model without a name", 'row.name or "(model)"', "row.name", "table"),
    one("no separator", "{row.parameters:,}", "{row.parameters}", "table"),
    one("numbers to the left", "rjust", "ljust", "table"),
    one("totals swapped", "{totals[0]:,}", "{totals[1]:,}", "table"),
    one("spaces at the end", ".rstrip()", "", "table"),
    # The checks.
    one("shape passes", "if len(inputs) == 1 and", "if False and", "linear", TypeError),
    one(
        "keywords refused",
        "if len(inputs) == 1 and _is_shape(inputs[0])",
        "if any(map(_is_shape, [*inputs, *kwargs.values()]))",
        "out of range",
        IndexError,
    ),
    one("lazy passes", "if is_lazy(tensor)", "if False", "accepted|Uninit"),
    one("lazy buffer passes", "*model.named_buffers()]:", "]:", "has no shape"),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_battery_kills(mutant: Mutant) -> None:
    kill(mutant, SOURCE, check)


def test_mutants_are_distinct() -> None:
    assert_distinct(MUTANTS)


def test_battery_accepts_equivalents() -> None:
    """The battery judges behaviour: a rewriting that changes none passes."""
    check(build(SOURCE, (("counted |= own", "counted.update(own)"),)))
