"""`trimodal export`: the model of a checkpoint.

trimodal export runs/demo --step 400 --out exports/demo-400
"""

import argparse
from pathlib import Path

from trimodal.cli import Command, positive
from trimodal.errors import PathError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an export."""
    parser.description = (
        "Write the model that a run would end with if it ended at one of its checkpoints: the "
        "averaged weights, if training.ema keeps them. Run it where the run was started; the "
        "manifests and tokenizers that config.yaml names have to be what they were."
    )
    parser.epilog = "example: trimodal export runs/demo --step 400 --out exports/demo-400"
    parser.add_argument("run_dir", metavar="RUN", type=Path, help="folder of a run")
    parser.add_argument(
        "--step", metavar="N", type=positive, help="of the checkpoint (default: the newest)"
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="a new folder; the run may be going on (default: RUN/model)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the model in RUN/model")


def run(options: argparse.Namespace) -> int:
    """Write the model and say where.

    Raises:
        PathError: the run has a model already.
    """
    place = options.out or options.run_dir / "model"
    if options.out is None and place.exists() and not options.overwrite:
        raise PathError(
            f"{place} is there already; pass --overwrite to replace it, or name a folder with --out"
        )
    from trimodal.training.exporting import export

    step = export(options.run_dir, options.step, options.out)
    print(f"model of step {step} written to {place}")
    return 0


COMMAND = Command("export", "Write the model of a checkpoint of a run.", configure, run)
