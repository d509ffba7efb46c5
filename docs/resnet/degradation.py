# %% [markdown]
# # Does a deeper plain network get worse? The degradation problem
#
# Yes, in both settings below: with BatchNorm the training loss after 160 steps is
# <data value="resnet/degradation#batchnorm.plain.4.train_loss">0.28</data> at depth 4
# and <data value="resnet/degradation#batchnorm.plain.24.train_loss">1.23</data> at
# depth 24 in plain networks, against
# <data value="resnet/degradation#batchnorm.residual.4.train_loss">0.24</data> and
# <data value="resnet/degradation#batchnorm.residual.24.train_loss">0.04</data> in
# residual networks of the same layers and initial weights. Since it is the loss on the
# training set that rises, this is a failure of optimisation and not over-fitting. At
# depth 4 the two kinds are close, and there are settings in which the residual network
# is the worse one ([limits](#limits)).
#
# **What is measured.** scikit-learn's 8x8 digits, 1280 for training and 517 for
# testing, the same split throughout; three seeds, each for weights and batch order.
# Plain and residual networks of equal depth start from equal weights and see equal
# batches. The first family has convolutions and BatchNorm, as in [He et al.
# 2015](https://arxiv.org/abs/1512.03385); the second has neither. One CPU thread.

# %%
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from snippets.residual import Residual
from snippets.residual_block import ResidualBlock

torch.set_num_threads(1)
SEEDS = [torch.initial_seed() + number for number in range(3)]
TRAIN, BATCH, EPOCHS = 1280, 64, 8  # 20 batches an epoch, 160 steps

digits = load_digits()
order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
images = torch.tensor(digits.images, dtype=torch.float32)[order].unsqueeze(1)
images = (images - images[:TRAIN].mean()) / images[:TRAIN].std()
labels = torch.tensor(digits.target)[order]

# %% [markdown]
# ## Two families, one difference
#
# The convolutional family stacks [the site's residual
# block](../recipes/residual-block.md), 8 channels wide on 4x4 maps. Its plain block is
# the same class without the addition: the same layers, made in the same order, and so
# the same weights from the same seed. The second family has no normalisation: blocks of
# two linear layers, 64 wide, bare or [wrapped in `Residual`](../recipes/residual.md).
# *Depth* counts convolutions and linear layers. All weights start as PyTorch makes
# them.


# %%
class PlainBlock(ResidualBlock):
    """The residual block without its addition; same layers, same names."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return relu(F(x)): (N, C, H, W) to (N, C', H', W')."""
        out: torch.Tensor = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)))


def convolutional(depth: int, skip: bool) -> nn.Sequential:
    """Stem, (depth - 2) / 2 blocks with BatchNorm, average, linear layer."""
    block = ResidualBlock if skip else PlainBlock
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        *[block(8, 8) for _ in range(depth // 2 - 1)],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def unnormalised(depth: int, skip: bool) -> nn.Sequential:
    """Build an MLP with (depth - 2) / 2 blocks of two linear layers, no BatchNorm."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, 64), nn.ReLU()]
    for _ in range(depth // 2 - 1):
        branch = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        layers += [Residual(branch) if skip else branch, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


# %% [markdown]
# Every network gets the same 160 steps: SGD with momentum, `lr=0.05` at the peak of a
# one-cycle schedule, no weight decay, so that the training loss is all that is
# minimised. It is taken over the whole training set after the last step, in training
# mode, so that BatchNorm's running averages have no part in it; the two accuracies are
# those of `eval()`.


# %%
def build(
    family: Callable[..., nn.Sequential], depth: int, skip: bool, seed: int
) -> nn.Sequential:
    """Return a network with the initial weights that `seed` gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return family(depth, skip)


def train(net: nn.Sequential, seed: int) -> dict[str, float]:
    """Train in the batch order of `seed`; return final loss and accuracies."""
    x, y = images[:TRAIN], labels[:TRAIN]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.05, total_steps=EPOCHS * TRAIN // BATCH
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for batch in torch.randperm(TRAIN, generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        loss = F.cross_entropy(net(x), y).item()
        right = (net.eval()(images).argmax(1) == labels).float()
    return {
        "train_loss": loss,
        "train_accuracy": right[:TRAIN].mean().item(),
        "test_accuracy": right[TRAIN:].mean().item(),
    }


# Both kinds of one family start with the same numbers in the same order.
for family in (convolutional, unnormalised):
    plain, residual = (build(family, 8, skip, SEEDS[0]) for skip in (False, True))
    for a, b in zip(plain.parameters(), residual.parameters(), strict=True):
        assert torch.equal(a, b)

# %%
FAMILIES = {  # name: (builder, depths)
    "batchnorm": (convolutional, (4, 8, 24)),
    "unnormalised": (unnormalised, (4, 10, 20)),
}
KINDS = {"plain": False, "residual": True}
runs: dict[str, dict[str, dict[int, list[dict[str, float]]]]] = {}
results: dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]] = {}

print("mean +- sd of three seeds")
print("family       kind     depth  training loss    training acc.    test acc.")
for name, (family, depths) in FAMILIES.items():
    runs[name] = {kind: {} for kind in KINDS}
    results[name] = {kind: {} for kind in KINDS}
    for depth in depths:
        for kind, skip in KINDS.items():
            trained = [train(build(family, depth, skip, s), s) for s in SEEDS]
            summary = {}
            for leaf in trained[0]:
                values = [run[leaf] for run in trained]
                summary[leaf] = {
                    "mean": statistics.mean(values),
                    "sd": statistics.stdev(values),
                }
            runs[name][kind][depth] = trained
            results[name][kind][str(depth)] = summary
            cells = [f"{v['mean']:.3f} +- {v['sd']:.3f}" for v in summary.values()]
            print(f"{name:12} {kind:8} {depth:5}  " + "   ".join(cells))
Path("degradation.json").write_text(json.dumps(results, indent=1))

# %%
figure, axes = plt.subplots(
    1, 2, figsize=(5.5, 3.4), sharey=True, constrained_layout=True
)
STYLES = {"plain": ("#c9541f", "s", "--"), "residual": ("#3b7dd8", "o", "-")}
CAPTIONS = {"batchnorm": "convolutions, BatchNorm", "unnormalised": "MLP, no BatchNorm"}
for axis, (name, (_, depths)) in zip(axes, FAMILIES.items(), strict=True):
    for kind, (colour, marker, line) in STYLES.items():
        for number in range(len(SEEDS)):
            losses = [runs[name][kind][d][number]["train_loss"] for d in depths]
            axis.plot(depths, losses, color=colour, linestyle=line, linewidth=0.6)
        means = [results[name][kind][str(d)]["train_loss"]["mean"] for d in depths]
        axis.plot(
            depths, means, color=colour, marker=marker, linestyle=line, label=kind
        )
    axis.set_yscale("log")
    axis.set_xticks(depths)
    axis.set_xlabel(f"depth ({CAPTIONS[name]})")
axes[0].set_ylabel("training loss after 160 steps")
axes[0].legend(frameon=False)
plt.savefig("degradation.svg")

# %% [markdown]
# ![Training loss over depth on a logarithmic axis, one panel per family. The plain
# networks start close to the residual ones at depth 4 and end far above them; the
# residual networks get lower or stay low.](degradation.svg)
#
# Thick lines are means; thin lines are the single seeds.
#
# ## What the numbers say
#
# * **It is the training loss.** At depth 24 the plain networks classify
#   <data value="resnet/degradation#batchnorm.plain.24.train_accuracy">54 %</data> of
#   the images right that they were trained on, and
#   <data value="resnet/degradation#batchnorm.plain.24.test_accuracy">52 %</data> of the
#   others. An over-fitted network would be good at the first and bad at the second. The
#   residual networks reach
#   <data value="resnet/degradation#batchnorm.residual.24.train_accuracy">99 %</data>
#   and
#   <data value="resnet/degradation#batchnorm.residual.24.test_accuracy">96 %</data>.
# * **A single block fits better than eleven.** The plain network of depth 4 has one
#   block, that of depth 24 has eleven, and in every seed the larger one has the larger
#   training loss. It could do at least as well if its further blocks learned to hand
#   their input on; [that is harder than it sounds](identity.py).
# * **Depth first helps.** From 4 to 8 layers the loss falls in every residual network
#   and in most of the plain ones, whose seeds differ widely: at depth 8 the standard
#   deviation in the table is nearly as large as the mean of
#   <data value="resnet/degradation#batchnorm.plain.8.train_loss">0.18</data>. The
#   degradation is what comes after that.
# * **Residual networks are not made worse.** In every seed their loss at depth 24 is
#   less than twice that at depth 8, and less than half of that at depth 4. Whether the
#   last 16 layers help is not shown: there is little left to gain here.
# * **Without BatchNorm it is all or nothing.** From depth 10 on the plain MLP learns
#   nothing: its loss stays at ln 10, that of guessing, and its accuracy on the training
#   set is the share of the most frequent class. At depths 10 and 20 residual MLPs reach
#   a loss of
#   <data value="resnet/degradation#unnormalised.residual.10.train_loss">0.033</data>
#   and
#   <data value="resnet/degradation#unnormalised.residual.20.train_loss">0.017</data>.
#   With such initial weights and no normalisation the gradient of the first layers
#   vanishes; with BatchNorm it grows towards the input instead ([measured on
#   convolutions](gradient_flow.py)). So the first family is the cleaner evidence: its
#   plain networks get worse with depth although no gradient vanishes.
#
# ## What "no difference" at depth 4 means
#
# With one block the losses of the two kinds are within a factor of three in every seed
# and family: <data value="resnet/degradation#batchnorm.plain.4.train_loss">0.28</data>
# and <data value="resnet/degradation#batchnorm.residual.4.train_loss">0.24</data> with
# BatchNorm,
# <data value="resnet/degradation#unnormalised.plain.4.train_loss">0.09</data> and
# <data value="resnet/degradation#unnormalised.residual.4.train_loss">0.07</data>
# without. It does not mean that they are equal: three seeds cannot show that, and the
# residual mean is the lower one. It means that shallow networks cannot tell what skips
# are for: seeing no gain from a residual block in a network of one or two blocks
# neither confirms the degradation problem nor refutes it.


# %%
def losses_of(name: str, kind: str, depth: int) -> list[float]:
    """Return the training loss of every seed."""
    return [run["train_loss"] for run in runs[name][kind][depth]]


# With BatchNorm: the deepest plain network has the worst training loss ...
for four, eight, deep in zip(
    *(losses_of("batchnorm", "plain", depth) for depth in (4, 8, 24)), strict=True
):
    assert deep > 1.4 * max(four, eight)
# ... by far on average, and a residual network of that depth does not suffer.
plain_24 = losses_of("batchnorm", "plain", 24)
plain_4 = losses_of("batchnorm", "plain", 4)
assert statistics.mean(plain_24) > 2.5 * statistics.mean(plain_4)
# (From 4 to 8 layers most plain networks still gain.)
plain_8 = losses_of("batchnorm", "plain", 8)
gains = [eight / four for four, eight in zip(plain_4, plain_8, strict=True)]
assert statistics.median(gains) < 0.8
for four, eight, deep, plain_deep in zip(
    *(losses_of("batchnorm", "residual", depth) for depth in (4, 8, 24)),
    plain_24,
    strict=True,
):
    assert max(eight, deep) < 0.5 * four
    assert deep < 2 * eight
    assert deep < 0.125 * plain_deep

# No over-fitting: what fails on the test set fails on the training set as well.
for run in runs["batchnorm"]["plain"][24]:
    assert run["train_accuracy"] < 0.9
    assert run["train_accuracy"] - run["test_accuracy"] < 0.12
for run in runs["batchnorm"]["residual"][24]:
    assert run["train_accuracy"] > 0.97
    assert run["test_accuracy"] > 0.92

# Without BatchNorm: guessing from depth 10 on, and a residual MLP gains with depth.
most_frequent = labels[:TRAIN].bincount().max().item() / TRAIN
for depth in (10, 20):
    for run in runs["unnormalised"]["plain"][depth]:
        assert abs(run["train_loss"] - math.log(10)) < 0.01
        assert abs(run["train_accuracy"] - most_frequent) < 0.01
for four, ten, twenty in zip(
    *(losses_of("unnormalised", "residual", depth) for depth in (4, 10, 20)),
    strict=True,
):
    assert twenty < 0.6 * four
    assert ten < 0.8 * four

# At depth 4 the two kinds are close.
for name in FAMILIES:
    for a, b in zip(
        losses_of(name, "plain", 4), losses_of(name, "residual", 4), strict=True
    ):
        assert 1 / 3 < a / b < 3
print("every seed agrees")

# %% [markdown]
# ## Limits
#
# * **160 steps.** Networks are compared after equally many, few steps. Where the plain
#   networks would end after many more is not shown. He et al. trained on ImageNet to
#   the end of their schedule, and their plain network of 34 layers kept a higher
#   training error than that of 18; they suspect very slow convergence, and call
#   vanishing gradients unlikely.
# * **One learning rate.** It was not tuned for each network. A smaller one, or other
#   initial weights, may move the depth at which plain networks fail.
# * **A skip alone is not enough.** After Kaiming initialisation without normalisation
#   features and gradients grow with every residual block, and [the residual stack is
#   the worse one](gradient_flow.py). The residual MLP above trains because PyTorch's
#   default weights keep its branches small.
# * **Small.** 8x8 digits and 8 channels are easy and narrow. The depths at which
#   networks fail here do not carry over to other data or widths.
#
# ## Related
#
# - [Does the gradient reach the first layer?](gradient_flow.py)
# - [How hard is the identity?](identity.py)
# - ["Easier to train", made precise](../question/claims.md#easier-to-train)
# - [The residual block line by line](../question/residual-block.md#line-by-line)
