"""From one GPU to a thousand: memory, exchange and compute of a step, as docs/scaling.md has them.

print(scaling_page({"base": load_config("configs/base.yaml")}))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimodal.bench.costs import Cost
from trimodal.config import RunConfig

WORLDS = (1, 8, 64, 256, 1024)
"""GPUs."""
PEAK = 989e12
"""Dense bf16 FLOP/s of an H100 SXM, NVIDIA's data sheet."""
UTILISATION = 0.4
"""Of the peak, assumed; nothing has been measured on a GPU."""
WITHIN, BETWEEN = 450e9, 400e9
"""Bytes a second that each GPU of a ring passes on: NVLink's of one direction within a node; beyond
it those of a node's eight ports of 400 Gb/s, which the rings of its eight GPUs share."""
NODE = 8
"""GPUs of a node."""
GIB = 2**30
FP32, BF16 = 4, 2
SLOTS = 4
"""Embeddings of a sample that ranks exchange: three single ones and the fused one."""


@dataclass(frozen=True)
class Share:
    """What one GPU of some has to hold, compute and exchange in a step."""

    world: int
    samples: int
    micro_batches: int
    replicated: float
    """GiB with whole weights on each GPU (DDP)."""
    sharded: float
    """GiB with everything cut over the GPUs (FSDP2)."""
    ddp: float
    """Bytes sent by each GPU."""
    fsdp: float
    compute: float
    """Seconds at the assumed utilisation, a second forward of several micro-batches included."""

    @classmethod
    def of(cls, config: RunConfig, cost: Cost, world: int) -> "Share | None":
        """The share of one of `world` GPUs; None where the batch is too small to be shared."""
        settings = config.training
        if settings.batch_size % world or settings.batch_size // world < 1:
            return None
        samples = settings.batch_size // world
        tokens = samples * cost.tokens
        parts = max(1, -(-int(tokens) // settings.token_budget))
        passes = 1 if parts == 1 else 4 / 3
        held = min(tokens, settings.token_budget)
        active = cost.recomputed if settings.activation_checkpointing else cost.activations
        activations = held * active
        size, others = cost.parameters, (world - 1) / world
        average = FP32 * size * (settings.ema is not None)
        state = 4 * FP32 * size + average  # weights, gradients and two moments
        copies = BF16 * size
        buckets = FP32 * size * (world > 1)
        gathered = BF16 * (cost.outside + 2 * cost.block)
        contrast = _contrast(config, samples, world)
        gathers = parts * (2 if parts == 1 else 3) * BF16 * size
        return cls(
            world=world,
            samples=samples,
            micro_batches=parts,
            replicated=(state + copies + buckets + activations) / GIB,
            sharded=(state / world + gathered + activations) / GIB,
            ddp=2 * FP32 * size * others + contrast,
            fsdp=(gathers + parts * FP32 * size) * others + contrast,
            compute=samples * cost.flops * passes / (PEAK * UTILISATION),
        )

    def exchange(self, sent: float) -> float:
        """Seconds that `sent` bytes take, none of it behind what is computed."""
        return sent / (WITHIN if self.world <= NODE else BETWEEN)


def _contrast(config: RunConfig, samples: int, world: int) -> float:
    """Bytes of the embeddings that are gathered, and of their gradients that are summed."""
    row = SLOTS * config.model.embedding_dim * FP32
    return row * samples * (world - 1) + 2 * row * samples * (world - 1)


def scaling_page(configs: Mapping[str, RunConfig]) -> str:
    """Two tables of Markdown: what a sample costs, and what each number of GPUs makes of it."""
    costs = {name: Cost.of(config) for name, config in configs.items()}
    return f"{_models(costs)}\n\n{_shares(configs, costs)}"


def _models(costs: Mapping[str, Cost]) -> str:
    rows = [
        [
            name,
            f"{cost.parameters:,}",
            f"{cost.tokens:.0f}",
            f"{cost.flops / 1e9:.1f}",
            f"{cost.flops / cost.tokens / 1e6:.0f}",
            f"{100 * cost.attention:.1f}",
            f"{16 * cost.parameters / GIB:.2f}",
            f"{cost.activations / 1024:.0f}",
            f"{cost.recomputed / 1024:.0f}",
        ]
        for name, cost in costs.items()
    ]
    head = (
        "config",
        "parameters",
        "tokens a sample",
        "GFLOP a sample",
        "MFLOP a token",
        "of that attention, %",
        "GiB of weights, gradients, moments",
        "KiB kept a token",
        "with recomputation",
    )
    return _table(head, rows)


def _shares(configs: Mapping[str, RunConfig], costs: Mapping[str, Cost]) -> str:
    rows = []
    for name, config in configs.items():
        for world in WORLDS:
            share = Share.of(config, costs[name], world)
            if share is not None:
                rows.append([name, *_cells(share, costs[name])])
    head = (
        "config",
        "GPUs",
        "samples each",
        "micro-batches",
        "GiB, DDP",
        "GiB, FSDP2",
        "bytes a token, DDP",
        "FSDP2",
        "exchange to compute, DDP",
        "FSDP2",
        "steps a second, at most",
    )
    return _table(head, rows)


def _cells(share: Share, cost: Cost) -> list[str]:
    tokens = share.samples * cost.tokens
    return [
        str(share.world),
        str(share.samples),
        str(share.micro_batches),
        f"{share.replicated:.1f}",
        f"{share.sharded:.1f}",
        f"{share.ddp / tokens:,.0f}",
        f"{share.fsdp / tokens:,.0f}",
        f"{share.exchange(share.ddp) / share.compute:.2f}",
        f"{share.exchange(share.fsdp) / share.compute:.2f}",
        f"{1 / max(share.compute, share.exchange(min(share.ddp, share.fsdp))):.2g}",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
