"""All rows of `trimodal bench kernels`, and how they are shown.

rows = cpu_rows(rounds=9, configs=[load_config("configs/demo.yaml")])
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from trimodal.bench.attention import attention_rows
from trimodal.bench.timing import CPU, Row, one_thread
from trimodal.config import RunConfig


def cpu_rows(rounds: int, configs: Sequence[RunConfig] = ()) -> list[Row]:
    """What runs on a CPU, by processor time with one thread.

    Args:
        rounds: interleaved repetitions, of which the median counts.
        configs: runs whose first step is measured too, on their own data.
    """
    from trimodal.bench.losses import loss_rows
    from trimodal.bench.towers import text_tower_rows, training_step_row
    from trimodal.training.probe import first_step

    with one_thread():
        rows = [*attention_rows(rounds), *text_tower_rows(rounds), *loss_rows(CPU, rounds)]
        for config in configs:
            step, batches = first_step(config)
            rows.append(training_step_row(step, batches, rounds))
    return rows


def gpu_rows(rounds: int, configs: Sequence[RunConfig] = ()) -> Iterator[list[Row]]:
    """What runs on a GPU, by events between its kernels, and by the clock where a row says so.

    In groups, so that what is there can be kept; one that fails is a row that misses.

    Args:
        rounds: as above.
        configs: runs of whose models a step is measured, on ragged samples that need no files.
    """
    from trimodal.bench.fused import exactness_row, fused_rows, repeated_row
    from trimodal.bench.losses import loss_rows
    from trimodal.bench.ragged import new_shapes_row, workload_rows
    from trimodal.bench.steps import step_rows

    device = torch.device("cuda", torch.cuda.current_device())
    yield tried("attention over ragged segments", lambda: workload_rows(device))
    yield tried("new shapes", lambda: [new_shapes_row(device)])
    yield tried("norms and rotations", lambda: fused_rows(device, rounds))
    yield tried("repeated backward passes", lambda: [repeated_row(device)])
    yield tried("exactness", lambda: [exactness_row(device)])
    yield tried("losses", lambda: loss_rows(device, rounds))
    for config in configs:
        torch.cuda.empty_cache()
        torch.compiler.reset()
        name = f"training step of width {config.model.trunk.width}"
        yield tried(name, partial(step_rows, config, device, rounds))


def tried(name: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """The rows, or one that says why there are none: an hour on a GPU is not lost to one peer."""
    try:
        return measure()
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        print(f"bench: {name}: {cause}", file=sys.stderr)
        return [Row(f"{name}: {cause}", 0.0, 1.0, 0.0, 0.0)]


def format_rows(rows: Sequence[Row]) -> str:
    """A line for each, the lost ones too."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  {'ours':>10}  {'theirs':>10}            ratio   gate"]
    for row in rows:
        gate = "" if row.gate is None else f"{row.gate:.2f}"
        line = f"{row.name:{width}}  {row.ours:10.3g}  {row.theirs:10.3g}  {row.unit:8}"
        lines.append(f"{line}  {row.ratio:5.2f}  {gate:>5}{'' if row.passes else '  missed'}")
    return "\n".join(lines)
