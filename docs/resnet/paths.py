# %% [markdown]
# # Delete a block of a trained ResNet: many paths against one
#
# Delete one block of a trained residual network and it loses little: test accuracy goes
# from <data value="resnet/paths#residual.whole">97 %</data> to
# <data value="resnet/paths#residual.deleted">95 %</data>, mean over the eight blocks,
# while a plain network with the same layers falls from
# <data value="resnet/paths#plain.whole">95 %</data> to
# <data value="resnet/paths#plain.deleted">13 %</data>, chance level. So the later
# blocks of the residual network depend little on any one earlier block, which fits the
# picture of many paths through it. It is no general permission: without all eight
# blocks <data value="resnet/paths#residual.stripped">43 %</data> is left, and a
# convolutional ResNet-14 falls to
# <data value="resnet/paths#convolutional.block1">50 %</data> without its first block.
#
# **What is measured.** Networks of 18 linear layers, 64 wide, with BatchNorm: stem,
# eight blocks of two layers, last layer. Plain and residual start from the same weights
# and see the same batches of scikit-learn's digits, 8x8 pixels, 1437 for training and
# 360 for the test; three seeds. Blocks are deleted, swapped and removed *after*
# training, and nothing is trained again. One test image is about a quarter of a
# percentage point. Numbers in the text are means over the seeds; the tables add the
# standard deviation.

# %%
import copy
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from snippets.residual import Residual
from snippets.resnet import BasicBlock, cifar_resnet

torch.set_num_threads(1)
SEEDS = [torch.initial_seed() + number for number in range(3)]
BLOCKS, WIDTH, TRAINED_ON = 8, 64, 1437

pixels, digits = load_digits(return_X_y=True)
split = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
images = torch.tensor(pixels, dtype=torch.float32)[split]
images = (images - images[:TRAINED_ON].mean()) / images[:TRAINED_ON].std()
labels = torch.tensor(digits)[split]

# %% [markdown]
# ## The network is one Sequential of blocks
#
# A block is a Module with one input and one output of the same shape. So the network is
# an `nn.Sequential`: stem, eight blocks, last layer. The residual block wraps its
# branch in [`Residual`](../recipes/residual.md); the plain block is the branch without
# the wrapper. Both end with a ReLU, as in ResNet-18.


# %%
def block(skip: bool) -> nn.Sequential:
    """Return relu(F(x) + x) with the skip, relu(F(x)) without: (N, 64) to (N, 64)."""
    branch = nn.Sequential(
        nn.Linear(WIDTH, WIDTH),
        nn.BatchNorm1d(WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.BatchNorm1d(WIDTH),
    )
    return nn.Sequential(Residual(branch) if skip else branch, nn.ReLU())


def perceptron(skip: bool, seed: int) -> nn.Sequential:
    """Return 18 linear layers; both kinds get the same weights from one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stem = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU())
        blocks = [block(skip) for _ in range(BLOCKS)]
        net = nn.Sequential(stem, *blocks, nn.Linear(WIDTH, 10))
        for layer in net.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
    return net


def train(net: nn.Module, x: torch.Tensor, epochs: int, batch: int, seed: int) -> None:
    """Train on the first images, in an order that depends on the seed alone."""
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    net.train()
    for _ in range(epochs):
        for rows in torch.randperm(TRAINED_ON, generator=order).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), labels[rows]).backward()
            optimizer.step()
        decay.step()
    net.eval()


@torch.no_grad()
def accuracy(net: nn.Module, x: torch.Tensor) -> float:
    """Return the share of test images whose digit the net names."""
    right = net(x[TRAINED_ON:]).argmax(1) == labels[TRAINED_ON:]
    return right.float().mean().item()


# %% [markdown]
# ## Operations on the trained network
#
# Since the network is a chain, every operation is a new order of its parts. `rebuilt`
# makes a second `nn.Sequential` of the *same* Modules: nothing is copied, nothing is
# trained, and the trained network stays as it is. `del net[3]` would do for one
# deletion, but changes the network itself ([what it does to the
# names](../compare/names-and-editing.md#delete)).
#
# `renormalized` is a control. BatchNorm in `eval` mode divides by the variance that it
# saw in training, and after a deletion its inputs have another one. The control takes
# mean and variance anew, from one pass over the training images, and leaves the weights
# alone. What is lost even then is not lost by stale statistics.


# %%
def rebuilt(net: nn.Sequential, order: Sequence[int]) -> nn.Sequential:
    """Return the chain of the parts of `net` in `order`; they are shared."""
    return nn.Sequential(*[net[position] for position in order])


def without(net: nn.Sequential, *positions: int) -> nn.Sequential:
    """Return the chain that lacks the parts at `positions`."""
    return rebuilt(net, [i for i in range(len(net)) if i not in positions])


def swapped(net: nn.Sequential, position: int) -> nn.Sequential:
    """Return the chain in which a part and the next one have changed places."""
    order = list(range(len(net)))
    order[position : position + 2] = [position + 1, position]
    return rebuilt(net, order)


@torch.no_grad()
def renormalized(net: nn.Sequential) -> nn.Sequential:
    """Return a copy whose BatchNorms have the statistics of all training images."""
    net = copy.deepcopy(net)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean of all passes, here of one
    net.train()
    net(images[:TRAINED_ON])
    return net.eval()


@torch.no_grad()
def branch_ratios(net: nn.Sequential) -> list[float]:
    """Return the mean of |F(x)| / |x| over the test images, for every block."""
    x, ratios = net[0](images[TRAINED_ON:]), []
    for part in net[1:-1]:
        ratio = part[0].branch(x).norm(dim=1) / x.norm(dim=1)
        ratios.append(ratio.mean().item())
        x = part(x)
    return ratios


class Lesions(NamedTuple):
    """Test accuracies of one network after each operation."""

    whole: float
    deleted: list[float]  # by position of the block
    swapped: list[float]  # by position of the first of the two
    halved: float  # without blocks 2, 4, 6 and 8
    stripped: float  # without any block: stem and last layer
    renormalized: list[float]  # as `deleted`, with new statistics in BatchNorm


def lesions(net: nn.Sequential) -> Lesions:
    """Apply every operation to one trained network."""
    blocks = range(1, BLOCKS + 1)
    return Lesions(
        whole=accuracy(net, images),
        deleted=[accuracy(without(net, i), images) for i in blocks],
        swapped=[accuracy(swapped(net, i), images) for i in blocks[:-1]],
        halved=accuracy(without(net, *blocks[1::2]), images),
        stripped=accuracy(without(net, *blocks), images),
        renormalized=[accuracy(renormalized(without(net, i)), images) for i in blocks],
    )


# %% [markdown]
# ## Delete one, swap two, remove every second
#
# Training takes 20 epochs in batches of 128, by SGD with `lr=0.05` and `momentum=0.9`;
# the learning rate falls to zero along a cosine. In the table `deleted` is the mean
# over the eight single deletions, `deleted later` over those of blocks 2 to 8, `deleted
# highest` the mildest of the eight, and `swapped` the mean over the seven swaps of
# neighbours; `halved` lacks blocks 2, 4, 6 and 8, `stripped` all eight; `renormalized`
# is `deleted` under the control.


# %%
def spread(values: Sequence[float]) -> dict[str, float]:
    """Return mean and standard deviation over the seeds."""
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values)}


def summary(runs: Sequence[Lesions]) -> dict[str, dict[str, float]]:
    """Return every operation's accuracy; means are over the positions."""
    return {
        "whole": spread([run.whole for run in runs]),
        "deleted": spread([statistics.mean(run.deleted) for run in runs]),
        "deleted_first": spread([run.deleted[0] for run in runs]),
        "deleted_later": spread([statistics.mean(run.deleted[1:]) for run in runs]),
        "deleted_highest": spread([max(run.deleted) for run in runs]),
        "swapped": spread([statistics.mean(run.swapped) for run in runs]),
        "halved": spread([run.halved for run in runs]),
        "stripped": spread([run.stripped for run in runs]),
        "renormalized": spread([statistics.mean(run.renormalized) for run in runs]),
        "renormalized_first": spread([run.renormalized[0] for run in runs]),
    }


measured: dict[str, list[Lesions]] = {"residual": [], "plain": []}
ratios: list[list[float]] = []
for seed in SEEDS:
    for kind, skip in (("residual", True), ("plain", False)):
        net = perceptron(skip, seed)
        train(net, images, epochs=20, batch=128, seed=seed)
        measured[kind].append(lesions(net))
        if skip:
            ratios.append(branch_ratios(net))

results: dict[str, dict[str, dict[str, float]]] = {
    kind: summary(runs) for kind, runs in measured.items()
}
table = ["test accuracy in %, mean +- sd of 3 seeds    residual         plain"]
for operation in results["residual"]:
    cells = [
        f"{100 * results[kind][operation]['mean']:5.1f} +- "
        f"{100 * results[kind][operation]['sd']:3.1f}"
        for kind in measured
    ]
    table.append(f"{operation.replace('_', ' '):38} {cells[0]:>14} {cells[1]:>14}")
print("\n".join(table))

# %% [markdown]
# * **Delete one block.** The residual network keeps
#   <data value="resnet/paths#residual.deleted_later">96 %</data> without one of blocks
#   2 to 8. Block 1 costs most:
#   <data value="resnet/paths#residual.deleted_first">86 %</data> are left. Of the plain
#   network's eight deletions the mildest leaves
#   <data value="resnet/paths#plain.deleted_highest">24 %</data>.
# * **Swap two neighbours.** <data value="resnet/paths#residual.swapped">97 %</data>
#   against <data value="resnet/paths#plain.swapped">10 %</data>.
# * **Remove every second block.** Half of the blocks are gone:
#   <data value="resnet/paths#residual.halved">84 %</data> against
#   <data value="resnet/paths#plain.halved">9 %</data>. Here the residual network loses
#   something as well, and its seeds differ widely.
# * **Remove all blocks.** Stem and last layer of the residual network alone still name
#   <data value="resnet/paths#residual.stripped">43 %</data> of the digits, although
#   they were never trained to stand side by side.
# * **New statistics for BatchNorm** do not bring the plain network back:
#   <data value="resnet/paths#plain.renormalized">15 %</data>. To the residual network
#   they give back a part of what the loss of block 1 took:
#   <data value="resnet/paths#residual.renormalized_first">93 %</data>.
#
# ## How much each block changes its input
#
# A part of the reason can be read off the blocks. |F(x)| / |x| compares the length of
# what a residual block adds with that of what it was given; both vectors have 64
# entries. For a plain block there is no such ratio: it replaces its input.

# %%
by_block = [spread(values) for values in zip(*ratios, strict=True)]
results["ratio"] = {f"block{i}": value for i, value in enumerate(by_block, 1)}
for i, value in enumerate(by_block, 1):
    print(f"block {i}: |F(x)| / |x| = {value['mean']:.2f} +- {value['sd']:.2f}")

# %% [markdown]
# The branch of block 1 adds <data value="resnet/paths#ratio.block1">0.51</data> of its
# input's length, that of block 8 <data value="resnet/paths#ratio.block8">0.28</data>.
# On average the block that adds most, block 1, is also the one whose loss costs most. A
# deletion takes away the smaller part of what the next block reads.
#
# ## A convolutional ResNet: the first blocks count
#
# The same with `cifar_resnet(14)` of
# [`resnet.py`](../question/choosing.md#whole-network), a Sequential as well: six blocks
# in three stages of 16, 32 and 64 channels, trained for 4 epochs in batches of 64.
# Blocks 3 and 5 halve the map and double the channels, so they cannot just be left out.
# Here to delete a block is to delete its branch: the shortcut takes its place. The last
# ReLU of the block changes nothing then, since the input is not negative.


# %%
def convolutional(seed: int) -> nn.Sequential:
    """Return a trained ResNet-14 of CIFAR's kind for images of one channel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = cifar_resnet(14, in_channels=1)
    train(net, images.view(-1, 1, 8, 8), epochs=4, batch=64, seed=seed)
    return net


def convolutional_lesions(net: nn.Sequential) -> tuple[float, list[float]]:
    """Return test accuracy whole and with each block replaced by its shortcut."""
    x = images.view(-1, 1, 8, 8)
    deleted = []
    blocks = {n: m for n, m in net.named_modules() if isinstance(m, BasicBlock)}
    for name, part in blocks.items():
        net.set_submodule(name, part.downsample or nn.Identity())
        deleted.append(accuracy(net, x))
        net.set_submodule(name, part)
    return accuracy(net, x), deleted


convolved = [convolutional_lesions(convolutional(seed)) for seed in SEEDS]
results["convolutional"] = {"whole": spread([whole for whole, _ in convolved])}
for i in range(6):
    results["convolutional"][f"block{i + 1}"] = spread([d[i] for _, d in convolved])
for name, value in results["convolutional"].items():
    print(f"{name:7} {100 * value['mean']:5.1f} +- {100 * value['sd']:4.1f} %")
Path("paths.json").write_text(json.dumps(results, indent=1))

# %% [markdown]
# ## All deletions in one figure

# %%
SERIES = {
    "residual": ("residual, 18 linear layers", "#3b7dd8", "o-"),
    "convolutional": ("residual, convolutional ResNet-14", "#2f8f6b", "^-."),
    "plain": ("plain, 18 linear layers", "#c9541f", "s--"),
}
by_position = {kind: [run.deleted for run in runs] for kind, runs in measured.items()}
by_position["convolutional"] = [deleted for _, deleted in convolved]

plt.figure(figsize=(5.5, 3.4), layout="constrained")
for kind, (name, colour, line) in SERIES.items():
    points = [spread(values) for values in zip(*by_position[kind], strict=True)]
    means = [100 * point["mean"] for point in points]
    bars = [100 * point["sd"] for point in points]
    plt.errorbar(
        range(1, len(points) + 1), means, bars, fmt=line, color=colour, label=name
    )
plt.axhline(10, color="#000000", linewidth=0.8, linestyle=":")
plt.xlim(0.6, BLOCKS + 0.4)
plt.text(BLOCKS + 0.5, 10, "chance", verticalalignment="center")
plt.xlabel("block that was deleted, counted from the input")
plt.ylabel("test accuracy, %")
plt.xticks(range(1, BLOCKS + 1))
plt.ylim(0, 105)
plt.legend(loc="center right")
plt.savefig("paths.svg")

# %% [markdown]
# ![Test accuracy after one block was deleted, by position of the block. The residual
# network of linear layers loses about a tenth at block 1 and almost nothing from block
# 3 on, the convolutional one rises from a deep fall at block 1 to its full accuracy at
# block 6, and the plain one is near chance throughout. Bars show one standard deviation
# over three seeds.](paths.svg)
#
# The convolutional network has
# <data value="resnet/paths#convolutional.whole">98 %</data> whole, and
# <data value="resnet/paths#convolutional.block1">50 %</data>,
# <data value="resnet/paths#convolutional.block2">82 %</data>,
# <data value="resnet/paths#convolutional.block3">77 %</data>,
# <data value="resnet/paths#convolutional.block4">93 %</data>,
# <data value="resnet/paths#convolutional.block5">95 %</data> and
# <data value="resnet/paths#convolutional.block6">98 %</data> without the branch of
# block 1 to 6. The last block can be spared, the first cannot.

# %%
for runs in zip(measured["residual"], measured["plain"], strict=True):
    residual, plain = runs
    # Both were trained well, so the difference is not one of training.
    assert min(residual.whole, plain.whole) > 0.9
    assert abs(residual.whole - plain.whole) < 0.08
    # One block or the order of two matters to one of them only.
    assert statistics.mean(residual.deleted) > residual.whole - 0.04
    assert min(residual.deleted) > 0.7
    assert min(residual.swapped) > residual.whole - 0.03
    assert max(plain.deleted) < 0.5
    assert statistics.mean(plain.deleted) < 0.2
    assert statistics.mean(plain.swapped) < 0.2
    assert residual.halved > 0.6
    assert plain.halved < 0.35
    # New statistics for BatchNorm do not repair the plain network.
    assert statistics.mean(plain.renormalized) < 0.25
    assert max(plain.renormalized) < 0.5
    # The blocks are needed all the same.
    assert residual.stripped < 0.8
    costs = [residual.whole - value for value in residual.deleted]
    assert residual.whole - residual.stripped > sum(costs) + 0.05

# Each branch adds less than its input; the first adds most and is missed most.
for run in ratios:
    assert max(run) == run[0] < 0.8
first, later_blocks = (results["residual"][f"deleted_{k}"] for k in ("first", "later"))
left = [
    statistics.mean(values) for values in zip(*by_position["residual"], strict=True)
]
assert min(left) == left[0]
assert first["mean"] < later_blocks["mean"] - 0.02
assert results["residual"]["renormalized_first"]["mean"] > first["mean"] + 0.01

# In the convolutional network the first block is needed, the last is not.
for whole, deleted in convolved:
    assert deleted[0] < whole - 0.08
    assert deleted[-1] > whole - 0.04
print("every seed agrees")

# %% [markdown]
# ## Many paths
#
# Write two residual blocks out, without the ReLU after the addition: x₂ = x₀ + F₁(x₀) +
# F₂(x₀ + F₁(x₀)). Every block can be entered or passed by, so eight blocks make 2⁸ =
# 256 paths. A deletion cuts the 128 paths through that block and leaves the other 128;
# in a plain network there is one path, and every deletion cuts it. This is the reading
# of [Veit et al. 2016](https://arxiv.org/abs/1605.06431), who introduced the experiment
# on a ResNet of 110 layers against a VGG.
#
# A second reading needs no paths: each block makes a small correction to the same 64
# numbers, and the next one takes them with or without it ([Greff et al.
# 2016](https://arxiv.org/abs/1612.07771)). The ratios above and the harmless swaps fit
# both readings; this page does not decide between them.
#
# ## Limits
#
# * **It says what a trained network tolerates, not why it trains better.** Both
#   networks here train well; what happens where the plain one does not is a different
#   question ([Does the gradient reach the first layer?](gradient_flow.py)).
# * **The paths are not independent networks.** F₂ is not linear, so the sum does not
#   come apart into 256 terms, and these blocks have a ReLU after the addition besides.
#   Without all eight blocks the network loses more than the eight single deletions cost
#   together.
# * **Depth and task.** Digits are easy, and eight blocks share the work. With six
#   blocks and convolutions, the early ones are missed. Measure before you prune:
#   accuracy after each deletion, on data that took no part in training.
# * **No training for it.** These networks never met a deletion in training; [stochastic
#   depth](https://arxiv.org/abs/1603.09382) drops blocks at random there.
#
# ## Related
#
# * [Skip connections five ways](../compare/skip-connections.md#five-ways)
# * [Delete a layer of a Sequential](../compare/names-and-editing.md#delete)
# * [Easier to train, made precise](../question/claims.md#easier-to-train)
