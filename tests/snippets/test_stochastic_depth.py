"""StochasticDepth and linear_schedule: decisions, means, gradients, errors, mutants."""

import copy
import math
import pickle
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import snippets.stochastic_depth as real
from snippets.residual import Residual
from snippets.stochastic_depth import StochasticDepth, linear_schedule
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

torch.set_num_threads(1)

SOURCE = Path(real.__file__).read_text(encoding="utf-8")
BAD_RATES: tuple[Any, ...] = (
    *(-0.1, 1, 1.0, 1.5, math.nan, math.inf, True, False, None, "0.2"),
)


def refused(call: Any, *args: Any) -> str:
    """The message of the ValueError that the call must raise."""
    try:
        call(*args)
    except ValueError as caught:
        return str(caught)
    raise AssertionError(f"accepted: {args}")


def nonzero(*shape: int) -> torch.Tensor:
    """Values of both signs, none near zero, so that a zero in the output is a drop."""
    x = torch.rand(shape) + 0.5
    return torch.where(torch.rand(shape) < 0.5, x, -x)


# --- The battery --------------------------------------------------------------------


def check(module: types.ModuleType) -> None:
    """Assert all that the docstrings promise."""
    torch.manual_seed(0)
    check_identity(module)
    check_rows(module)
    check_batch(module)
    check_gradient(module)
    check_exact_zero(module)
    check_no_state(module)
    check_fx(module)
    check_schedule(module)
    check_errors(module)


def check_identity(module: types.ModuleType) -> None:
    """Evaluation, and p = 0 in training, return x itself."""
    x = nonzero(6, 2)
    for mode in ("row", "batch"):
        assert module.StochasticDepth(0.5, mode).eval()(x) is x, "eval"
        assert module.StochasticDepth(0.0, mode)(x) is x, "p = 0"
    assert module.StochasticDepth(0)(x) is x, "p = 0"


def check_rows(module: types.ModuleType) -> None:
    """Each sample is dropped whole or kept and rescaled, on its own, at the rate p."""
    for p in (0.1, 0.5, 0.9):
        layer = module.StochasticDepth(p)
        for shape in ((1500,), (1500, 2, 2, 2)):
            x = nonzero(*shape)
            before = x.clone()
            y = layer(x)
            assert torch.equal(x, before), "input modified"
            assert y.shape == x.shape, "shape"
            dropped = (y == 0).reshape(1500, -1)
            assert torch.equal(dropped.all(1), dropped.any(1)), "part of a row"
            rate = dropped[:, 0].double().mean().item()
            assert abs(rate - p) < 0.06, f"rate {rate} of rows"
            kept = y != 0
            assert torch.equal(y[kept], x[kept] / (1 - p)), "kept"
        assert not torch.equal(layer(x), layer(x)), "the same decisions twice"
    for dtype in (torch.float64, torch.bfloat16):
        y = module.StochasticDepth(0.5)(torch.ones(20, 2, dtype=dtype))
        assert y.dtype == dtype, "dtype"
        assert set(y.unique().tolist()) == {0, 2}, "kept"


def check_batch(module: types.ModuleType) -> None:
    """One decision for the whole input, at the rate p, with exact rescaling."""
    x = nonzero(3, 2)
    for p in (0.25, 0.75):
        layer = module.StochasticDepth(p, mode="batch")
        outputs = [layer(x) for _ in range(100)]
        dropped = [not bool(y.any()) for y in outputs]
        assert abs(sum(dropped) / 100 - p) < 0.2, "rate of batches"
        for y, drop in zip(outputs, dropped, strict=True):
            assert drop or torch.equal(y, x / (1 - p)), "kept batch"


def check_gradient(module: types.ModuleType) -> None:
    """1 / (1 - p) where kept and zero where dropped: present, not None."""
    for mode in ("row", "batch"):
        x = nonzero(50, 3).requires_grad_()
        for _ in range(6):
            y = module.StochasticDepth(0.75, mode)(x)
            assert y.requires_grad, "no gradient"
            (found,) = torch.autograd.grad(y.sum(), x)
            assert torch.equal(found, (y != 0) * 4.0), "gradient"


def check_exact_zero(module: types.ModuleType) -> None:
    """Infinite and NaN values are dropped as well."""
    for value in (math.inf, math.nan):
        y = module.StochasticDepth(0.5)(torch.full((200,), value))
        assert 60 < int((y == 0).sum()) < 140, "infinite or NaN"


def check_no_state(module: types.ModuleType) -> None:
    """No keys, no parameters, a printout with the settings."""
    layer = module.StochasticDepth(0.2, "batch")
    layer(torch.ones(2, 2))
    assert not layer.state_dict(), "keys"
    assert not [*layer.buffers(), *layer.parameters()], "tensors"
    assert repr(layer) == "StochasticDepth(p=0.2, mode='batch')", "repr"


def check_fx(module: types.ModuleType) -> None:
    """symbolic_trace follows the layer, in the mode that it has at that time."""
    for mode in ("row", "batch"):
        layer, x = module.StochasticDepth(0.5, mode), nonzero(40, 3)
        traced = torch.fx.symbolic_trace(layer)
        torch.manual_seed(1)
        wanted = layer(x)
        torch.manual_seed(1)
        assert torch.equal(traced(x), wanted), "traced output"


def check_schedule(module: types.ModuleType) -> None:
    """Equal steps from last / blocks to last, which is exact."""
    for blocks in (1, 3, 22):
        for last in (0, 0.2, 0.5):
            rates = module.linear_schedule(blocks, last)
            assert type(rates) is list, "not a list"
            assert len(rates) == blocks, "length"
            assert all(type(rate) is float for rate in rates), "type"
            wanted = [last * k / blocks for k in range(1, blocks + 1)]
            assert rates == pytest.approx(wanted, abs=1e-12), "rates"
            assert rates[-1] == last, "last rate"
    # Huang et al. 2016, section 3: about 40 of 54 blocks at a survival of 0.5.
    alive = sum(1 - rate for rate in module.linear_schedule(54, 0.5))
    assert alive == pytest.approx(40.25)


def check_errors(module: types.ModuleType) -> None:
    """Each documented error, with name and value."""
    for value in BAD_RATES:
        want = f"must be a number in [0, 1), got {value!r}"
        assert refused(module.StochasticDepth, value) == f"p {want}", "message"
        assert refused(module.linear_schedule, 3, value) == f"last {want}", "message"
    for mode in ("rows", "", None, 0, "Batch"):
        message = refused(module.StochasticDepth, 0.5, mode)
        assert message == f"mode must be 'row' or 'batch', got {mode!r}", "message"
    for blocks in (0, -1, 2.0, True, None, "3"):
        message = refused(module.linear_schedule, blocks, 0.5)
        assert message == f"blocks must be an int of at least 1, got {blocks!r}", "text"


def test_battery() -> None:
    check(real)


# --- More of the real module --------------------------------------------------------


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_the_mean_over_many_draws_is_the_output_in_evaluation(mode: str) -> None:
    torch.manual_seed(0)
    layer, x = StochasticDepth(0.3, mode), nonzero(4, 3)
    mean = torch.stack([layer(x) for _ in range(3000)]).mean(0)
    assert torch.allclose(mean, layer.eval()(x), rtol=0.06)


def test_as_the_last_module_of_a_branch() -> None:
    """A dropped sample leaves the block unchanged; evaluation is the plain block."""
    torch.manual_seed(0)
    inner = nn.Linear(4, 4)
    block, x = Residual(nn.Sequential(inner, StochasticDepth(0.5))), nonzero(64, 4)
    y = block(x)
    dropped = (y == x).all(1)
    assert 16 < int(dropped.sum()) < 48
    assert torch.allclose(y[~dropped], (x + 2 * inner(x))[~dropped], atol=1e-5)
    assert torch.equal(block.eval()(x), inner(x) + x)
    assert [*block.state_dict()] == ["branch.0.weight", "branch.0.bias"]


def test_meta() -> None:
    y = StochasticDepth(0.5)(torch.empty(5, 4, device="meta"))
    assert (y.device.type, y.shape) == ("meta", (5, 4))


def test_seeded_draws_repeat() -> None:
    layer, x = StochasticDepth(0.5), torch.ones(64)
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(layer(x))
    assert torch.equal(*draws)


def test_empty_batch() -> None:
    for mode in ("row", "batch"):
        assert StochasticDepth(0.5, mode)(torch.ones(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies(twin: Any) -> None:
    assert repr(twin(StochasticDepth(0.2))) == "StochasticDepth(p=0.2, mode='row')"


def test_compile() -> None:
    """Parity in both modes: train() and eval() are seen after compilation."""
    torch._dynamo.reset()
    layer, x = StochasticDepth(0.5), torch.ones(32, 2)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for training in (True, False):
        layer.train(training)
        torch.manual_seed(0)
        wanted = layer(x)
        torch.manual_seed(0)
        assert torch.equal(compiled(x), wanted)


def test_a_schedule_makes_a_network() -> None:
    net = nn.Sequential(
        *(
            Residual(nn.Sequential(nn.Linear(4, 4), StochasticDepth(p)))
            for p in linear_schedule(4, 0.2)
        )
    )
    rates = [layer.p for layer in net.modules() if isinstance(layer, StochasticDepth)]
    assert rates == [0.05, 0.1, pytest.approx(0.15), 0.2]


# --- Mutants ------------------------------------------------------------------------

GUARD = "if not self.training or self.p == 0:"
ROWS = 'rows = x.shape[:1] if self.mode == "row" else (1,)'
DRAW = ".bernoulli_(self.p)"
DRAWN = f"drop = x.new_empty(rows + ones, dtype=torch.bool){DRAW}"
RESULT = "return (x / (1 - self.p)).masked_fill(drop, 0)"
RATES = "[last * (block / blocks) for block in range(1, blocks + 1)]"


def result(new: str) -> tuple[str, str]:
    """Return an edit of the last line of forward."""
    return RESULT, f"return {new}"


MUTANTS = (
    # The result.
    one("no rescaling", *result("x.masked_fill(drop, 0)"), "^kept"),
    one("divided by p", *result("(x / self.p).masked_fill(drop, 0)"), "^kept"),
    one("multiplied", *result("(x * (1 - self.p)).masked_fill(drop, 0)"), "^kept"),
    one("kept and dropped swapped", DRAW, ".bernoulli_(1 - self.p)", "rate"),
    one("one for dropped", RESULT, RESULT.replace("0)", "1)"), "rate"),
    one("times a mask", *result("x / (1 - self.p) * ~drop"), "infinite or NaN"),
    one("in place", RESULT, RESULT.replace("x /", "x.div_"), "input modified"),
    one("detached", RESULT, RESULT.replace("x /", "x.detach() /"), "no gradient"),
    one("cast", RESULT, f"{RESULT}.float()", "dtype"),
    one(
        "straight through",
        *result("x + ((x / (1 - self.p)).masked_fill(drop, 0) - x).detach()"),
        "kept|gradient|rate",
    ),
    # When it drops.
    one("drops in evaluation", GUARD, "if self.p == 0:", "^eval"),
    one("drops in evaluation alone", GUARD, GUARD.replace("not ", ""), "^eval"),
    one("p = 0 copies", GUARD, "if not self.training:", "p = 0"),
    one("evaluation copies", "return x\n", "return x.clone()\n", "^eval"),
    one("evaluation rescales", "return x\n", "return x * (1 - self.p)\n", "^eval"),
    # What it decides for.
    one("elements", DRAWN, DRAWN.replace("rows + ones", "x.shape"), "part of a row"),
    one("modes swapped", ROWS, ROWS.replace("==", "!="), "rate"),
    one("batches always", ROWS, "rows = (1,)", "rate"),
    one("rows always", ROWS, "rows = x.shape[:1]", "rate of batches"),
    Mutant(
        "channels",
        (
            (ROWS, ROWS.replace("[:1]", "[:2]")),
            ("x.dim() - 1)", "max(x.dim() - 2, 0))"),
        ),
        AssertionError,
        "part of a row",
    ),
    one(
        "half the rows, exactly",
        DRAWN,
        DRAWN.replace(DRAW, ".fill_(False)") + "; drop[: int(len(x) * self.p)] = True",
        "same decisions twice",
    ),
    one("seeded", GUARD, f"torch.manual_seed(0)\n        {GUARD}", "same decisions"),
    one(
        "counts the samples",
        "x.shape[:1] if",
        "(len(x),) if",
        "'len' is not supported in symbolic tracing",
        RuntimeError,
    ),
    # The shape of the class.
    one("no super", "super().__init__()", "pass", "_modules|training", AttributeError),
    one(
        "the decisions kept in a buffer",
        RESULT,
        f'self.register_buffer("drop", drop)\n        {RESULT}',
        "keys",
    ),
    one("no repr", "def extra_repr", "def other", "repr"),
    # The schedule.
    one("starts at zero", "(block / blocks)", "((block - 1) / blocks)", "^rates"),
    one("constant", "last * (block / blocks)", "last", "^rates"),
    one("falls", "range(1, blocks + 1)", "range(blocks, 0, -1)", "^rates"),
    one("survival", "last * (block / blocks)", "1 - last * block / blocks", "^rates"),
    one("one too many", "blocks + 1)", "blocks + 2)", "length"),
    one("a generator", RATES, f"({RATES[1:-1]})", "not a list"),
    one("inexact last", "last * (block / blocks)", "last / blocks * block", "last ra"),
    # The checks.
    one("p = 1 accepted", "0 <= value < 1", "0 <= value <= 1", "accepted"),
    one("negative p accepted", "0 <= value < 1", "value < 1", "accepted"),
    one("NaN accepted", "not 0 <= value < 1", "(value < 0 or value >= 1)", "accepted"),
    one("bool rate", " and not isinstance(value, bool)", "", "accepted"),
    one("int refused", "int | float)", "float)", "in .0, 1., got 0", ValueError),
    one("any mode", 'if mode not in ("row", "batch"):', "if False:", "accepted"),
    one("bool blocks", "isinstance(blocks, bool) or ", "", "accepted"),
    one("zero blocks", "or blocks < 1", "or blocks < 0", "accepted"),
    one("last unchecked", 'last = _rate("last", last)', "pass", "accepted|type"),
    one("no value", "[0, 1), got {value!r}", "[0, 1)", "message"),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_battery_kills(mutant: Mutant) -> None:
    kill(mutant, SOURCE, check)


def test_mutants_are_distinct() -> None:
    assert_distinct(MUTANTS)


def test_battery_accepts_equivalents() -> None:
    """The battery judges behaviour: a rewriting that changes none passes."""
    check(build(SOURCE, (result("torch.where(drop, 0, x / (1 - self.p))"),)))
