"""freeze: what an optimizer step changes and what it must not, errors and mutants."""

import copy
import pickle
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import snippets.freeze as real
from tests.snippets.mutation import Mutant, assert_distinct, build, kill, one

torch.set_num_threads(1)

SOURCE = Path(real.__file__).read_text(encoding="utf-8")

State = dict[str, torch.Tensor]


class Net(nn.Module):
    """A backbone with norms of both kinds, a head, and two names for one layer."""

    backbone: Any

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv1d(3, 4, 1),
            nn.BatchNorm1d(4),
            nn.Sequential(
                nn.Conv1d(4, 4, 1),
                nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
                nn.Dropout(0.5),
            ),
        )
        self.untracked = nn.BatchNorm1d(4, track_running_stats=False)
        self.head = nn.Linear(4, 2)
        self.alias = self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.untracked(self.backbone(x)).mean(2))
        return out


STATISTICS = {  # InstanceNorm leaves its counter at zero
    "backbone.1.running_mean",
    "backbone.1.running_var",
    "backbone.1.num_batches_tracked",
    "backbone.2.1.running_mean",
    "backbone.2.1.running_var",
}
PARAMETERS = {name for name, _ in Net().named_parameters()}
BACKBONE = {name for name in PARAMETERS if name.startswith("backbone.")}
INNER = {name for name in BACKBONE if name.startswith("backbone.2.")}


def changed(module: types.ModuleType, model: nn.Module) -> set[str]:
    """The names of the tensors that one training step in training mode changes.

    The optimizer holds all parameters, with momentum and weight decay.
    """
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=0.1)
    before = copy.deepcopy(model.state_dict())
    model(torch.randn(8, 3, 5)).square().sum().backward()
    optimizer.step()
    after = model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])} - {
        "alias.weight",
        "alias.bias",
    }


def refused(call: Any, *args: Any) -> str:
    """The message of the ValueError that the call must raise."""
    try:
        call(*args)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"accepted by {call.__name__}: {args[1:]}")


def net() -> Net:
    """A model with a gradient in every parameter, as after a step."""
    model = Net()
    model(torch.randn(8, 3, 5)).sum().backward()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model


# --- The battery --------------------------------------------------------------------


def check(module: types.ModuleType) -> None:
    """Assert all that the docstrings promise."""
    torch.manual_seed(0)
    check_freeze(module)
    check_unfreeze(module)
    check_statistics(module)
    check_errors(module)


def check_freeze(module: types.ModuleType) -> None:
    for names, frozen, fixed in (
        (["backbone"], BACKBONE, STATISTICS),
        (["backbone.2"], INNER, {name for name in STATISTICS if ".2." in name}),
        (["backbone.1.weight"], {"backbone.1.weight"}, set()),
        (["alias"], {"head.weight", "head.bias"}, set()),
        (["alias.bias", "backbone.0.bias"], {"head.bias", "backbone.0.bias"}, set()),
    ):
        model = net()
        keys = [*model.state_dict()]
        assert module.freeze(model, *names) is None
        assert [*model.state_dict()] == keys, "keys"
        left = {n for n, p in model.named_parameters() if p.grad is not None}
        assert left == PARAMETERS - frozen, f"gradients left: {names}"
        moved = changed(module, model)
        assert not moved & frozen, f"weights moved: {names}"
        assert not moved & fixed, f"statistics moved: {names}"
        assert moved == (PARAMETERS | STATISTICS) - frozen - fixed, f"stuck: {names}"
        trainable = {id(p) for p in module.trainable_parameters(model)}
        named = {n for n, p in model.named_parameters() if id(p) in trainable}
        assert named == PARAMETERS - frozen, f"trainable: {names}"
    model = net()
    module.freeze(model)
    assert module.trainable_parameters(model) == [], "all frozen"
    assert not model.backbone[1].training, "mode at once"
    assert model.train().backbone[2][2].training, "dropout"
    assert not model.backbone[1].training, "mode of a norm"
    with torch.no_grad():
        before = copy.deepcopy(model.state_dict())
        model(torch.randn(8, 3, 5))
    assert_equal(before, model.state_dict(), "all frozen")


def check_unfreeze(module: types.ModuleType) -> None:
    model = net()
    module.freeze(model)
    assert module.unfreeze(model, "backbone.2", "head.bias") is None
    moved = INNER | {"head.bias"} | {name for name in STATISTICS if ".2." in name}
    assert changed(module, model) == moved, "unfrozen in part"
    module.unfreeze(model)
    assert len(module.trainable_parameters(model)) == len(PARAMETERS), "each once"
    assert changed(module, model) == PARAMETERS | STATISTICS, "unfrozen"
    module.freeze(model.eval())
    module.unfreeze(model)
    assert not any(part.training for part in model.modules()), "mode after unfreeze"
    module.freeze(model.train())
    module.unfreeze(model)
    assert all(part.training for part in model.modules()), "mode after unfreeze"


def check_statistics(module: types.ModuleType) -> None:
    model = net()
    assert module.fix_statistics(model) is None
    assert changed(module, model) == PARAMETERS, "statistics moved or affine stuck"
    assert not model.backbone[1].training, "mode of a norm"
    assert model.backbone[0].training, "mode of the others"
    for twin in (copy.deepcopy(model), copy.deepcopy(copy.deepcopy(model))):
        assert changed(module, twin) == PARAMETERS, "copy"
        assert twin.backbone[1].train() is twin.backbone[1], "copy of another"
    module.unfreeze(model)
    assert changed(module, model) == PARAMETERS | STATISTICS, "unfrozen"
    module.fix_statistics(model, "backbone.1", "head")
    moved = PARAMETERS | {name for name in STATISTICS if ".2." in name}
    assert changed(module, model) == moved, "fixed in part"
    x, norm = torch.randn(8, 4, 5), model.backbone[1].train()
    mean, variance, scale, shift = (
        tensor.view(4, 1)
        for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    wanted = (x - mean) / (variance + norm.eps).sqrt() * scale + shift
    assert torch.allclose(norm(x), wanted, atol=1e-5), "normalised by the batch"


def check_errors(module: types.ModuleType) -> None:
    for call in (module.freeze, module.unfreeze, module.fix_statistics):
        model = net()
        if call is module.unfreeze:
            module.freeze(model)
        before = told(model)
        message = refused(call, model, "backbone", "hed")
        assert message.startswith("no part 'hed'; there are, for example, ['head'"), (
            "message"
        )
        assert told(model) == before, "changed before it was refused"
    message = refused(module.freeze, model, "zzz")
    assert message.endswith("['backbone', 'backbone.0', 'backbone.1']"), "message"
    before = told(model)
    message = refused(module.fix_statistics, model, "backbone", "head.bias")
    assert message == "names must be those of modules, got ('backbone', 'head.bias')"
    assert told(model) == before, "changed before it was refused"


def told(model: nn.Module) -> list[object]:
    """What the functions change."""
    flags: list[object] = [part.training for part in model.modules()]
    return flags + [(p.requires_grad, p.grad is None) for p in model.parameters()]


def assert_equal(left: State, right: State, said: str) -> None:
    assert [*left] == [*right], said
    assert all(torch.equal(left[key], right[key]) for key in left), said


def test_battery() -> None:
    check(real)


# --- More of the real module --------------------------------------------------------


def test_the_frozen_part_computes_what_it_did_in_eval_mode() -> None:
    x = torch.ones(2, 3, 5)
    model = nn.Sequential(nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4))
    wanted = model.eval()(x)
    real.freeze(model)
    assert torch.equal(model.train()(x), wanted)


def test_a_gradient_passes_through_a_frozen_part() -> None:
    first, norm, last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
    model = nn.Sequential(first, norm, last)
    real.freeze(model, "1", "2")
    model(torch.randn(5, 3)).square().sum().backward()
    assert first.weight.grad is not None
    assert first.weight.grad.abs().sum() > 0
    assert norm.weight.grad is None
    assert last.weight.grad is None


def test_a_pickled_model_stays_frozen() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4))
    real.fix_statistics(model)
    twin = pickle.loads(pickle.dumps(model)).train()
    assert not twin[0].training
    assert twin[0].train() is twin[0]


def test_freezing_twice_is_freezing_once() -> None:
    model = net()
    for _ in range(2):
        real.freeze(model, "backbone")
    real.unfreeze(model)
    assert changed(real, model) == PARAMETERS | STATISTICS


def test_a_state_dict_of_a_frozen_model_loads_into_a_plain_one() -> None:
    model = net()
    real.freeze(model)
    plain = Net()
    assert str(plain.load_state_dict(model.state_dict())).startswith("<All keys")
    assert len(real.trainable_parameters(plain)) == len(PARAMETERS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_frozen_through_moves(dtype: torch.dtype, device: str) -> None:
    model = net()
    real.freeze(model)
    model.to(device=device, dtype=dtype).train()
    assert real.trainable_parameters(model) == []
    assert not model.backbone[1].training


# --- Mutants ------------------------------------------------------------------------

SHADOW = 'vars(norm)["train"] = partial(_stay_in_eval, norm)'

MUTANTS = (
    one(
        "weights stay trainable",
        "requires_grad_(False)",
        "requires_grad_(True)",
        "moved",
    ),
    one(
        "stale gradient kept",
        "            parameter.grad = None\n",
        "",
        "gradients left",
    ),
    one("stale gradient zeroed", "grad = None", "grad = 0 * parameter.data", "left"),
    one(
        "statistics move",
        "            fix_statistics(part)\n",
        "            pass\n",
        "statistics moved: .'backbone'",
    ),
    one(
        "statistics of the whole model",
        "fix_statistics(part)",
        "fix_statistics(model)",
        "stuck: .'backbone.2'",
    ),
    one("undone by train", SHADOW, "pass", "statistics moved"),
    one("train mode left", "            norm.eval()\n", "", "mode at once"),
    one(
        "shadow bound to the first",
        SHADOW,
        'vars(norm)["train"] = lambda mode=True: _stay_in_eval(norm)',
        "copy of another",
    ),
    one("follows train", "train(norm, False)", "train(norm, mode)", "statistics moved"),
    one(
        "all modules in eval",
        'if getattr(module, "running_mean", None) is not None:',
        "if True:",
        "stuck|dropout|mode",
    ),
    one(
        "instance norm forgotten",
        'getattr(module, "running_mean", None) is not None',
        "isinstance(module, nn.BatchNorm1d)",
        "statistics moved",
    ),
    one(
        "children only",
        "in model.modules():",
        "in model.children():",
        "statistics moved",
    ),
    one(
        "unfreeze keeps weights",
        "requires_grad_(True)",
        "requires_grad_(False)",
        "does not require grad",
        RuntimeError,
    ),
    one(
        "unfreeze keeps statistics",
        'vars(norm).pop("train", None)',
        "pass",
        "unfrozen in part",
    ),
    one(
        "unfreeze pops what is not there",
        'pop("train", None)',
        'pop("train")',
        "train",
        KeyError,
    ),
    one("mode left", "                norm.train(model.training)\n", "", "mode after"),
    one(
        "train mode forced", "norm.train(model.training)", "norm.train()", "mode after"
    ),
    one("frozen listed", " if parameter.requires_grad]", "]", "trainable"),
    one(
        "frozen alone listed",
        "if parameter.requires_grad]",
        "if not parameter.requires_grad]",
        "trainable",
    ),
    one(
        "names ignored",
        "[known[name] for name in names] or [model]",
        "[model]",
        "gradients left",
    ),
    one("no name is nothing", " or [model]", "", "statistics moved"),
    one("typo passes", "if name not in known:", "if False:", "hed", KeyError),
    one("no near names", "get_close_matches(name, known)", "[]", "message"),
    one("no names at all", "known) or [*known][1:4]", "known)", "message"),
    one(
        "one name each",
        "**dict(model.named_modules(remove_duplicate=False))",
        "**dict(model.named_modules())",
        "no part 'alias'",
        ValueError,
    ),
    one(
        "no second parameter name",
        "named_parameters(remove_duplicate=False)",
        "named_parameters()",
        "alias.bias",
        ValueError,
    ),
    one(
        "no parameter names",
        "        **dict(model.named_parameters(remove_duplicate=False)),\n",
        "",
        "weight",
        ValueError,
    ),
    one(
        "parameter passes as a module",
        "if len(modules) < len(parts):",
        "if False:",
        "accepted",
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
            SOURCE,
            (("parameter.requires_grad_(False)", "parameter.requires_grad = False"),),
        )
    )
