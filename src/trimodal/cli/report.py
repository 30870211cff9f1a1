"""`trimodal report`: a page about a run that needs nothing but itself.

trimodal report runs/demo --judges runs/judges
"""

import argparse
from pathlib import Path

from trimodal.cli import Command


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="a finished run")
    parser.add_argument(
        "--data",
        metavar="MANIFEST",
        help="what to show; else data.test of the run's configuration, else data.validation",
    )
    parser.add_argument(
        "--judges",
        metavar="DIR",
        type=Path,
        help="judges of generated pictures and speech, see `trimodal judge train`; used unless "
        "RUN_DIR/results.json holds what they found",
    )


def run(options: argparse.Namespace) -> int:
    """Write RUN_DIR/report.html."""
    from trimodal.evaluation.report import write_report

    path = write_report(options.run_dir, options.data, judges=options.judges, progress=True)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


COMMAND = Command("report", "write a page about a run", configure, run)
