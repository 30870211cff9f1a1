"""`trimodal runs`: look at several runs.

trimodal runs compare runs/a runs/b --out compare.html
"""

import argparse
from pathlib import Path

from trimodal.cli import Command


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand `compare`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    compare = actions.add_parser(
        "compare",
        help="draw the curves of runs over each other",
        description="Write a page with what differs in the configurations of runs, finished or "
        "not, how each ended, and the curves of all numbers that they logged.",
        epilog="example: trimodal runs compare runs/a runs/b --out compare.html",
    )
    compare.add_argument("folders", metavar="RUN_DIR", nargs="+", type=Path, help="two or more")
    compare.add_argument(
        "--out", metavar="FILE", type=Path, default=Path("compare.html"), help="(%(default)s)"
    )
    compare.set_defaults(action=_compare)


def _compare(options: argparse.Namespace) -> int:
    from trimodal.evaluation.comparison import compare_runs

    compare_runs(options.folders, options.out)
    print(f"{options.out}: {len(options.folders)} runs")
    return 0


def run(options: argparse.Namespace) -> int:
    """Do what the chosen subcommand says."""
    return options.action(options)


COMMAND = Command("runs", "compare runs", configure, run)
