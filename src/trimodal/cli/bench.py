"""`trimodal bench`: speed as ratios to named peers, measured in the same run.

trimodal bench kernels --config configs/demo.yaml --json rows.json
"""

import argparse
from pathlib import Path

from trimodal.cli import Command, positive


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the benchmarks."""
    benchmarks = parser.add_subparsers(metavar="BENCHMARK", required=True)
    kernels = benchmarks.add_parser(
        "kernels",
        help="packed operations against padded ones and PyTorch's own",
        description="Packed operations against padded ones and PyTorch's own, on a CPU with one "
        "thread, by processor time: medians of interleaved rounds, each behind a check that both "
        "compute the same. Exits with 1 where a gate is missed.",
    )
    kernels.add_argument("--device", choices=["cpu"], default="cpu", help="(default: %(default)s)")
    kernels.add_argument(
        "--config",
        metavar="CONFIG",
        help="also measure the first training step of this configuration, whose data must be there",
    )
    kernels.add_argument(
        "--rounds", metavar="N", type=positive, default=9, help="(default: %(default)s)"
    )
    kernels.add_argument("--json", metavar="OUT", type=Path, help="where to write the rows")


def run(options: argparse.Namespace) -> int:
    """Print the rows and write them."""
    from trimodal.bench import cpu_rows, format_rows
    from trimodal.config import load_config
    from trimodal.evaluation.output import check_writable, write_json

    if options.json:
        check_writable(options.json)
    config = load_config(options.config) if options.config else None
    rows = cpu_rows(options.rounds, config)
    print(format_rows(rows))
    if options.json:
        found = [{**row._asdict(), "pass": row.passes} for row in rows]
        write_json(options.json, {"device": options.device, "rows": found})
    return int(not all(row.passes for row in rows))


COMMAND = Command("bench", "measure speed against named peers", configure, run)
