# %% [markdown]
# # How hard is the identity? Zero-initialised residual branches
#
# Zero the last BatchNorm weight (gamma) of every branch, and a residual stack of any
# depth returns its non-negative input bit for bit; with the default gamma of one it
# does not. Asked to copy its input, the zeroed stack has nothing to learn, the default
# residual stack learns a copy faster than a mirror image, and the plain stack learns
# both equally slowly. In early training on digits zero gammas are no general gain: they
# slow a ResNet-14 down at a moderate learning rate, and help at one that is too large
# for the default.
#
# **What is measured.** First, stacks of up to 100 [residual
# blocks](../question/residual-block.md), untrained. Then 10 blocks, trained for 50
# steps to return their input, or its mirror image. Last, `cifar_resnet(14)` on
# scikit-learn's 8x8 digits, 30 steps from the start at two learning rates. Three seeds
# each; all three kinds of stack have the same convolutions and see the same batches:
#
# * *plain*: the layers of the blocks, without the skip;
# * *residual*: the block as PyTorch initialises it, gamma one;
# * *zero*: the same block with gamma zero in its last BatchNorm, `bn2.weight`.

# %%
import json
import statistics
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from snippets.residual_block import ResidualBlock
from snippets.resnet import BasicBlock, cifar_resnet

torch.set_num_threads(1)
SEEDS = [torch.initial_seed() + number for number in range(3)]
KINDS = ("plain", "residual", "zero")
Leaf = dict[str, float]


def build(kind: str, blocks: int, seed: int) -> nn.Sequential:
    """Return a stack of blocks, 8 channels wide, with weights from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stack = [ResidualBlock(8, 8) for _ in range(blocks)]
    if kind == "plain":  # the same layers in the same order, and no addition
        parts = [(b.conv1, b.bn1, b.relu, b.conv2, b.bn2, b.relu) for b in stack]
        return nn.Sequential(*(nn.Sequential(*layers) for layers in parts))
    if kind == "zero":
        for block in stack:
            nn.init.zeros_(block.bn2.weight)
    return nn.Sequential(*stack)


def spread(values: list[float]) -> Leaf:
    """Return mean and standard deviation over the seeds."""
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values)}


def text(leaf: Leaf) -> str:
    """Return a leaf as it is printed."""
    return f"{leaf['mean']:6.3f} +- {leaf['sd']:.3f}"


# %% [markdown]
# ## At initialisation: exact, at any depth
#
# The distance is that of output and input, relative to the input's norm.

# %%
DEPTHS = (1, 10, 100)
start: dict[str, dict[str, Leaf]] = {}
exact: list[bool] = []

print("||stack(x) - x|| / ||x|| after 1, 10 and 100 blocks, mean +- sd of three seeds")
for kind in KINDS:
    start[kind] = {}
    for blocks in DEPTHS:
        distances = []
        for seed in SEEDS:
            generator = torch.Generator().manual_seed(seed)
            signed = torch.randn(16, 8, 8, 8, generator=generator)
            x = signed.relu()
            net = build(kind, blocks, seed)
            with torch.no_grad():
                distances.append(((net(x) - x).norm() / x.norm()).item())
                if kind == "zero":
                    exact += [torch.equal(net(x), x), torch.equal(net(signed), x)]
                    exact += [torch.equal(net.eval()(x), x)]
        start[kind][str(blocks)] = spread(distances)
    print(f"{kind:9}", *(text(leaf) for leaf in start[kind].values()), sep="  ")
print("zero: bit for bit, in training and in evaluation:", all(exact))

# %% [markdown]
# With gamma one, ten residual blocks move their input by
# <data value="resnet/identity#start.residual.10">3.7</data> times its norm, and
# 100 blocks by <data value="resnet/identity#start.residual.100">13</data>. So a
# skip does not by itself make a stack start near the identity: BatchNorm gives each
# branch about unit variance, and the branches add up. The zeroed stack is at distance
# <data value="resnet/identity#start.zero.100">0</data> after 100 blocks. Each
# block returns `relu(0 + x)`, which is `x` for `x >= 0`; hence any number of them does.
# An input with negative entries comes back as `relu(x)`, which `exact` covers too.
#
# ## The first gradients: gamma, and nothing behind it
#
# Two steps of SGD from zero gammas, towards another batch as the target.


# %%
class Step(NamedTuple):
    """Gradient norms before one step, one number a layer, and the input's gradient."""

    gammas: list[float]
    convolutions: list[float]
    of_input: torch.Tensor


def two_steps(blocks: int, seed: int) -> list[Step]:
    """Take two steps from zero gammas and return the gradients of both."""
    generator = torch.Generator().manual_seed(seed)
    x, target = torch.randn(2, 16, 8, 8, 8, generator=generator).relu()
    x.requires_grad_()
    net = build("zero", blocks, seed)
    gammas = [block.bn2.weight for block in net]
    convolutions = [c.weight for b in net for c in (b.conv1, b.conv2)]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001)
    steps = []
    for _ in range(2):
        optimizer.zero_grad()
        x.grad = None
        (F.mse_loss(net(x), target, reduction="sum") / len(x)).backward()
        norms = [[p.grad.norm().item() for p in ps] for ps in (gammas, convolutions)]
        steps.append(Step(*norms, x.grad))
        optimizer.step()
    return steps


by_depth = {blocks: [two_steps(blocks, seed) for seed in SEEDS] for blocks in DEPTHS}
gradient: dict[str, dict[str, dict[str, Leaf]]] = {"gamma": {}, "conv": {}}
print("mean gradient norm of a layer, mean +- sd of three seeds")
for number in (0, 1):
    for blocks in DEPTHS:
        steps = [run[number] for run in by_depth[blocks]]
        gamma = spread([statistics.mean(step.gammas) for step in steps])
        conv = spread([statistics.mean(step.convolutions) for step in steps])
        for part, leaf in (("gamma", gamma), ("conv", conv)):
            gradient[part].setdefault(f"step{number + 1}", {})[str(blocks)] = leaf
        print(f"step {number + 1}, {blocks:3} blocks: gamma {text(gamma)}", end="")
        print(f"   convolution {text(conv)}")

# %% [markdown]
# In the first step, in ten blocks, the gradient of a gamma has a mean norm of
# <data value="resnet/identity#gradient.gamma.step1.10">18</data>, and that of a
# convolution is exactly
# <data value="resnet/identity#gradient.conv.step1.10">0</data>: on its way to the
# convolutions it is multiplied by gamma. One step later gamma has moved, and every
# convolution gets a gradient. In the first step the gradient of the *input* is the same
# bit for bit under 1, 10 and 100 blocks: backwards, too, the stack acts as if it were
# not there. A zero convolution before the zero gamma would be one zero too many: such a
# branch [never trains](../errors/silent-training.md#dead-branch).
#
# ## Ten blocks copy their input, or mirror it
#
# If the identity is all that is wanted of ten blocks, how fast do they find it? Inputs
# are the digits, averaged to 4x4, scaled to a variance of one, without negative
# entries, eight equal channels. Since the zeroed stack *is* the identity, its copy is
# no experiment; so a second target is the input mirrored left to right, where the
# identity is of no direct use. Adam, `lr=0.003`, 50 steps, batches of 64, mean squared
# error.

# %%
bunch = load_digits()
images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(bunch.target)

small = F.avg_pool2d(images, 2).repeat(1, 8, 1, 1)
small /= small.std()


def learn(kind: str, mirror: bool, seed: int, steps: int = 50) -> list[float]:
    """Train ten blocks and return the loss of each batch before its step."""
    net = build(kind, 10, seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
    losses = []
    for _ in range(steps):
        x = small[torch.randint(len(small), (64,), generator=generator)]
        loss = F.mse_loss(net(x), x.flip(-1) if mirror else x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def tail(losses: list[float]) -> float:
    """Return the mean of the last ten losses."""
    return statistics.mean(losses[-10:])


TARGETS = ("copy", "mirror")
curves = {
    (target, kind): [learn(kind, target == "mirror", seed) for seed in SEEDS]
    for target in TARGETS
    for kind in KINDS
}
asked: dict[str, dict[str, dict[str, Leaf]]] = {}
print("mean squared error: first batch, mean of the last ten batches")
for (target, kind), runs in curves.items():
    first, last = spread([run[0] for run in runs]), spread([tail(run) for run in runs])
    asked.setdefault(target, {})[kind] = {"first": first, "last": last}
    print(f"{target:7} {kind:9} {text(first)}   {text(last)}")

# %%
STYLES = {
    "plain": ("#c9541f", "--", "plain"),
    "residual": ("#3b7dd8", "-", "residual, gamma one"),
    "zero": ("#2f8f6b", "-.", "residual, gamma zero"),
}


def draw(axes: plt.Axes, runs: list[list[float]], kind: str) -> None:
    """Draw a thin line a seed and a thick one for their mean."""
    colour, dashes, label = STYLES[kind]
    for run in runs:
        axes.plot(run, color=colour, linestyle=dashes, linewidth=0.5)
    mean = [statistics.mean(values) for values in zip(*runs, strict=True)]
    axes.plot(mean, color=colour, linestyle=dashes, linewidth=2, label=label)


figure, both = plt.subplots(
    1, 2, figsize=(5.5, 3.4), sharey=True, constrained_layout=True
)
for axes, target in zip(both, TARGETS, strict=True):
    for kind in KINDS:
        draw(axes, curves[target, kind], kind)
    axes.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    axes.set_ylim(-0.002, 12)
    axes.set_xlabel(f"step, target: {target}")
both[0].set_ylabel("mean squared error")
both[1].legend(frameon=False, fontsize=8, loc="lower left")
plt.savefig("identity.svg")
plt.close()

# %% [markdown]
# ![Error over 50 steps, two panels. Copy: gamma zero stays at 0, gamma one starts
# highest and falls below plain. Mirror: all start above 0, and gamma zero ends lowest,
# gamma one next, plain highest.](identity.svg)
#
# Mean squared error of the last ten batches:
#
# * plain: copy <data value="resnet/identity#copy.plain.last">0.49</data>, mirror
#   image <data value="resnet/identity#mirror.plain.last">0.46</data>;
# * residual, gamma one: copy
#   <data value="resnet/identity#copy.residual.last">0.11</data>, mirror image
#   <data value="resnet/identity#mirror.residual.last">0.16</data>;
# * residual, gamma zero: copy
#   <data value="resnet/identity#copy.zero.last">0</data>, mirror image
#   <data value="resnet/identity#mirror.zero.last">0.10</data>.
#
# What that says:
#
# * **Plain**: no trace of the identity being easy. Copy and mirror image are equally
#   hard, within the spread of the seeds.
# * **Residual, gamma one**: it starts with an error of
#   <data value="resnet/identity#copy.residual.first">6.5</data> on the copy, where
#   plain has <data value="resnet/identity#copy.plain.first">1.7</data>, since its
#   output is too large. It overtakes the plain stack on the way, and ends with the copy
#   as the easier target.
# * **Residual, gamma zero**: the error of the copy is zero from the first batch on, and
#   so is every gradient: nothing is learned, because nothing is missing. It is also the
#   best at mirroring, for which it has to leave the identity: the small start helps
#   with more than the identity.
#
# ## Early training on digits
#
# The same choice in a network that has to classify: `cifar_resnet(14)`, cross-entropy,
# SGD with momentum `0.9`, batches of 32, a constant learning rate, no warm-up. The rate
# `0.05` trains the default network well; `0.8` was chosen as one that is too large for
# it.

# %%
RATES = {"moderate": 0.05, "large": 0.8}
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train = order[:1297]  # the other 500 are not needed here
pixels = (images - images[train].mean()) / images[train].std()


class Run(NamedTuple):
    """What one training leaves."""

    losses: list[float]  # one number a step
    gamma: float  # mean size of the gammas that may start at zero, after training


def classify(zero: bool, rate: float, seed: int, steps: int = 30) -> Run:
    """Train ResNet-14 for a few steps and return the loss of each batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = cifar_resnet(14, in_channels=1, zero_init_residual=zero)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    losses = []
    for _ in range(steps):
        batch = train[torch.randint(len(train), (32,), generator=generator)]
        loss = F.cross_entropy(net(pixels[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    blocks = [m for m in net.modules() if isinstance(m, BasicBlock)]
    gammas = torch.cat([block.bn2.weight.detach() for block in blocks])
    return Run(losses, gammas.abs().mean().item())


trained = {
    (rate, kind): [classify(kind == "zero", RATES[rate], seed) for seed in SEEDS]
    for rate in RATES
    for kind in ("residual", "zero")
}
digits: dict[str, dict[str, dict[str, Leaf]]] = {}
print("cross-entropy: mean of the first ten and of the last ten batches; then |gamma|")
for (rate, kind), results in trained.items():
    row = {
        "early": spread([statistics.mean(run.losses[:10]) for run in results]),
        "last": spread([tail(run.losses) for run in results]),
        "gamma": spread([run.gamma for run in results]),
    }
    digits.setdefault(rate, {})[kind] = row
    print(f"{rate:9} {kind:9}", *(text(leaf) for leaf in row.values()), sep="  ")

leaves = {"start": start, "gradient": gradient, **asked, "digits": digits}
Path("identity.json").write_text(json.dumps(leaves, indent=1))

# %%
figure, both = plt.subplots(
    1, 2, figsize=(5.5, 3.4), sharey=True, constrained_layout=True
)
for axes, rate in zip(both, RATES, strict=True):
    for kind in ("residual", "zero"):
        draw(axes, [run.losses for run in trained[rate, kind]], kind)
    axes.set_xlabel(f"step, {rate} learning rate")
    axes.set_yscale("log")
both[0].set_ylabel("cross-entropy of the batch")
both[0].legend(frameon=False, fontsize=8, loc="lower left")
plt.savefig("identity-digits.svg")
plt.close()

# %% [markdown]
# ![Cross-entropy over 30 steps, two panels. Moderate rate: gamma one falls quickly,
# gamma zero hardly falls in all 30 steps. Large rate: gamma one first jumps up and
# stays above gamma zero.](identity-digits.svg)
#
# Cross-entropy; guessing would cost `log(10)`, about `2.3`:
#
# * moderate rate, gamma one: first ten batches
#   <data value="resnet/identity#digits.moderate.residual.early">1.7</data>, last
#   ten <data value="resnet/identity#digits.moderate.residual.last">0.3</data>;
# * moderate rate, gamma zero: first ten
#   <data value="resnet/identity#digits.moderate.zero.early">2.3</data>, last ten
#   <data value="resnet/identity#digits.moderate.zero.last">2.0</data>;
# * large rate, gamma one: first ten
#   <data value="resnet/identity#digits.large.residual.early">4.5</data>, last ten
#   <data value="resnet/identity#digits.large.residual.last">2.2</data>;
# * large rate, gamma zero: first ten
#   <data value="resnet/identity#digits.large.zero.early">2.1</data>, last ten
#   <data value="resnet/identity#digits.large.zero.last">1.1</data>.
#
# What that says:
#
# * **Moderate rate**: zero gammas cost time. After 30 steps their mean size is
#   <data value="resnet/identity#digits.moderate.zero.gamma">0.02</data>, so the
#   branches still add little. That is a plausible reason, which this page does not
#   test.
# * **Large rate**: with gamma one the loss first jumps far above guessing and is back
#   near it after 30 steps. With gamma zero it falls from the start.
#
# The second case is the closer one to [Goyal et al.
# 2017](https://arxiv.org/abs/1706.02677), who use zero gammas with large batches,
# learning rates scaled up to match, and a warm-up. The last code cell checks what is
# said here, seed by seed except for three means.

# %%
# At initialisation: exact with zero gammas, and far from the identity without.
assert all(exact)
assert all(leaf["mean"] > 0.5 for leaf in start["residual"].values())

# First step: every gamma gets a gradient, no convolution does; second step: all do.
for blocks in DEPTHS:
    for one, two in by_depth[blocks]:
        assert min(one.gammas) > 0
        assert max(one.convolutions) == 0
        assert min(two.convolutions) > 0
for runs in zip(*by_depth.values(), strict=True):  # one seed, all depths
    assert all(torch.equal(run[0].of_input, runs[0][0].of_input) for run in runs)

# Copy and mirror image: plain last; the skip makes the copy the easier one.
assert max(max(run) for run in curves["copy", "zero"]) == 0
for number in range(len(SEEDS)):
    copy, mirror = (
        {kind: tail(curves[target, kind][number]) for kind in KINDS}
        for target in TARGETS
    )
    assert (
        curves["copy", "residual"][number][0] > 2 * curves["copy", "plain"][number][0]
    )
    assert copy["residual"] < 0.5 * copy["plain"]
    assert copy["residual"] < mirror["residual"]
    assert 1.2 * mirror["zero"] < mirror["residual"] < 0.6 * mirror["plain"]
residual = [asked[target]["residual"]["last"]["mean"] for target in TARGETS]
assert residual[0] < 0.85 * residual[1]
plain = [asked[target]["plain"]["last"]["mean"] for target in TARGETS]
assert 0.7 < plain[0] / plain[1] < 1.4

# Digits: slower at the moderate rate, better at the large one.
for number in range(len(SEEDS)):
    runs = {key: results[number].losses for key, results in trained.items()}
    assert tail(runs["moderate", "zero"]) > 3 * tail(runs["moderate", "residual"])
    mean = {kind: statistics.mean(runs["large", kind]) for kind in KINDS[1:]}
    assert mean["zero"] < 0.75 * mean["residual"]
large = {kind: row["last"]["mean"] for kind, row in digits["large"].items()}
assert large["zero"] < 0.85 * large["residual"]
print("every seed agrees")

# %% [markdown]
# ## Limits
#
# * **Bit for bit** needs a non-negative input, an identity shortcut and finite
#   branches: zero times infinity is not zero. Where the shape changes, the block starts
#   as `relu(shortcut(x))`. A [pre-activation block](https://arxiv.org/abs/1603.05027)
#   has no ReLU after the addition and would not need the sign.
# * **Copying** is measured after a fixed number of steps, with one optimiser and one
#   learning rate, on inputs of variance one. How far gamma one lags at the start
#   depends on that scale, since BatchNorm fixes the size of its branches. [He et al.
#   2015](https://arxiv.org/abs/1512.03385) offer the easy identity as a motivation, not
#   as an explanation proved; ten blocks asked to copy do not prove it either.
# * **Digits**: a few steps of a small network at two learning rates, one of them chosen
#   because the default fails there. Nothing here is about accuracy after full training,
#   and nothing shows that zero gammas are better at the best rate of each network.
#
# Related: [how to set the gammas](../compare/initialising.md#zero-init-residual), [what
# the block returns](../question/residual-block.md#output), ["easier to train", made
# precise](../question/claims.md#easier-to-train), [gradients at
# initialisation](gradient_flow.py).
