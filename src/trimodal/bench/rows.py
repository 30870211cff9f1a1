"""All rows of `trimodal bench kernels`, and how they are shown.

rows = cpu_rows(rounds=9, config=load_config("configs/demo.yaml"))
"""

from collections.abc import Sequence

from trimodal.bench.attention import attention_rows
from trimodal.bench.timing import Row, one_thread
from trimodal.bench.towers import text_tower_rows, training_step_row
from trimodal.config import RunConfig


def cpu_rows(rounds: int, config: RunConfig | None = None) -> list[Row]:
    """What runs on a CPU, by processor time with one thread.

    Args:
        rounds: interleaved repetitions, of which the median counts.
        config: a run whose first step is measured too.
    """
    with one_thread():
        rows = [*attention_rows(rounds), *text_tower_rows(rounds)]
        if config is not None:
            from trimodal.training.probe import first_step

            step, batches = first_step(config)
            rows.append(training_step_row(step, batches, rounds))
    return rows


def format_rows(rows: Sequence[Row]) -> str:
    """A line for each, the lost ones too."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  {'ours':>10}  {'theirs':>10}            ratio   gate"]
    for row in rows:
        gate = "" if row.gate is None else f"{row.gate:.2f}"
        line = f"{row.name:{width}}  {row.ours:10.3g}  {row.theirs:10.3g}  {row.unit:8}"
        lines.append(f"{line}  {row.ratio:5.2f}  {gate:>5}{'' if row.passes else '  missed'}")
    return "\n".join(lines)
