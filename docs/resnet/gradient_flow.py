# %% [markdown]
# # Does the gradient reach the first layer?
#
# In a plain stack that depends: at 30 blocks the gradient norm of the first layer is
# 10<sup><data value="resnet/gradient_flow#default.plain.30.ratio">-23.0</data></sup>
# times that of the last with PyTorch's default initialisation, about
# 10<sup><data value="resnet/gradient_flow#Kaiming.plain.30.ratio">-0.4</data></sup>
# times with Kaiming initialisation, and
# 10<sup><data value="resnet/gradient_flow#BatchNorm.plain.30.ratio">4.2</data></sup>
# times with BatchNorm. With skips the two norms stay within a factor of
# <data value="resnet/gradient_flow#within">14</data> of each other in all three
# settings. So "residual connections cure vanishing gradients" is imprecise: it is true
# of the first setting only; with BatchNorm they damp an explosion, and with Kaiming
# initialisation and no BatchNorm they cause one, which makes the residual stack the
# worse of the two.
#
# **What is measured.** Stacks of 2, 10 and 30 blocks of two 3x3 convolutions, 16
# channels wide, on 6x6 maps; ten random images, one for each of ten labels;
# cross-entropy; one pass forward and one backward at initialisation, in float64, since
# the smallest gradients are near the end of float32's range; five seeds. *First* and
# *last* are the first convolution of the first and of the last block. A plain stack and
# the residual stack beside it hold the same weights. [Further down](#after-20-steps)
# the stacks of 30 blocks are trained for 20 steps and measured again.

# %%
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.lines import Line2D
from torch import nn

torch.set_num_threads(1)
SEEDS = [torch.initial_seed() + number for number in range(5)]
SETTINGS = {  # name: (Kaiming initialisation, BatchNorm)
    "default": (False, False),
    "Kaiming": (True, False),
    "BatchNorm": (False, True),
}
STACKS = {"plain": False, "residual": True}  # name: with the skip?


class Block(nn.Module):
    """Two 3x3 convolutions, with or without BatchNorm, with or without the skip."""

    def __init__(self, width: int, norm: bool, skip: bool) -> None:
        super().__init__()
        make_norm = nn.BatchNorm2d if norm else nn.Identity
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=not norm)
        self.norm1 = make_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=not norm)
        self.norm2 = make_norm(width)
        self.skip = skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(out + x if self.skip else out)


class Task(NamedTuple):
    """A chain of blocks, the linear layer on its channel means, and one batch."""

    blocks: nn.Sequential
    head: nn.Linear
    images: torch.Tensor
    labels: torch.Tensor


# %% [markdown]
# Three settings: [PyTorch's default initialisation](../compare/initialising.md#default)
# and [Kaiming initialisation](https://arxiv.org/abs/1502.01852), both without
# normalisation, and the default initialisation with BatchNorm. Convolutions carry a
# bias where no BatchNorm follows. The [residual block](basic-block.md) of ResNet is the
# one with BatchNorm and skip; the block above can do without either.


# %%
def build(setting: str, stack: str, blocks: int, seed: int) -> Task:
    """Draw weights, images and labels from `seed`, in float32."""
    kaiming, norm = SETTINGS[setting]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chain = [Block(16, norm, STACKS[stack]) for _ in range(blocks)]
        head = nn.Linear(16, 10)
        if kaiming:
            for conv in [c for b in chain for c in (b.conv1, b.conv2)]:
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        images = torch.randn(10, 16, 6, 6)
    return Task(nn.Sequential(*chain), head, images, torch.arange(10))


class Flow(NamedTuple):
    """What one pass forward and one backward show, block by block."""

    gradients: list[float]  # norm, for the first convolution of the block
    features: list[float]  # root mean square of what the block returns
    differing: list[float]  # the same without the mean of the images
    loss: float

    @property
    def first(self) -> float:
        """Gradient norm of the first block, in decades."""
        return math.log10(self.gradients[0])

    @property
    def ratio(self) -> float:
        """First gradient norm over the last one, in decades."""
        return math.log10(self.gradients[0] / self.gradients[-1])

    @property
    def size(self) -> float:
        """Root mean square of the last features, in decades."""
        return math.log10(self.features[-1])

    @property
    def apart(self) -> float:
        """Differing part of the last features over all of them, in decades."""
        return math.log10(self.differing[-1] / self.features[-1])


def rms(x: torch.Tensor) -> float:
    """Return the root mean square: the norm over the root of the element count."""
    return x.square().mean().sqrt().item()


def observe(task: Task) -> Flow:
    """Take one pass forward and one backward, in float64."""
    maps = [task.images.double()]
    for block in task.blocks.double():
        maps.append(block(maps[-1]))
    logits = task.head.double()(maps[-1].mean((2, 3)))
    loss = nn.functional.cross_entropy(logits, task.labels)
    weights = [block.conv1.weight for block in task.blocks]
    return Flow(
        [gradient.norm().item() for gradient in torch.autograd.grad(loss, weights)],
        [rms(x) for x in maps[1:]],
        [rms(x - x.mean(0)) for x in maps[1:]],
        loss.item(),
    )


def cell(values: list[float]) -> str:
    """Format mean and standard deviation for the table."""
    mean = round(statistics.mean(values), 1) + 0.0  # no minus sign on a zero
    return f"{mean:6.1f} +- {statistics.stdev(values):.1f}"


def leaf(values: Iterable[float]) -> dict[str, float]:
    """Return mean and standard deviation for the results."""
    listed = list(values)
    return {"mean": statistics.mean(listed), "sd": statistics.stdev(listed)}


# %%
MEASURES = ("ratio", "first", "size", "apart")
flows: dict[tuple[str, str, int], list[Flow]] = {}
results: dict[str, dict] = {}

print("log10, mean +- standard deviation of five seeds")
print("stack               blocks   first/last       first     features    differing")
for setting in SETTINGS:
    results[setting] = {}
    for stack in STACKS:
        results[setting][stack] = {}
        for blocks in (2, 10, 30):
            runs = [observe(build(setting, stack, blocks, seed)) for seed in SEEDS]
            flows[setting, stack, blocks] = runs
            columns = {m: [getattr(run, m) for run in runs] for m in MEASURES}
            leaves = {measure: leaf(values) for measure, values in columns.items()}
            results[setting][stack][str(blocks)] = leaves
            cells = [cell(values) for values in columns.values()]
            print(f"{setting:9} {stack:8} {blocks:7}", *cells)

# %% [markdown]
# In *first/last* 0 means equal norms, -3 a thousandth and 3 a thousandfold. *Features*
# is the root mean square of what the last block returns, and *differing* the share of
# it that is left without the mean of the ten images.
#
# * **Default, plain**: the gradient vanishes, by
#   <data value="resnet/gradient_flow#decay">0.8</data> decades a block. The features do
#   not: the biases keep them alive. What vanishes is the difference between images,
#   down to the rounding of float64.
# * **Default, residual**: the gradient does not vanish. Here the sentence is true.
# * **Kaiming, plain**: there is little to cure. Over 30 blocks the ratio changes by
#   <data value="resnet/gradient_flow#Kaiming.plain.30.ratio">-0.4</data> decades. Yet
#   the share that differs falls to
#   10<sup><data value="resnet/gradient_flow#Kaiming.plain.30.apart">-1.7</data></sup>.
# * **Kaiming, residual**: the ratio looks harmless, but each block multiplies the mean
#   square of the features by <data value="resnet/gradient_flow#growth">2.1</data>. At
#   30 blocks the features are
#   10<sup><data value="resnet/gradient_flow#Kaiming.residual.30.size">4.6</data></sup>
#   and the first gradient is
#   10<sup><data value="resnet/gradient_flow#Kaiming.residual.30.first">4.2</data></sup>
#   against
#   10<sup><data value="resnet/gradient_flow#Kaiming.plain.30.first">-2.2</data></sup>
#   in the plain stack.
# * **BatchNorm, plain**: the gradient *grows* towards the input, though BatchNorm holds
#   the features at one size.
# * **BatchNorm, residual**: it grows too, by
#   <data value="resnet/gradient_flow#BatchNorm.residual.30.ratio">1.1</data> decades
#   instead of <data value="resnet/gradient_flow#BatchNorm.plain.30.ratio">4.2</data>.
#
# ## Block by block
#
# The same stacks of 30 blocks, seen at every block. Thin lines are single seeds, thick
# ones their geometric mean; the input is on the left.

# %%
LOOKS = {"plain": ("#c9541f", "s", "--"), "residual": ("#3b7dd8", "o", "-")}


def geometric_mean(curves: list[list[float]]) -> list[float]:
    """Return the mean of the logarithms of several curves, point by point."""
    return [statistics.geometric_mean(points) for points in zip(*curves, strict=True)]


figure, axes = plt.subplots(3, 2, sharex=True, figsize=(4.8, 6), layout="constrained")
numbers = range(1, 31)
for setting, row in zip(SETTINGS, axes, strict=True):
    for ax, measure in zip(row, ("gradients", "features"), strict=True):
        for stack, (colour, marker, line) in LOOKS.items():
            curves = [getattr(run, measure) for run in flows[setting, stack, 30]]
            for curve in curves:
                ax.semilogy(numbers, curve, color=colour, linewidth=0.4)
            mean = geometric_mean(curves)
            ax.semilogy(numbers, mean, line, color=colour, marker=marker, markevery=7)
    row[0].set_ylabel(setting)
    row[1].set_ylim(1e-2, 1e6)
for ax, heading in zip(axes[0], ("gradient norm", "size of features"), strict=True):
    ax.set_title(heading, fontsize="medium")
for ax in axes[-1]:
    ax.set_xlabel("block")
    ax.set_xticks([1, 10, 20, 30])
handles = [
    Line2D([], [], color=colour, marker=marker, linestyle=line, label=stack)
    for stack, (colour, marker, line) in LOOKS.items()
]
figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
plt.savefig("gradient_flow.svg")

# %% [markdown]
# ![Gradient norm and feature size over 30 blocks, plain and residual. Towards the input
# the plain gradient falls by more than twenty decades with the default initialisation,
# stays level with Kaiming and rises by four decades with BatchNorm; the residual one is
# nearly level everywhere, but four decades up with Kaiming, where its features grow
# from block to block.](gradient_flow.svg)
#
# ## After 20 steps
#
# Each stack of 30 blocks takes 20 steps of SGD with `lr=0.01` on its one batch, in
# float32 as usual; three seeds. The result is measured in float64 again. A stack that
# gives every label the same probability has a loss of `log(10)`.


# %%
class Trained(NamedTuple):
    """What up to 20 steps of SGD do to one stack of 30 blocks."""

    losses: list[float]  # before each step; the last one may be NaN
    growth: float  # norm of the first layer's weight, after over before
    flow: Flow | None  # after the last step; None if a loss was not finite


def train(setting: str, stack: str, seed: int, dtype: torch.dtype) -> Trained:
    """Take 20 steps on the one batch, fewer if the loss stops being finite."""
    task = build(setting, stack, 30, seed)
    parameters = nn.ModuleList([task.blocks, task.head]).to(dtype).parameters()
    sgd = torch.optim.SGD(parameters, lr=0.01)
    weight = task.blocks[0].conv1.weight
    norm = weight.norm().item()
    losses: list[float] = []
    for _ in range(20):
        maps = task.blocks(task.images.to(dtype))
        loss = nn.functional.cross_entropy(task.head(maps.mean((2, 3))), task.labels)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            return Trained(losses, math.nan, None)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    return Trained(losses, weight.norm().item() / norm, observe(task))


# %%
runs_after: dict[tuple[str, str], list[Trained]] = {}

print("after 20 steps, mean +- standard deviation of three seeds")
print("                           loss    first/last*        first*       weight")
for setting in SETTINGS:
    for stack in STACKS:
        runs = [train(setting, stack, seed, torch.float32) for seed in SEEDS[:3]]
        runs_after[setting, stack] = runs
        seen = [run.flow for run in runs if run.flow]
        after = {"finite": len(seen)}
        results[setting][stack]["after"] = after
        row = f"{setting:9} {stack:8}"
        if len(seen) < len(runs):
            print(row, f"    {len(seen)} of {len(runs)} runs are finite")
            continue
        columns = {m: [getattr(flow, m) for flow in seen] for m in MEASURES}
        columns["loss"] = [flow.loss for flow in seen]
        columns["weight"] = [run.growth for run in runs]
        after |= {m: leaf(values) for m, values in columns.items()}
        shown = ("loss", "ratio", "first", "weight")
        print(row, *(cell(columns[measure]) for measure in shown), sep="  ")
print("* log10; weight: norm of the first layer's, times what it was")

double = [train("Kaiming", "residual", seed, torch.float64) for seed in SEEDS[:3]]

# %% [markdown]
# * **Kaiming, residual**:
#   <data value="resnet/gradient_flow#Kaiming.residual.after.finite">0</data> of the
#   three runs stay finite. The loss is no longer a number after
#   <data value="resnet/gradient_flow#steps.float32">1</data> step in float32 and after
#   <data value="resnet/gradient_flow#steps.float64">2</data> in float64: the step is
#   the gradient times `lr`, thousands of times too long. The plain stack stays finite.
# * **BatchNorm, plain**: the explosion is over. From
#   <data value="resnet/gradient_flow#BatchNorm.plain.30.ratio">4.2</data> the ratio
#   falls to <data value="resnet/gradient_flow#BatchNorm.plain.after.ratio">-0.7</data>
#   decades. BatchNorm ignores the scale of the weights before it, so that the long
#   first step cannot blow up the features; it makes the first weight
#   <data value="resnet/gradient_flow#BatchNorm.plain.after.weight">33</data> times as
#   long, and the gradient shrinks as the weight grows.
# * **BatchNorm, residual**: the only stack that has learned its ten images, with a loss
#   of <data value="resnet/gradient_flow#BatchNorm.residual.after.loss">0.22</data>; the
#   plain one is at
#   <data value="resnet/gradient_flow#BatchNorm.plain.after.loss">2.13</data>.
# * **Default**: both ratios are what they were. With skips the gradient arrives, and
#   yet the loss is
#   <data value="resnet/gradient_flow#default.residual.after.loss">2.31</data>: these
#   steps are short.
# * **Kaiming, plain**: finite, level and no better than guessing,
#   <data value="resnet/gradient_flow#Kaiming.plain.after.loss">2.31</data>.
#
# So a gradient that arrives is not yet a network that learns, and an explosion at
# initialisation may be gone before anyone looks.
#
# The cells below write the results and check all this for every seed, not for the mean.


# %%
def ratios(setting: str, stack: str, blocks: int = 30) -> list[float]:
    """Return first over last, in decades, for every seed."""
    return [run.ratio for run in flows[setting, stack, blocks]]


def sizes(setting: str, stack: str, blocks: int = 30) -> list[float]:
    """Return the size of the last features, in decades, for every seed."""
    return [run.size for run in flows[setting, stack, blocks]]


def ends(setting: str, stack: str) -> list[Flow]:
    """Return what is seen after 20 steps, for every seed that stayed finite."""
    return [run.flow for run in runs_after[setting, stack] if run.flow]


worst = max(abs(ratio) for setting in SETTINGS for ratio in ratios(setting, "residual"))
growth = [
    (run.features[-1] / run.features[0]) ** (2 / 29)
    for run in flows["Kaiming", "residual", 30]
]
results |= {
    "within": 10**worst,  # first and last of every residual stack of 30 blocks
    "decay": leaf(-ratio / 29 for ratio in ratios("default", "plain")),
    "growth": leaf(growth),  # of the mean square, a block
    "steps": {
        "float32": max(len(r.losses) - 1 for r in runs_after["Kaiming", "residual"]),
        "float64": max(len(run.losses) - 1 for run in double),
    },
}
Path("gradient_flow.json").write_text(json.dumps(results, indent=1))

# %%
# Vanishing: the plain stack at the default initialisation, and only there.
assert max(ratios("default", "plain")) < -20
assert min(ratios("default", "residual")) > -1.4
assert min(ratios("Kaiming", "plain")) > -2.5

# Without BatchNorm the skip makes Kaiming-initialised features grow.
assert max(sizes("Kaiming", "plain")) < 0
assert min(ratios("Kaiming", "residual")) > -1.4
assert min(sizes("Kaiming", "residual")) > 2.5

# Exploding: the plain stack with BatchNorm; the skip leaves a small part of it.
assert min(ratios("BatchNorm", "plain")) > 2.5
assert min(ratios("BatchNorm", "residual")) > 0
assert max(ratios("BatchNorm", "residual")) < 1.4

# At two blocks none of this shows: first and last are within a factor of ten.
for setting in SETTINGS:
    for stack in STACKS:
        assert all(abs(ratio) < 1 for ratio in ratios(setting, stack, 2))

# %%
# After 20 steps: the explosion is gone and the vanished gradient is as small as before.
assert max(flow.ratio for flow in ends("default", "plain")) < -20
assert max(abs(flow.ratio) for flow in ends("default", "residual")) < 1.4
assert max(abs(flow.ratio) for flow in ends("BatchNorm", "residual")) < 1.4
assert max(flow.ratio for flow in ends("BatchNorm", "plain")) < 1
assert min(run.growth for run in runs_after["BatchNorm", "plain"]) > 3

# Kaiming with skips: not finite after at most two steps, in float64 after three.
assert not ends("Kaiming", "residual")
assert all(len(run.losses) <= 3 for run in runs_after["Kaiming", "residual"])
assert all(len(run.losses) <= 4 and not run.flow for run in double)

# Only BatchNorm with skips has learned its batch; guessing evenly costs log(10).
for setting in SETTINGS:
    for stack in STACKS:
        losses = [flow.loss for flow in ends(setting, stack)]
        if (setting, stack) == ("BatchNorm", "residual"):
            assert max(losses) < 0.25 * math.log(10)
        else:
            assert all(loss > 0.75 * math.log(10) for loss in losses)
print("every seed agrees")

# %% [markdown]
# ## Where the textbook sentence holds
#
# "Skip connections cure vanishing gradients" holds for a deep stack whose layers shrink
# the differences between images and are not normalised. It does not describe the plain
# networks of [He et al. 2015](https://arxiv.org/abs/1512.03385): those have BatchNorm,
# and the authors call vanishing gradients an unlikely cause of their trouble. Plain
# networks with BatchNorm have the opposite one at initialisation, and it grows with
# depth ([Yang et al. 2019](https://arxiv.org/abs/1902.08129)). Nor is a skip enough by
# itself: without normalisation the branches must start small, as with the default
# initialisation here or with [Fixup](https://arxiv.org/abs/1901.09321); otherwise the
# features grow as in the Kaiming rows.
#
# ## Limits
#
# At two blocks none of this shows: first and last are within a factor of ten. Twenty
# steps on one batch are no training: they say nothing about test data, about longer
# runs or about other step sizes. Smaller steps, gradient clipping and Adam, whose step
# does not grow with the gradient, were not tried on the stack that becomes NaN. The
# norm of a gradient says nothing about its direction. The images are noise, and other
# widths, maps and batch sizes move the numbers.
#
# ## Related
#
# * [Easier to train](../question/claims.md#easier-to-train): the claim, in a smaller
#   block.
# * [Can the gradient of a residual block vanish?](basic-block.md#vanish): the Jacobian.
# * [zero_init_residual](../compare/initialising.md#zero-init-residual): branches that
#   start at zero.
# * [A skip connection around any module](../recipes/residual.md): for blocks of your
#   own.
