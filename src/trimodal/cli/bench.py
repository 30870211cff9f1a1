"""`trimodal bench`: speed as ratios to named peers, and what a configuration will take.

trimodal bench kernels --config configs/demo.yaml --json rows.json
trimodal bench scaling configs/base.yaml configs/large.yaml
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
    kernels.set_defaults(measure=_kernels)
    scaling = benchmarks.add_parser(
        "scaling",
        help="memory, exchange and compute from one GPU to a thousand",
        description="What the model and a step of each configuration take, computed from the model "
        "without memory and from synthetic samples; nothing is timed, and no data are read. Prints "
        "the tables of docs/scaling.md.",
    )
    scaling.add_argument("config", metavar="CONFIG", nargs="+", type=Path, help="of a run")
    scaling.set_defaults(measure=_scaling)


def run(options: argparse.Namespace) -> int:
    """Print what is asked for."""
    return options.measure(options)


def _scaling(options: argparse.Namespace) -> int:
    from trimodal.bench.scaling import scaling_page
    from trimodal.config import load_config

    print(scaling_page({path.stem: load_config(path) for path in options.config}))
    return 0


def _kernels(options: argparse.Namespace) -> int:
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


COMMAND = Command("bench", "measure speed against named peers, count costs", configure, run)
