"""FLOP/s of the product's training step over what this machine's bf16 matmul reaches at the same shapes.

Counted are the multiplications of matrices in one step, from their shapes: forward, and twice that
backward. The limit is measured beside it, every shape by itself, and weighted by its share of the
FLOPs. A profile says where the rest of the step goes. Dropout is on at GPT-2 Small's shape, as released.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from bench import Figure, Side, arguments, console, finish, interleaved, table
from ours import ALLOCATOR, Ours, Size
from torch.profiler import ProfilerActivity, profile
from transformers import PretrainedConfig

THREADS = 2
SQUARES = (512, 1024, 2048, 4096)
GROUPS = {
    "loss": ("nll_loss", "log_softmax", "cross_entropy"),
    "layer norm": ("layer_norm",),
    "matrix products": ("mm", "linear", "matmul"),
    "attention outside them": ("softmax", "attention", "masked_fill", "tril"),
    "optimizer and clipping": ("adam", "foreach", "norm_"),
    "GELU": ("gelu", "tanh", "pow"),
    "dropout": ("dropout", "bernoulli"),
    "embedding": ("embedding", "index"),
    "copies and casts": ("copy_", "_to_copy", "clone", "contiguous", "cat"),
    "other elementwise": ("add", "mul", "div", "sub", "where", "sum", "neg", "fill_", "zero_", "sqrt"),
    "data": ("gather", "arange", "multinomial", "item", "local_scalar"),
}
"""Parts of operator names, the first that matches counts."""


@dataclass(frozen=True)
class Product:
    """``count`` products of (batch of) m x k and k x n matrices in the forward pass."""

    name: str
    count: int
    batch: int
    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        """Of the forward pass."""
        return 2 * self.count * self.batch * self.m * self.k * self.n


def products(config: PretrainedConfig, examples: int, inputs: int, learnt: int) -> list[Product]:
    """What a step of a GPT-2 multiplies: ``inputs`` tokens an example go in, logits are made for ``learnt``."""
    tokens, width, layers = examples * inputs, config.n_embd, config.n_layer
    heads, head = examples * config.n_head, width // config.n_head
    return [
        Product("query, key, value", layers, 1, tokens, width, 3 * width),
        Product("attention scores", layers, heads, inputs, head, inputs),
        Product("attention values", layers, heads, inputs, inputs, head),
        Product("attention output", layers, 1, tokens, width, width),
        Product("MLP in", layers, 1, tokens, width, 4 * width),
        Product("MLP out", layers, 1, tokens, 4 * width, width),
        Product("logits", 1, 1, examples * learnt, width, config.vocab_size),
    ]


def rate(product: Product, seconds: float) -> float:
    """FLOP/s of this one product in bf16, repeated for so long; the best of five."""
    left = torch.randn(product.batch, product.m, product.k, dtype=torch.bfloat16).squeeze(0)
    right = torch.randn(product.batch, product.k, product.n, dtype=torch.bfloat16).squeeze(0)
    flops = 2 * product.batch * product.m * product.k * product.n
    torch.matmul(left, right)
    began = time.perf_counter()
    torch.matmul(left, right)
    repeats = max(1, int(seconds / 5 / (time.perf_counter() - began)))
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(repeats):
            torch.matmul(left, right)
        best = max(best, flops * repeats / (time.perf_counter() - began))
    return best


class Limit:
    """The rate that every product of a step reaches by itself. Called: seconds the step's products would take."""

    def __init__(self, shapes: list[Product], seconds: float) -> None:
        self.shapes, self.seconds, self.rates = shapes, seconds, dict.fromkeys(shapes, 0.0)

    def __call__(self) -> float:
        now = {shape: rate(shape, self.seconds) for shape in self.shapes}
        self.rates = {shape: max(now[shape], self.rates[shape]) for shape in self.shapes}
        return sum(3 * shape.flops / now[shape] for shape in self.shapes)


def measured(size: Size, store: Path, steps: int, pairs: int, seconds: float, target: float | None) -> Figure:
    """The tables of a size, and its figure."""
    ours = Ours(size, store)
    longest = ours.data.longest
    learnt = longest - int(ours.data.train.cot_start[0])
    limit = Limit(products(ours.model.config, size.batch, longest - 1, learnt), seconds)
    runs = interleaved(lambda: ours(0, steps, THREADS) / steps, limit, pairs)
    flops = sum(3 * shape.flops for shape in limit.shapes)
    step = median(own for own, _ in runs)
    table(
        f"Matrix products of a step in bf16 alone, {size}, {THREADS} threads",
        ("product", "shape", "share of FLOPs", "GFLOP/s"),
        (
            (
                s.name,
                f"{s.count} x {s.batch} x [{s.m} x {s.k}] [{s.k} x {s.n}]",
                f"{3 * s.flops / flops:.0%}",
                f"{limit.rates[s] / 1e9:.0f}",
            )
            for s in limit.shapes
        ),
    )
    console.print(f"a step: {flops / 1e9:.0f} GFLOP in {step:.3g} s, {flops / step / 1e9:.0f} GFLOP/s")
    profiled(ours, steps)
    return Figure(f"{size}: step's FLOP/s over the products'", tuple(alone / own for own, alone in runs), target)


def profiled(ours: Ours, steps: int) -> None:
    """Where the CPU time of a step goes, by kind of operator."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        ours(0, steps, THREADS)
    spent = Counter()
    for event in profiler.key_averages():
        spent[_group(event.key)] += event.self_cpu_time_total
    total = spent.total()
    rows = [(group, f"{time_ / total:.1%}", f"{time_ / steps / 1e3:.1f}") for group, time_ in spent.most_common()]
    table(f"Where a step goes, {ours.size}", ("operators", "share", "ms"), rows)


def _group(operator: str) -> str:
    found = (group for group, parts in GROUPS.items() if any(part in operator.lower() for part in parts))
    return next(found, "the rest")


def best_square(seconds: float) -> float:
    """The most FLOP/s that any square product reaches in bf16."""
    return max(rate(Product("square", 1, 1, edge, edge, edge), seconds) for edge in SQUARES)


class Sizes:
    """All of it in one process with the product's environment."""

    def __call__(self, quick: bool) -> list[Figure]:
        torch.set_num_threads(THREADS)
        console.print(f"best square product: {best_square(0.3 if quick else 1.5) / 1e9:.0f} GFLOP/s in bf16")
        with tempfile.TemporaryDirectory() as folder:
            gpt2 = Size((4, 4), 4 if quick else 32, gpt2=True)
            small = Size((4, 4), 64)
            pairs = 2 if quick else 5
            return [
                measured(gpt2, Path(folder), 1, 1 if quick else 3, 0.1 if quick else 0.5, 0.5),
                measured(small, Path(folder), 5 if quick else 20, pairs, 0.1 if quick else 0.5, None),
            ]


def main() -> None:
    quick = arguments(__doc__).quick
    with Side(Sizes, ALLOCATOR) as sizes:
        figures = sizes(quick)
    finish("peak", *figures, quick=quick)


if __name__ == "__main__":
    main()
