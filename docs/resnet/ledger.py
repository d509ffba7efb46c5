# %% [markdown]
# # Shapes, parameters, FLOPs and receptive field of every ResNet layer
#
# The tables and diagrams of this page are made from the modules of
# [`resnet.py`](../recipes/resnet.md) while the page is proved: every layer is run once,
# and its output, parameters, multiply-adds and receptive field are read off. Nothing is
# typed in. The last cell holds the sums against the published numbers and the receptive
# field against a gradient: a change of the code that breaks one stops the build.

# %%
import matplotlib.pyplot as plt
import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from snippets.residual_block import ResidualBlock
from snippets.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    cifar_resnet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)

# %% [markdown]
# ## One pass over the graph
#
# [`torch.fx`](https://docs.pytorch.org/docs/2.13/fx.html) turns a network into a graph
# of its calls; an interpreter of that graph runs one call at a time. The network is on
# the `meta` device, which has shapes and no numbers, so that the pass costs nothing.
#
# * **Multiply-adds**: what
#   [`FlopCounterMode`](https://docs.pytorch.org/docs/2.13/utils.html) counts for the
#   call, halved, since it counts a multiplication and an addition as two. It counts
#   convolutions and linear layers; BatchNorm, ReLU, pooling and the additions of the
#   skips count nothing.
# * **Receptive field**: how many input pixels in a row one output pixel may depend on.
#   A convolution or a pooling with kernel `k` and stride `s` adds `k - 1` times the
#   *step*, the distance in input pixels between neighbours of what it reads, and
#   multiplies the step by `s`. Where two paths meet, the larger field counts.


# %%
class Row:
    """What one call of the network returned, and what it took."""

    def __init__(self, node: fx.Node, out: torch.Tensor, module: nn.Module | None):
        self.name = str(node.target) if module else node.name
        self.kind = type(module).__name__ if module else ""
        self.shape = tuple(out.shape[1:])
        own = module.parameters() if module else ()
        self.parameters = sum(parameter.numel() for parameter in own)
        self.macs = 0
        self.field, self.step = 1, 1


class Ledger(fx.Interpreter):
    """Runs a network call by call and keeps a row for each."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(fx.symbolic_trace(net))
        self.rows: dict[fx.Node, Row] = {}

    def run_node(self, n: fx.Node) -> object:
        with FlopCounterMode(display=False) as counter:
            out = super().run_node(n)
        if isinstance(out, torch.Tensor):
            is_module = n.op == "call_module"
            module = self.module.get_submodule(str(n.target)) if is_module else None
            row = self.rows[n] = Row(n, out, module)
            row.macs = counter.get_total_flops() // 2
            before = [self.rows[node] for node in n.all_input_nodes]
            row.field = max((other.field for other in before), default=1)
            row.step = max((other.step for other in before), default=1)
            if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                kernel, stride = size(module.kernel_size), size(module.stride)
                row.field += (kernel - 1) * row.step
                row.step *= stride
        return out


def size(value: int | tuple[int, ...]) -> int:
    """Return the size of a square kernel or stride."""
    return value if isinstance(value, int) else value[0]


def ledger(net: nn.Module, pixels: int, channels: int = 3) -> list[Row]:
    """Run the network on an image of that size, on the meta device."""
    made = Ledger(net.to("meta").eval())
    with torch.no_grad():
        made.run(torch.empty(1, channels, pixels, pixels, device="meta"))
    return list(made.rows.values())


# %% [markdown]
# ## ResNet-18, layer by layer
#
# For one image of 224 x 224 pixels. Rows without parameters and without a new shape,
# such as the ReLUs, are left out. `step` is the distance in input pixels between
# neighbouring outputs.


# %%
def shown(rows: list[Row]) -> list[str]:
    """Write the rows that have parameters or change the shape."""
    head = f"{'layer':24}{'output':>14}{'parameters':>12}{'multiply-adds':>15}"
    lines = [f"{head}{'field':>7}{'step':>6}"]
    shape: tuple[int, ...] = ()
    for row in rows:
        if row.parameters or row.shape != shape:
            output = " x ".join(map(str, row.shape))
            numbers = f"{row.parameters:>12,}{row.macs:>15,}"
            lines.append(
                f"{row.name:24}{output:>14}{numbers}{row.field:>7}{row.step:>6}"
            )
        shape = row.shape
    total = f"{sum(r.parameters for r in rows):>12,}{sum(r.macs for r in rows):>15,}"
    return [*lines, f"{'all':24}{'':>14}{total}"]


with torch.device("meta"):
    print("\n".join(shown(ledger(resnet18(), 224))))

# %% [markdown]
# ## The five ImageNet networks, stage by stage
#
# Output size, parameters in millions and multiply-adds in billions of each stage.

# %%
NETWORKS = {
    "ResNet-18": resnet18,
    "ResNet-34": resnet34,
    "ResNet-50": resnet50,
    "ResNet-101": resnet101,
    "ResNet-152": resnet152,
}
STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")
with torch.device("meta"):
    ledgers = {name: ledger(make(), 224) for name, make in NETWORKS.items()}
for name, rows in ledgers.items():
    print(f"{name:12}{'output':>16}{'parameters':>13}{'multiply-adds':>15}{'field':>7}")
    for stage in STAGES:
        part = [row for row in rows if row.name.split(".")[0] == stage]
        output = " x ".join(map(str, part[-1].shape))
        parameters = sum(row.parameters for row in part) / 1e6
        macs = sum(row.macs for row in part) / 1e9
        field = part[-1].field
        print(f"  {stage:10}{output:>16}{parameters:>11.3f} M{macs:>13.3f} G{field:>7}")
    parameters = sum(row.parameters for row in rows)
    macs = sum(row.macs for row in rows) / 1e9
    print(f"  {'all':10}{'':>16}{parameters:>13,}{macs:>13.3f} G\n")

# %% [markdown]
# The "18" counts the convolutions of the branches, the stem and the last linear layer;
# the convolutions on the shortcuts are left out. `1.8 GFLOPs` in papers and model lists
# means multiply-adds.
#
# ## The CIFAR networks
#
# For one image of 32 x 32 pixels, with the parameter-free shortcut (option A).

# %%
print(f"{'depth':>5}{'convolutions':>14}{'parameters':>12}{'multiply-adds':>15}")
for depth in (20, 32, 44, 56, 110):
    with torch.device("meta"):
        rows = ledger(cifar_resnet(depth), 32)
    convolutions = sum(row.kind == "Conv2d" for row in rows)
    parameters, macs = sum(r.parameters for r in rows), sum(r.macs for r in rows)
    print(f"{depth:>5}{convolutions:>14}{parameters:>12,}{macs:>15,}")


# %% [markdown]
# ## The blocks, drawn from their graphs
#
# Each box is a call of the block's graph, from top to bottom in the order in which they
# run; a line at the side is a value that is read further down: the skip.


# %%
def label(node: fx.Node, rows: dict[fx.Node, Row]) -> str:
    """Name a call and what comes out of it."""
    shape = " x ".join(map(str, rows[node].shape)) if node in rows else ""
    if node.op in ("placeholder", "output"):
        return "x" if node.op == "placeholder" else "output"
    if node.op == "call_module":
        return f"{node.target}   {shape}"
    return f"+   {shape}"


def draw(block: nn.Module, channels: int, pixels: int, name: str) -> None:
    """Draw the block's graph: boxes in the order of calls, skips at the side."""
    made = Ledger(block.to("meta").eval())
    with torch.no_grad():
        made.run(torch.empty(1, channels, pixels, pixels, device="meta"))
    nodes = [node for node in made.module.graph.nodes if node.op != "output"]
    place = {node: -number for number, node in enumerate(nodes)}
    figure, axes = plt.subplots(figsize=(4.2, 0.44 * len(nodes) + 0.2))
    axes.set(xlim=(-1.2, 1.8), ylim=(place[nodes[-1]] - 0.5, 0.5))
    axes.axis("off")
    style = {"boxstyle": "round,pad=0.35", "facecolor": "none", "edgecolor": "black"}
    boxes = {}
    for node in nodes:
        text = axes.text(0, place[node], label(node, made.rows), fontsize=9, bbox=style)
        text.set(ha="center", va="center")
        boxes[node] = text.get_bbox_patch()
    figure.canvas.draw()
    to_axes = axes.transData.inverted()
    edge = {
        n: to_axes.transform(box.get_window_extent())[1, 0] for n, box in boxes.items()
    }
    for node in nodes:
        for other in node.all_input_nodes:
            top, bottom = place[other], place[node]
            arrow = {"arrowstyle": "->"}
            if top - bottom == 1:
                axes.annotate("", (0, bottom + 0.3), (0, top - 0.3), arrowprops=arrow)
            else:
                side = 1.2 if other is nodes[0] else 1.5
                path = [edge[other], side, side], [top, top, bottom]
                axes.plot(*path, color="black", linewidth=1)
                axes.annotate(
                    "", (edge[node], bottom), (side, bottom), arrowprops=arrow
                )
    plt.savefig(f"{name}.svg", bbox_inches="tight")


draw(ResidualBlock(64, 64), 64, 56, "identity")
draw(ResidualBlock(64, 128, stride=2), 64, 56, "projection")
draw(Bottleneck(256, 64, 1, None), 256, 56, "bottleneck")

# %% [markdown]
# **Basic block, identity shortcut**: 64 channels in, 64 out.
#
# ![The graph of ResidualBlock(64, 64): conv1, bn1, relu, conv2, bn2 below each other,
# then an addition that also reads x by a line at the side, then relu](identity.svg)
#
# **Basic block with projection**: 64 channels in, 128 out, stride 2.
#
# ![The graph of ResidualBlock(64, 128, stride=2): as before, and x also goes through
# shortcut.0, a 1x1 convolution, and shortcut.1 before the addition](projection.svg)
#
# **Bottleneck**: 256 channels in, 64 inside, 256 out.
#
# ![The graph of Bottleneck(256, 64, 1, None): three convolutions with BatchNorm, then
# an addition that also reads x by a line at the side, then relu](bottleneck.svg)
#
# ## What is checked
#
# The parameter counts are those that torchvision publishes for its models. The
# receptive field is compared with the pixels that a gradient reaches, in a network of
# the same layers whose weights are all positive. Its pooling takes the mean, since a
# maximum hands its gradient to one pixel.

# %%
PUBLISHED = {
    "ResNet-18": 11_689_512,
    "ResNet-34": 21_797_672,
    "ResNet-50": 25_557_032,
    "ResNet-101": 44_549_160,
    "ResNet-152": 60_192_808,
}
for name, rows in ledgers.items():
    assert sum(row.parameters for row in rows) == PUBLISHED[name], name
    layers = [row for row in rows if row.kind in ("Conv2d", "Linear")]
    counted = [row for row in layers if "downsample" not in row.name]
    assert len(counted) == int(name.split("-")[1]), name

net = ResNet(BasicBlock, (1, 1, 1, 1)).eval()
net.maxpool = nn.AvgPool2d(3, 2, 1)
with torch.no_grad():
    for parameter in net.parameters():
        parameter.fill_(0.01)
image = torch.ones(1, 3, 257, 257, requires_grad=True)
maps = nn.Sequential(*list(net.children())[:-2])(image)  # not the average, not fc
maps[0, 0, maps.shape[2] // 2, maps.shape[3] // 2].backward()
assert image.grad is not None
touched = (image.grad[0, 0] != 0).any(dim=1).sum().item()
field = [row.field for row in ledger(net, 257) if row.name.startswith("layer4")][-1]
assert touched == field, (touched, field)
print("counts and receptive field agree; field of the small network:", touched)
