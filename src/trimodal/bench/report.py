"""What a GPU gave, as a dated page: every row, the lost ones too.

text = gpu_report(machine(), tests, rows, curves)
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version

import torch

from trimodal.bench.timing import Row

COMMAND = "python benchmarks/gpu.py        # or make gpu"


@dataclass(frozen=True)
class Machine:
    """On what was measured."""

    gpu: str
    memory: float
    """GiB."""
    versions: Mapping[str, str]
    day: date


def machine() -> Machine:
    """This one, today."""
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    versions = {
        "torch": torch.__version__,
        "triton": version("triton"),
        "python": platform.python_version(),
        "CUDA": torch.version.cuda or "none",
    }
    return Machine(found.name, found.total_memory / 2**30, versions, date.today())


def gpu_report(
    where: Machine, tests: str, rows: Sequence[Row], curves: Mapping[str, Sequence[float]]
) -> str:
    """A page of Markdown.

    Args:
        where: on what.
        tests: the last line of the tests.
        rows: in the order in which they were measured.
        curves: by what ran, the loss of each step.
    """
    versions = ", ".join(f"{name} {version}" for name, version in where.versions.items())
    missed = [row for row in rows if not row.passes]
    return "\n".join(
        [
            f"# Kernels on one {where.gpu}, {where.day.isoformat()}",
            "",
            f"{where.memory:.0f} GiB; {versions}.",
            "",
            "```",
            COMMAND,
            "```",
            "",
            f"- Tests: {tests}",
            f"- Gates: {_gates(rows)}",
            "- Interleaved, medians; before anything is timed both ways are compared. A ratio",
            "  above 1 means that ours is faster, smaller or nearer to fp64.",
            "",
            *([f"**Missed**: {'; '.join(row.name for row in missed)}.", ""] if missed else []),
            "| | ours | theirs | | ratio | gate |",
            "|---|---:|---:|---|---:|---:|",
            *(_line(row) for row in rows),
            "",
            "## The same training with and without kernels",
            "",
            f"| step | {' | '.join(curves)} |",
            "|---:|" + "---:|" * len(curves),
            *_curve_lines(curves),
            "",
        ]
    )


def _gates(rows: Sequence[Row]) -> str:
    gated = [row for row in rows if row.gate is not None]
    return f"{sum(row.passes for row in gated)} of {len(gated)} reached"


def _line(row: Row) -> str:
    gate = "" if row.gate is None else f"{row.gate:.2f}"
    gate += "" if row.passes else ", **missed**"
    numbers = f"{row.ours:.3g} | {row.theirs:.3g} | {row.unit} | {row.ratio:.2f}"
    return f"| {row.name} | {numbers} | {gate} |"


def _curve_lines(curves: Mapping[str, Sequence[float]]) -> list[str]:
    steps = max(map(len, curves.values()), default=0)
    shown = sorted({*range(0, steps, 5), *range(steps - 1, steps)})
    return [
        f"| {step + 1} | {' | '.join(f'{curve[step]:.5f}' for curve in curves.values())} |"
        for step in shown
    ]
