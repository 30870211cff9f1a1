"""`trimodal bench`: speed as ratios to named peers, measured in the same run.

trimodal bench kernels --config configs/demo.yaml --json rows.json
"""

import argparse
from pathlib import Path

from trimodal.cli import Command, positive
from trimodal.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the benchmarks."""
    benchmarks = parser.add_subparsers(metavar="BENCHMARK", required=True)
    kernels = benchmarks.add_parser(
        "kernels",
        help="packed operations against padded ones and PyTorch's own",
        description="Packed operations against padded ones, PyTorch's own and others: medians of "
        "interleaved rounds, each behind a check that both compute the same. On a CPU with one "
        "thread, by processor time; on a GPU by events between its kernels. Exits with 1 where a "
        "gate is missed.",
    )
    kernels.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="(default: %(default)s)"
    )
    kernels.add_argument(
        "--config",
        metavar="CONFIG",
        nargs="+",
        default=[],
        help="also measure a training step of these configurations: on a CPU the first one, whose "
        "data must be there, on a GPU one on synthetic samples",
    )
    kernels.add_argument(
        "--rounds", metavar="N", type=positive, default=9, help="(default: %(default)s)"
    )
    kernels.add_argument("--json", metavar="OUT", type=Path, help="where to write the rows")


def run(options: argparse.Namespace) -> int:
    """Print the rows and write them."""
    import torch

    from trimodal.bench import cpu_rows, format_rows, gpu_rows
    from trimodal.config import load_config
    from trimodal.storage import check_writable, write_json

    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: PyTorch finds no GPU here")
    if options.json:
        check_writable(options.json)
    configs = [load_config(path) for path in options.config]
    if options.device == "cuda":
        rows = [row for group in gpu_rows(options.rounds, configs) for row in group]
    else:
        rows = cpu_rows(options.rounds, configs)
    print(format_rows(rows))
    if options.json:
        found = [{**row._asdict(), "pass": row.passes} for row in rows]
        write_json(options.json, {"device": options.device, "rows": found})
    return int(not all(row.passes for row in rows))


COMMAND = Command("bench", "measure speed against named peers", configure, run)
